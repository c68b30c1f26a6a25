"""A tracker in one file: it comes back bit by bit, and what is not one is refused in one line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_tracker import CONFIG, config, square_frames, tiny_encoder, tiny_tracker, walk

from probes.heads import config_from, save_heads
from rice.errors import RiceError
from tracking.checkpoint import TrackerFacts, load_tracker
from tracking.config import TrackingConfig

KEY = "rice.tracking"


def facts_of(settings: TrackingConfig = CONFIG, **changes: Any) -> TrackerFacts:
    facts = TrackerFacts(
        encoder="patch-means-4",
        weights=None,
        fingerprint="0" * 64,
        patch=4,
        width=8,
        sizes=(16, 32),
        config=dataclasses.asdict(settings),
        seed=3,
        done=20,
        updates=100,
        scores={"lasot success": 64.1},
        versions={"torch": "2", "timm": None, "naïve": "“1”"},
    )
    return dataclasses.replace(facts, **changes)


def saved(path: Path, **changes: Any) -> Path:
    save_heads(path, tiny_tracker(seed=5).head, facts_of(**changes))
    return path


def test_a_tracker_comes_back_bit_by_bit_and_follows_alike(tmp_path: Path) -> None:
    before = tiny_tracker(seed=5)
    for branch in (before.head.center.score, before.head.center.size):
        branch[1].running_var.uniform_(0.5, 2)
        branch[1].num_batches_tracked.fill_(77)
    path = tmp_path / "last.safetensors"
    save_heads(path, before.head, facts_of())
    after = load_tracker(path, tiny_encoder())
    assert not after.head.training
    assert (after.sizes, after.config) == ((16, 32), CONFIG)
    assert before.head.state_dict().keys() == after.head.state_dict().keys()
    for name, value in before.head.state_dict().items():
        assert torch.equal(value, after.head.state_dict()[name]), name
    boxes = walk(6, (20.0, 12.0, 12.0, 10.0), (2, 1))
    frames = square_frames(boxes, [(48, 64)] * 6)
    assert list(before.track(frames, boxes[0])) == list(after.track(frames, boxes[0]))
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize(
    "settings",
    [CONFIG, TrackingConfig(), config(train=("coco", "lasot"), test=("tnl2k",), clip=None, drop_at=None)],
    ids=["tiny", "default", "joint"],
)
def test_facts_and_configuration_come_back_as_they_were(tmp_path: Path, settings: TrackingConfig) -> None:
    facts = facts_of(settings)
    found = TrackerFacts.read(saved(tmp_path / "a.safetensors", settings=settings))
    assert config_from(TrackingConfig, found.config) == settings
    assert dataclasses.replace(found, config={}) == dataclasses.replace(facts, config={})


def test_the_file_holds_the_head_and_nothing_of_the_encoder(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    head = tiny_tracker().head
    tensors = load_file(path)
    assert tensors.keys() == head.state_dict().keys()
    assert not any("position" in name for name in tensors), "computed, not stored"
    values = sum(value.numel() * value.element_size() for value in tensors.values())
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    assert path.stat().st_size == 8 + header + values
    learns = sum(parameter.numel() for parameter in head.parameters())
    buffers = sum(value.numel() for name, value in head.state_dict().items() if "running" in name)
    assert values == 4 * (learns + buffers) + 8 * 12  # fp32, and a counter (int64) for each of 12 norms


def garbled(path: Path) -> None:
    path.write_bytes(b"nothing")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path, metadata={"format": "pt"})


def bare(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)


def stored(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()[KEY])
    save_file(load_file(path), path, metadata={KEY: json.dumps(change(facts))})


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "garbled": garbled,
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "foreign": foreign,
    "bare": bare,
    "no facts": lambda path: stored(path, lambda facts: []),
    "field missing": lambda path: stored(path, lambda facts: {k: v for k, v in facts.items() if k != "patch"}),
    "field too many": lambda path: stored(path, lambda facts: facts | {"colour": "red"}),
    "one size": lambda path: stored(path, lambda facts: facts | {"sizes": [16]}),
    "sizes in words": lambda path: stored(path, lambda facts: facts | {"sizes": ["a", "b"]}),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_no_tracker_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "a.safetensors")
    DAMAGE[kind](path)
    with pytest.raises(RiceError, match="expected a tracker at .*a.safetensors") as caught:
        TrackerFacts.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(RiceError, match="expected a tracker at"):
        load_tracker(path, tiny_encoder())


@pytest.mark.parametrize(("patch", "width"), [(8, 8), (4, 16)])
def test_another_encoder_is_told(tmp_path: Path, patch: int, width: int) -> None:
    path = saved(tmp_path / "a.safetensors")
    message = f"trained on an encoder of patch 4 and width 8, patch-means-{patch} has {patch} and {width}"
    with pytest.raises(RiceError, match=message):
        load_tracker(path, tiny_encoder(patch, width))


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts | {"config": facts["config"] | {"colour": 3}},
        lambda facts: facts | {"config": {k: v for k, v in facts["config"].items() if k != "heads"}},
        lambda facts: facts | {"config": facts["config"] | {"heads": {"layers": 3}}},
    ],
    ids=["more", "less", "other heads"],
)
def test_the_fields_of_another_version_are_told(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = saved(tmp_path / "a.safetensors")
    stored(path, change)
    with pytest.raises(RiceError, match="written by another version of rice-suite") as caught:
        load_tracker(path, tiny_encoder())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["renamed", "missing", "shape"])
def test_a_head_that_is_not_the_one_described_is_told(tmp_path: Path, change: str) -> None:
    path = saved(tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    segment = tensors.pop("segment")
    if change == "renamed":
        tensors["segments"] = segment
    elif change == "shape":
        tensors["segment"] = segment[:1].clone()
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(RiceError, match="does not hold the heads that it describes: .*segment") as caught:
        load_tracker(path, tiny_encoder())
    assert "\n" not in str(caught.value)
