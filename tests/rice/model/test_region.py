"""The region layer against equation 2 in float64, written as loops over the tokens that a region sees."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rice.errors import RiceError
from rice.model.config import ViTConfig
from rice.model.region import Form, Query, RegionConfig, RegionLayer, RiceModel, cheaper_form, region_visibility

FORMS = get_args(Form)
SMALL = ViTConfig(width=48, depth=2, heads=4, patch=8, image_size=32, mlp_width=80)
PATCH = 8


def randomise(module: torch.nn.Module) -> None:
    """No parameter keeps a zero or a one behind which an error could hide."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim < 2 else parameter.shape[1] ** -0.5)


def normed(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + norm.eps) * norm.weight + norm.bias


def equation_2(layer: RegionLayer, queries: Tensor, tokens: Tensor, visible: Tensor) -> Tensor:
    """One region at a time: a softmax over its visible tokens alone, per head; residual, MLP, residual."""
    batch, regions, width = queries.shape
    channels = width // layer.heads
    rows = []
    for image in range(batch):
        for region in range(regions):
            x = queries[image, region]
            seen = tokens[image][visible[image, region]]
            q = layer.query.weight @ normed(x, layer.norm1) + layer.query.bias
            heads = []
            for head in range(layer.heads):
                part = slice(head * channels, (head + 1) * channels)
                keys = seen @ layer.key.weight[part].T
                values = seen @ layer.value.weight[part].T + layer.value.bias[part]
                scores = torch.exp(keys @ q[part] / math.sqrt(channels))
                heads.append((scores / scores.sum()) @ values)
            x = x + layer.proj.weight @ torch.cat(heads) + layer.proj.bias
            hidden = layer.mlp.fc1.weight @ normed(x, layer.norm2) + layer.mlp.fc1.bias
            hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
            rows.append(x + layer.mlp.fc2.weight @ hidden + layer.mlp.fc2.bias)
    return torch.stack(rows).view(batch, regions, width)


def case(regions: int = 3, tokens: int = 13, heads: int = 4) -> tuple[RegionLayer, Tensor, Tensor, Tensor]:
    torch.manual_seed(regions)
    layer = RegionLayer(24, heads).double()
    randomise(layer)
    visible = torch.rand(2, regions, tokens) < 0.4
    visible[..., 0] |= ~visible.any(-1)
    visible[0, 0] = torch.arange(tokens) == tokens - 1  # one token only
    return layer, *(torch.randn(2, n, 24, dtype=torch.float64) for n in (regions, tokens)), visible


@pytest.mark.parametrize("form", [*FORMS, None])
@pytest.mark.parametrize(("regions", "heads"), [(1, 4), (3, 1), (5, 6)])
def test_values_and_all_gradients_are_those_of_equation_2(form: Form | None, regions: int, heads: int) -> None:
    layer, queries, tokens, visible = case(regions, heads=heads)
    inputs = [queries.requires_grad_(), tokens.requires_grad_(), *layer.parameters()]
    expected, result = equation_2(layer, queries, tokens, visible), layer(queries, tokens, visible, form)
    assert (result - expected).abs().max() <= 1e-9
    upstream = torch.randn_like(expected)
    slopes, exact = (torch.autograd.grad(y, inputs, upstream) for y in (result, expected))
    for mine, theirs in zip(slopes, exact, strict=True):
        assert (mine - theirs).abs().max() <= 1e-9


