"""No small file takes much: what asks for more memory or time than it is worth ends in one line, within limits.

RICE_BOMBS=16 makes those larger whose size can be chosen: gigabytes, minutes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bombs import BOMBS, MIB

MOST = {"parquet_dictionary": 400 * MIB}
"""Its values have 48 MiB: one stands in its page, in the page's decoded values, in a row and in what is made of it."""
SAYS = {
    "picture": "pixels", "raised_limit": "pixels", "drawn_by_a_program": "cannot identify", "pipe": "no file",
    "parquet_runs": "in memory", "tower": "parameters", "large_frames": "pixels", "entities": "DOCTYPE",
}  # fmt: skip
"""Where another error might come as well, as of a file that is shorter than it says."""
LIMIT, SECONDS = 48 * MIB, 30

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("bombs")
    command = [sys.executable, str(Path(__file__).with_name("bombs.py")), str(folder)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    found = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, (list(found), done.stderr[-2000:])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [bomb.__name__ for bomb in BOMBS])
def test_what_asks_for_too_much_ends_in_one_line_within_limits(reports: dict[str, dict[str, Any]], name: str) -> None:
    one = reports[name]
    assert one["kind"] in ("RiceError", "UnsafePathError"), one
    assert SAYS.get(name, "") in one["said"]
    assert one["said"].isprintable()
    assert one["bytes"] < MOST.get(name, LIMIT), one
    assert one["seconds"] < SECONDS, one
