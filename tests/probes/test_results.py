import dataclasses
import hashlib
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from probes.protocol import Metric
from probes.results import (
    COLUMNS,
    Identity,
    Result,
    check_metrics,
    documents,
    items_path,
    kept_path,
    load,
    result_path,
    store,
)
from probes.stored import Rejected, parse, unsafe_label
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
@pytest.mark.parametrize(("field", "named"), [("value", "value"), ("stderr", "standard error")])
def test_a_number_that_is_not_finite_is_refused_and_nothing_is_written(
    tmp_path: Path, field: str, named: str, value: float
) -> None:
    with pytest.raises(RiceError, match=f"mIoU has the {named} "):
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


def test_one_configuration_has_one_text_whatever_the_order_of_its_fields(tmp_path: Path) -> None:
    for seed in (0, 1):
        store(tmp_path, result(seed=seed))
    path = next((tmp_path / "results").glob("*.json"))
    document = json.loads(path.read_text())
    config = document["identity"]["config"]
    document["identity"]["config"] = dict(reversed(config.items()))
    path.write_text(json.dumps(document))
    assert load(tmp_path)["config"].nunique() == 1


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


VALUES: tuple[Any, ...] = (None, True, 1, 1.5, "x", {"norm": "none"}, [])


def fits(annotation: Any, value: Any) -> bool:
    """Whether a JSON value is one of an annotation; a whole number may stand for a float, a truth value for nothing."""
    kinds = {origin(part) for part in (get_args(annotation) if origin(annotation) is UnionType else (annotation,))}
    return type(value) in kinds | ({int} if float in kinds else set()) | ({list} if Sequence in kinds else set())


def origin(annotation: Any) -> Any:
    return get_origin(annotation) or annotation


def written(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(store(tmp_path, result(**changes)).read_text())
    return document


def verdict(document: dict[str, Any]) -> str:
    """Why a document is no result, under the name that is the hash of its identity; empty where it is one."""
    identity = document["identity"]
    key = hashed(identity | {"seed": document["seed"]}) if isinstance(identity, dict) else "k"
    try:
        parse(json.dumps(document | {"key": key}).encode(), key)
    except RiceError as error:
        return str(error)
    return ""


def hashed(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Result) if field.name != "identity"])
def test_a_stored_field_has_the_type_that_the_dataclass_gives_it(tmp_path: Path, name: str) -> None:
    document, annotation = written(tmp_path), get_type_hints(Result)[name]
    for value in VALUES:
        empty = "has no metric" if name == "metrics" else ""
        assert verdict(document | {name: value}) == (empty if fits(annotation, value) else f"has a malformed {name}")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Identity)])
def test_a_stored_field_of_the_identity_has_its_type_too(tmp_path: Path, name: str) -> None:
    document, annotation = written(tmp_path), get_type_hints(Identity)[name]
    for value in VALUES:
        changed = document | {"identity": document["identity"] | {name: value}}
        assert verdict(changed) == ("" if fits(annotation, value) else f"has a malformed {name}")
    for identity in (document["identity"] | {"more": 1}, {k: v for k, v in document["identity"].items() if k != name}):
        assert verdict(document | {"identity": identity}) == "has a malformed identity"
    for value in (None, True, 1, "x", []):
        assert verdict(document | {"identity": value}) == "has a malformed identity"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Metric)])
def test_a_stored_field_of_a_metric_has_its_type_too(tmp_path: Path, name: str) -> None:
    document, annotation = written(tmp_path), get_type_hints(Metric)[name]
    first = document["metrics"][0]
    for value in VALUES:
        changed = document | {"metrics": [first, first | {name: value}]}
        assert verdict(changed) == ("" if fits(annotation, value) else "has malformed metrics")
    for metrics in ([first | {"more": 1}], [{k: v for k, v in first.items() if k != name}], [first, "x"]):
        assert verdict(document | {"metrics": metrics}) == "has malformed metrics"


def test_a_result_without_the_norm_of_its_encoder_is_malformed(tmp_path: Path) -> None:
    document = written(tmp_path)
    for spec in ({}, {"norm": None}, {"norm": 1}):
        assert verdict(document | {"encoder_spec": spec}) == "has a malformed encoder_spec"


@pytest.mark.parametrize("schema", [True, "1", None, 1.0, [1]])
def test_a_schema_is_a_whole_number(tmp_path: Path, schema: Any) -> None:
    document = written(tmp_path)
    assert verdict(document | {"schema": schema}) == "is not a result of rice sweep"
    assert verdict({k: v for k, v in document.items() if k != "schema"}) == "is not a result of rice sweep"


def test_fields_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    document = written(tmp_path)
    del document["device"]
    assert verdict(document | {"more": 1}) == "has other fields than a result: device, more"