@pytest.mark.parametrize("form", FORMS)
def test_the_fast_fp32_products_follow_equation_2(form: Form) -> None:
    """Large enough for the products that small cases do not reach: of heads, of tokens, and of all rows."""
    torch.manual_seed(0)
    layer = RegionLayer(256, 2)
    queries, tokens = torch.randn(2, 30, 256, requires_grad=True), torch.randn(2, 160, 256, requires_grad=True)
    visible = torch.rand(2, 30, 160) < 0.3
    visible[..., 7] = True
    result = layer(queries, tokens, visible, form)
    upstream = torch.randn_like(result)
    slopes = torch.autograd.grad(result, [queries, tokens, *layer.parameters()], upstream)
    exact = [value.detach().double().requires_grad_() for value in (queries, tokens)]
    layer = layer.double()
    expected = equation_2(layer, *exact, visible)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    exact_slopes = torch.autograd.grad(expected, [*exact, *layer.parameters()], upstream.double())
    for mine, theirs in zip(slopes, exact_slopes, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("form", FORMS)
def test_a_region_depends_on_no_token_outside_it(form: Form) -> None:
    layer, queries, tokens, visible = case()
    before = layer(queries, tokens, visible, form)
    for image, region in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        changed = tokens.clone()
        changed[image][~visible[image, region]] = 1e6 * torch.randn(24, dtype=torch.float64)
        assert torch.equal(layer(queries, changed, visible, form)[image, region], before[image, region])
        changed = tokens.clone()
        changed[image][visible[image, region]] += 0.1  # and it does depend on those inside
        assert not torch.allclose(layer(queries, changed, visible, form)[image, region], before[image, region])


def test_an_empty_row_is_named() -> None:
    layer, queries, tokens, visible = case()
    visible[1, 2] = False
    with pytest.raises(RiceError, match="region 2 of image 1 sees no token"):
        layer(queries, tokens, visible)


@pytest.mark.parametrize("heads", [5, 0, -4])
def test_heads_must_divide_the_width(heads: int) -> None:
    with pytest.raises(RiceError, match=f"heads that divide the width 24, got {heads}"):
        RegionLayer(24, heads)


def test_a_fresh_layer_has_the_spreads_of_the_last_of_two_blocks() -> None:
    """Of the tower's own rule: one over the root of the width, residual branches half of it, fc1 over its root of 2."""
    model = RiceModel(ViTConfig(width=256, depth=2, heads=4, patch=8, image_size=16), RegionConfig(query="learned"))
    layer, block = model.region_layers[1], model.vit.blocks[1]
    spreads = {
        "query": 1 / 16,
        "key": 1 / 16,
        "value": 1 / 32,
        "proj": 1 / 16,
        "mlp.fc1": 1 / 512**0.5,
        "mlp.fc2": 1 / 32,
    }
    for name, spread in spreads.items():
        part = layer.get_submodule(name)
        assert part.weight.std().item() == pytest.approx(spread, rel=0.02)
        assert part.bias is None or not part.bias.any()
    for name in ("mlp.fc1", "mlp.fc2"):
        assert block.get_submodule(name).weight.std().item() == pytest.approx(spreads[name], rel=0.02)
    assert layer.mlp.fc1.weight.shape == (4 * 256, 256)
    assert model.query.std().item() == pytest.approx(0.02, rel=0.2)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 3000), st.sampled_from([(768, 12), (1024, 16), (192, 3)]))
def test_the_form_with_fewer_operations_is_chosen(regions: int, tokens: int, shape: tuple[int, int]) -> None:
    """By the formulas of both forms in full, multiplications and additions per image."""
    width, heads = shape
    reference = 4 * tokens * width**2 + 20 * regions * width**2 + 4 * regions * tokens * width
    absorbed = 24 * regions * width**2 + 4 * heads * regions * tokens * width
    assert cheaper_form(regions, tokens, width, heads) == ("absorbed" if absorbed <= reference else "reference")


