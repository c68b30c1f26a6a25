import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rice.errors import RiceError
from rice.runs import alone, same_run


@pytest.mark.parametrize("text", ["[]", "[1, 2]", '"a run"', "null", "3"])
def test_a_run_json_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RiceError, match=r"run\.json"):
        same_run(tmp_path, {"seed": 0})
    assert (tmp_path / "run.json").read_text() == text


def test_another_run_is_refused_and_the_same_one_goes_on(tmp_path: Path) -> None:
    same_run(tmp_path, {"seed": 0, "encoder": "a"})
    same_run(tmp_path, {"seed": 0, "encoder": "a"})
    with pytest.raises(RiceError, match="its seed is 0, not 1"):
        same_run(tmp_path, {"seed": 1, "encoder": "a"})


def test_facts_are_compared_as_they_are_read(tmp_path: Path) -> None:
    for _ in range(2):
        same_run(tmp_path, {"probes": ({"betas": (0.9, 0.98)},)})
    with pytest.raises(RiceError, match="its probes is"):
        same_run(tmp_path, {"probes": ({"betas": (0.9, 0.99)},)})


FORKING = """
import os, sys, time
from pathlib import Path
from rice.runs import alone

with alone(Path(sys.argv[1]), ".lock", "working in"):
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(600)
"""


def test_a_lock_ends_with_its_process_though_workers_that_it_forked_live_on(tmp_path: Path) -> None:
    """As those of a DataLoader, which look for their parent every five seconds only."""
    command = [sys.executable, "-c", FORKING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        try:
            with (
                pytest.raises(RiceError, match="another process is working in"),
                alone(tmp_path, ".lock", "working in"),
            ):
                pytest.fail("two at once")
            process.kill()
            process.wait()
            with alone(tmp_path, ".lock", "working in"):
                os.kill(worker, 0)  # it lives
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_lock_is_free_again_after_its_block_and_after_an_error_in_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone(tmp_path, ".lock", "working in"):
        raise ZeroDivisionError
    with alone(tmp_path, ".lock", "working in"):
        pass
