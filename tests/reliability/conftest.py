"""Lets this folder's tests import their parts, and the samples of other folders: stored results, piles, parsers."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [
    str(_TESTS / name) for name in ("reliability", "fuzz", "reports", "probes/import_formats", "rice/curate")
]
