"""Reading folders: each measurement once, and nothing skipped unsaid."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored_results import put

from probes.results import result_path
from reports.reading import read, read_frame
from rice.errors import RiceError
from rice.files import sha256_json


def stored(out: Path, encoder: str, value: float, *, seed: int = 0) -> Path:
    return result_path(out, put(out, encoder, {"mIoU": value}, seed=seed))


def test_a_measurement_that_lies_in_two_folders_counts_once(tmp_path: Path) -> None:
    path = stored(tmp_path / "sweep", "A", 0.5)
    stored(tmp_path / "other", "A", 0.7)
    stored(tmp_path / "other", "A", 0.6, seed=1)
    documents, left = read([tmp_path / "sweep", tmp_path / "other"])
    assert [(d["seed"], d["metrics"][0]["value"]) for d in sorted(documents, key=lambda d: d["seed"])] == [
        (0, 0.5),
        (1, 0.6),
    ]
    assert [one.file for one in left] == [f"other/{path.name}"]
    assert "same measurement as the one in sweep" in left[0].reason


def test_files_that_are_no_results_are_listed_by_folder_with_their_reason(tmp_path: Path) -> None:
    path = stored(tmp_path / "sweep", "A", 0.5)
    (path.parent / "cut.json").write_bytes(path.read_bytes()[:100])
    shutil.copy(path, path.with_name("copy.json"))
    (path.parent / "newer.json").write_text('{"schema": 99}')
    documents, left = read([tmp_path / "sweep"])
    assert len(documents) == 1
    reasons = {one.file: one.reason for one in left}
    assert reasons.keys() == {"sweep/cut.json", "sweep/copy.json", "sweep/newer.json"}
    assert "schema 99" in reasons["sweep/newer.json"]


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A result changed by hand so that its name still is the hash of what it says it measured."""
    document = json.loads(path.read_text())
    change(document)
    document["key"] = sha256_json({**document["identity"], "seed": document["seed"]})
    path.unlink()
    path.with_name(f"{document['key']}.json").write_text(json.dumps(document))


@pytest.mark.parametrize("field", ["value", "stderr"])
def test_numbers_whose_deviation_would_not_be_finite_are_left_out(tmp_path: Path, field: str) -> None:
    edited(stored(tmp_path / "sweep", "A", 0.5), lambda document: document["metrics"][0].update({field: 1e300}))
    stored(tmp_path / "sweep", "B", 0.5)
    documents, left = read([tmp_path / "sweep"])
    assert [document["encoder"] for document in documents] == ["B"]
    assert "no score reaches" in left[0].reason


def test_a_result_that_gives_a_metric_twice_is_left_out(tmp_path: Path) -> None:
    edited(stored(tmp_path / "sweep", "A", 0.5), lambda document: document["metrics"].append(document["metrics"][0]))
    stored(tmp_path / "sweep", "B", 0.5)
    documents, left = read([tmp_path / "sweep"])
    assert [document["encoder"] for document in documents] == ["B"]
    assert "twice" in left[0].reason


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="give the --out of a sweep"):
        read([tmp_path / "nowhere"])


def test_folders_without_results_are_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "results").mkdir(parents=True)
    (tmp_path / "sweep" / "results" / "other.json").write_text("{}")
    with pytest.raises(RiceError, match=r"found none \(1 left out, such as sweep/other.json, which is not a result"):
        read([tmp_path / "sweep"])


def test_a_table_leaves_out_what_a_page_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited(stored(tmp_path, "A", 0.5), lambda document: document["metrics"].append(document["metrics"][0]))
    stored(tmp_path, "B", 0.5)
    frame, left = read_frame(tmp_path)
    assert list(frame["encoder"]) == ["B"]
    assert left == read([tmp_path])[1]
    assert "gives a metric twice" in capsys.readouterr().err


def test_results_of_one_name_with_other_weights_are_never_read_together(tmp_path: Path) -> None:
    def digest(text: str) -> Callable[[dict[str, Any]], None]:
        return lambda document: document["encoder_spec"].update(digest=text)

    edited(stored(tmp_path / "one", "A", 0.5), digest("0" * 64))
    edited(stored(tmp_path / "one", "A", 0.6, seed=1), digest("0" * 64))
    stored(tmp_path / "one", "A", 0.6, seed=2)  # of a version that did not note it
    assert len(read([tmp_path / "one"])[0]) == 3
    edited(stored(tmp_path / "two", "A", 0.7, seed=3), digest("1" * 64))
    with pytest.raises(RiceError, match="A were measured with other weights of the same name"):
        read([tmp_path / "one", tmp_path / "two"])
