"""Training on captions is open_clip's, on our ViT: its loss, its text tower, and the loop of every other target."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import caption_targets as targets
import loop_targets
import numpy as np
import pytest
import torch
from loop_targets import assert_same, weights
from PIL import Image
from ranks import Ranks
from safetensors.torch import load_file, save_file

from rice import load_encoder
from rice.data.shards import DatasetInfo, Sample, write_dataset, write_shard
from rice.data.stream import Batch, RegionStream, StreamConfig
from rice.encoders.region_checkpoint import load_vit
from rice.errors import RiceError
from rice.train.build import plan, start
from rice.train.build import run as train
from rice.train.captions import CAPTIONS, CaptionModel
from rice.train.config import MachineConfig, OptimiserConfig, TextConfig, TrainConfig
from rice.train.learner import Learner
from rice.train.read_tower import read_tower
from rice.train.recipe import clip, recipes, tiny
from rice.train.world import join

Run = Callable[..., list[Any]]
Start = Callable[..., Ranks]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return targets.write_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one rank."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    Ranks(1, targets.train, data, out, targets.config(), join=False).results()
    return out


def first(data: Path, config: TrainConfig) -> Batch:
    return next(RegionStream.open(data, config.stream, seed=config.seed).batches(batch=config.batch))


def cross_entropy_both_ways(logits_BB: torch.Tensor) -> float:
    """The mean of -log softmax at the diagonal, over rows and over columns, written out."""
    found = []
    for along in (logits_BB, logits_BB.T):
        found += [-math.log(math.exp(row[i]) / sum(map(math.exp, row))) for i, row in enumerate(along.tolist())]
    return sum(found) / len(found)


def test_the_loss_of_a_step_is_open_clips_and_its_formula(data: Path) -> None:
    from open_clip.loss import ClipLoss

    config = targets.config()
    with join("cpu") as world:
        learner, batch = Learner(config, world, *start(config, {}, None, world)), first(data, config)
        images_BE, texts_BE, scale = learner.pairs(batch)
        expected = ClipLoss()(images_BE, texts_BE, scale)
        total, term, norm = learner.step(batch, 0, learner.labelled(batch)).tolist()
        assert scale.item() == pytest.approx(1 / 0.07)
        for x_BE in (images_BE, texts_BE):
            torch.testing.assert_close(x_BE.norm(dim=1), torch.ones(config.batch))
        assert total == term == expected.item()
        logits_BB = (scale * images_BE @ texts_BE.T).double()
        assert total == pytest.approx(cross_entropy_both_ways(logits_BB), rel=1e-5)
        assert norm > 0


def test_embeddings_are_those_of_open_clips_text_tower_and_a_projection_of_the_class_token(data: Path) -> None:
    from open_clip.transformer import TextTransformer

    config = targets.config()
    with join("cpu") as world:
        learner, batch = Learner(config, world, *start(config, {}, None, world)), first(data, config)
        model = learner.tower
        assert isinstance(model, CaptionModel)
        images_BE, texts_BE, _ = learner.pairs(batch)
        text = TextTransformer(8, 49408, 16, 2, 2, output_dim=16)
        text.load_state_dict(model.text.state_dict())
        expected = torch.nn.functional.normalize(text(batch.captions), dim=-1)
        torch.testing.assert_close(texts_BE, expected)
        pooled_BD = learner.embed(batch.images, batch.boxes)[:, 0]
        projected = pooled_BD @ model.projection.weight.T
        torch.testing.assert_close(images_BE, projected / projected.norm(dim=1, keepdim=True))


def test_every_parameter_learns_and_gains_biases_and_scale_do_not_decay(data: Path) -> None:
    config = targets.config(optimiser=OptimiserConfig(weight_decay=0.3))
    with join("cpu") as world:
        learner, batch = Learner(config, world, *start(config, {}, None, world)), first(data, config)
        learner.step(batch, 0, 1)
        model = learner.tower
        idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        assert idle == set()
        decays = {id(p): g["weight_decay"] for g in learner.optimiser.param_groups for p in g["params"]}
        for name, parameter in model.named_parameters():
            assert decays[id(parameter)] == (0.3 if parameter.ndim > 1 else 0.0), name


def test_the_vit_starts_as_that_of_every_other_target(data: Path) -> None:
    with join("cpu") as world:
        (ours, _), (theirs, _) = (
            start(targets.config(target=target), {}, None, world) for target in ("captions", "image")
        )
    assert isinstance(ours, CaptionModel)
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.vit.state_dict()[name]), name


def test_the_scale_stays_between_1_and_100(data: Path) -> None:
    config = targets.config()
    with join("cpu") as world:
        learner, batch = Learner(config, world, *start(config, {}, None, world)), first(data, config)
        model = learner.tower
        assert isinstance(model, CaptionModel)
        for value, bound in ((9.0, math.log(100)), (-9.0, 0.0)):
            with torch.no_grad():
                model.logit_scale.fill_(value)
            learner.step(batch, 0, 1)
            assert model.logit_scale.item() == pytest.approx(bound)


def test_without_a_caption_nothing_moves(tmp_path: Path) -> None:
    data, config = targets.write_shards(tmp_path / "shards"), targets.config()
    with join("cpu") as world:
        learner = Learner(config, world, *start(config, {}, None, world))
        batch = first(data, config)
        assert learner.labelled(batch) == sum(i % 3 != 1 for i in batch.samples.tolist())
        before = {name: p.clone() for name, p in learner.tower.named_parameters()}
        learner.step(batch, 0, 0)
        assert all(torch.equal(before[name], p) for name, p in learner.tower.named_parameters())


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param({"parallel": "ddp"}, id="ddp"),
        pytest.param({"parallel": "fsdp2", "recompute": True}, id="fsdp2-and-recompute"),
    ],
)
def test_two_ranks_compute_what_one_does_with_the_whole_batch(
    data: Path, tmp_path: Path, unbroken: Path, run: Run, machine: dict[str, Any]
) -> None:
    settings = targets.config(machine=replace(targets.config().machine, **machine))
    run(2, targets.train, data, tmp_path / "out", settings, join=False)
    assert_close(unbroken, tmp_path / "out")


def assert_close(first: Path, second: Path) -> None:
    """To 1e-5, but for the text tower's key biases: no attention depends on them, so that they follow rounding."""
    np.testing.assert_allclose(targets.curve(first), targets.curve(second), rtol=1e-5, atol=1e-5)
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        kept = torch.arange(len(value)) // 16 != 1 if name.endswith("in_proj_bias") else slice(None)
        torch.testing.assert_close(value[kept], theirs[name][kept], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "same"),
    [
        pytest.param([2], lambda *outs: assert_same(*outs, tolerance=0.0), id="bit-for-bit-on-as-many-ranks"),
        pytest.param([2, 1], assert_close, id="on-others"),
    ],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    data: Path, tmp_path: Path, start: Start, plan: list[int], same: Callable[[Path, Path], None]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start(2, targets.train, data, whole, targets.config(), join=False).results()
    for life, step in enumerate((3, 7)):
        ranks = start(plan[life % len(plan)], targets.train, data, broken, targets.config(), join=False)
        ranks.wait_for("step", step)
        ranks.kill()
    ranks = start(plan[0], targets.train, data, broken, targets.config(), join=False)
    ranks.results()
    assert max(step for word, step in ranks.reports if word == "resumed") > 0
    same(whole, broken)


