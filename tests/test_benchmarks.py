"""Benchmarks run as their first lines tell: `python benchmarks/NAME.py`, which puts their folder before all else."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}


def test_no_benchmark_hides_a_package() -> None:
    packages = {"rice", "probes", "tracking", "reports", "benchmarks", "tests"}
    assert len(SCRIPTS) > 10
    assert not SCRIPTS.keys() & (packages | sys.stdlib_module_names)


def test_a_benchmark_says_how_it_is_run() -> None:
    told = {name for name, path in SCRIPTS.items() if f"    python benchmarks/{path.name}" in path.read_text("utf-8")}
    assert told == SCRIPTS.keys() - {"timing"}
