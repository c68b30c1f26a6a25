"""Lets this folder's tests import their parts, and the samples of other folders."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS / "fuzz"), str(_TESTS / "reports"), str(_TESTS / "probes" / "import_formats")]
