"""The verbs eval and segment as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_lisa import write_lisa
from tiny_parts import noise

from mllm.lisa.items import SplitItems, resampling
from mllm.lisa.segment_command import line
from probes.results import documents, items_path
from rice.cli import main

SIZE = (40, 60)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lisa(tmp_path_factory.mktemp("lisa") / "model")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures, of which each has an expression with a mask, one with a box alone, and one without a target."""
    folder = tmp_path / "root"
    (folder / "coco/annotations").mkdir(parents=True)
    (folder / "coco/val2017").mkdir()
    images, annotations, items = [], [], []
    for number in (1, 2, 3):
        name = f"{number:012}.jpg"
        noise(*SIZE, number).save(folder / "coco/val2017" / name)
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        polygon = [10, 10, 50, 10, 50, 30, 10, 30]
        fields = {"image_id": number, "category_id": 1, "bbox": [10, 10, 40, 20], "area": 800, "iscrowd": 0}
        annotations.append({"id": 7 + number, "segmentation": [polygon], **fields})
        about = {"file_name": f"val2017/{name}", "image_id": number}
        items += [
            {
                **about,
                "expression": "the box",
                "box_xyxy": [10, 10, 50, 30],
                "empty": False,
                "annotation_id": 7 + number,
            },
            {**about, "expression": "its part", "box_xyxy": [10, 10, 20, 30], "empty": False, "annotation_id": None},
            {**about, "expression": "a dog", "box_xyxy": None, "empty": True, "annotation_id": None},
        ]
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    (folder / "coco/annotations/instances_val2017.json").write_text(json.dumps(instances))
    (folder / "expressions.json").write_text(json.dumps(items))
    return folder


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def evaluate(model: Path, root: Path, out: Path, *more: str) -> list[str]:
    words = ["--data", str(root), "--out", str(out), "--device", "cpu", "--max-new-tokens", "4"]
    return ["lisa", "eval", str(model), *words, *more]


def test_eval_stores_a_result_whose_items_make_its_numbers(
    model: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(evaluate(model, root, out))
    said = capsys.readouterr().out
    assert "expressions_val (n = 9)  ciou_forced" in said
    assert "left out" not in said
    assert "rice tables --paper --with" in said
    (stored,) = documents(out)
    metrics = {metric["name"]: metric for metric in stored["metrics"]}
    assert (stored["dataset"], stored["identity"]["probe"], stored["encoder"]) == (
        "expressions_val",
        "lisa-eval",
        "tiny",
    )
    assert {name: metrics[name]["n"] for name in ("ciou_forced", "n_acc", "t_acc")} == {
        "ciou_forced": 9, "n_acc": 3, "t_acc": 6,
    }  # fmt: skip
    (one,) = SplitItems.resampling(items_path(out, stored["key"]))
    found = {name: value[0] for name, value in one.scores(np.ones((1, 3))).items()}
    assert found == pytest.approx({name: metric["value"] for name, metric in metrics.items()})
    main(evaluate(model, root, out))  # nothing new
    assert len(list(documents(out))) == 1


def test_what_is_not_judged_is_told_by_reason(
    model: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "coco/val2017" / f"{2:012}.jpg").unlink()
    for out in (tmp_path / "out", tmp_path / "out"):  # and again where all is there
        main(evaluate(model, root, out))
        said = capsys.readouterr().out
        assert "expressions_val: left out: missing picture file: 3 (3, 4, 5)" in said.splitlines()
        assert "expressions_val (n = 6)  ciou_forced" in said


def test_mistakes_are_one_line_before_anything_is_computed(
    model: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "refcoco_val" in refused(evaluate(model, root, out, "--splits", "refcoco_val"), capsys)
    assert "at least 1" in refused(evaluate(model, root, out, "--limit", "0"), capsys)
    assert "rice lisa train" in refused(evaluate(root, root, out), capsys)
    assert not out.exists()


def segment(model: Path, image: Path, out: Path, *expressions: str) -> list[str]:
    words = ["--model", str(model), "--out", str(out), "--device", "cpu", "--max-new-tokens", "4"]
    return ["lisa", "segment", str(image), *expressions, *words]


def test_segment_writes_a_mask_for_each_expression_and_one_overlay(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(*SIZE).save(tmp_path / "picture.png")
    main(segment(model, tmp_path / "picture.png", tmp_path / "out", "the box", "a dog"))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    for k in (1, 2):
        mask = np.asarray(Image.open(tmp_path / "out" / f"mask-{k}.png"))
        assert mask.shape == SIZE
        assert set(np.unique(mask)) <= {0, 255}
        assert f"mask-{k}.png" in said[k - 1]
    assert Image.open(tmp_path / "out" / "overlay.png").width >= SIZE[1]


def test_masks_of_an_earlier_run_do_not_stay_beside_a_new_overlay(model: Path, tmp_path: Path) -> None:
    noise(*SIZE).save(tmp_path / "picture.png")
    out = tmp_path / "out"
    main(segment(model, tmp_path / "picture.png", out, "the box", "a dog", "a cat"))
    (out / "mask-of-mine.png").write_bytes(b"")
    main(segment(model, tmp_path / "picture.png", out, "the box"))
    assert {path.name for path in out.iterdir()} == {"mask-1.png", "mask-of-mine.png", "overlay.png"}


@pytest.mark.parametrize("most", ["0", "-1"])
def test_answers_of_no_token_are_refused_before_anything_is_loaded(
    most: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lisa", "segment", "absent.png", "x", "--model", "absent", "--out", str(tmp_path / "out")]
    assert "--max-new-tokens of at least 1" in refused([*words, "--max-new-tokens", most], capsys)


def test_an_answer_without_a_mask_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mask-1.png"
    assert "no [SEG], so an empty mask" in line("a dog", "It is not in this image.", 0, 0.0, path)
    assert "an empty mask" in line("a dog", "[SEG].", 1, 0.0, path)
    assert "12.5% of the picture, the union of 2 masks" in line("dogs", "[SEG] and [SEG].", 2, 0.125, path)


def test_an_empty_expression_is_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(*SIZE).save(tmp_path / "picture.png")
    for text in ("", "  "):
        assert "empty" in refused(segment(model, tmp_path / "picture.png", tmp_path / "out", "the box", text), capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_real_expressions_are_judged_end_to_end(
    model: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(evaluate(model, shared_data, out, "--limit", "12"))
    (stored,) = documents(out)
    rows = pd.read_parquet(items_path(out, stored["key"]))
    assert rows["id"].is_unique
    assert rows["picture"].nunique() == 12
    truth = {entry["expression"].strip(): entry["empty"] for entry in json.loads(
        (shared_data / "refcoco" / "expressions.json").read_text()
    )}  # fmt: skip
    assert [not target for target in rows["target"]] == [truth[text] for text in rows["text"]]
    assert not rows["target"].all()
    assert len(resampling(items_path(out, stored["key"]))) == 1
