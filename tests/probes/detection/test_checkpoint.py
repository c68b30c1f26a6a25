"""A detector in one file: it comes back bit by bit, and what is not one is refused in one line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from probes.detection.checkpoint import DetectorFacts, load_detector
from probes.detection.config import HeadsConfig
from probes.detection.federated import FederatedLoss
from probes.detection.model import Detector, build_detector
from probes.heads import config_from, save_heads
from rice.encoders.base import Encoder
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError

from .folders import PatchMeans, tiny_encoder

HEADS = HeadsConfig(channels=4, hidden=6, rpn_convs=1, box_convs=1, mask_convs=1, proposals=10, rpn_top=(20, 20))
COUNTS = (4, 0, 9)


def facts_of(**changes: Any) -> DetectorFacts:
    facts = DetectorFacts(
        encoder="patch-means@32",
        weights=None,
        fingerprint="0" * 64,
        size=32,
        patch=4,
        width=4,
        categories=((3, "cat"), (7, "dog"), (90, "naïve “name”")),
        image_counts=None,
        masks=True,
        heads=dataclasses.asdict(HEADS),
        config={"epochs": 12, "milestones": [0.5, 0.75]},
        seed=3,
        done=20,
        updates=100,
        scores={"ap": 0.25},
        versions={"torch": "2", "timm": None},
    )
    return dataclasses.replace(facts, **changes)


def detector_of(facts: DetectorFacts) -> Detector:
    """With weights that no fresh detector has."""
    detector = build_detector(
        HEADS, patch=4, width=4, classes=3, image_counts=facts.image_counts, masks=facts.masks, seed=5
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return detector


def saved(path: Path, **changes: Any) -> Path:
    facts = facts_of(**changes)
    save_heads(path, detector_of(facts), facts)
    return path


@pytest.mark.parametrize(
    "changes", [{}, {"masks": False}, {"image_counts": COUNTS}], ids=["softmax", "boxes", "federated"]
)
def test_a_detector_comes_back_bit_by_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "last.safetensors"
    facts = facts_of(**changes)
    before = detector_of(facts)
    save_heads(path, before, facts)
    after = load_detector(path, tiny_encoder())
    assert not after.training
    assert before.state_dict().keys() == after.state_dict().keys()
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    tokens = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    left, right = (d.eval().detect(tokens, [(32, 32), (20, 32)]) for d in (before, after))
    for mine, reference in zip(left, right, strict=True):
        assert len(reference.scores) > 0
        for a, b in zip(mine, reference, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or torch.equal(a, b)
    assert isinstance(after.cascade.class_loss, FederatedLoss) == ("image_counts" in changes)
    assert (after.masks is None) == ("masks" in changes)


@pytest.mark.parametrize("counts", [None, COUNTS], ids=["softmax", "federated"])
def test_facts_come_back_as_they_were(tmp_path: Path, counts: tuple[int, ...] | None) -> None:
    facts = facts_of(image_counts=counts)
    found = DetectorFacts.read(saved(tmp_path / "a.safetensors", image_counts=counts))
    assert config_from(HeadsConfig, found.heads) == HEADS
    assert dataclasses.replace(found, heads={}) == dataclasses.replace(facts, heads={})


def test_the_file_holds_the_heads_and_nothing_of_the_encoder(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    stored = load_file(path)
    assert stored.keys() == detector_of(facts_of()).state_dict().keys()
    assert {name.split(".")[0] for name in stored} == {"pyramid", "proposals", "cascade", "masks"}
    floats = sum(value.numel() for value in stored.values())
    assert path.stat().st_size < 4 * floats + 40_000
    with safe_open(path, framework="pt") as file:
        assert list(file.metadata()) == ["rice.detection"]
    assert list(tmp_path.iterdir()) == [path], "written at once, nothing beside it"


def truncated(path: Path) -> None:
    path.write_bytes(saved(path).read_bytes()[:-100])


def header_damaged(path: Path) -> None:
    raw = bytearray(saved(path).read_bytes())
    raw[8:40] = b"\xff" * 32
    path.write_bytes(bytes(raw))


def no_safetensors(path: Path) -> None:
    path.write_bytes(b"not a file of weights")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def foreign_with_metadata(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})


def stored_as(value: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_file({"weight": torch.zeros(3)}, path, metadata={"rice.detection": json.dumps(value)})

    return write


def missing(path: Path) -> None:
    """Nothing there."""


def a_folder(path: Path) -> None:
    path.mkdir()


PLAIN = json.loads(json.dumps(dataclasses.asdict(facts_of())))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(truncated, id="truncated"),
        pytest.param(header_damaged, id="damaged header"),
        pytest.param(no_safetensors, id="no safetensors"),
        pytest.param(empty, id="empty"),
        pytest.param(foreign, id="foreign"),
        pytest.param(foreign_with_metadata, id="foreign with metadata"),
        pytest.param(missing, id="missing"),
        pytest.param(a_folder, id="folder"),
        pytest.param(stored_as([1, 2]), id="a list"),
        pytest.param(stored_as(PLAIN | {"of_a_later_version": 1}), id="unknown fact"),
        pytest.param(stored_as({k: v for k, v in PLAIN.items() if k != "width"}), id="fact missing"),
        pytest.param(stored_as(PLAIN | {"categories": None}), id="no categories"),
    ],
)
def test_what_is_no_detector_is_refused_in_one_line_that_names_it(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "last.safetensors"
    write(path)
    for read in (DetectorFacts.read, lambda p: load_detector(p, tiny_encoder())):
        with pytest.raises(RiceError) as error:
            read(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_file_that_lacks_weights_it_describes_is_refused_in_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    stored = load_file(path)
    first = next(iter(stored))
    shorter = {name: value for name, value in stored.items() if name != first}
    reshaped = stored | {first: torch.zeros(2, 2)}
    for tensors in (shorter, reshaped):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(RiceError, match="does not hold the heads") as error:
            load_detector(path, tiny_encoder())
        assert "\n" not in str(error.value)


def other_encoder(patch: int, width: int) -> Encoder:
    spec = EncoderSpec(name="another", source="test", patch=patch, size_multiple=patch, width=width, native_size=32)
    return Encoder(PatchMeans(patch), spec, tiny_encoder()._extract, weights="random")


@pytest.mark.parametrize(("patch", "width"), [(4, 5), (8, 4)])
def test_another_encoder_is_refused_with_both_widths_and_patches(tmp_path: Path, patch: int, width: int) -> None:
    path = saved(tmp_path / "a.safetensors")
    with pytest.raises(RiceError, match=f"patch 4 and width 4, another has {patch} and {width}") as error:
        load_detector(path, other_encoder(patch, width))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("heads", [{"attention": True}, {"channels": 0}])
def test_heads_of_another_version_are_refused_in_one_line(tmp_path: Path, heads: dict[str, Any]) -> None:
    path = saved(tmp_path / "a.safetensors", heads=dataclasses.asdict(HEADS) | heads)
    assert DetectorFacts.read(path).heads == json.loads(json.dumps(dataclasses.asdict(HEADS) | heads))
    with pytest.raises(RiceError, match=next(iter(heads))) as error:
        load_detector(path, tiny_encoder())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("heads", [None, [1, 2], "large"])
def test_heads_that_are_no_settings_are_refused_in_one_line(tmp_path: Path, heads: Any) -> None:
    path = saved(tmp_path / "a.safetensors", heads=heads)
    with pytest.raises(RiceError, match="written by another version of rice-suite") as error:
        load_detector(path, tiny_encoder())
    assert "\n" not in str(error.value)
