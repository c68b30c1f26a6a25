"""The preregistered list is the docs' list, names what probes store, and is cheap to read."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from stored_results import put_knn

from probes.dense.scores import SCORES
from probes.detection.bootstrap import items as detection_items
from probes.detection.bootstrap import write_items
from probes.detection.probe import DetectionProbe
from probes.detection.score import evaluate, prepare
from probes.knn.probe import KnnProbe
from probes.results import items_path
from probes.sweeps.sweepfile import BUILT_IN
from probes.text.scores import scores as text_scores
from reports.miniature.claims import CLAIMS, NAMES, UNRANKED, Claim
from reports.miniature.tables import MEASURES
from tracking.items import NAMES as TRACKING_NAMES
from tracking.protocols import TITLES

ROOT = Path(__file__).resolve().parents[3]
ONE, ONE_OF_TWO = np.ones((1, 1)), np.ones((1, 2))
_LINE = re.compile(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def stored_by(probe: str, out: Path) -> set[str]:
    """Metrics that a probe of the miniature's sweeps stores."""
    if probe == "dense":
        return set(SCORES)
    if probe == "text":
        return set(text_scores(["a"], ["a"]))
    if probe == "tracking":
        (data,) = yaml.safe_load((BUILT_IN / "tracking-mini.yaml").read_text())["datasets"].values()
        return {f"{TITLES[data['world']['layout']]} {name}" for name in TRACKING_NAMES.values()}
    if probe == "knn":
        key = put_knn(out, "a", [True, False], [True, True])
        return {name for group in KnnProbe.resampling(items_path(out, key)) for name in group.scores(ONE_OF_TWO)}
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}]}
    truth["annotations"] = [box | {"id": 1, "area": 81, "iscrowd": 0}]
    found = [box | {"score": 1.0}]
    assert evaluate(truth, found, iou="bbox").values["AP"] == pytest.approx(1)
    write_items(out / "items.parquet", detection_items(prepare(truth, found, iou="bbox")))
    boxes = {name for group in DetectionProbe.resampling(out / "items.parquet") for name in group.scores(ONE)}
    return boxes | {name.replace("box", "mask") for name in boxes}


def test_claims_and_tables_name_metrics_that_their_probes_store(tmp_path: Path) -> None:
    wanted = {(claim.probe, claim.metric) for claim in CLAIMS}
    wanted |= {measure for group in MEASURES.values() for measure in group}
    for probe in {probe for probe, _ in wanted}:
        assert {metric for one, metric in wanted if one == probe} <= stored_by(probe, tmp_path / probe), probe


def test_every_claim_is_a_line_of_the_docs_and_no_line_is_without_one() -> None:
    page = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    lines = [tuple(found) for found in _LINE.findall(page)]
    assert [line for line in lines if line[0] not in NAMES] == [
        (claim.id, claim.text, f"{claim.probe}: {claim.metric}", claim.claimed) for claim in CLAIMS
    ]
    primary, secondary = page.split("### Secondary claims")
    assert [f"`{claim.id}`" in primary for claim in CLAIMS] == [claim.primary for claim in CLAIMS]
    assert [f"`{claim.id}`" in secondary for claim in CLAIMS] == [not claim.primary for claim in CLAIMS]


def test_every_arm_is_a_line_of_the_docs() -> None:
    page = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    assert [(arm, name) for arm, name, *_ in _LINE.findall(page) if arm in NAMES] == list(NAMES.items())


def test_what_is_claimed_is_what_the_project_set_out_to_test() -> None:
    """Written out a second time, by what the claims say and not by their names."""
    primary = {(one.better, one.than, one.probe, one.by) for one in CLAIMS if one.primary}
    rivals = ("mlcd", "clip")
    assert primary == {
        *(("rice", rival, probe, 5) for rival in rivals for probe in ("dense", "detection")),
        *(("rice", rival, probe, 0) for rival in rivals for probe in ("tracking", "text")),
        ("rice", "rice-noocr", "text", 0),
    }


def test_claims_are_told_apart_and_name_arms_that_learnt_by_a_method() -> None:
    assert len({claim.id for claim in CLAIMS}) == len({claim.text + claim.probe for claim in CLAIMS}) == len(CLAIMS)
    arms = {arm for claim in CLAIMS for arm in (claim.better, claim.than)}
    assert arms == NAMES.keys() - set(UNRANKED)


@pytest.mark.parametrize(("by", "edge", "inside"), [(5.0, 5.0, True), (0.0, 0.0, False)])
def test_at_least_takes_in_its_edge_and_more_than_does_not(by: float, edge: float, inside: bool) -> None:
    claim = Claim("a", "a", "rice", "mlcd", "dense", "mIoU", by=by)
    assert claim.includes(edge) is inside
    assert claim.includes(edge + 1e-9)
    assert not claim.includes(edge - 1e-9)


def test_reading_the_claims_loads_nothing_heavy() -> None:
    code = "import sys, reports.miniature.claims; print(*({'torch', 'numpy', 'pandas'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
