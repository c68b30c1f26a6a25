"""`rice curate --engine ray` on a Ray cluster of two nodes that come and go while it works (`ray_cluster`).

RICE_RAY_CLUSTER=1 pytest -rP tests/rice/curate/test_ray_cluster.py      # minutes; prints what was killed, and when

Both nodes are on this machine and share its disk, as the machines of a real cluster share OUT.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pile
import pytest
from ray_cluster import HEAD, Cluster, cluster
from test_kills import command, contents

pytest.importorskip("ray.data")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(not os.environ.get("RICE_RAY_CLUSTER"), reason="takes minutes; set RICE_RAY_CLUSTER=1"),
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, for many addresses of one machine"),
]
STAGES = ("scan", "decode", "propose", "embed", "ocr", "label")
LOSSES = 4
AT_MOST = 1800
"""Seconds that anything may take on a busy machine."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = pile.write_scenes(tmp_path_factory.mktemp("pile") / "pile", 18)
    return pile.write_files(folder, {"bad.jpg": b"<html>", "twice.jpg": (folder / "00.jpg").read_bytes()})


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the local engine."""
    out: Path = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(fine(pictures, out), check=True, capture_output=True)
    return out


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    short = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # for the names of sockets
    with short as folder, cluster(Path(folder)) as running:
        yield running


def fine(pictures: Path, out: Path, *flags: str) -> list[str]:
    """Shards of two pictures, so that every stage has ten."""
    return [*command(pictures, out, *flags), "--per-shard", "2"]


def shards_done(out: Path, stage: str) -> int:
    """By a stage."""
    return len([path for path in (out / stage).glob("*.json") if path.name != "run.json"])


class Curation:
    """A running one, on the cluster."""

    def __init__(self, nodes: Cluster, pictures: Path, out: Path) -> None:
        self.out, self.begin = out, time.monotonic()
        self.log = out.parent / "log"
        words = fine(pictures, out, "--engine", "ray")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=nodes.environment)

    def __enter__(self) -> "Curation":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def done(self, stage: str) -> int:
        """Shards that are."""
        return shards_done(self.out, stage)

    def until(self, condition: Callable[[], object]) -> float:
        """Wait for it, or for the command to end well; how many seconds that took."""
        begin = time.monotonic()
        while not condition() and self.process.poll() != 0:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() - begin < AT_MOST, self.log.read_text()[-3000:]
            time.sleep(0.02)
        return time.monotonic() - begin

    def finished(self) -> float:
        """Its seconds, once it has ended well."""
        assert self.process.wait(AT_MOST) == 0, self.log.read_text()[-3000:]
        return time.monotonic() - self.begin


def test_two_nodes_write_the_files_of_one_machine(nodes: Cluster, pictures: Path, whole: Path, tmp_path: Path) -> None:
    with Curation(nodes, pictures, tmp_path / "out") as curation:
        took = curation.finished()
    files = contents(tmp_path / "out")
    assert files == contents(whole)
    print(f"two nodes, {len(files)} files as on one machine, {took:.0f} s")


def caught_at_work(nodes: Cluster, curation: Curation, node: str, stage: str) -> bool:
    """Wait until the stage has done a shard and the node does another; False where the stage is over before."""
    after = STAGES[STAGES.index(stage) + 1]
    curation.until(lambda: (curation.done(stage) and nodes.workers(node)) or curation.done(after))
    return curation.process.poll() is None and not curation.done(after)


def lose_nodes(nodes: Cluster, curation: Curation, whole: Path) -> list[str]:
    """A node is lost in each stage that one can be caught in; another joins for the next. What was lost, in words."""
    lost = []
    for stage in STAGES[:-1]:
        node = next((name for name in nodes.nodes if name != HEAD), None) or nodes.start_node()
        if not caught_at_work(nodes, curation, node, stage):
            continue
        done, shards = curation.done(stage), shards_done(whole, stage)
        killed = nodes.kill(node)
        if done < shards:
            wait = curation.until(lambda stage=stage, done=done: curation.done(stage) > done)  # type: ignore[misc]
            lost.append(f"{stage} {done}/{shards} ({killed} processes, next shard after {wait:.1f} s)")
    return lost


def test_a_node_that_is_lost_in_the_middle_of_any_stage_takes_nothing_with_it(
    nodes: Cluster, pictures: Path, whole: Path, tmp_path: Path
) -> None:
    """Where a busy machine starts a node more slowly than a stage ends, there are further rounds."""
    lost: list[str] = []
    rounds = 0
    while len(lost) < LOSSES:
        rounds += 1
        assert rounds <= LOSSES, f"too few losses hit a stage: {lost}"
        out = tmp_path / str(rounds)
        with Curation(nodes, pictures, out) as curation:
            lost += lose_nodes(nodes, curation, whole)
            curation.finished()
        files = contents(out)
        assert files == contents(whole)
    print(f"{len(lost)} nodes lost in {rounds} rounds at {'; '.join(lost)}: {len(files)} files as on one machine")


def test_a_cluster_that_asks_for_a_token_says_so_in_one_line(nodes: Cluster, pictures: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in nodes.environment.items() if not name.startswith("RAY_AUTH")}
    words = fine(pictures, tmp_path / "out", "--engine", "ray")
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert f"the Ray cluster at {nodes.address} asks for a token; set RAY_AUTH_MODE=token" in ran.stderr


def test_where_the_head_is_lost_the_command_ends_and_another_cluster_goes_on(
    nodes: Cluster, pictures: Path, whole: Path, tmp_path: Path
) -> None:
    with Curation(nodes, pictures, tmp_path / "out") as curation:
        curation.until(lambda: curation.done("propose"))
        begin = time.monotonic()
        for name in [HEAD, *nodes.nodes]:
            if name in nodes.nodes:
                nodes.kill(name)
        status = curation.process.wait(AT_MOST)
        ended = time.monotonic() - begin
    assert status not in (0, None)
    assert f"the head of the Ray cluster at {nodes.address} does not answer" in curation.log.read_text()
    nodes.start_head()
    with Curation(nodes, pictures, tmp_path / "out") as curation:
        took = curation.finished()
    assert contents(tmp_path / "out") == contents(whole)
    print(f"head lost: the command ended with {status} within {ended:.0f} s, the same one went on, {took:.0f} s")
