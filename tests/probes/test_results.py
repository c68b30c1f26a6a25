import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.protocol import Metric
from probes.results import COLUMNS, Identity, Result, items_path, load, result_path, store
from probes.stored import Rejected
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError

SPEC = EncoderSpec(name="vit", source="fake", patch=16, size_multiple=16, width=8, native_size=64)
IDENTITY = Identity(
    encoder_fingerprint="e" * 64,
    size=64,
    layer=-1,
    probe="fake",
    protocol_version=1,
    dataset_fingerprint="d" * 64,
    config={"grid": "native", "rates": [1e-3, 1e-2]},
)


def metric(**changes: Any) -> Metric:
    fields = {"name": "mIoU", "value": 0.5, "n": 10, "unit": "%", "higher_is_better": True, "split": "val"}
    return Metric(**(fields | {"protocol": "macro mean"} | changes))


def result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "encoder": "ViT",
        "reference": "vit@64",
        "weights": "default",
        "trained": True,
        "encoder_spec": dataclasses.asdict(SPEC),
        "identity": IDENTITY,
        "seed": 0,
        "dataset": "scenes",
        "tokens": 16,
        "gflops": 0.5,
        "images_per_s": 100.0,
        "resolved_config": {"grid": "native"},
        "metrics": [metric()],
        "versions": {"torch": "2.15.0"},
        "commit": None,
        "device": "cpu",
        "seconds": 1.0,
        "peak_memory": {"host": 1},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return Result(**(fields | changes))


def test_a_stored_result_comes_back_with_every_column(tmp_path: Path) -> None:
    store(tmp_path, result(metrics=[metric(), metric(name="accuracy", stderr=0.01)]))
    frame = load(tmp_path)
    assert tuple(frame.columns) == COLUMNS
    assert frame[["metric", "value", "n", "unit", "split"]].to_dict("records") == [
        {"metric": "accuracy", "value": 0.5, "n": 10, "unit": "%", "split": "val"},
        {"metric": "mIoU", "value": 0.5, "n": 10, "unit": "%", "split": "val"},
    ]
    row = frame.iloc[1]
    assert (row.encoder, row.trained, row.probe, row.dataset, row.seed) == ("ViT", True, "fake", "scenes", 0)
    assert (row["size"], row.layer, row.norm, row.tokens, row.gflops) == (64, -1, "none", 16, 0.5)
    assert json.loads(row.config) == IDENTITY.config
    assert math.isnan(row.stderr)
    assert frame.iloc[0].stderr == 0.01
    assert row.encoder_fingerprint == "e" * 64
    assert (row.protocol, row.protocol_version, row.device) == ("macro mean", 1, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_fingerprint": "f" * 64},
        {"size": 128},
        {"layer": -2},
        {"probe": "other"},
        {"protocol_version": 2},
        {"dataset_fingerprint": "f" * 64},
        {"config": {"grid": "matched", "rates": [1e-3, 1e-2]}},
    ],
)
def test_whatever_changes_the_numbers_changes_the_key(change: dict[str, Any]) -> None:
    other = dataclasses.replace(IDENTITY, **change)
    assert other.cell_key() != IDENTITY.cell_key()
    assert other.result_key(0) != IDENTITY.result_key(0)


def test_seeds_share_a_cell_but_not_a_file() -> None:
    assert result(seed=0).key != result(seed=1).key
    assert result(seed=0).key == result(seed=0, device="cuda", seconds=9.0, encoder="other label").key


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
@pytest.mark.parametrize("field", ["value", "stderr"])
def test_a_number_that_is_not_finite_is_refused_and_nothing_is_written(
    tmp_path: Path, field: str, value: float
) -> None:
    with pytest.raises(RiceError, match="mIoU"):
        store(tmp_path, result(metrics=[metric(), metric(name="x"), metric(**{field: value}, split="train")]))
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("metrics", [[], [metric(), metric()]])
def test_no_metric_and_a_metric_twice_are_refused(tmp_path: Path, metrics: list[Metric]) -> None:
    with pytest.raises(RiceError, match="metric"):
        store(tmp_path, result(metrics=metrics))
    assert not list(tmp_path.rglob("*"))


def test_numpy_numbers_are_stored_as_plain_ones(tmp_path: Path) -> None:
    store(tmp_path, result(metrics=[metric(value=np.float32(0.25), n=np.int64(3), higher_is_better=np.bool_(False))]))
    row = load(tmp_path).iloc[0]
    assert (row.value, row.n, row.higher_is_better) == (0.25, 3, False)


