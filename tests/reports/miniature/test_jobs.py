"""Commands run side by side: all that they say is in their logs, and a failure is one line."""

from pathlib import Path

import pytest

from reports.miniature.jobs import run_all
from rice.errors import RiceError
from rice.progress import SilentProgress


def test_what_a_command_prints_is_in_its_log_and_a_failure_names_its_last_line(tmp_path: Path) -> None:
    jobs = {"zoo": ["encoders"], "wrong": ["encoders", "--no-such-flag"]}
    with pytest.raises(RiceError, match=r"^wrong failed: .*wrong\.log\)$"):
        run_all({"wrong": jobs["wrong"]}, tmp_path, 2, SilentProgress(), "try")
    run_all({"zoo": jobs["zoo"]}, tmp_path, 2, SilentProgress(), "try")
    assert "mini-s8-128" in (tmp_path / "zoo.log").read_text()
