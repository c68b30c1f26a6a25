"""Lets this folder's tests import its samples and those of the Llavas (`tiny_llava`, `tiny_parts`)."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "llava")]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a Llava and a segmenter, for reading only."""
    from lisa_root import write_llava, write_root, write_segmenter

    folder = tmp_path_factory.mktemp("lisa")
    write_root(folder / "data")
    write_llava(folder / "llava")
    write_segmenter(folder / "sam")
    return folder
