"""The world as REFER's files, read back plainly: what pickle, JSON and pycocotools give are the scenes themselves."""

import json
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from rice.cli import main
from rice.data.world import CATEGORIES, Part, Scene, WorldConfig, materialise
from rice.data.world.config import scenes
from rice.data.world.expressions import expressions
from rice.errors import RiceError

CONFIG = WorldConfig(layout="refer", size=64, train=14, test=9, objects=(3, 6), words=(0, 0), seed=5)
PARTS = {"train": Part.TRAIN, "val": Part.TEST}
PICTURES = Path("refer_seg/images/mscoco/images/train2014")

Record = dict[str, Any]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(CONFIG, tmp_path_factory.mktemp("world") / "refer")


@pytest.fixture(scope="module")
def refs(written: Path) -> list[Record]:
    loaded: list[Record] = pickle.loads((written / "refer_seg/refcoco/refs(unc).p").read_bytes())
    return loaded


@pytest.fixture(scope="module")
def grefs(written: Path) -> list[Record]:
    loaded: list[Record] = json.loads((written / "refer_seg/grefcoco/grefs(unc).json").read_text())
    return loaded


@pytest.fixture(scope="module")
def instances(written: Path) -> Record:
    loaded: Record = json.loads((written / "refer_seg/refcoco/instances.json").read_text())
    return loaded


def by_image() -> list[tuple[str, int, Scene]]:
    """Split, number within its part and scene, by image id from 1."""
    return [(split, index, scene) for split, part in PARTS.items() for index, scene in enumerate(scenes(CONFIG, part))]


def decoded(annotation: Record) -> NDArray[np.bool_]:
    """As REFER does: run lengths are a list, whose masks are added."""
    summed: NDArray[np.bool_] = np.sum(coco_mask.decode(annotation["segmentation"]), axis=2) > 0
    return summed


def test_instances_are_the_scenes(written: Path, instances: Record) -> None:
    assert (written / "refer_seg/grefcoco/instances.json").read_text() == json.dumps(
        instances, indent=1, sort_keys=True, ensure_ascii=False
    ) + "\n"
    records = by_image()
    assert [image["id"] for image in instances["images"]] == list(range(1, len(records) + 1))
    assert [a["id"] for a in instances["annotations"]] == list(range(1, len(instances["annotations"]) + 1))
    assert [category["name"] for category in instances["categories"]] == list(CATEGORIES)
    for image, (_, _, scene) in zip(instances["images"], records, strict=True):
        picture = Image.open(written / PICTURES / image["file_name"])
        np.testing.assert_array_equal(np.asarray(picture), scene.image)
        assert (image["height"], image["width"]) == (64, 64)
        assert image["file_name"] == f"COCO_train2014_{image['id']:012d}.png"
        annotations = [a for a in instances["annotations"] if a["image_id"] == image["id"]]
        assert 3 <= len(annotations) == len(scene.objects) <= 6
        for annotation, thing in zip(annotations, scene.objects, strict=True):
            np.testing.assert_array_equal(decoded(annotation), thing.mask)
            assert annotation["category_id"] == thing.category + 1
            assert annotation["area"] == thing.mask.sum()


def test_every_sentence_has_the_masks_of_what_it_names(grefs: list[Record], instances: Record) -> None:
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    for image_id, (split, index, scene) in enumerate(by_image(), start=1):
        said = {e.text: e.objects for e in expressions(scene, PARTS[split], CONFIG.seed, index)}
        here = [record for record in grefs if record["image_id"] == image_id]
        assert sorted(s["sent"] for record in here for s in record["sentences"]) == sorted(said)
        for record in here:
            assert record["split"] == split
            named = [annotations[id_] for id_ in record["ann_id"] if not record["no_target"]]
            assert record["no_target"] == (record["ann_id"] == [-1]) == (record["category_id"] == [-1])
            assert all(annotation["image_id"] == image_id for annotation in named)
            shown = sum((decoded(annotation) for annotation in named), np.zeros((64, 64), dtype=bool))
            for sentence in record["sentences"]:
                expected = [scene.objects[place].mask for place in said[sentence["sent"]]]
                np.testing.assert_array_equal(shown, np.any(expected, axis=0) if expected else shown * 0)
            assert record["no_target"] or record["category_id"] == [a["category_id"] for a in named]


def test_both_splits_have_one_thing_two_and_none(grefs: list[Record]) -> None:
    for split in PARTS:
        numbers = [len(record["ann_id"]) - record["no_target"] for record in grefs if record["split"] == split]
        assert set(numbers) == {0, 1, 2}
        assert numbers.count(1) > numbers.count(0) > len(numbers) / 8


