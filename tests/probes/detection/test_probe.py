"""The sweep probe: what it yields, refuses and says of odd data."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from worlds import CONFIG, ENCODER, config, edited, world

from probes.detection.probe import DetectionProbe
from probes.protocol import Metric, NotThisLayoutError, identity
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.errors import RiceError
from rice.progress import SilentProgress


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(ENCODER)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return world(tmp_path / "scenes")


def run(root: Path, encoder: Encoder, workdir: Path, settings: Any = CONFIG, seed: int = 0) -> dict[str, Metric]:
    probe = DetectionProbe(settings, root)
    found = probe.run(encoder, seed=seed, workdir=workdir, progress=SilentProgress())
    return {metric.name: metric for metric in found}


def test_metrics_are_pycocotools_own_of_the_results_that_are_left(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    low = config(heads=CONFIG.heads.__class__(**vars(CONFIG.heads) | {"score_threshold": 0.001}), learning_rate=1e-2)
    metrics = run(root, encoder, tmp_path / "work", low)
    (results,) = (tmp_path / "work").rglob("results.json")
    truth = COCO(str(root / "annotations/instances_val.json"))
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        given = json.loads(results.read_text())
        if kind == "segm":
            given = [{k: v for k, v in r.items() if k != "bbox"} for r in given]
        judge = COCOeval(truth, truth.loadRes(given), kind)
        judge.evaluate(), judge.accumulate(), judge.summarize()
        for key, value in zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), judge.stats, strict=False):
            if value >= 0:
                assert metrics[f"{name} {key}"].value == pytest.approx(value, abs=1e-9)
    assert metrics["box AP"].n == 6
    assert "COCO's protocol" in metrics["mask AP"].protocol


def test_a_seed_gives_the_same_numbers_and_items_tell_the_images(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    first, again = (run(root, encoder, tmp_path / name) for name in ("one", "two"))
    assert {n: m.value for n, m in first.items()} == {n: m.value for n, m in again.items()}
    items = pd.read_parquet(tmp_path / "one/items.parquet")
    assert sorted(items["image_id"]) == [1, 2, 3, 4, 5, 6]


def test_cached_features_give_the_same_numbers(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    plain = run(root, encoder, tmp_path / "plain")
    cached = run(root, encoder, tmp_path / "cached", config(cache_gb=1.0))
    assert {n: m.value for n, m in plain.items()} == {n: m.value for n, m in cached.items()}
    assert identity(CONFIG) == identity(config(cache_gb=1.0)), "how features are read is no part of a result's identity"


def test_lvis_has_its_own_metrics(encoder: Encoder, tmp_path: Path) -> None:
    root = world(tmp_path / "lvis", layout="lvis", train=30)
    metrics = run(root, encoder, tmp_path / "work", config(repeat_threshold=0.3))
    assert "LVIS's federated protocol" in metrics["box AP"].protocol
    assert metrics.keys() & {"box APr", "box APc", "box APf"}


@pytest.mark.parametrize("layout", ["roboflow", "voc"])
def test_other_layouts_train_and_are_judged(encoder: Encoder, tmp_path: Path, layout: str) -> None:
    metrics = run(world(tmp_path / layout, layout=layout), encoder, tmp_path / "work")
    assert "box AP" in metrics
    assert ("mask AP" in metrics) == (layout == "roboflow")


def test_a_suite_is_judged_by_domain(encoder: Encoder, tmp_path: Path) -> None:
    names = {"aerial-cows": 1, "cloud-types": 2, "peixos-fish": 3}
    for name, seed in names.items():
        world(tmp_path / "suite" / name, layout="roboflow", train=6, test=3, seed=seed)
    world(tmp_path / "suite/my-own", layout="roboflow", train=6, test=3)
    probe = DetectionProbe(CONFIG, tmp_path / "suite")
    assert "3 datasets" in probe.inspect()
    assert "97 are missing; not of it, and left out: my-own" in probe.inspect()
    metrics = run(tmp_path / "suite", encoder, tmp_path / "work")
    items = pd.read_parquet(tmp_path / "work/items.parquet").set_index("id")["box AP"]
    assert metrics["aerial AP"].value == pytest.approx((items["aerial-cows"] + items["cloud-types"]) / 2)
    assert metrics["underwater AP"].value == pytest.approx(items["peixos-fish"])
    assert "AVG AP" not in metrics, "a mean of two domains is not the paper's mean of seven"
    kept = {path.stat().st_mtime_ns for path in (tmp_path / "work/suite").iterdir()}
    run(tmp_path / "suite", encoder, tmp_path / "work")
    assert {path.stat().st_mtime_ns for path in (tmp_path / "work/suite").iterdir()} == kept, (
        "nothing is computed twice"
    )


def crowd_only(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["iscrowd"] = 1


def no_annotations(document: dict[str, Any]) -> None:
    document["annotations"] = []


def flat_boxes(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["bbox"][2] = 0


@pytest.mark.parametrize(
    ("split", "change", "kind", "message"),
    [
        ("train", no_annotations, NotThisLayoutError, "expected annotated boxes, found none"),
        ("train", crowd_only, RiceError, "expected annotations to learn from"),
        ("train", flat_boxes, RiceError, "expected annotations to learn from"),
        ("val", crowd_only, RiceError, "expected instances to be judged on"),
    ],
)
def test_data_without_anything_to_learn_or_to_judge_is_refused_in_one_line(
    root: Path, split: str, change: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        DetectionProbe(CONFIG, edited(root, split, change)).inspect()
    assert "\n" not in str(caught.value)


def giant(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["bbox"] = [-1000.0, -1000.0, 5000.0, 5000.0]
        annotation["segmentation"] = [[0, 0, 64, 0, 64, 64, 0, 64]]


def no_area(document: dict[str, Any]) -> None:
    document["annotations"][0]["segmentation"] = [[3, 3, 3, 3, 3, 3]]
    document["annotations"][1]["segmentation"] = [[3, 3, 9, 9]]


def gaps(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["category_id"] = annotation["category_id"] * 7 + 3
    for category in document["categories"]:
        category["id"] = category["id"] * 7 + 3


def twins(document: dict[str, Any]) -> None:
    for category in document["categories"][:2]:
        category["name"] = "twin"


@pytest.mark.parametrize("change", [giant, no_area, gaps, twins])
def test_odd_annotations_are_handled_as_cocos_tools_do(
    encoder: Encoder, root: Path, tmp_path: Path, change: Any
) -> None:
    for split in ("train", "val"):
        edited(root, split, change)
    settings = config(epochs=1)
    metrics = run(root, encoder, tmp_path / "work", settings)
    assert 0 <= metrics["box AP"].value <= 1


def test_masks_that_are_asked_for_and_missing_are_named(root: Path) -> None:
    def bare(document: dict[str, Any]) -> None:
        document["annotations"][4]["segmentation"] = []

    heads = CONFIG.heads.__class__(**vars(CONFIG.heads) | {"masks": "always"})
    with pytest.raises(RiceError, match="annotation 5 has no segmentation"):
        DetectionProbe(config(heads=heads), edited(root, "train", bare)).inspect()
    assert "boxes;" not in DetectionProbe(CONFIG, root).inspect()


def test_the_fingerprint_follows_the_annotations_and_a_suites_members(root: Path, tmp_path: Path) -> None:
    before = DetectionProbe(CONFIG, root).fingerprint()
    assert DetectionProbe(CONFIG, root).fingerprint() == before
    assert DetectionProbe(CONFIG, edited(root, "val", gaps)).fingerprint() != before
    suite, named = tmp_path / "suite", config(suite="roboflow100")
    world(suite / "peixos-fish", layout="roboflow", train=2, test=2)
    alone = DetectionProbe(named, suite).fingerprint()
    world(suite / "aerial-pool", layout="roboflow", train=2, test=2, seed=1)
    assert DetectionProbe(named, suite).fingerprint() != alone


def test_work_is_counted_by_what_passes_through_the_encoder(root: Path) -> None:
    assert DetectionProbe(CONFIG, root).count_images() == 2 * 12 + 6
    assert DetectionProbe(config(cache_gb=1.0), root).count_images() == 12 * 2 + 6
