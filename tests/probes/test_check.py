"""`rice data check`: sound, foreign and broken roots are told apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from probes.check import check, examine
from rice.data.world import WorldConfig, materialise
from rice.errors import RiceError, missing


def coco(root: Path, **changes: Any) -> Path:
    """Two splits of two small pictures; `changes` go into the val file's first annotation or image."""
    for name in ("train", "val"):
        (root / name).mkdir(parents=True)
        for index in (1, 2):
            Image.new("RGB", (8, 6)).save(root / name / f"{index}.png")
        image = {"width": 8, "height": 6}
        annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0}
        document = {
            "images": [image | {"id": k, "file_name": f"{k}.png"} for k in (1, 2)],
            "annotations": [annotation | {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}],
            "categories": [{"id": 3, "name": "cat"}],
        }
        if name == "val":
            document["annotations"][0].update({k: v for k, v in changes.items() if k != "file_name"})
            document["images"][0].update({k: v for k, v in changes.items() if k == "file_name"})
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(document))
    return root


def folder(root: Path) -> Path:
    """Classified pictures."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(root / split / name / "1.png")
    return root


def states(root: Path) -> dict[str, str]:
    return {finding.probe: finding.state for finding in examine(root) if finding.probe in ("dense", "knn")}


def test_a_coco_root_is_for_the_dense_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = coco(tmp_path / "coco")
    assert states(root) == {"dense": "usable", "knn": "foreign"}
    assert check(root) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("dense")]
    assert line.split(maxsplit=2)[1:] == [
        "ok",
        "trains on train (2 images, 1 annotations); tests on val (2 images, 1 annotations); 1 classes",
    ]


def test_a_class_folder_is_for_the_knn_probe(tmp_path: Path) -> None:
    root = folder(tmp_path / "folder")
    assert states(root) == {"dense": "foreign", "knn": "usable"}
    assert check(root) == 0


def test_a_root_for_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert states(tmp_path) == {"dense": "foreign", "knn": "foreign"}
    assert check(tmp_path) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file_name": "gone.png"}, "gone.png"),
        ({"file_name": "../train/1.png"}, "expected a file name inside"),
        ({"bbox": [1, 1, float("nan"), 2]}, "expected finite numbers in bbox"),
        ({"bbox": [1, 1, -3, 2]}, "sides of at least 0"),
        ({"category_id": 4}, "unknown category_id 4"),
        ({"image_id": 9}, "unknown image_id 9"),
    ],
)
def test_broken_data_is_called_broken_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], reason: str
) -> None:
    root = coco(tmp_path / "coco", **changes)
    assert states(root)["dense"] == "broken"
    assert check(root) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("dense")]
    assert line.split()[1] == "BROKEN"
    assert reason in line


@pytest.mark.parametrize("victim", ["picture", "mask"])
def test_damaged_pictures_and_masks_are_found_on_request(tmp_path: Path, victim: str) -> None:
    if victim == "picture":
        root = coco(tmp_path / "coco")
        (root / "val" / "2.png").write_bytes(b"no picture")
    else:
        root = coco(tmp_path / "coco", segmentation=[[1, 1, 4, 1, 4]])
    assert states(root)["dense"] == "usable"
    (finding,) = [finding for finding in examine(root, decode=True) if finding.probe == "dense"]
    assert finding.state == "broken"
    assert ("2.png" if victim == "picture" else "annotation 1") in finding.text


def test_an_instance_without_a_mask_is_a_fault_to_the_probe_that_trains_on_masks(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    path = root / "annotations" / "instances_val.json"
    document = json.loads(path.read_text())
    bare = document["annotations"][0] | {"id": 999, "segmentation": []}
    path.write_text(json.dumps(document | {"annotations": [*document["annotations"], bare]}))
    found = {finding.probe: finding for finding in examine(root, decode=True)}
    assert found["dense"].state == "broken"
    assert "annotation 999" in found["dense"].text
    assert found["detection"].state == "usable"


def test_damaged_classified_pictures_are_found_on_request(tmp_path: Path) -> None:
    root = folder(tmp_path / "folder")
    assert check(root, decode=True) == 0
    (root / "test" / "b" / "1.png").write_bytes(b"no picture")
    assert check(root) == 0
    assert check(root, decode=True) == 2


def test_damaged_json_is_broken_even_where_no_split_tests(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    (root / "annotations" / "instances_val.json").unlink()
    assert states(root)["dense"] == "foreign"
    (root / "annotations" / "instances_train.json").write_text("{")
    assert states(root)["dense"] == "broken"


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected a dataset folder"):
        check(tmp_path / "nope")


@pytest.mark.data
def test_real_data_is_sound(shared_data: Path) -> None:
    assert states(shared_data / "coco") == {"dense": "usable", "knn": "foreign"}
    assert states(shared_data / "facade") == {"dense": "foreign", "knn": "foreign"}  # a valid split alone


def test_words_are_for_the_text_probe_alone(tmp_path: Path) -> None:
    root = materialise(WorldConfig(layout="icdar", size=64, train=6, test=3, words=(1, 3)), tmp_path / "world")
    assert {finding.probe for finding in examine(root) if finding.state == "usable"} == {"text"}


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        *(("scenes", layout) for layout in ("coco", "lvis", "roboflow", "voc", "icdar")),
        *(("clips", layout) for layout in ("coco", "got10k", "lasot", "trackingnet", "tnl2k")),
        ("crops", "coco"),
    ],
)
def test_what_one_probe_reads_is_foreign_to_another_and_never_broken(kind: Any, layout: Any, tmp_path: Path) -> None:
    config = WorldConfig(kind=kind, layout=layout, size=64, train=6, test=3, frames=20, words=(1, 3))
    root = materialise(config, tmp_path / "world")
    assert {finding.probe: finding.text for finding in examine(root) if finding.state == "broken"} == {}


@pytest.mark.parametrize("layout", ["llava", "refer"])
def test_a_generated_world_of_conversations_is_broken_for_no_probe(layout: Any, tmp_path: Path) -> None:
    """Its questions are of tasks of its own, which is no fault of those that are asked by default."""
    things = {"objects": (1, 4), "words": (1, 1)} if layout == "llava" else {"objects": (3, 5), "words": (0, 0)}
    root = materialise(WorldConfig(layout=layout, size=96, train=24, test=8, **things), tmp_path / "world")
    assert {finding.probe: finding.text for finding in examine(root) if finding.state == "broken"} == {}


def test_data_is_not_called_broken_for_a_package_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(include: Any) -> Any:
        raise missing("lmms-eval", "mllm")

    monkeypatch.setattr("mllm.llava.benchmarks._definitions", absent)
    for name in ("pretrain", "instruct"):
        (tmp_path / f"{name}.json").write_text("[]")
    (finding,) = (finding for finding in examine(tmp_path) if finding.probe == "llava")
    assert finding.state == "foreign"
    assert "rice-suite[mllm]" in finding.text


def test_a_dataset_of_one_split_is_broken_for_no_probe(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    (root / "annotations" / "instances_train.json").unlink()
    findings = {finding.probe: finding for finding in examine(root)}
    assert {finding.state for finding in findings.values()} == {"foreign"}
    for probe in ("dense", "detection", "tracking"):
        assert "train_split" in findings[probe].text