def test_the_trained_tower_loads_like_any_other(data: Path, unbroken: Path) -> None:
    final = unbroken / "final"
    assert not (final / "region.safetensors").exists()
    assert not list(final.glob("centers-*"))
    features = load_encoder(f"rice:{final}")(torch.rand(1, 3, 32, 32))
    assert features.patches.shape == (1, 16, 4, 4)
    last, saved = read_tower(unbroken / "checkpoints" / "step-00000012").state_dict(), load_vit(final).state_dict()
    assert last.keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in last.items())


def test_init_takes_back_the_tower_and_all_beside_it(data: Path, tmp_path: Path, unbroken: Path) -> None:
    still = targets.config(
        stream=replace(targets.config().stream, size=48), optimiser=OptimiserConfig(learning_rate=1e-12), samples=6
    )
    train(still, data, tmp_path / "out", None, unbroken / "final")
    before, after = weights(unbroken), weights(tmp_path / "out")
    assert {"captions.safetensors:logit_scale", "captions.safetensors:projection.weight"} < before.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-6, atol=1e-8)


def test_init_of_something_else_is_refused_in_one_line(data: Path, tmp_path: Path, unbroken: Path) -> None:
    final, other = unbroken / "final", targets.config(text=replace(targets.TEXT, layers=3))
    with pytest.raises(RiceError, match=r"the recipe trains TextConfig\(.*pass --text\.\* flags"):
        train(other, data, tmp_path / "out", None, final)
    train(targets.config(target="image", samples=6), data, tmp_path / "image", None, None)
    with pytest.raises(RiceError, match=f"holds no text tower: expected {CAPTIONS}"):
        train(targets.config(), data, tmp_path / "out", None, tmp_path / "image" / "final")
    tensors = load_file(final / CAPTIONS)
    del tensors["projection.weight"]
    facts = json.dumps(asdict(targets.TEXT), sort_keys=True)
    save_file(tensors, tmp_path / "image" / "final" / CAPTIONS, metadata={"text_config": facts})
    with pytest.raises(RiceError, match=r"does not fit its tower of width 16: 1 .*projection\.weight") as caught:
        train(targets.config(), data, tmp_path / "out", None, tmp_path / "image" / "final")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_data_without_captions_teach_nothing(tmp_path: Path) -> None:
    data = loop_targets.write_shards(tmp_path / "shards")
    with pytest.raises(RiceError, match="no captions: nothing to learn"):
        train(targets.config(), data, tmp_path / "out", None, None)
    assert not (tmp_path / "out").exists()


