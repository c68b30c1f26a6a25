"""Whatever stands in a file from outside, its reader takes it or refuses it in one line, soon, and writes nothing.

RICE_FUZZ_CASES=100000 makes the run long, RICE_FUZZ_SEED another one.
"""

import os
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mutate import damaged
from targets import Target, targets

from rice.errors import RiceError

CASES = int(os.environ.get("RICE_FUZZ_CASES", "1000"))
SEED = int(os.environ.get("RICE_FUZZ_SEED", "0"))
LONGEST_S = 20
"""For one case, on a busy machine."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Errors: TimeoutError after so long."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def names_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", list(targets()), ids=lambda target: target.name)
def test_a_damaged_file_is_read_or_refused_in_one_line(target: Target, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    files = [root / name for name in target.make(root)]
    for file in files:
        target.read(root, file)  # what is valid is read
    valid = {file: file.read_bytes() for file in files}
    before = names_in(tmp_path)
    refused, began = 0, time.monotonic()
    cases = max(1, round(CASES * target.share))
    for case in range(cases):
        file = files[case % len(files)]
        data = damaged(valid[file], SEED, case)
        file.write_bytes(data)
        try:
            with within(LONGEST_S), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target.read(root, file)
        except RiceError:
            refused += 1
        except BaseException as error:
            kept = Path(os.environ.get("RICE_FUZZ_KEEP", tmp_path)) / f"{target.name}-{case}{file.suffix}"
            kept.write_bytes(data)
            raise AssertionError(
                f"case {case} of {file.name}, kept as {kept}: {type(error).__name__}: {error}"
            ) from error
        file.write_bytes(valid[file])
    assert names_in(tmp_path) == before
    assert refused >= cases // 20, f"only {refused} of {cases} were refused in {time.monotonic() - began:.0f} s"
    shutil.rmtree(root)
