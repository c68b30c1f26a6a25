"""Where a rank is lost and no torchrun is there to see it, the others end with one line, in bounded time."""

import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import loop_targets as targets
import pytest
from ranks import Ranks

from rice.train.build import PATIENCE

SECONDS = 5.0
"""Of patience; a run has minutes."""


@pytest.mark.alone
@pytest.mark.parametrize(
    ("how", "least", "words"),
    [
        pytest.param(signal.SIGKILL, 0.0, "Connection (closed|reset) by peer", id="killed"),
        pytest.param(signal.SIGSTOP, SECONDS, "Timed out waiting 5000ms", id="hanging"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_the_other_ranks_of_a_lost_one_end_with_one_line(
    tmp_path: Path, start: Callable[..., Ranks], rank: int, how: int, least: float, words: str
) -> None:
    data = targets.write_shards(tmp_path / "shards")
    forked = replace(targets.config().stream, workers=1)  # each has the connections of its rank
    settings = targets.config(stream=forked)
    ranks = start(3, targets.lose, data, tmp_path / "out", settings, rank, how, SECONDS, join=False)
    ranks.wait_for("said", timeout=1200)  # nearly all of which a busy machine takes to begin
    others = [process for number, process in enumerate(ranks.processes) if number != rank]
    for process in others:
        process.join(60)
        assert process.exitcode == 0, "a rank waits at its end for one that is lost"
    ended = time.monotonic()
    ranks.kill()  # hears what is left
    ((_, lost),) = (words for words in ranks.reports if words[0] == "lost")
    said = [words[1:] for words in ranks.reports if words[0] == "said"]
    assert len(said) == 2
    for seconds, line in said:
        assert least <= seconds - lost < least + 60
        assert line.startswith("another rank of this run has ended, or does not answer (")
    assert any(re.search(words, line) for _, line in said), said
    print(
        f"the others told after {max(when for when, _ in said) - lost:.1f} s, and were gone after {ended - lost:.1f} s"
    )


def test_a_training_is_patient_for_minutes_not_for_hours() -> None:
    assert timedelta(minutes=5) <= PATIENCE <= timedelta(hours=1)
