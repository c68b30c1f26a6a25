"""Benchmarks run as their first lines tell: `python benchmarks/NAME.py`, which puts their folder before all else.

Of those that judge sizes and hours, the judgement is tried on made-up figures, and the measurement on small sizes.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale, scale_train, soak

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}


def test_no_benchmark_hides_a_package() -> None:
    packages = {"rice", "probes", "tracking", "reports", "benchmarks", "tests"}
    assert len(SCRIPTS) > 10
    assert not SCRIPTS.keys() & (packages | sys.stdlib_module_names)


def test_a_benchmark_says_how_it_is_run() -> None:
    told = {name for name, path in SCRIPTS.items() if f"    python benchmarks/{path.name}" in path.read_text("utf-8")}
    assert told == SCRIPTS.keys() - {"timing"}


def rounds(**series: Sequence[float]) -> list[dict[str, Any]]:
    """Twelve rounds of a soak in which nothing moves but what is given."""
    still = {"rss_mib": 900.0, "anon_mib": 500.0, "descriptors": 13, "threads": 7, "children": 0}
    still |= {"objects": 5e5, "left_files": 0, "numbers": "a"}
    return [still | {name: values[i] for name, values in series.items()} for i in range(12)]


def test_a_soak_of_three_rounds_tells_nothing_but_other_numbers() -> None:
    assert soak.judged(rounds()[:3])["flat"] is None
    assert soak.judged([*rounds()[:2], rounds()[0] | {"numbers": "others"}])["flat"] is False


def test_a_soak_in_which_only_the_first_half_grows_is_flat() -> None:
    warming = [900.0 + 40 * min(i, 6) for i in range(12)]
    assert soak.judged(rounds(rss_mib=warming, anon_mib=warming, threads=[min(i, 5) for i in range(12)]))["flat"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rss_mib", [900 + 0.11 * i for i in range(12)]),
        ("anon_mib", [900 + 0.4 * i + (-1) ** i for i in range(12)]),
        ("descriptors", [13] * 11 + [14]),
        ("threads", [7] * 6 + [8] * 6),
        ("children", [0] * 10 + [1, 0]),
        ("left_files", list(range(12))),
        ("numbers", ["a"] * 11 + ["b"]),
    ],
)
def test_a_soak_tells_what_grows(name: str, values: list[Any]) -> None:
    found = soak.judged(rounds(**{name: values}))
    assert not found["flat"]
    assert len(found["grew"]) == 1
    assert name in found["grew"][0]


@pytest.mark.slow
def test_a_hundredth_of_every_size_is_measured_by_processes_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "scale.json"
    assert scale.main(scale.Config(parts=("plan", "tables"), divide=100, json=file)) == 0
    plans, *tables = json.loads(file.read_text())["rows"][1:]
    assert plans["cells"] == 1000
    assert plans["tenth"]["cells"] == 100
    assert 0 < tables[0]["stages"]["reading"] < tables[0]["cpu_s"]
    assert tables[1]["what"] == "tables: 10,000 results, derived"


@pytest.mark.slow
def test_a_bank_has_the_bytes_of_its_arithmetic(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    assert scale_train.main(scale_train.Config(divide=1000, json=file)) == 0
    rows = {row["what"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["index: 1,000,000 pictures, 100 shards"]["shards"] == 100
    assert rows["bank: 10,000 x 768, each of 8 ranks"]["bytes"] == 1250 * (3 * 768 * 4 + 4)