def test_refcoco_is_what_names_one_thing(refs: list[Record], grefs: list[Record], instances: Record) -> None:
    singles = [record for record in grefs if len(record["ann_id"]) == 1 and not record["no_target"]]
    names = {image["id"]: image["file_name"] for image in instances["images"]}
    assert [(r["ref_id"], [r["ann_id"]], r["sentences"]) for r in refs] == [
        (r["ref_id"], r["ann_id"], r["sentences"]) for r in singles
    ]
    for ref in refs:
        assert ref["file_name"] == names[ref["image_id"]].replace(".png", f"_{ref['ann_id']}.png")
    assert max(len(ref["sentences"]) for ref in refs) > 2
    assert len({(ref["image_id"], ref["ann_id"]) for ref in refs}) == len(refs)


def test_fields_are_refers_own(refs: list[Record], grefs: list[Record]) -> None:
    fields = {"ref_id", "ann_id", "sent_ids", "sentences", "category_id", "image_id", "file_name", "split"}
    for records, keys in ((refs, fields), (grefs, fields | {"no_target"})):
        assert len({record["ref_id"] for record in records}) == len(records)
        sent_ids = [sentence["sent_id"] for record in records for sentence in record["sentences"]]
        assert len(set(sent_ids)) == len(sent_ids)
        assert [id_ for record in records for id_ in record["sent_ids"]] == sent_ids
        for record in records:
            assert set(record) == keys
            for sentence in record["sentences"]:
                assert set(sentence) == {"tokens", "raw", "sent_id", "sent"}
                assert " ".join(sentence["tokens"]) == sentence["sent"] == sentence["raw"]


def test_the_pickle_names_no_code_and_python_2_can_read_it(written: Path) -> None:
    data = (written / "refer_seg/refcoco/refs(unc).p").read_bytes()
    opcodes = [opcode for opcode, _, _ in pickletools.genops(data)]
    assert max(opcode.proto for opcode in opcodes) == 2
    assert not {opcode.name for opcode in opcodes} & {"GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "EXT1"}


def test_captions_and_questions_are_about_the_pictures_of_train(written: Path) -> None:
    train = [f"COCO_train2014_{id_:012d}.png" for id_ in range(1, CONFIG.train + 1)]
    for name in ("pretrain", "instruct"):
        rows = json.loads((written / f"{name}.json").read_text())
        assert [row["image"] for row in rows] == [str(PICTURES / picture) for picture in train]
        assert all((written / row["image"]).is_file() for row in rows)
        assert all("<image>" in row["conversations"][0]["value"] for row in rows)
    captions = [row["conversations"][1]["value"] for row in json.loads((written / "pretrain.json").read_text())]
    for text, scene in zip(captions, scenes(CONFIG, Part.TRAIN), strict=True):
        assert sorted(text.rstrip(".").split(": ")[1].split(", ")) == sorted(map(_named, scene.objects))


def _named(thing: Any) -> str:
    """With one of nine places, by the middle of the box: the cell in the middle is 0.16 of the picture wide."""
    left, top, right, bottom = thing.box
    down = {-1: "top", 0: "", 1: "bottom"}[_side((top + bottom) / 2)]
    across = {-1: "left", 0: "", 1: "right"}[_side((left + right) / 2)]
    place = f"at the {down} {across}".strip() if down else f"on the {across}" if across else "in the middle"
    return f"a {CATEGORIES[thing.category]} {place}"


def _side(middle: float) -> int:
    return 0 if abs(middle / 64 - 0.5) < 0.08 else 1 if middle > 32 else -1


def test_large_pictures_are_jpegs(tmp_path: Path) -> None:
    config = WorldConfig(layout="refer", size=640, train=1, test=1, objects=(3, 3))
    root = materialise(config, tmp_path / "world")
    images = json.loads((root / "refer_seg/refcoco/instances.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"COCO_train2014_{n:012d}.jpg" for n in (1, 2)]
    assert Image.open(root / PICTURES / images[1]["file_name"]).size == (640, 640)


def test_the_same_world_is_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = materialise(CONFIG, tmp_path / "again")
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((written / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_the_command_asks_for_things_that_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    main(["world", "--layout", "refer", "--out", str(out), "--size", "64", "--train", "9", "--test", "3", "--preview"])
    assert "9 scenes in train, 3 in val, 64 px, as LISA: refer_seg/" in capsys.readouterr().out
    annotations = json.loads((out / "refer_seg/refcoco/instances.json").read_text())["annotations"]
    counts = np.bincount([annotation["image_id"] for annotation in annotations])[1:]
    assert (len(counts), counts.min() >= 3, counts.max() <= 6) == (12, True, True)
    assert Image.open(out / "preview.png").width == 4 * 384


def test_the_layout_belongs_to_scenes() -> None:
    with pytest.raises(RiceError, match="expected kind scenes for layout refer"):
        WorldConfig(kind="clips", layout="refer")
