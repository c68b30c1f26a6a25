"""Every reporter yields the items as they are; a cell's lines say where it stands."""

import io
import json

import pytest

from rice.progress import LINE_PREFIX, BarProgress, LineProgress, Progress, SilentProgress


@pytest.mark.parametrize("progress", [SilentProgress(), BarProgress(), LineProgress(io.StringIO())])
def test_items_pass_unchanged(progress: Progress) -> None:
    assert list(progress.track(iter("abc"), "letters")) == ["a", "b", "c"]


def test_first_and_last_line_are_always_written() -> None:
    stream = io.StringIO()
    list(LineProgress(stream).track([1, 2, 3], "fit"))
    lines = [json.loads(line.removeprefix(LINE_PREFIX)) for line in stream.getvalue().splitlines()]
    assert lines[0] == {"description": "fit", "done": 0, "total": 3}
    assert lines[-1] == {"description": "fit", "done": 3, "total": 3}


def test_a_vanished_parent_does_not_stop_the_job() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    assert list(LineProgress(Broken()).track([1, 2], "fit")) == [1, 2]