def test_the_results_folder_itself_can_be_loaded(tmp_path: Path) -> None:
    store(tmp_path, result())
    assert load(tmp_path).equals(load(tmp_path / "results"))


def test_an_empty_store_is_an_empty_table_with_all_columns(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    frame = load(tmp_path)
    assert len(frame) == 0
    assert tuple(frame.columns) == COLUMNS


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="nowhere"):
        load(tmp_path / "nowhere")


def _broken(document: dict[str, Any]) -> dict[str, bytes]:
    def change(**changes: Any) -> bytes:
        return json.dumps(document | changes).encode()

    whole = json.dumps(document).encode()
    return {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "not UTF-8": b"\xff\xfe",
        "list": b"[]",
        "foreign": b'{"a": 1}',
        "NaN": whole.replace(b'"seconds": 1.0', b'"seconds": NaN'),
        "newer": change(schema=2),
        "other name": change(key="0" * 64),
        "missing field": json.dumps({k: v for k, v in document.items() if k != "seed"}).encode(),
        "metrics": change(metrics=[{"name": "x"}]),
        "metric text": whole.replace(b'"value": 0.5', b'"value": "0.5"'),
        "metrics text": change(metrics="x"),
        "identity": change(identity={}),
        "spec": change(encoder_spec=[]),
        "deep": b"[" * 100_000,
        "endless number": whole.replace(b'"value": 0.5', b'"value": 1e999'),
        "markup in a name": change(encoder="<script>alert(1)</script>"),
        "parent in an id": change(dataset="../../etc"),
        "control character": change(encoder="a\u202eb"),
        "older": change(schema=0),
        "edited": whole.replace(b'"layer": -1', b'"layer": -2'),
        "half a surrogate in the identity": whole.replace(b'"grid": "native"', b'"grid": "\\ud800"'),
        "half a surrogate in a label": change(encoder="\ud800"),
        "half a surrogate elsewhere": change(reference="\ud800"),
        "half a surrogate as bytes": change(reference="@@").replace(b"@@", b"\xed\xa0\x80"),
        "encoder is no text": change(encoder=["a"]),
    }


@pytest.mark.parametrize("kind", _broken({}))
def test_a_file_that_is_no_result_is_named_never_skipped(tmp_path: Path, kind: str) -> None:
    path = store(tmp_path, result())
    store(tmp_path, result(seed=1))
    path.write_bytes(_broken(json.loads(path.read_text()))[kind])
    with pytest.raises(RiceError, match=path.name) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", _broken({}))
def test_a_report_lists_what_is_no_result_and_reads_the_others(tmp_path: Path, kind: str) -> None:
    path = store(tmp_path, result())
    store(tmp_path, result(seed=1))
    path.write_bytes(_broken(json.loads(path.read_text()))[kind])
    rejected: list[Rejected] = []
    assert list(load(tmp_path, rejected)["seed"]) == [1]
    assert [found.file for found in rejected] == [path.name]
    assert "\n" not in rejected[0].reason


def test_a_copy_beside_a_result_is_counted_once(tmp_path: Path) -> None:
    path = store(tmp_path, result())
    path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    rejected: list[Rejected] = []
    assert len(load(tmp_path, rejected)) == 1
    assert "copy" in rejected[0].file


def test_temporary_files_of_killed_writers_are_ignored(tmp_path: Path) -> None:
    path = store(tmp_path, result())
    (path.parent / f".{path.name}.abc.tmp").write_text("{")
    assert len(load(tmp_path)) == 1


def test_items_lie_beside_results_under_the_same_key(tmp_path: Path) -> None:
    assert items_path(tmp_path, "k").stem == result_path(tmp_path, "k").stem == "k"


@pytest.mark.alone
def test_ten_thousand_results_load_in_under_three_seconds(tmp_path: Path) -> None:
    first = result(metrics=[metric(name=f"m{i}") for i in range(3)])
    document = json.loads(store(tmp_path, first).read_text())
    for seed in range(1, 10_000):
        key = IDENTITY.result_key(seed)
        result_path(tmp_path, key).write_text(json.dumps(document | {"key": key, "seed": seed}, indent=1))
    code = "import sys, time, pandas; from probes.results import load; start = time.process_time(); "
    code += "print(len(load(sys.argv[1])), time.process_time() - start)"
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    rows, seconds = said.stdout.split()
    assert int(rows) == 30_000
    assert float(seconds) < 3


def test_the_store_imports_neither_torch_nor_pandas() -> None:
    code = "import probes.results, sys; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
