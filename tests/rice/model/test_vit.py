"""The tower against transformers' MLCDVisionModel, an independent implementation of the same network."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import MLCDVisionModel

from rice.errors import RiceError
from rice.model import checkpoint
from rice.model.config import B16, BIGG14, L14, TINY16, ViTConfig, from_json
from rice.model.names import MLCD
from rice.model.vit import ViT, begin_with_contrast

Reference = Callable[..., Any]


def plain_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """Older releases of transformers write a prefix."""
    return {name.removeprefix("vision_model."): value for name, value in tensors.items()}


def twin(model: Any) -> ViT:
    """Our tower with the values of transformers' one."""
    config = from_json(model.config.to_dict(), origin="test")
    state = checkpoint.from_published(plain_names(model.state_dict()), MLCD, config, origin="test")
    ours = ViT(config).to(model.dtype).eval()
    ours.load_state_dict(state)
    return ours


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


SIZES = [(56, 56), (42, 84), (84, 28), (61, 47)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_hidden_state_and_the_pooled_output_are_those_of_transformers(
    reference: Reference, size: tuple[int, int]
) -> None:
    theirs, images = reference(), torch.randn(2, 3, *size)
    ours = twin(theirs)
    with torch.no_grad():
        expected = theirs(images, output_hidden_states=True)
        for layer, hidden in enumerate(expected.hidden_states):
            assert largest(ours(images, layer).hidden, hidden) <= 1e-5
        last = ours(images)
    assert largest(last.hidden, expected.last_hidden_state) <= 1e-5
    assert largest(last.pooled, expected.pooler_output) <= 1e-5
    assert last.grid == (size[0] // 14, size[1] // 14)
    assert expected.last_hidden_state.std() > 0.5  # the comparison is of numbers that matter


@pytest.mark.parametrize("config", [L14, B16, BIGG14], ids=["L/14", "B/16", "bigG/14"])
def test_published_widths_agree(reference: Reference, config: ViTConfig) -> None:
    theirs = reference(
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=1,
        num_attention_heads=config.heads,
        patch_size=config.patch,
    )
    images = torch.randn(1, 3, 8 * config.patch, 10 * config.patch)
    with torch.no_grad():
        assert largest(twin(theirs)(images).hidden, theirs(images).last_hidden_state) <= 1e-5


@pytest.mark.parametrize("layer", [-1, -2, -4, 0, 2, 3])
def test_layers_count_as_hidden_states_from_either_end(reference: Reference, layer: int) -> None:
    theirs, images = reference(), torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        expected = theirs(images, output_hidden_states=True).hidden_states[layer]
        assert largest(twin(theirs)(images, layer).hidden, expected) <= 1e-5


def test_blocks_after_the_layer_are_not_computed(reference: Reference) -> None:
    ours, ran = twin(reference()), []
    for index, block in enumerate(ours.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    ours(torch.randn(1, 3, 28, 28), -2)
    assert ran == [0, 1]


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_is_not_there_is_refused(layer: int, reference: Reference) -> None:
    with pytest.raises(RiceError, match="4 hidden states"):
        twin(reference())(torch.randn(1, 3, 28, 28), layer)


def test_an_image_below_one_patch_is_refused(reference: Reference) -> None:
    with pytest.raises(RiceError, match="at least one patch"):
        twin(reference())(torch.randn(1, 3, 28, 13))


def test_gradients_are_those_of_transformers(reference: Reference) -> None:
    theirs = reference().double()
    ours = twin(theirs)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 28, 42, dtype=torch.float64, generator=generator)
    hidden_weight = torch.randn(2, 7, 48, dtype=torch.float64, generator=generator)
    inputs = [images.clone().requires_grad_(), images.clone().requires_grad_()]
    output, expected = ours(inputs[0]), theirs(inputs[1])
    for hidden, pooled in ((output.hidden, output.pooled), (expected.last_hidden_state, expected.pooler_output)):
        ((hidden * hidden_weight).mean() + pooled.square().mean()).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    gradients = checkpoint.from_published(plain_names(gradients), MLCD, ours.config, origin="gradients")
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        size = gradients[name].abs().max().item()
        assert size > 1e-4, name
        # Rotations are in fp32 in both; this gradient is their sum over heads and images, in another order.
        tolerance = 1e-6 * size if name == "class_pos_emb" else 1e-8
        assert largest(parameter.grad, gradients[name]) <= tolerance, name
    assert largest(inputs[0].grad, inputs[1].grad) <= 1e-8


def test_with_and_without_gradients_the_output_is_one(reference: Reference) -> None:
    ours, images = twin(reference()), torch.randn(2, 3, 28, 42)
    with torch.no_grad():
        frozen = ours(images).hidden
    assert largest(frozen, ours(images).hidden.detach()) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("gradients", [True, False])
def test_compiles_as_one_graph(reference: Reference, gradients: bool) -> None:
    ours, images = twin(reference()), torch.randn(4, 3, 224, 224)  # large enough for the fast product
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    with torch.set_grad_enabled(gradients):
        output = compiled(images)
        assert largest(output.hidden, ours(images).hidden) <= 1e-5
    if gradients:
        output.hidden.square().mean().backward()
        assert ours.class_pos_emb.grad is not None
        assert ours.class_pos_emb.grad.abs().max() > 0


def test_bfloat16_stays_near_fp32(reference: Reference) -> None:
    theirs, images = reference(), torch.randn(1, 3, 56, 56)
    ours = twin(theirs).bfloat16()
    with torch.no_grad():
        expected, output = theirs(images).last_hidden_state, ours(images.bfloat16()).hidden
    assert output.dtype == torch.bfloat16
    assert ((output.float() - expected).norm() / expected.norm()).item() < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_gpu_computes_what_the_cpu_does(reference: Reference, size: tuple[int, int]) -> None:
    ours, images = twin(reference()), torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = ours(images).hidden
        assert largest(ours.cuda()(images.cuda()).hidden.cpu(), expected) <= 1e-4


def test_parameter_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        counts = {config: sum(p.numel() for p in ViT(config).parameters()) for config in (L14, B16)}
    assert counts == {L14: 302_916_640, B16: 85_648_160}


def test_starts_from_transformers_initialisation(reference: Reference) -> None:
    torch.manual_seed(0)
    fields = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 512}
    config = reference(**fields).config
    fresh = MLCDVisionModel(config)
    ours = ViT(from_json(config.to_dict(), origin="test"))
    expected = checkpoint.from_published(plain_names(fresh.state_dict()), MLCD, ours.config, origin="test")
    for name, value in ours.state_dict().items():
        spread = expected[name].std().item()
        assert value.std().item() == pytest.approx(spread, rel=0.6 if value.numel() < 1000 else 0.1), name
        if spread == 0:
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("field", "value"), [("heads", 5), ("heads", 96), ("width", 0), ("patch", -1), ("eps", 0.0)], ids=str
)
def test_impossible_configurations_are_refused(field: str, value: float) -> None:
    with pytest.raises(RiceError):
        dataclasses.replace(TINY16, **{field: value})


def test_a_start_with_contrast_sees_no_plain_patch_and_takes_no_draw_from_others() -> None:
    config = ViTConfig(width=64, depth=2, heads=4, patch=8, image_size=32)
    torch.manual_seed(3)
    vit = ViT(config)
    before = vit.patch_embed.weight.clone()
    begin_with_contrast(vit)
    plain_13HW = torch.tensor([0.3, -1.2, 2.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert vit.patch_embed(plain_13HW).abs().max() < 1e-5
    assert vit.patch_embed(torch.randn(1, 3, 32, 32)).std() > 0.1
    assert not torch.equal(before, vit.patch_embed.weight)
    stds = [m.weight.std().item() for m in vit.blocks.modules() if isinstance(m, torch.nn.Linear)]
    assert all(abs(std - 0.1) < 0.01 for std in stds)
