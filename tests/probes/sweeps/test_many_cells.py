"""What a sweep of many cells costs its parent: naming them, and waiting for the few that run."""

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probes.sweeps import pool
from probes.sweeps.job import BUSY, DONE
from probes.sweeps.plan import _variants
from probes.sweeps.pool import Exit, Outcome, Pool

WORDS = ("--grid=matched", "--updates=100", "--amp", "--batch=8")


@pytest.mark.parametrize("seed", range(20))
def test_a_variant_is_what_a_task_does_not_share_with_all_its_rivals(seed: int) -> None:
    dice = random.Random(seed)
    tasks: list[Any] = [
        SimpleNamespace(
            entry=SimpleNamespace(probe=dice.choice(("dense", "knn"))),
            dataset=SimpleNamespace(name=dice.choice("ab")),
            words=tuple(dice.sample(WORDS, dice.randint(0, 3))),
        )
        for _ in range(dice.randint(1, 8))
    ]
    for task, variant in zip(tasks, _variants(tasks), strict=True):
        rivals = [t for t in tasks if (t.entry.probe, t.dataset) == (task.entry.probe, task.dataset)]
        own = [word for word in task.words if not all(word in rival.words for rival in rivals)]
        assert variant == (f" ({' '.join(own)})" if own else "")


class Scene:
    """A host whose attempts last some polls and may find their cell busy, on a clock that ticks by itself."""

    retry_s = 2.0

    def __init__(self, seed: int, slots: int, longest: int) -> None:
        self.devices: Sequence[str] = ["cpu"] * slots
        self._dice, self._longest = random.Random(seed), longest
        self._now = 0.0
        self.done: set[str] = set()
        self.told: list[tuple[str, str]] = []

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def missing_seeds(self, out: Path, identity: str, seeds: Sequence[int], since: float | None) -> list[int]:
        return [] if identity in self.done else [0]

    def start(self, cell: Any, job: Any, slot: int) -> Any:
        polls = iter([None] * self._dice.randint(0, self._longest))
        busy = self._dice.random() < 0.5

        def poll(board: Any) -> Exit | None:
            for _ in polls:
                return None
            if not busy or self._dice.random() < 0.5:  # of the busy ones, half are done by whoever held them
                self.done.add(cell.identity)
            return Exit(status=BUSY if busy else DONE)

        return SimpleNamespace(poll=poll, kill=lambda: None)

    def run(self, kind: type[Pool], cells: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
        """What a board is told, in order."""
        board: Any = SimpleNamespace(
            start=lambda cell: self.told.append(("start", cell.identity)),
            finish=lambda outcome: self.told.append((outcome.state, outcome.cell.identity)),
        )
        monkeypatch.setattr(pool, "time", self)
        monkeypatch.setattr(pool, "missing_seeds", self.missing_seeds)
        monkeypatch.setattr(pool, "job_of", _job)
        planned: list[Any] = [SimpleNamespace(identity=str(i), seeds=(0,)) for i in range(cells)]
        kind(self, Path("out"), {}).run(planned, board)
        return self.told


def _job(cell: Any, out: Path, *, redo: Mapping[str, str], device: str) -> Any:
    return SimpleNamespace(log=out, out=out, identity=cell.identity, seeds=cell.seeds, redo=redo)


class EveryCell(Pool):
    """The same, but every waiting cell is looked at in every tick."""

    def _fill(self, queue: "deque[tuple[Any, float]]", board: Any) -> Iterator[Outcome]:
        for _ in range(len(queue)):
            cell, not_before = queue.popleft()
            if not self._free or pool.time.monotonic() < not_before:
                queue.append((cell, not_before))
                continue
            queue.appendleft((cell, not_before))
            rest = deque([queue.popleft()])
            yield from super()._fill(rest, board)
            assert not rest


@pytest.mark.parametrize("seed", range(20))
def test_cells_start_and_end_as_if_every_one_were_looked_at_in_every_tick(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, expected = (
        Scene(seed, slots=1 + seed % 3, longest=8).run(kind, 25, monkeypatch) for kind in (Pool, EveryCell)
    )
    assert told == expected
    assert len([state for state, _ in told if state == "done"]) == 25


def test_a_tick_without_a_free_slot_leaves_the_queue_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    class Counted(deque[Any]):
        def popleft(self) -> Any:
            looked.append(1)
            return super().popleft()

    monkeypatch.setattr(pool, "deque", Counted)
    scene = Scene(3, slots=1, longest=60)
    scene.run(Pool, 200, monkeypatch)
    started = len([state for state, _ in scene.told if state == "start"])
    assert 200 <= started <= len(looked)
    assert len(looked) < 20 * started  # of 30 ticks a cell, each with up to 200 cells
