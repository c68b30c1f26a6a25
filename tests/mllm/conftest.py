"""Lets this folder's tests import their samples (`tiny_model`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