def test_labels_hold_no_control_characters_and_no_markup() -> None:
    inside = "\x00\n\x1f\x7f\u2028\u2029\u202a\u202e\u2066\u2069\ud800\udfff"
    assert {unsafe_label(f"a{c}b") for c in inside} == {"control characters"}
    beside = " ~\xa0\u2027\u202f\u2065\u206a\ud7ff\ue000ViT-B/16@512,layer=-2 Größe"
    assert {unsafe_label(f"a{c}b") for c in beside} == {None}
    assert {unsafe_label(f"a{c}") for c in ("<b>", "</b>", "<!--", "<?php", "<Z")} == {"markup"}
    assert {unsafe_label(f"a{c}") for c in ("<", "< b", "<3", "<=", ">b", "&lt;")} == {None}


def test_an_identifier_takes_no_step_to_a_parent_folder() -> None:
    steps = ("..", "../a", "a/..", "a/../b", "a\\..\\b", "..\\a")
    assert {unsafe_label(text, identifier=True) for text in steps} == {"a step to a parent folder"}
    assert {unsafe_label(text) for text in steps} == {None}
    assert {unsafe_label(text, identifier=True) for text in ("a..b", "...", "a/b", ".", "..a/b..")} == {None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder": "../a"}, ""),
        ({"encoder": "<b>"}, "has markup in its encoder: '<b>'"),
        ({"encoder": "<b>" * 30}, f"has markup in its encoder: '{'<b>' * 20}'"),
        ({"dataset": "a\nb"}, r"has control characters in its dataset: 'a\nb'"),
        ({"dataset": "../a"}, "has a step to a parent folder in its dataset: '../a'"),
        ({"probe": "../a"}, "has a step to a parent folder in its probe: '../a'"),
        ({"probe": "<i>"}, "has markup in its probe: '<i>'"),
    ],
)
def test_labels_of_a_file_are_checked_and_its_identifiers_more(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    document = written(tmp_path)
    where = document["identity"] if "probe" in changes else document
    where.update(changes)
    assert verdict(document) == reason


def test_names_of_metrics_are_labels_in_files_and_from_probes(tmp_path: Path) -> None:
    document = written(tmp_path, metrics=[metric(), metric(name="../b")])
    assert verdict(document) == ""
    document["metrics"][1]["name"] = "<b>"
    assert verdict(document) == "has markup in its metric 1: '<b>'"
    with pytest.raises(RiceError, match="name holds markup: '<b>'"):
        check_metrics([metric(), metric(name="<b>")])


def test_a_metric_may_repeat_on_another_split_alone() -> None:
    assert len(check_metrics([metric(), metric(split="train"), metric(name="b")])) == 3
    with pytest.raises(RiceError, match=r"twice: \[\('mIoU', 'val'\)\]"):
        check_metrics([metric(), metric(name="b"), metric(value=0.1)])


def test_a_file_holds_the_result_its_schema_and_its_key(tmp_path: Path) -> None:
    stored = result(metrics=[metric(stderr=0.25)], commit="abc")
    path = store(tmp_path, stored)
    key = hashed(dataclasses.asdict(IDENTITY) | {"seed": 0})
    assert path == tmp_path / "results" / f"{key}.json"
    fields = json.loads(json.dumps(dataclasses.asdict(stored)))  # tuples become lists
    assert json.loads(path.read_text()) == {"schema": 1, "key": key} | fields
    assert IDENTITY.cell_key() == hashed(dataclasses.asdict(IDENTITY))
    assert items_path(tmp_path, key) == tmp_path / "items" / f"{key}.parquet"
    assert kept_path(tmp_path, key) == tmp_path / "kept" / key


def test_rows_come_in_one_order_however_they_were_written(tmp_path: Path) -> None:
    order = ["encoder", "probe", "dataset", "metric", "split", "seed", "key"]
    for encoder, dataset, probe, seed in itertools.product("ab", "ab", "ab", (10, 2)):
        identity = dataclasses.replace(IDENTITY, probe=probe, dataset_fingerprint=f"{encoder}{dataset}" * 3)
        both = [metric(name=name, split=split) for name in ("b", "a") for split in ("y", "x")]
        store(tmp_path, result(encoder=encoder, dataset=dataset, identity=identity, seed=seed, metrics=both))
        store(tmp_path, result(encoder=encoder, identity=dataclasses.replace(identity, size=seed), metrics=both))
    rows = load(tmp_path)[order]
    found = list(rows.itertuples(index=False, name=None))
    assert found == sorted(found)
    assert list(rows.index) == list(range(len(rows)))
    keys = [document["key"] for document in documents(tmp_path)]
    assert keys == sorted(keys)
    assert len(keys) * 4 == len(rows)


def test_a_folder_that_is_called_like_a_result_is_named(tmp_path: Path) -> None:
    store(tmp_path, result())
    (tmp_path / "results" / "a.json").mkdir()
    (tmp_path / "results" / "b.txt").write_text("no result, and no such name")
    with pytest.raises(RiceError, match="a.json cannot be read: Is a directory; move it out"):
        load(tmp_path)
    rejected: list[Rejected] = []
    assert len(load(tmp_path, rejected)) == 1
    assert rejected == [Rejected("a.json", "cannot be read: Is a directory")]


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
