"""`rice import` as a user types it: detections and tracks are scored, all is checked before anything is written.

The files of lmms-eval and mteb are in the form that the packages wrote, see tests/probes/import_formats.
"""

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import reports
from probes.detection.probe import DetectionProbe
from probes.import_formats.scales import TABLE_1
from probes.protocol import Resamples
from probes.results import items_path, load
from rice import cli
from tracking.probe import TrackingProbe
from tracking.protocols import PROTOCOLS

Json = dict[str, Any]

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
LMMS = {
    "results": {
        "infovqa_val": {"anls,none": 0.4523, "anls_stderr,none": 0.01},
        "mme": {"mme_cognition_score,none": 437},
    },
    "configs": {"infovqa_val": {"test_split": "validation"}, "mme": {"test_split": "test"}},
    "versions": {"infovqa_val": "Yaml", "mme": "Yaml"},
    "n-shot": {"infovqa_val": 0, "mme": 0},
    "n-samples": {"infovqa_val": {"original": 2801, "effective": 2801}},
    "config": {"model": "llava_hf", "model_args": "pretrained=org/model"},
    "model_name": "org/model",
}


def rle(x: int, y: int, w: int, h: int) -> Json:
    """A box as a mask of 40 x 30, in uncompressed run lengths."""
    pixels = np.zeros((30, 40), dtype=bool)
    pixels[y : y + h, x : x + w] = True
    flat = pixels.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [30, 40], "counts": [0, *counts] if flat[0] else counts}


def truth() -> Json:
    """Eight images of two categories, an instance of each."""
    rng = np.random.default_rng(0)
    boxes = [[int(v) for v in (*rng.integers(0, 12, 2), *rng.integers(6, 14, 2))] for _ in range(16)]
    annotations = [
        {"id": k + 1, "image_id": k // 2 + 1, "category_id": 1 + 6 * (k % 2), "bbox": box, "area": box[2] * box[3]}
        | {"iscrowd": 0, "segmentation": rle(*box)}
        for k, box in enumerate(boxes)
    ]
    images = [{"id": i, "width": 40, "height": 30} for i in range(1, 9)]
    return {
        "images": images,
        "categories": [{"id": 1, "name": "a"}, {"id": 7, "name": "b"}],
        "annotations": annotations,
    }


def detections(masks: bool = True) -> list[Json]:
    """Of each instance one that is askew, and one that is nowhere near."""
    rng = np.random.default_rng(1)
    found = []
    for annotation in truth()["annotations"]:
        x, y, w, h = annotation["bbox"]
        for box in ([x + int(rng.integers(0, 3)), y, w, h + int(rng.integers(0, 3))], [30, 22, 5, 5]):
            record = {key: annotation[key] for key in ("image_id", "category_id")}
            record |= {"bbox": box, "score": round(float(rng.random()), 4)}
            found.append(record | ({"segmentation": rle(*box)} if masks else {}))
    wide = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 39, 29], "score": 0.99}  # medium by its box, its mask small
    found.append(wide | ({"segmentation": rle(30, 22, 5, 5)} if masks else {}))
    return found


def by_pycocotools(folder: Path, kind: str) -> list[float]:
    """The first six figures of the reference; masks by their own area."""
    records = json.loads((folder / "dt.json").read_text())
    if kind == "segm":
        records = [{key: value for key, value in record.items() if key != "bbox"} for record in records]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "instances_tiny.json"))
        for annotation in coco.dataset["annotations"]:
            annotation["segmentation"] = coco.annToRLE(annotation)
        for record in records:
            if "segmentation" in record:
                record["segmentation"] = coco.annToRLE({"segmentation": record["segmentation"], "image_id": 1})
        engine = COCOeval(coco, coco.loadRes(records), kind)
        engine.evaluate()
        engine.accumulate()
        engine.summarize()
    return engine.stats[:6].tolist()  # type: ignore[no-any-return]


def lines(boxes: list[list[float]]) -> str:
    return "".join(",".join(map(str, box)) + "\n" for box in boxes)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(cli.VERBS, "import", ("reports.import_command:import_results", "Results made elsewhere."))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "instances_tiny.json").write_text(json.dumps(truth()))
    (tmp_path / "dt.json").write_text(json.dumps(detections()))
    (tmp_path / "lmms.json").write_text(json.dumps(LMMS))
    for folder in ("annos", "tracks", "absent"):
        (tmp_path / folder).mkdir()
    still, far = [[10, 10, 20, 20]] * 4, [[10, 10, 20, 20], *[[200, 200, 20, 20]] * 3]
    for name, track in (("bear-1", still), ("cat-2", far), ("dog-3", still)):
        (tmp_path / "annos" / f"{name}.txt").write_text(lines(still))
        (tmp_path / "tracks" / f"{name}.txt").write_text(lines(track))
        (tmp_path / "absent" / f"{name}.txt").write_text("0\n0\n0\n0\n")
    return tmp_path


