"""Many processes write into one results folder at once, some the same cells, some killed; somebody reads all the while.

RICE_WRITERS and RICE_CELLS give the numbers: 8 and 400 by default; 32 and 10000 is the long run. `pytest -rP` shows
the figures.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from store_writer import owners, result, value

from probes.results import RESULTS, documents, load

WRITERS, CELLS = int(os.environ.get("RICE_WRITERS", 8)), int(os.environ.get("RICE_CELLS", 400))
SCRIPT = Path(__file__).with_name("store_writer.py")


def start(out: Path, number: int) -> "subprocess.Popen[str]":
    words = [sys.executable, str(SCRIPT), str(out), *map(str, (number, WRITERS, CELLS))]
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(words, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)


def files(out: Path) -> int:
    return sum(1 for entry in os.scandir(out / RESULTS) if entry.name.endswith(".json"))


@pytest.mark.slow
@pytest.mark.alone
def test_many_writers_lose_double_and_halve_nothing_and_no_reader_sees_a_broken_file(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / RESULTS).mkdir()
    keys = {result(cell, 0).key: cell for cell in range(CELLS)}
    assert len(keys) == CELLS
    dice, began = random.Random(0), time.monotonic()
    running = {number: start(tmp_path, number) for number in range(WRITERS)}
    doomed = dice.sample(range(WRITERS), max(1, WRITERS // 4))
    goals = {number: dice.randrange(CELLS // 20, CELLS // 2) for number in doomed}
    killed, written, passes, seen = 0, 0, 0, set[str]()
    request.addfinalizer(lambda: [process.kill() for process in running.values()])
    while running:
        there = files(tmp_path)
        for number in [n for n, goal in goals.items() if there >= goal and running[n].poll() is None]:
            running[number].kill()
            running[number].communicate()
            del goals[number]
            killed += 1
            running[number] = start(tmp_path, number)
        found = set()
        for document in documents(tmp_path):  # an error on the first file that is not whole
            cell = keys[document["key"]]
            assert {metric["value"] for metric in document["metrics"]} == {value(cell)}
            assert int(document["device"].removeprefix("writer ")) in owners(cell, WRITERS)
            found.add(document["key"])
        assert seen <= found, "a result that was there is gone"
        passes, seen = passes + 1, found
        for number in [n for n, process in running.items() if process.poll() is not None]:
            process = running.pop(number)
            written += int(process.communicate()[0])
            assert process.returncode == 0
    seconds = time.monotonic() - began
    frame = load(tmp_path)
    assert Counter(frame.key) == dict.fromkeys(keys, 3)  # three metrics of each cell, none of another
    left = [path.name for path in (tmp_path / RESULTS).iterdir() if not path.name.endswith(".json")]
    assert len(left) <= killed, "only a writer that was killed leaves a half-written file, and only its last one"
    assert all(name.startswith(".") and name.endswith(".tmp") for name in left), left
    assert killed >= max(1, WRITERS // 8), "too few writers lived long enough to be killed"
    assert passes > 1
    print(
        f"{WRITERS} writers, {CELLS} cells: {seconds:.1f} s, {CELLS / seconds:.0f} cells/s; {killed} writers killed,"
        f" {written} writes by those that ended; {passes} passes of the reader; 0 lost, 0 doubled, 0 half-written"
    )
