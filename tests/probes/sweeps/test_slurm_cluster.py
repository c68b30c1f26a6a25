"""`rice sweep --executor slurm` under SLURM itself: a controller and two nodes on this machine (`slurm_cluster`).

RICE_SLURM=1 pytest tests/probes/sweeps/test_slurm_cluster.py       # ten minutes, most of which are SLURM's waiting

The cluster has no accounting, as many small ones: what became of a job without a result, `sacct` cannot tell.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from slurm_cluster import Cluster, cluster, missing

from probes.results import load

pytest.importorskip("submitit")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("RICE_SLURM"), reason="takes ten minutes of waiting; set RICE_SLURM=1"),
    pytest.mark.skipif(bool(missing()), reason=f"SLURM is not installed: {', '.join(missing())} not found"),
]
ON_SLURM = ("--executor", "slurm", "--jobs", "2", "--slurm", "cpus_per_task=1")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm") / "c") as running:
        yield running


@pytest.fixture(autouse=True)
def _here(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))


def running(slurm: Cluster, room: Any, count: int, seconds: float = 60) -> dict[str, tuple[str, str]]:
    """Jobs, once so many of them are at work."""
    end = time.monotonic() + seconds
    while True:
        jobs = slurm.jobs()
        if len(room.diary) >= count and sum(state == "RUNNING" for state, _ in jobs.values()) >= count:
            return jobs
        assert time.monotonic() < end, (jobs, room.diary)
        time.sleep(0.2)


def test_jobs_give_what_a_local_sweep_gives(room: Any) -> None:
    status, said = room.run(*ON_SLURM, "timeout_min=5")
    assert status == 0, said
    frame = load(room.out)
    assert len(frame) == 8
    assert list(frame.value) == [float(seed) for seed in frame.seed]
    before = room.results()
    assert room.run("--only-missing")[0] == 0  # on this machine: nothing is missing
    assert room.results() == before


def test_a_cancelled_job_is_a_failed_cell_and_the_same_command_makes_it(room: Any, slurm: Cluster) -> None:
    sweep = {"encoders": ["fake-a"], "probes": [room.probe(data=["one", "two"], seconds=30)], "seeds": 1}
    parent = room.start(*ON_SLURM, "timeout_min=5", **sweep)
    jobs = running(slurm, room, 2)
    slurm.ask("scancel", "--signal=KILL", "--full", next(iter(jobs)))
    status, said = room.finished(parent)
    assert status == 1
    assert "1 cells done, 1 failed" in said
    assert len(room.results()) == 1
    sweep["probes"] = [room.probe(data=["one", "two"])]  # as much to do, in less time
    assert room.run(*ON_SLURM, "timeout_min=5", **sweep)[0] == 0
    assert len(room.results()) == 2


def test_a_job_at_its_time_limit_goes_back_into_the_queue_and_computes_the_seeds_that_are_left(room: Any) -> None:
    # Half a minute before two, and up to a minute earlier, SLURM sends the signal: five seeds of 20 s never fit.
    probe = room.probe(seconds=20)
    parent = room.start(*ON_SLURM, "timeout_min=2", encoders=["fake-a"], probes=[probe], seeds=5)
    said, _ = parent.communicate(timeout=900)  # SLURM waits two minutes before it runs a job again
    assert parent.returncode == 0, said
    assert len(room.results()) == 5
    starts = [seed for event, _, seed, _ in room.diary if event == "start"]
    assert starts.count("0") == 1
    assert starts == sorted(starts)
    assert len(starts) > 5
    assert not [event for event, *_ in room.diary if event == "double"]
    assert not room.temporaries()


def test_a_job_whose_node_dies_is_run_again_on_the_other_and_nothing_is_lost(room: Any, slurm: Cluster) -> None:
    sweep = {"encoders": ["fake-a"], "probes": [room.probe(data=["one", "two"], seconds=15)], "seeds": 1}
    parent = room.start(*ON_SLURM, "timeout_min=5", **sweep)
    jobs = running(slurm, room, 2)
    dying = next(job for job, (_, node) in jobs.items() if node == "node0")
    slurm.kill_node("node0", dying)
    try:
        said, _ = parent.communicate(timeout=400)  # SLURM waits two minutes before it runs a job again
    finally:
        slurm.start_node("node0")
    assert parent.returncode == 0, said
    assert len(room.results()) == 2
    assert not [event for event, *_ in room.diary if event == "double"]
    assert sum(event == "start" for event, *_ in room.diary) == 3
    assert not room.temporaries()
