"""The page's data: right numbers, nothing repeated, the paper's values at the cells that they belong to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.results import rows_of
from reports.measurements import Score, measurements
from reports.page.content import SETTING_FIELDS, Pool, fingerprints, page_data
from reports.paper.beside import Beside, beside
from reports.paper.layout import layout
from reports.reading import read

Put = Callable[..., Path]


def data_of(folder: Path) -> dict[str, Any]:
    documents, _ = read([folder])
    found = measurements(rows_of(documents))
    data: dict[str, Any] = json.loads(json.dumps(page_data(documents, found, beside(found))))
    return data


def test_scores_are_means_and_sample_deviations_in_percent(tmp_path: Path, put: Put) -> None:
    values = [0.411, 0.4375, 0.4025]
    for seed, value in enumerate(values):
        put("A", seed, {"mIoU": value})
    ((row, column, mean, spread, text, seeds, _),) = data_of(tmp_path / "sweep")["cells"]
    assert (row, column) == (0, 0)
    percent = np.float64(values) * 100
    assert mean == pytest.approx(percent.mean())
    assert spread == pytest.approx(percent.std(ddof=1))
    assert text == f"{percent.mean():.2f} ± {percent.std(ddof=1):.2f}"
    assert [value for _, value, *_ in seeds] == pytest.approx(list(percent))


def test_one_seed_has_no_spread(tmp_path: Path, put: Put) -> None:
    put("A", 0, {"mIoU": 0.5})
    _, _, mean, spread, text, *_ = data_of(tmp_path / "sweep")["cells"][0]
    assert (mean, spread, text) == (50.0, None, "50.00")


def test_every_seed_leads_back_to_its_result(tmp_path: Path, put: Put) -> None:
    paths = {(e, s): put(e, s, {"mIoU": 0.5}, seconds=s + 1.5) for e in ("A", "B") for s in (0, 1)}
    data = data_of(tmp_path / "sweep")
    for row, _, _, _, _, seeds, _ in data["cells"]:
        for number, *_ in seeds:
            key, setting, seed, seconds, *_ = data["results"][number]
            fields = dict(zip(SETTING_FIELDS, (data["pool"][i] for i in data["settings"][setting]), strict=True))
            assert paths[data["rows"][row]["label"], seed].stem == key
            assert fields["encoder"] == data["rows"][row]["name"]
            assert seconds == seed + 1.5
            assert fields["config"] == {"grid": "native", "heads": {"channels": 256}}
            assert fields["run_only"] == {"workers": 4}


def test_what_repeats_is_stored_once(tmp_path: Path, put: Put) -> None:
    for encoder in "ABCDEFGH":
        for seed in range(3):
            put(
                encoder, seed, {"mIoU": 0.5, "accuracy": 0.5}, protocol="a protocol that many share", device="a machine"
            )
    text = json.dumps(data_of(tmp_path / "sweep"))
    assert text.count("a machine") == 1
    assert text.count('"a protocol that many share"') == 1
    assert text.count("channels") == 1


def test_a_pool_keeps_what_json_tells_apart() -> None:
    pool = Pool()
    values: list[Any] = [1, "1", True, None, 1.5, [1], ["1"], {"a": 1, "b": 2}, {"b": 2, "a": 1}]
    places = [pool.place(value) for value in values]
    assert [json.dumps(pool.values[place], sort_keys=True) for place in places] == [
        json.dumps(value, sort_keys=True) for value in values
    ]
    assert places[-1] == places[-2]
    assert len(set(places)) == len(values) - 1


def test_the_papers_value_stands_at_the_metric_that_it_reports(tmp_path: Path, put: Put) -> None:
    tower = {"reference": "rice-b16-512", "probe": "detection", "dataset": "coco", "split": "val2017", "n": 5000}
    put("RICE", 0, {"box AP": 0.39, "mask AP": 0.32, "box AP50": 0.6}, **tower)
    put("other", 0, {"mIoU": 0.5})
    data = data_of(tmp_path / "sweep")
    found = {data["columns"][column]["levels"][2]: besides for _, column, *_, besides in data["cells"]}
    assert [one[:5] for one in found["box AP"]] == [["3", "RICE ViT-B/16 512", "COCO Det AP", "38.9", 39.0]]
    assert [one[3] for one in found["mask AP"]] == ["31.5"]
    assert found["box AP50"] == found["mIoU"] == []
    (view,) = [view for view in data["views"] if view["columns"]]
    assert view["id"] == "table-3"
    assert [(data["columns"][c]["levels"][2], heads) for c, heads in view["columns"]] == [
        ("box AP", ["COCO", "Det AP"]),
        ("mask AP", ["COCO", "Seg AP"]),
    ]


def test_a_value_that_the_paper_prints_in_other_units_is_compared_in_them(tmp_path: Path, put: Put) -> None:
    put("RICE", 0, {"OCRBench accuracy": 0.6}, reference="rice-l14-336", probe="lmms-eval", dataset="ocrbench")
    documents, _ = read([tmp_path / "sweep"])
    (one,) = documents
    fake = Beside(
        table="1",
        row="RICE",
        line=5,
        column="OCRBench",
        printed=575.0,
        encoder="RICE",
        score=Score(600.0, None, 1),
        differs=(),
        keys=(one["key"],),
    )
    metric = layout("1").sources["OCRBench"].metric
    one["metrics"][0]["name"] = metric
    ((_, _, mean, *_, besides),) = page_data(documents, measurements(rows_of(documents)), [fake])["cells"]
    assert mean == 60.0
    assert besides == [["1", "RICE", "OCRBench", "575", 600.0, []]]


def test_an_untrained_encoder_is_said_to_be_and_has_no_reported_value(tmp_path: Path, put: Put) -> None:
    tower = {"reference": "rice-b16-512", "probe": "detection", "dataset": "coco"}
    put("RICE", 0, {"box AP": 0.39}, trained=False, **tower)
    data = data_of(tmp_path / "sweep")
    assert data["rows"][0] == {"label": "RICE (untrained)", "name": "RICE", "variant": "", "trained": False}
    assert [one[3] for one in data["cells"][0][-1]] == [None]


def test_rows_know_the_fingerprints_of_their_encoders(tmp_path: Path, put: Put) -> None:
    put("A", 0, {"mIoU": 0.5}, encoder_fingerprint="a" * 64)
    put("B", 0, {"mIoU": 0.5}, encoder_fingerprint="b" * 64)
    assert fingerprints(data_of(tmp_path / "sweep")) == [{"a" * 64}, {"b" * 64}]
