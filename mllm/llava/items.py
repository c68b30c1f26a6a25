"""Scores of single questions, from lmms-eval's log of samples, where a task's score is their mean.

A row a question: `id` (TASK/NUMBER), `task`, and a column a metric; none where the question is not counted in it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.import_formats.scales import LIVEXIV, LIVEXIV_VERSIONS
from probes.protocol import Resampling

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_FACTS = ("id", "task")
_SAME = 1e-9


class TaskItems:
    """What `rice llava eval` stores beside a result; see `probes.protocol.ITEMS`."""

    @staticmethod
    def resampling(items: Path) -> "Iterable[Resampling]":
        """See `probes.protocol.Resamples`."""
        return resampling(items, named=False)


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Of samples.jsonl, in the order of the task's questions, whatever order several processes left them in."""
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(samples, key=lambda sample: int(sample["doc_id"]))


def scores_of(task: str, samples: Sequence[Mapping[str, Any]], metrics: Mapping[str, float]) -> "pd.DataFrame | None":
    """The rows of a task. metrics: its scores by name. A metric that is not the mean of its questions' scores (MME
    counts pairs, say) has no column; None where that leaves nothing, or where a question was scored by several filters.
    """
    import pandas as pd

    numbers = [int(sample["doc_id"]) for sample in samples]
    if len(set(numbers)) < len(numbers):
        return None
    columns = {name: [_score(sample.get(name.partition(",")[0])) for sample in samples] for name in metrics}
    kept = {name: values for name, values in columns.items() if _is_mean(values, metrics[name])}
    if not kept:
        return None
    return pd.DataFrame({"id": [f"{task}/{number}" for number in numbers], "task": task, **kept})


def write_items(path: Path, tables: "Iterable[pd.DataFrame]") -> None:
    """Atomically, the rows of one result. Each question once: the mean of LiveXiv's versions has their rows again."""
    import pandas as pd

    from rice.files import atomic_write

    rows = pd.concat(list(tables), ignore_index=True).drop_duplicates("id", ignore_index=True)
    with atomic_write(path, "wb") as file:
        rows.to_parquet(file)


def resampling(items: Path, *, named: bool) -> list[Resampling]:
    """See `probes.protocol.Resamples`. named: metrics are called TASK METRIC, and each task is drawn on its own; else
    the file is of one result, whose metrics have lmms-eval's names: the mean over its tasks of their means."""
    import pandas as pd

    rows = pd.read_parquet(items)
    if not named:
        return [Resampling(ids=rows["id"].tolist(), scores=partial(_means, rows, ""))]
    groups = [(str(task), own.dropna(axis="columns", how="all")) for task, own in rows.groupby("task", sort=True)]
    found = [Resampling(ids=own["id"].tolist(), scores=partial(_means, own, f"{task} ")) for task, own in groups]
    versions = rows[rows["task"].str.startswith(f"{LIVEXIV}_v")]
    if set(versions["task"]) == set(LIVEXIV_VERSIONS):
        own = versions[[*_FACTS, LIVEXIV]] if LIVEXIV in versions else versions
        found.append(Resampling(ids=own["id"].tolist(), scores=partial(_means, own, f"{LIVEXIV} ")))
    return found


def _means(rows: "pd.DataFrame", prefix: str, weights_RN: "NDArray[np.float64]") -> "dict[str, NDArray[np.float64]]":
    import numpy as np

    tasks_N = rows["task"].to_numpy()
    found = {}
    for name in rows.columns.difference(_FACTS, sort=False):
        value_N = rows[name].to_numpy(dtype=np.float64)
        means = []
        for task in dict.fromkeys(tasks_N):
            counted_N = np.isfinite(value_N) & (tasks_N == task)
            share_R = weights_RN[:, counted_N].sum(axis=1)
            total_R = weights_RN[:, counted_N] @ value_N[counted_N]
            means.append(np.divide(total_R, share_R, out=np.full(len(weights_RN), np.nan), where=share_R > 0))
        found[f"{prefix}{name}"] = np.mean(means, axis=0)
    return found


def _score(value: Any) -> float | None:
    """A number, or what a task's own record calls its score, or whether its answer is the true one (LiveXiv)."""
    if isinstance(value, dict):
        told, true = (str(value.get(name)).strip().lower() for name in ("pred", "answer"))
        value = value["score"] if "score" in value else told == true if {"pred", "answer"} <= value.keys() else None
    return float(value) if isinstance(value, bool | int | float) and math.isfinite(value) else None


def _is_mean(values: Sequence[float | None], score: float) -> bool:
    counted = [value for value in values if value is not None]
    return bool(counted) and abs(math.fsum(counted) / len(counted) - score) <= _SAME * max(1.0, abs(score))