@pytest.mark.parametrize(
    ("regions", "form", "taken"),
    [(4, None, "absorbed"), (5, None, "reference"), (4, "reference", "reference"), (5, "absorbed", "absorbed")],
)
def test_a_layer_takes_the_form_asked_for_or_else_the_cheaper(
    regions: int, form: Form | None, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, queries, tokens, visible = case(regions)
    (other,) = set(FORMS) - {taken}
    monkeypatch.setattr(RegionLayer, f"_{other}", None)  # whoever calls it fails
    assert layer(queries, tokens, visible, form).isfinite().all()


def span(limit: int) -> st.SearchStrategy[tuple[float, float]]:
    edges = st.one_of(st.integers(0, limit).map(float), st.floats(0, limit, width=32))
    return st.tuples(edges, edges).map(lambda pair: (min(pair), max(pair)))


@settings(deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(0, PATCH - 1))
def test_visible_are_the_cells_that_a_box_overlaps(data: st.DataObject, height: int, width: int, rest: int) -> None:
    (left, right), (top, bottom) = data.draw(span(width * PATCH + rest)), data.draw(span(height * PATCH + rest))
    box = torch.tensor([[[left, top, right, bottom]]])
    visible = region_visibility(box, (height, width), PATCH).view(height, width)
    nearest = [
        min(int((low + high) / 2 // PATCH), n - 1) for low, high, n in ((top, bottom, height), (left, right, width))
    ]
    for row in range(height):
        for column in range(width):
            across = min(right, (column + 1) * PATCH) - max(left, column * PATCH)
            down = min(bottom, (row + 1) * PATCH) - max(top, row * PATCH)
            inside_x, inside_y = across > 0 or column == nearest[1], down > 0 or row == nearest[0]
            assert visible[row, column] == (inside_x and inside_y)
    assert visible.any()


def test_every_row_sees_something_even_of_boxes_beyond_the_picture() -> None:
    boxes = torch.tensor([[[-50.0, -50, -40, -40], [900, 3, 950, 9], [31, 31, 31, 31], [0, 0, 32, 32]]])
    visible = region_visibility(boxes, (4, 4), PATCH)
    assert visible.any(-1).all()
    assert visible[0, 3].all()
    assert visible[0, 2].nonzero().tolist() == [[15]]


def boxes_and_images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, 32, 40), torch.tensor(
        [[[0, 0, 9, 9], [3, 5, 31, 30.5]], [[8, 8, 16, 16], [20, 0, 40, 32]]]
    )


@pytest.mark.parametrize(
    ("query", "layers"), [(query, n) for query in get_args(Query) for n in (0, 1, 2) if n or query != "learned"]
)
def test_the_model_gives_unit_regions_in_fp32_and_trains_every_parameter(query: Query, layers: int) -> None:
    images, boxes = boxes_and_images()
    model = RiceModel(SMALL, RegionConfig(layers=layers, query=query))
    pooled, patches, regions = model(images, boxes)
    assert (pooled.shape, patches.shape, regions.shape) == ((2, 48), (2, 48, 4, 5), (2, 2, 48))
    torch.testing.assert_close(regions.norm(dim=-1), torch.ones(2, 2))
    (regions * torch.randn_like(regions)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_the_model_is_the_tower_then_its_layers_in_order() -> None:
    images, boxes = boxes_and_images()
    model = RiceModel(SMALL, RegionConfig(heads=2)).double()
    output = model(images.double(), boxes)
    hidden, pooled, grid = model.vit(images.double())
    tokens = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    visible = region_visibility(boxes, grid, PATCH)
    regions = tokens[:, :1].expand(-1, 2, -1)
    for layer in model.region_layers:
        regions = equation_2(layer, regions, tokens[:, 1:], visible)
    regions = model.vit.post_norm(regions)
    assert (output.regions - regions / regions.norm(dim=-1, keepdim=True)).abs().max() <= 1e-9
    assert torch.equal(output.pooled, pooled)
    assert torch.equal(output.patches.flatten(2).transpose(1, 2), hidden[:, 1:])


def test_roi_align_asks_with_the_mean_of_the_box() -> None:
    """A box of whole cells, two by two samples in each bin's cells: their bilinear mean."""
    model = RiceModel(SMALL, RegionConfig(layers=0, query="roi_align"))
    with torch.no_grad():
        output = model(boxes_and_images()[0], torch.tensor([[[8.0, 8, 24, 24]], [[0, 0, 8, 8]]]))
        hidden, _, grid = model.vit(boxes_and_images()[0])
        tokens = torch.nn.functional.layer_norm(hidden, (48,))[:, 1:].unflatten(1, grid)
        means = torch.stack([tokens[0, 1:3, 1:3].mean((0, 1)), tokens[1, 0, 0]])
        expected = torch.nn.functional.normalize(model.vit.post_norm(means), dim=-1)
    torch.testing.assert_close(output.regions[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_no_regions_are_no_error() -> None:
    assert RiceModel(SMALL)(torch.randn(2, 3, 32, 32), torch.empty(2, 0, 4)).regions.shape == (2, 0, 48)


@pytest.mark.parametrize("form", FORMS)
def test_autocast_lowers_the_products_and_keeps_regions_in_fp32(form: Form) -> None:
    images, boxes = boxes_and_images()
    model = RiceModel(SMALL)
    exact = model(images, boxes).regions
    with torch.autocast("cpu", torch.bfloat16):
        regions = model(images, boxes, form).regions
    assert regions.dtype == torch.float32
    assert 0 < (regions - exact).abs().max() < 0.02


@pytest.mark.parametrize("form", FORMS)
def test_the_whole_model_is_one_graph(form: Form) -> None:
    images, boxes = boxes_and_images()
    model = RiceModel(SMALL)
    compiled: Callable[..., tuple[Tensor, ...]] = torch.compile(model, backend="aot_eager", fullgraph=True)
    for mine, theirs in zip(compiled(images, boxes, form), model(images, boxes, form), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": -1}, "layers >= 0"),
        ({"heads": -2}, "heads >= 0"),
        ({"query": "mean"}, "got 'mean'"),
        ({"query": "learned", "layers": 0}, "at least one region layer"),
    ],
)
def test_a_wrong_configuration_is_told_in_one_line(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(RiceError, match=message):
        RegionConfig(**wrong)
