"""Whatever a file holds is imported whole or refused in one line, and stored once."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_samples import LMMS, MTEB, NAN, OLD_MTEB, TASK, changed, read, refusal, write

from probes.import_formats import document
from probes.import_formats.foreign import Whose
from probes.imports import plan, read_results
from probes.results import items_path, load, result_path
from probes.stored import parse
from rice.errors import RiceError


def nested(depth: int) -> str:
    return json.dumps(LMMS).replace('"usage": {}', f'"usage": {"[" * depth}{"]" * depth}')


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (json.dumps(LMMS)[:-9], "not valid JSON"),
        (json.dumps(LMMS).replace("133.33333333333334", "1e999"), "beyond any number"),
        (json.dumps(LMMS).replace("133.33333333333334", "9" * 5000), "not valid JSON"),
        (nested(100_000), "not valid JSON"),
        (json.dumps(LMMS).replace("org/tiny", "\\ud800"), "Unicode"),
        ("[]", "no known format"),
        ("[1, 2]", "no known format"),
        ('[{"image_id": 1}]', "no known format"),
        ('[{"image_id": 1, "category_id": 1, "score": 1}]', "must be scored first"),
        ("null", "no known format"),
        (LMMS | {"lm_eval_version": "0.4.5"}, "no known format"),
        (changed(LMMS, "results", to=[]), "an object as results"),
        (LMMS | {"results": {}, "groups": {}}, "found none"),
        (changed(LMMS, "results", "tiny_b", to=[1]), "an object as the results of tiny_b"),
        (changed(LMMS, "results", "tiny_b", to={"<script>,none": 1}), "markup in a metric"),
        (changed(LMMS, "results", "a\nb", to=TASK), "control characters in a task's name"),
        (changed(LMMS, "results", "../b", to=TASK), "parent folder in a task's name"),
        (changed(LMMS, "model_name", to="<img src=x>"), "markup in the model's name"),
        (changed(LMMS, "model_name", to=["x"]), "a name as the model's name"),
        (changed(LMMS, "config", to="x"), "an object as config"),
        (changed(LMMS, "versions", "tiny_b", to=[[[[[[1]]]]]]), "nested at most"),
        (changed(LMMS, "configs", "tiny_b", "test_split", to="\x1b[2J"), "control characters in the split"),
        (changed(MTEB, "task_name", to="../../x"), "parent folder in the task's name"),
        (changed(MTEB, "task_name", to=7), "a name as the task's name"),
        (changed(MTEB, "scores", to=[]), "an object as scores"),
        (changed(MTEB, "scores", to={}), "a split with scores"),
        (changed(MTEB, "scores", "test", to=[]), "found none"),
        (changed(MTEB, "scores", "test", 0, "main_score", to=NAN), "a finite number as main_score (en)"),
        (changed(MTEB, "scores", "test", 0, "main_score", to=None), "a finite number as main_score (en)"),
        (changed(MTEB, "scores", "test", 0, "main_score", to=...), "a main_score for each subset"),
        (changed(MTEB, "scores", "test", 1, "hf_subset", to="en"), "twice"),
        (changed(MTEB, "scores", "test", 1, "hf_subset", to="a\u202eb"), "control characters"),
    ],
)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, value: Any, words: str) -> None:
    assert words in refusal(tmp_path, value)


def test_files_beyond_the_largest_size_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "LARGEST", len(json.dumps(LMMS)) - 1)
    assert "larger than" in refusal(tmp_path, LMMS)
    assert len(document.read_document(write(tmp_path, [LMMS, LMMS])).value) == 2  # detections have no such limit
    for missing in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(RiceError, match="expected a file"):
            read_results(missing)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just("N/A")
    | st.integers().map(lambda k: 10**400 + k),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(sorted(LMMS)), inner, max_size=4)
    ),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, item in inner for place in places(item, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A real file with one to three values replaced by anything, or removed."""
    value = draw(st.sampled_from([LMMS, MTEB, OLD_MTEB]))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(value)))
        value = changed(value, *path, to=draw(JSON | st.just(...)))
    return value


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON | damaged(), encoder=st.sampled_from([None, "mine"]))
def test_any_json_is_imported_or_refused(tmp_path: Path, value: Any, encoder: str | None) -> None:
    try:
        imports = read_results(write(tmp_path, value), encoder and Whose.named(encoder))
        planned = plan(tmp_path / "out", imports, overwrite=True)
    except RiceError:
        return
    for item in planned[:1]:
        item.store(tmp_path / "out")
        assert parse(result_path(tmp_path / "out", item.imported.result.key).read_bytes(), item.imported.result.key)


