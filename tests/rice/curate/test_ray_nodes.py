"""One stage on a Ray cluster whose nodes come and go: every shard is done, and a lost node costs what it had in hand.

RICE_RAY_CLUSTER=1 pytest -rP tests/rice/curate/test_ray_nodes.py       # five losses, two minutes
RICE_RAY_CLUSTER=20 pytest -rP tests/rice/curate/test_ray_nodes.py      # twenty
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from engine_targets import Counting
from ray_cluster import Cluster, cluster

pytest.importorskip("ray.data")
LOSSES = int(os.environ.get("RICE_RAY_CLUSTER") or 0)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(not LOSSES, reason="takes minutes; set RICE_RAY_CLUSTER=1"),
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, for many addresses of one machine"),
]
AT_MOST = 1800
"""Seconds that anything may take on a busy machine."""
SHARDS = dict.fromkeys(map(str, range(12)), 3)
ON_RAY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from engine_targets import Counting
from rice.curate.config import EngineConfig
from rice.curate.engine import Engine
from rice.progress import SilentProgress

if __name__ == "__main__":
    shards = dict.fromkeys(map(str, range(int(sys.argv[3]))), 3)
    with Engine(EngineConfig(engine="ray", device="cpu"), len(shards)) as engine:
        engine.run(Counting(Path(sys.argv[1])), shards, SilentProgress())
"""


def at_work(nodes: Cluster, node: str, out: Path, process: "subprocess.Popen[bytes]") -> tuple[str, float]:
    """The shard that a node is in the middle of, once it is, and how many seconds that took."""
    begin = time.monotonic()
    while True:
        mine = {worker.pid for worker in nodes.workers(node)}
        begun = [line.split() for line in (out / "begun.txt").read_text().splitlines()] if mine else []
        for shard, pid in begun:
            if int(pid) in mine:
                return shard, time.monotonic() - begin
        assert process.poll() is None, (out / "log").read_text()[-3000:]
        assert time.monotonic() - begin < AT_MOST, f"{node} gets nothing to do; {begun}"
        time.sleep(0.1)


def test_nodes_that_join_get_shards_and_those_that_are_lost_lose_none(tmp_path: Path) -> None:
    """Every loss hits a shard in its middle; each node but the first joins when the stage is under way."""
    losses = LOSSES if LOSSES > 1 else 5
    (tmp_path / "hold").touch()
    (tmp_path / "begun.txt").touch()
    script = tmp_path / "on_ray.py"
    script.write_text(ON_RAY)
    words = [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent), str(len(SHARDS))]
    short = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # for the names of sockets
    hit, waits, killed = Counter[str](), [], []
    with (
        short as folder,
        cluster(Path(folder), nodes=1) as nodes,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(words, env=nodes.environment, stdout=log, stderr=log) as process,
    ):
        try:
            at_work(nodes, "node0", tmp_path, process)
            for _ in range(losses):
                node = nodes.start_node()
                shard, waited = at_work(nodes, node, tmp_path, process)
                waits.append(waited)
                killed.append(nodes.kill(node))
                hit[shard] += 1
            (tmp_path / "hold").unlink()
            assert process.wait(AT_MOST) == 0, (tmp_path / "log").read_text()[-3000:]
        finally:
            process.kill()
    stage = Counting(tmp_path)
    assert all(stage.finished(shard) for shard in SHARDS)
    begun = Counter(line.split()[0] for line in (tmp_path / "begun.txt").read_text().splitlines())
    done = Counter((tmp_path / "done.txt").read_text().split())
    assert begun.keys() == done.keys() == SHARDS.keys()
    assert all(begun[shard] > times for shard, times in hit.items()), "a shard that was cut off counts as done"
    assert not list(tmp_path.rglob(".*.tmp"))
    print(
        f"{losses} nodes ({sum(killed)} processes) lost in the middle of shards: {len(SHARDS)} shards begun "
        f"{sum(begun.values())} times, done {sum(done.values())} times; a node that joins is at work after "
        f"{min(waits):.0f} to {max(waits):.0f} s"
    )
