"""Killed by SIGKILL again and again, each big job ends as one that nobody touched: nothing lost, doubled, half-written.

Three kills a job, or RICE_KILLS of them; one line of figures each:

    RICE_KILLS=30 pytest -rP tests/reliability/test_kills.py

RICE_KILLS_MINUTES=20: as many as fit into so many minutes a job. RICE_KILLS_WARM=1: for busy machines, see
`warm_starts`.
"""

from pathlib import Path

import pytest
from killed_jobs import JOBS
from kills import KILLS, MINUTES, kill_again_and_again

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.mark.parametrize("name", JOBS)
def test_killed_again_and_again_the_same_command_ends_as_if_nobody_had_touched_it(name: str, tmp_path: Path) -> None:
    figures = kill_again_and_again(JOBS[name](tmp_path), tmp_path)
    print(figures.line())
    assert len(figures.hits) == KILLS or figures.seconds > 60 * MINUTES
    assert not {kind: files for kind, files in figures.harm.items() if files}