def stored(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_importing_again_changes_nothing_and_another_value_is_refused_unless_it_may_replace(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for item in plan(out, read_results(write(tmp_path, LMMS))):
        assert item.state == "new"
        item.store(out)
    before = stored(out)
    assert len(before) == 4
    frame = load(out)
    assert set(frame["dataset"]) == {"tiny", "tiny_b", "tiny_c", "tiny_val"}
    again = plan(out, read_results(write(tmp_path, LMMS)))
    assert {item.state for item in again} == {"already there"}
    for item in again:
        item.store(out)
    assert stored(out) == before
    other = read_results(write(tmp_path, changed(LMMS, "results", "tiny_b", "exact_match,none", to=0.5)))
    with pytest.raises(RiceError, match="org/tiny, lmms-eval tiny_b, seed 0 is stored with other values"):
        plan(out, other)
    assert stored(out) == before
    with pytest.raises(RiceError, match="other encoder"):
        plan(out, read_results(write(tmp_path, LMMS), Whose.named("mine")))
    assert {i.state for i in plan(out, read_results(write(tmp_path, LMMS), seed=1))} == {"new"}
    replacing = plan(out, other, overwrite=True)
    assert [i.state for i in replacing].count("replaces another") == 1
    for item in replacing:
        item.store(out)
    rows = load(out)
    value = rows[(rows["dataset"] == "tiny_b") & (rows["metric"] == "exact_match")]["value"]
    assert value.tolist() == [0.5]
    assert len(rows) == len(frame)


def test_a_replaced_result_does_not_keep_the_items_of_the_old_one(tmp_path: Path) -> None:
    imported = read(tmp_path, LMMS)["tiny_b"]
    items = items_path(tmp_path, imported.result.key)
    with_items = dataclasses.replace(imported, write_items=lambda path: (path.parent.mkdir(), path.write_text("x")))
    (planned,) = plan(tmp_path, [with_items])
    planned.store(tmp_path)
    assert items.read_text() == "x"
    other = read(tmp_path, changed(LMMS, "results", "tiny_b", "errors,none", to=0.9))["tiny_b"]
    (planned,) = plan(tmp_path, [other], overwrite=True)
    planned.store(tmp_path)
    assert not items.exists()


def test_one_measurement_given_twice_is_stored_once_or_refused(tmp_path: Path) -> None:
    one, same = (read(tmp_path, LMMS)["tiny_b"] for _ in range(2))
    assert len(plan(tmp_path / "out", [one, same])) == 1
    other = read(tmp_path, changed(LMMS, "results", "tiny_b", "errors,none", to=0.9))["tiny_b"]
    with pytest.raises(RiceError, match="twice"):
        plan(tmp_path / "out", [one, other], overwrite=True)


def test_a_folder_that_is_no_out_of_a_sweep_is_refused(tmp_path: Path) -> None:
    imports = read_results(write(tmp_path, LMMS))
    for item in plan(tmp_path / "results", imports):  # any name will do for a new folder
        item.store(tmp_path / "results")
    with pytest.raises(RiceError, match="the one above"):
        plan(tmp_path / "results" / "results", imports)
    with pytest.raises(RiceError, match="got the file"):
        plan(tmp_path / "a_results.json", imports)
    path = result_path(tmp_path / "results", imports[0].result.key)
    path.write_text("{")
    with pytest.raises(RiceError, match="--overwrite"):
        plan(tmp_path / "results", imports)
    assert plan(tmp_path / "results", imports, overwrite=True)[0].state == "replaces another"


def test_reading_files_imports_nothing_heavy() -> None:
    code = "import sys, probes.imports; print({'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