def rice(*arguments: str) -> None:
    cli.main(["import", *arguments, "--out", "out"])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as caught:
        rice(*arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before
    return printed.err


def test_detections_are_stored_with_pycocotools_figures_under_the_probe_s_names(room: Path) -> None:
    rice("dt.json", "--gt", "instances_tiny.json", "--encoder", "rice-b16-512", "--dataset", "coco")
    frame = load(room / "out")
    values = dict(zip(frame["metric"], frame["value"], strict=True))
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        expected = {f"{name} {k}": v for k, v in zip(KEYS, by_pycocotools(room, kind), strict=True) if v >= 0}
        assert {k: v for k, v in values.items() if k.startswith(name)} == pytest.approx(expected, abs=1e-12)
    assert 0 < values["box AP"] < 1
    row = frame.iloc[0]
    assert (row.encoder, row.reference, row.probe, row.dataset) == ("rice-b16-512",) * 2 + ("detection", "coco")
    assert (row.split, row.n, row.unit, row.norm) == ("tiny", 8, "fraction", "none")
    errors = dict(zip(frame["metric"], frame["stderr"], strict=True))
    assert errors["box AP"] > 0
    assert errors["mask AP50"] > 0


def test_items_give_the_stored_values_again_by_the_probes_own_reading(room: Path) -> None:
    rice("dt.json", "--gt", "instances_tiny.json", "--encoder", "x")
    rice("tracks", "--gt", "annos", "--absent", "absent", "--protocol", "lasot-matlab", "--encoder", "x")
    frame = load(room / "out")
    for probe, kind in (("detection", DetectionProbe), ("tracking", TrackingProbe)):
        assert isinstance(kind, Resamples)
        rows = frame[frame["probe"] == probe]
        again = {}
        for sample in kind.resampling(items_path(room / "out", rows["key"].iloc[0])):
            again |= {k: float(v[0]) for k, v in sample.scores(np.ones((1, len(sample.ids)))).items()}
        stored = dict(zip(rows["metric"], rows["value"], strict=True))
        shared = stored.keys() & again.keys()
        assert len(shared) >= 3
        assert {k: again[k] for k in shared} == pytest.approx({k: stored[k] for k in shared}, abs=1e-9)


@pytest.mark.parametrize(
    ("given", "names"), [(["--iou", "bbox"], {"box"}), (["--iou", "segm"], {"mask"}), ([], {"box"})]
)
def test_boxes_and_masks_are_scored_where_they_are(room: Path, given: list[str], names: set[str]) -> None:
    if not given:
        (room / "dt.json").write_text(json.dumps(detections(masks=False)))
    rice("dt.json", "--gt", "instances_tiny.json", "--encoder", "x", *given)
    frame = load(room / "out")
    assert {name.split()[0] for name in frame["metric"]} == names
    assert items_path(room / "out", frame["key"].iloc[0]).exists() is ("box" in names)  # a mask's items are no box's


def test_a_truth_with_lvis_lists_is_judged_by_lvis_protocol(room: Path) -> None:
    document = truth()
    for image in document["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for category, frequency in zip(document["categories"], "rf", strict=True):
        category["frequency"] = frequency
    (room / "instances_tiny.json").write_text(json.dumps(document))
    rice("dt.json", "--gt", "instances_tiny.json", "--encoder", "x", "--iou", "bbox")
    frame = load(room / "out")
    assert {"box APr", "box APf"} <= set(frame["metric"])
    assert frame["protocol"].str.contains("LVIS").all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tracks_are_stored_as_fractions_under_the_probe_s_names(room: Path, protocol: str) -> None:
    rice("tracks", "--gt", "annos", "--protocol", protocol, "--encoder", "x", "--dataset", "boxes")
    frame = load(room / "out")
    values = dict(zip(frame["metric"], frame["value"], strict=True))
    title = {"got10k": "GOT-10k", "lasot-matlab": "LaSOT", "trackingnet": "TrackingNet", "tnl2k": "TNL2K"}
    name = title.get(protocol, "clips")
    if protocol == "got10k":  # without the first frames: two of three sequences are right
        assert values == pytest.approx({f"{name} AO": 2 / 3, f"{name} SR0.5": 2 / 3, f"{name} SR0.75": 2 / 3})
    else:  # with them: three of three frames of two sequences, one of four of the other
        hits = (1 + 1 + 1 / 4) / 3
        assert set(values) == {f"{name} {score}" for score in ("success", "precision", "norm. precision")}
        assert values[f"{name} precision"] == pytest.approx(hits, abs=0.01)
    row = frame.iloc[0]
    assert (row.probe, row.dataset, row.n, row.unit) == ("tracking", "boxes", 3, "fraction")
    assert row.protocol.startswith(f"{protocol}: ")


def test_the_truth_makes_the_dataset_s_fingerprint(room: Path) -> None:
    arguments = ["dt.json", "--gt", "instances_tiny.json", "--encoder", "x"]
    rice(*arguments)
    (room / "tracks" / "cat-2.txt").write_text(lines([[10, 10, 20, 20]] * 4))
    document = truth()
    document["annotations"][0]["bbox"][0] += 1
    (room / "instances_tiny.json").write_text(json.dumps(document))
    rice(*arguments)
    frame = load(room / "out")
    assert frame["dataset_fingerprint"].nunique() == 2
    assert frame["encoder_fingerprint"].nunique() == 1


def test_several_files_are_stored_with_a_line_each_and_how_to_go_on(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rice("lmms.json", "dt.json", "--gt", "instances_tiny.json", "--encoder", "mini-s8-128")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == ("stored         mini-s8-128  lmms-eval  infovqa_val (validation, n = 2,801)  anls 0.4523 ± 0.01")
    assert said[1] == "stored         mini-s8-128  lmms-eval  mme (test)  mme_cognition_score 437 points"
    assert said[2].startswith("stored         mini-s8-128  detection  tiny (tiny, n = 8)  box AP 0.")
    assert said[-1] == "3 stored in out. Next: rice tables out, or rice report out"
    rice("lmms.json", "--encoder", "mini-s8-128")
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 stored in out, 2 there already.")


def test_a_dry_run_says_the_same_and_writes_nothing(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rice("lmms.json", "--dry-run")
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in said[:2]] == [["new", "org/model", "lmms-eval"]] * 2
    assert said[-1] == "2 to be stored in out; nothing was written"
    assert not (room / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "at least one file"),
        (("lmms.json", "none.json"), "none.json"),
        (("lmms.json", "dt.json"), "--gt"),
        (("lmms.json", "dt.json", "--gt", "instances_tiny.json"), "--encoder"),
        (("lmms.json", "dt.json", "--encoder", "x"), "--gt"),
        (("lmms.json", "dt.json", "--encoder", "x", "--gt", "lmms.json"), "expected"),
        (("lmms.json", "dt.json", "--encoder", "x", "--gt", "none.json"), "none.json"),
        (
            ("lmms.json", "dt.json", "--encoder", "x", "--gt", "instances_tiny.json", "--dataset", "../x"),
            "parent folder",
        ),
        (("lmms.json", "broken.json"), "broken.json is not valid JSON"),
        (("lmms.json", "instances_tiny.json"), "instances_tiny.json is in no known format"),
        (("lmms.json", "tracks", "--encoder", "x"), "--gt"),
        (("lmms.json", "tracks", "--gt", "annos"), "--encoder"),
        (("lmms.json", "tracks", "--gt", "annos", "--encoder", "x"), "--protocol"),
        (("lmms.json", "annos/..", "--gt", "annos", "--encoder", "x", "--protocol", "ostrack"), "expected"),
        (
            ("tracks", "--gt", "annos", "--encoder", "x", "--protocol", "got10k", "--absent", "absent"),
            "--absent is not",
        ),
        (("lmms.json", "--gt", "annos"), "--gt is for results to be scored"),
        (("lmms.json", "--dataset", "coco"), "--dataset is for results to be scored"),
        (("lmms.json", "--iou", "bbox"), "--iou is for"),
        (("tracks", "--gt", "annos", "--encoder", "x", "--protocol", "ostrack", "--iou", "bbox"), "--iou is for"),
        (("dt.json", "--gt", "instances_tiny.json", "--encoder", "x", "--protocol", "ostrack"), "--protocol is for"),
        (("lmms.json", "--encoder", "<b>x</b>"), "markup"),
        (("lmms.json", "--encoder", ""), "name"),
        (("lmms.json", "--encoder", "mini-s8-128@13"), "native size"),
    ],
)
def test_bad_input_ends_with_one_line_and_nothing_written(
    room: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    (room / "broken.json").write_text(json.dumps(LMMS)[:-4])
    assert words in refusal(capsys, *arguments)


def test_a_changed_value_is_refused_and_replaced_when_asked(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["dt.json", "--gt", "instances_tiny.json", "--encoder", "x"]
    rice(*arguments)
    (room / "dt.json").write_text(json.dumps(detections()[1:]))
    capsys.readouterr()
    assert "--overwrite" in refusal(capsys, *arguments)
    rice(*arguments, "--overwrite")
    assert capsys.readouterr().out.startswith("replaced ")
    frame = load(room / "out")
    box = frame[frame["metric"] == "box AP"]["value"].tolist()
    assert box == pytest.approx([by_pycocotools(room, "bbox")[0]], abs=1e-12)
    rice(*arguments, "--seed", "1")
    assert sorted(set(load(room / "out")["seed"])) == [0, 1]


def test_table_1_names_the_paper_s_columns() -> None:
    with (Path(reports.__file__).parent / "paper" / "table1.csv").open() as file:
        columns = dict.fromkeys(row["column"] for row in csv.DictReader(file))
    assert list(TABLE_1) == [column for column in columns if not column.endswith("Avg")]
