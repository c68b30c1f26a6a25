"""Targets of semantic sets are the classes that a map holds, under the names that the set's own files give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lisa_tree import HEIGHT, WIDTH, save_map, save_picture, write_json
from PIL import Image

from mllm.lisa.pictures import Picture
from mllm.lisa.pictures_writer import Refusals
from mllm.lisa.semantic import ade20k_names, cocostuff_names, mapillary_names, read_semantic
from mllm.lisa.stuff_names import STUFF_NAMES
from rice.errors import RiceError
from rice.progress import SilentProgress

NAMES = {1: "wall", 2: "door", 200: "rare thing"}


def read(root: Path, names: dict[int, str] = NAMES) -> tuple[list[Picture], dict[str, Any]]:
    refusals = Refusals()
    found = read_semantic(
        root, names, source="set", images="im", labels="maps", refusals=refusals, progress=SilentProgress()
    )
    return list(found), refusals.as_json()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_has_the_classes_that_its_map_holds(dtype: Any, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    (tmp_path / "maps").mkdir()
    expected = {}
    for k in range(20):
        values_HW = dice.choice([0, 1, 2, 3, 200, 255], 3)[dice.integers(0, 3, (HEIGHT, WIDTH))].astype(dtype)
        Image.fromarray(values_HW).save(tmp_path / f"maps/{k:02}.png")
        save_picture(tmp_path / f"im/{k:02}.jpg")
        expected[f"{k:02}"] = sorted(set(values_HW.ravel().tolist()) & set(NAMES))
    pictures, refused = read(tmp_path)
    assert {p.id: [t.value for t in p.targets] for p in pictures} == {k: v for k, v in expected.items() if v}
    assert [p.id for p in pictures] == sorted(p.id for p in pictures)
    assert all(t.texts == (NAMES[t.value or 0],) for p in pictures for t in p.targets)
    assert refused.get("no class on its label map", {"count": 0})["count"] == sum(not v for v in expected.values())


def test_a_palette_is_not_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((HEIGHT, WIDTH), 2, dtype=np.uint8), mode="L").convert("P")
    image.putpalette([255 - k for k in range(256) for _ in range(3)])
    values = np.asarray(image)
    (tmp_path / "maps").mkdir()
    image.save(tmp_path / "maps/a.png")
    save_picture(tmp_path / "im/a.jpg")
    (picture,) = read(tmp_path, {int(values[0, 0]): "door"})[0]
    assert picture.targets[0].texts == ("door",)


def test_maps_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    for name in ("good", "alone", "large", "damaged", "coloured", "torn"):
        save_map(tmp_path / f"maps/{name}.png", np.ones((HEIGHT, WIDTH)))
        if name != "alone":
            save_picture(tmp_path / f"im/{name}.jpg", (WIDTH * 2, HEIGHT) if name == "large" else (WIDTH, HEIGHT))
    (tmp_path / "maps/damaged.png").write_bytes(b"nothing")
    save_picture(tmp_path / "maps/coloured.png")
    (tmp_path / "im/torn.jpg").write_bytes(b"nothing")
    pictures, refused = read(tmp_path)
    assert [p.id for p in pictures] == ["good"]
    assert {reason: found["first"] for reason, found in refused.items()} == {
        "missing picture file": ["alone.png"],
        "unreadable label map": ["coloured.png", "damaged.png"],
        "picture of another size than its label map": ["large.png"],
        "unreadable picture": ["torn.png"],
    }


def test_ade20k_has_the_first_synonym_of_every_class_from_one_on(tmp_path: Path) -> None:
    table = tmp_path / "objectInfo150.txt"
    table.write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.1576\t11664\t1172\twall\n2\t0.1\t6046\t612\tbuilding, edifice\n"
        "13\t0.05\t4\t3\tperson, individual, someone, somebody, mortal, soul\n24\t0.01\t4\t3\tsofa;couch;lounge\n"
    )
    assert ade20k_names(table) == {1: "wall", 2: "building", 13: "person", 24: "sofa"}


def test_ade20ks_own_table_is_that_of_its_numbers(tmp_path: Path) -> None:
    own = ade20k_names(tmp_path / "objectInfo150.txt")
    assert list(own) == list(range(1, 151))
    assert len(set(own.values())) == 150
    published = {1: "wall", 3: "sky", 13: "person", 21: "car", 44: "signboard", 67: "flower", 81: "bus", 99: "bottle"}
    published |= {116: "bag", 137: "traffic light", 150: "flag"}
    assert {number: own[number] for number in published} == published


def test_cocostuffs_values_are_its_numbers_less_one_without_names_of_two_levels(tmp_path: Path) -> None:
    own = cocostuff_names(tmp_path / "labels.txt")
    assert (own[0], own[89], own[90], own[156], own[181]) == ("person", "toothbrush", "hair brush", "sky", "wood")
    assert not any("-" in name for name in own.values())
    assert len(STUFF_NAMES) == len(set(STUFF_NAMES)) == 182
    assert list(STUFF_NAMES[91:]) == sorted(STUFF_NAMES[91:])  # as the data set has them
    lines = ["0: unlabeled", *(f"{k + 1}: {name}" for k, name in enumerate(STUFF_NAMES))]
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    assert cocostuff_names(tmp_path / "labels.txt") == own


def test_mapillarys_classes_are_places_in_its_list(tmp_path: Path) -> None:
    names = [("animal--bird", "Bird"), ("construction--curb", "Curb Cut"), ("void--unlabeled", "Unlabeled")]
    labels = [{"name": name, "readable": readable} for name, readable in names]
    assert mapillary_names(write_json(tmp_path / "c.json", {"labels": labels})) == {0: "bird", 1: "curb cut"}


@pytest.mark.parametrize("text", ["", "Idx,Name\n1,wall", "Idx\tName\nx\twall", "Idx\tName\n1\t"])
def test_another_table_than_ade20ks_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(RiceError, match="t\\.txt"):
        ade20k_names(tmp_path / "t.txt")


def test_other_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("person\n")
    with pytest.raises(RiceError, match="labels\\.txt"):
        cocostuff_names(tmp_path / "labels.txt")
    for document in ({}, {"labels": {}}, {"labels": [{"name": "x"}]}, {"labels": ["x"]}):
        with pytest.raises(RiceError, match="readable"):
            mapillary_names(write_json(tmp_path / "c.json", document))
