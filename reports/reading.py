"""Stored results for commands that print: what is no result is named on standard error and left out."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from probes.results import load
from probes.stored import Rejected
from rice.errors import RiceError, nearest

if TYPE_CHECKING:
    import pandas as pd


def load_listed(directories: Sequence[Path]) -> "tuple[pd.DataFrame, list[Rejected]]":
    """The results of several folders as one frame, and what is left out. A result that lies in two folders counts once.

    Errors: RiceError for a folder that cannot be read.
    """
    import pandas as pd

    rejected: list[Rejected] = []
    frames = [load(directory, rejected) for directory in directories]
    for found in rejected:
        print(f"left out {found.file}: {found.reason}", file=sys.stderr)  # noqa: T201
    whole = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return whole.drop_duplicates(["key", "metric", "split"], ignore_index=True), rejected


def load_metrics(directory: Path, metrics: Sequence[str]) -> "tuple[pd.DataFrame, list[Rejected]]":
    """The results of one folder, of these metrics only; all without any. Errors: RiceError for a folder without
    results, and for a metric that none has."""
    frame, rejected = load_listed([directory])
    if frame.empty:
        raise RiceError(f"expected results under {directory}, found none; make some with: rice sweep")
    known = sorted(set(frame["metric"]))
    for metric in metrics:
        if metric not in known:
            raise RiceError(f"no metric {metric!r} in {directory}.{nearest(metric, known)} Known: {', '.join(known)}")
    return (frame[frame["metric"].isin(metrics)] if metrics else frame), rejected