def test_validation_retrieves_pictures_by_their_class_tokens(data: Path, tmp_path: Path) -> None:
    train(targets.config(samples=6), data, tmp_path / "out", data, None)
    assert sum("retrieval_top1" in line for line in targets.lines(tmp_path / "out")) == 2


def test_a_plan_names_the_text_tower_and_no_classes(data: Path, tmp_path: Path) -> None:
    said = plan(targets.config(), data, tmp_path / "out", None, None)
    assert "learns    captions, CLIP's loss; text tower of 2 blocks of 16, captions of up to 8 tokens" in said
    assert "classes" not in said
    assert "centres" not in said


def test_other_targets_have_no_part_of_it_in_their_identity() -> None:
    """Checkpoints of before still belong to their runs."""
    ours, theirs = targets.config().identity(), targets.config(target="regions").identity()
    assert ours["text"] == asdict(targets.TEXT)
    assert "text" not in theirs
    assert "context" not in theirs["stream"]


def test_the_context_of_the_stream_is_the_text_towers() -> None:
    config = targets.config()
    assert config.stream.context == targets.TEXT.context
    assert replace(config, target="image").stream.context == 0
    assert clip(tiny).stream.context == tiny().text.context == 32


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width": 0}, "width=0 is out of range"),
        ({"context": 2}, "context=2 is out of range"),
        ({"width": 64, "heads": 3}, "--text.heads that divide --text.width, got 3 of 64"),
    ],
)
def test_a_wrong_text_tower_is_named(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(RiceError, match=said):
        TextConfig(**wrong)


def test_recipes_have_clips_own_text_towers() -> None:
    """open_clip's model_configs/ViT-B-16.json and ViT-L-14.json."""
    import open_clip

    for name, arch in (("b16", "ViT-B-16"), ("l14", "ViT-L-14")):
        theirs = open_clip.get_model_config(arch)
        config, _ = recipes()[f"clip-{name}-224"]
        expected = {key: theirs["text_cfg"][key] for key in ("width", "layers", "heads")}
        assert asdict(config.text) == expected | {"context": theirs["text_cfg"]["context_length"]}
        assert config.text.width == theirs["embed_dim"]
        assert replace(config, target="regions", text=TextConfig()) == recipes()[f"{name}-224"][0]


def test_forward_flops_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from rice.train.cost import forward_gflops

    config = clip(tiny)
    with torch.device("meta"):
        model = CaptionModel(config.vit, config.text)
        images, captions = torch.empty(2, 3, config.size, config.size), torch.zeros(2, 32, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(images, captions)
    assert counter.get_total_flops() / 2e9 == pytest.approx(forward_gflops(config), rel=1e-6)


def scene(index: int) -> Sample:
    """A rectangle of one of four colours in one of four corners, on noise; its caption names both."""
    draws = np.random.default_rng(index)
    colours = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
    colour, corner = list(colours)[index % 4], ["top left", "top right", "bottom left", "bottom right"][index // 4 % 4]
    pixels = draws.integers(60, 160, (32, 32, 3), dtype=np.uint8)
    top, left = 16 * ("bottom" in corner), 16 * ("right" in corner)
    pixels[top : top + 16, left : left + 16] = colours[colour]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Sample(
        key=f"scene{index:03d}",
        image=file.getvalue(),
        suffix="png",
        width=32,
        height=32,
        captions=[f"a {colour} box, {corner}", f"{corner}: something {colour}"],
    )


def test_a_tiny_run_finds_the_captions_of_scenes(tmp_path: Path) -> None:
    """48 scenes of 16 kinds: a batch of 16 has pairs that nothing tells apart, so the loss cannot reach 0."""
    shards = (write_shard(tmp_path / "shards", "scenes-000000", map(scene, range(48))),)
    write_dataset(tmp_path / "shards", DatasetInfo(object_classes=0, ocr_classes=0, shards=shards))
    config = targets.config(
        stream=StreamConfig(size=32, flip=0.0, crop_scale=(0.9, 1.0)),
        samples=16 * 120,
        batch=16,
        optimiser=OptimiserConfig(learning_rate=2e-3),
        machine=MachineConfig(device="cpu", save_every=1000, log_every=1),
        text=TextConfig(width=32, layers=1, heads=2, context=12),
    )
    train(config, tmp_path / "shards", tmp_path / "out", None, None)
    losses = [loss for loss, _, _ in targets.curve(tmp_path / "out")]
    assert np.mean(losses[:3]) > 0.9 * math.log(16)
    assert np.mean(losses[-10:]) < 0.5 * math.log(16)
