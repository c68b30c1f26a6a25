"""`rice detect score` as a user types it."""

import csv
import json
import re
from pathlib import Path

import pytest
from score_samples import COCO_KEYS, Json, by_pycocotools, small_predictions, small_truth

from rice import cli


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(cli.VERBS, "detect score", ("probes.detection.score_command:score", "Score detections."))
    write(tmp_path, small_truth(), small_predictions(bbox=[3, 3, 10, 8]))
    return tmp_path


def write(folder: Path, truth: Json, predictions: list[Json]) -> None:
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(predictions))


def rice(folder: Path, *arguments: str) -> None:
    cli.main(["detect", "score", "--gt", str(folder / "gt.json"), "--pred", str(folder / "dt.json"), *arguments])


def test_json_is_one_object_with_pycocotools_figures(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rice(files, "--json")
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1
    values = json.loads(printed)
    engine = by_pycocotools(files, small_truth(), small_predictions(bbox=[3, 3, 10, 8]), "bbox")
    assert [values[key] for key in COCO_KEYS] == pytest.approx(engine.stats.tolist(), abs=1e-12)
    rest = {key: value for key, value in values.items() if key not in COCO_KEYS}
    assert list(rest) == ["iou", "evaluator", "lvis", "images", "detections", "per_class", "versions", "notes"]
    assert (rest["iou"], rest["evaluator"], rest["lvis"]) == ("bbox", "faster", False)
    assert (rest["images"], rest["detections"]) == (2, 2)
    assert list(rest["per_class"][0]) == ["id", "name", "AP", "AP50", "instances"]
    assert list(rest["versions"]) == ["faster-coco-eval"]


def test_the_table_ranks_the_categories(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = small_truth()
    truth["categories"].append({"id": 50, "name": "absent"})
    write(files, truth, small_predictions(bbox=[3, 3, 10, 8]))
    rice(files)
    lines = capsys.readouterr().out.splitlines()
    assert "bbox, COCO's protocol, by faster-coco-eval" in lines[0]
    assert lines[1].split() == list(COCO_KEYS)
    assert lines[2].split()[5] == "-1"  # no large instance
    assert [line.split()[3] for line in lines[5:]] == ["7", "0", "50"]
    assert [line.split()[0] for line in lines[5:]] == ["1.000", "0.700", "-1"]


def test_out_holds_scores_table_and_curves(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rice(files, "--json", "--iou", "segm", "--lvis", "--max-detections", "20", "--out", str(files / "out"))
    printed = json.loads(capsys.readouterr().out)
    assert printed["lvis"] is True
    assert "AR20" in printed
    assert json.loads((files / "out" / "scores.json").read_text()) == printed
    with (files / "out" / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["AP"]) for row in rows] == [row["AP"] for row in printed["per_class"]]
    assert {path.name for path in (files / "out").iterdir()} == {
        "scores.json",
        "per_class.csv",
        *(f"precision_recall{part}.{kind}" for part in ("", "_classes") for kind in ("png", "pdf")),
    }


@pytest.mark.parametrize(
    ("predictions", "arguments", "words"),
    [
        ('[{"image_id": 1', (), "not valid JSON"),
        (json.dumps(small_predictions(image_id=9)), (), "unknown image_id 9"),
        (json.dumps(small_predictions(score=float("nan"))), (), "finite number as score"),
        (
            json.dumps([{"image_id": 1, "category_id": 0, "score": 1, "bbox": [0, 0, 1, 1]}]),
            ("--iou", "segm"),
            "--iou bbox",
        ),
        ("[]", ("--evaluator", "lvis"), "--lvis"),
        ("[]", ("--max-detections", "0"), "at least 1"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(
    files: Path, capsys: pytest.CaptureFixture[str], predictions: str, arguments: tuple[str, ...], words: str
) -> None:
    (files / "dt.json").write_text(predictions)
    with pytest.raises(SystemExit) as caught:
        rice(files, "--out", str(files / "out"), *arguments)
    out, error = capsys.readouterr()
    assert caught.value.code == 2
    assert out == ""
    assert len(error.splitlines()) == 1
    assert words in error
    assert not (files / "out").exists()


def test_a_file_cannot_be_the_out_folder(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rice(files, "--out", str(files / "gt.json"))
    assert "expected a folder as --out" in capsys.readouterr().err


def test_the_command_line_is_frozen(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rice(files, "--help")
    text = capsys.readouterr().out
    flags = {"--help", "--gt", "--pred", "--iou", "--lvis", "--evaluator", "--max-detections", "--json", "--out"}
    assert set(re.findall(r"^[│ ]*(?:-h, )?(--[a-z][a-z-]*)", text, flags=re.MULTILINE)) == flags
    assert "Example: rice detect score --gt" in text
    assert "-1 means" in text
