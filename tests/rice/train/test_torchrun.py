"""`rice train` under torchrun itself: where ranks or whole nodes die, the group starts again and the numbers stay.

RICE_RANK_KILLS=5 pytest -rP tests/rice/train/test_torchrun.py    # as many; prints what was killed, and what it cost

Ranks are processes on one machine that talk by gloo and share its disk.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import loop_targets as targets
import psutil
import pytest
from agents import Agent, agents, free_port, until
from loop_targets import assert_same

KILLS = int(os.environ.get("RICE_RANK_KILLS") or 0)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(not KILLS, reason="takes minutes; set RICE_RANK_KILLS=5"),
]
STEPS, EVERY = 40, 4
Launch = Callable[..., Agent]


@pytest.fixture
def launch() -> Iterator[Launch]:
    with agents() as begin:
        yield begin


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return targets.write_shards(tmp_path_factory.mktemp("data") / "shards")


def command(data: Path, out: Path) -> tuple[str, ...]:
    size = ("--stream.size", "32", "--stream.min-edge", "1", "--batch", "4", "--samples", str(4 * STEPS))
    often = ("--machine.device", "cpu", "--machine.save-every", str(EVERY), "--machine.log-every", "1")
    return ("train", "tiny", "--data", str(data), "--out", str(out), *size, *often)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run of two ranks that nobody touched, and its seconds."""
    folder, begin = tmp_path_factory.mktemp("whole"), time.monotonic()
    with agents() as launch:
        agent = launch(folder / "log", ("--standalone", "--nproc-per-node", "2"), command(data, folder / "out"))
        assert agent.finished() == 0, agent.said()
    return folder / "out", time.monotonic() - begin


def last(out: Path) -> int:
    """The last step that was logged, or -1."""
    metrics = out / "metrics.jsonl"
    whole, _, _ = (metrics.read_text() if metrics.exists() else "").rpartition("\n")
    return int(json.loads(whole.splitlines()[-1])["step"]) if whole else -1


def saved(out: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(path.name.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*")), default=0)


def left_behind(out: Path) -> list[str]:
    """What a writer that was killed leaves, and nobody reads."""
    return [path.name for path in out.rglob(".*.tmp")]


def begun(out: Path, before: int) -> int:
    """Which file the run logs to once it has resumed: each life begins a new one. 0: not yet."""
    with contextlib.suppress(FileNotFoundError):
        return found if (found := (out / "metrics.jsonl").stat().st_ino) != before else 0
    return 0


def test_killed_ranks_leave_no_trace_in_the_numbers(
    data: Path, tmp_path: Path, whole: tuple[Path, float], launch: Launch
) -> None:
    """Bit for bit. Every other rank is killed while a checkpoint, and the last one while the encoder is written."""
    out, begin = tmp_path / "out", time.monotonic()
    options = ("--standalone", "--nproc-per-node", "2", "--max-restarts", str(KILLS))
    agent = launch(tmp_path / "log", options, command(data, out))
    life, inside, again, waits = 0, 0, [], []
    for number in range(KILLS):
        until(lambda life=life: begun(out, life), agent)  # type: ignore[misc]
        life, ranks = begun(out, life), agent.ranks()
        base = saved(out)
        until(lambda base=base: saved(out) > base, agent)  # type: ignore[misc]
        goal = saved(out) + number % EVERY
        if number == KILLS - 1:
            until(lambda: list(out.glob(".final.*")), agent)
        elif number % 2:
            until(lambda: list((out / "checkpoints").glob(".step-*.tmp")), agent)
        else:
            until(lambda goal=goal: last(out) >= goal, agent)  # type: ignore[misc]
        ranks[number % 2].kill()
        reached, kept, killed = last(out) + 1, saved(out), time.monotonic()
        inside += bool(left_behind(out))
        again.append(reached - kept)
        _, alive = psutil.wait_procs(ranks.values(), timeout=60)
        assert not alive, "a rank waits for one that is dead"
        waits.append(time.monotonic() - killed)
    assert agent.finished() == 0, agent.said()
    took = time.monotonic() - begin
    assert_same(whole[0], out, 0.0)
    assert not left_behind(out)
    assert inside >= KILLS // 2
    print(
        f"{KILLS} ranks killed, {inside} while files were written: steps done again {again}, "
        f"the other rank ended within {max(waits):.1f} s, {took:.0f} s in all, undisturbed {whole[1]:.0f} s"
    )


def test_a_run_goes_on_without_a_lost_node_and_takes_another_in(
    data: Path, tmp_path: Path, whole: tuple[Path, float], launch: Launch
) -> None:
    """On two nodes, one, and two again, to 1e-5. The node whose agent holds the meeting has to stay."""
    out, port = tmp_path / "out", free_port()
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "a-run")
    options = ("--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", "--local-addr", "127.0.0.1", *meeting)
    first = launch(tmp_path / "first", options, command(data, out))
    until(lambda: _listens(port), first)
    second = launch(tmp_path / "second", options, command(data, out))
    until(lambda: last(out) > EVERY, first)
    assert ranks_of(out) == 2
    reached, killed, begin = last(out) + 1, second.kill(), time.monotonic()
    until(lambda: ranks_of(out) == 1, first)
    alone, again = time.monotonic() - begin, reached - saved(out)
    begin = time.monotonic()
    until(lambda: last(out) > reached, first)
    launch(tmp_path / "third", options, command(data, out))
    until(lambda: ranks_of(out) == 2, first)
    joined, at = time.monotonic() - begin, last(out) + 1
    assert first.finished() == 0, first.said()
    assert at < STEPS, "the run was over before the third node came"
    assert_same(whole[0], out, 1e-5)
    assert not left_behind(out)
    print(
        f"a node of {killed} processes lost at step {reached}: {again} steps done again, on one node after "
        f"{alone:.0f} s; on two again {joined:.0f} s later, at step {at} of {STEPS}"
    )


def ranks_of(out: Path) -> int:
    """As the newest life noted."""
    return int(json.loads((out / "run.json").read_text())["ranks"])


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
