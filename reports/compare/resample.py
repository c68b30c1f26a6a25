"""Scores of stored results on bootstrap draws of their items: the same draws for all seeds and encoders.

Shapes: S seeds, N items, R replicates.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probes.protocol import Resamples, Resampling, probe_class, probe_names
from probes.results import RESULTS, items_path
from reports.compare.measured import CELL, VARIANTS, Cell, Run
from reports.compare.statistics import Estimate, How, Values, margins, summary
from rice.errors import RiceError
from rice.files import sha256_json
from rice.progress import Progress, SilentProgress

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 2000
FEWEST_RESAMPLES = 100

_AT_ONCE = 50
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Replicates:
    """One metric of one result on all draws, (R,). `items`: digest of `count` ids. `whole`: each item counted once."""

    values: Values
    items: str
    count: int
    whole: float


class Resampler:
    """Draws items and computes metrics anew, once per result; `notes` says where that was not possible, and why."""

    def __init__(self, directory: Path, resamples: int = RESAMPLES, seed: int = 0) -> None:
        if resamples < FEWEST_RESAMPLES:
            raise RiceError(f"expected at least {FEWEST_RESAMPLES} resamples, got {resamples}")
        self.home = directory if (directory / RESULTS).is_dir() else directory.parent
        self.resamples, self.seed = resamples, seed
        self.notes: dict[str, None] = {}
        self._known: dict[str, Mapping[str, Replicates]] = {}

    def prepare(self, runs: Iterable[tuple[str, str]], progress: Progress) -> None:
        """Read and draw the items of results, each (probe, key), that are not known yet."""
        new = {key: probe for probe, key in runs if key not in self._known}
        stored = [key for key in new if items_path(self.home, key).is_file()]
        self._known |= {key: {} for key in new}
        for probe in sorted({new[key] for key in new.keys() - set(stored)}):
            self._note(f"{probe}: no items are stored for some results; their intervals are over seeds alone.")
        for key in progress.track(stored, "resample items") if stored else ():
            self._known[key] = self._read(new[key], items_path(self.home, key))

    def summary(self, cell: Cell, runs: Sequence[Run], minus: Sequence[Run] | None = None) -> Estimate:
        """Of one encoder's seeds; or, with `minus`, of paired differences to another's, seed by seed."""
        values_S = [run.value for run in runs]
        if minus is not None:
            values_S = [run.value - other.value for run, other in zip(runs, minus, strict=True)]
        drawn = self._drawn(cell, [*runs, *(minus or ())])
        if drawn is None:
            return summary(values_S)
        draws_SR = np.stack([part.values for part in drawn])
        first_SR = draws_SR[: len(runs)]
        return summary(values_S, first_SR if minus is None else first_SR - draws_SR[len(runs) :], drawn[0].count)

    def _drawn(self, cell: Cell, runs: Sequence[Run]) -> list[Replicates] | None:
        """The replicates of all runs, where they are of the same items and are the stored metric."""
        known = [self._known[run.key] for run in runs]
        if not any(known):
            return None
        found = [metrics[cell.metric] for metrics in known if cell.metric in metrics]
        if len(found) < len(runs):
            if all(known):
                self._note(f"{cell.probe} / {cell.metric}: does not follow from the items; over seeds alone.")
            return None
        if len({part.items for part in found}) > 1:
            self._note(f"{cell.probe} / {cell.metric}: the items of some results are others; over seeds alone.")
            return None
        for run, part in zip(runs, found, strict=True):
            if not abs(part.whole - run.value) <= _SAME * max(1.0, abs(run.value)):
                self._note(
                    f"{cell.probe} / {cell.metric}: items give {part.whole:g} where result {run.key[:8]} says "
                    f"{run.value:g}; over seeds alone."
                )
                return None
        return found

    def _read(self, probe: str, path: Path) -> Mapping[str, Replicates]:
        resamples = _probe(probe)
        if resamples is None:
            self._note(
                f"{probe}: this probe is not installed, or does not say how its metrics follow from items; intervals "
                "are over seeds alone."
            )
            return {}
        try:
            return {name: part for group in resamples.resampling(path) for name, part in self._draw(group)}
        except Exception as error:  # whatever is wrong with a file, or with a plug-in, costs these items alone
            reason = " ".join(str(error).split()) or type(error).__name__
            self._note(f"{probe}: items of result {path.stem[:8]} cannot be used ({reason}); over seeds alone.")
            return {}

    def _draw(self, group: Resampling) -> Iterator[tuple[str, Replicates]]:
        """Metric by metric. Draws depend on the seed and the number of items alone; ids in order are their columns."""
        count = len(group.ids)
        if len(set(group.ids)) < count:
            raise RiceError("expected every item once, got ids that repeat")
        place_N = np.argsort(np.argsort(np.array(group.ids, dtype=object)))
        whole = group.scores(np.ones((1, count)))
        parts = [group.scores(weights[:, place_N]) for weights in draws(count, self.resamples, self.seed)]
        digest = sha256_json(sorted(group.ids))
        for name, value in whole.items():
            drawn_R = np.concatenate([part[name] for part in parts])
            yield name, Replicates(drawn_R, digest, count, float(value[0]))

    def _note(self, text: str) -> None:
        self.notes[text] = None


def draws(count: int, resamples: int, seed: int) -> Iterator[Values]:
    """Weights (some R, count): how often each of `count` draws with replacement took each item."""
    rng = np.random.default_rng([seed, count])
    for start in range(0, resamples, _AT_ONCE):
        rows = min(_AT_ONCE, resamples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


@functools.cache
def _probe(name: str) -> Resamples | None:
    """A probe that can be resampled. A file's own `module:Class` is not followed: results do not choose what runs."""
    if name not in probe_names():
        return None
    cls = probe_class(name)
    return cls if isinstance(cls, Resamples) else None


def intervals(
    directory: Path,
    frame: "pd.DataFrame",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> "pd.DataFrame":
    """One row per encoder and cell of a frame of `probes.results.load(directory)`, in the metrics' stored units.

    Columns: "encoder", VARIANTS and CELL say which; then mean, spread (ddof 1; NaN for one seed), seeds, items (0: not
    used), low, high (95 %; NaN where there is no interval; fractions kept within 0 and 1), how (`statistics.How`).
    Quick where no items are stored; else about 0.1 s per result of a few hundred items.
    """
    keys = ["encoder", *VARIANTS, *CELL]
    groups = frame.groupby(keys, dropna=False, sort=True)
    table = groups.agg(mean=("value", "mean"), spread=("value", "std"), seeds=("seed", "size")).reset_index()
    resampler = Resampler(directory, resamples, seed)
    stored = _stored_items(resampler.home) & set(frame["key"])
    error = table["spread"] / np.sqrt(table["seeds"])
    known = error > 1e-12 * np.maximum(1.0, table["mean"].abs())
    margin = np.where(known, margins(error, table["seeds"] - 1), np.nan)
    table = table.assign(items=0, low=table["mean"] - margin, high=table["mean"] + margin)
    table["how"] = np.where(known, "seeds", "none")
    if stored:
        _resampled(table, frame[frame["key"].isin(stored)], groups.ngroup(), resampler, progress or SilentProgress())
    fraction = table["unit"] == "fraction"
    table.loc[fraction, ["low", "high"]] = table.loc[fraction, ["low", "high"]].clip(0, 1)
    return table


def _resampled(
    table: "pd.DataFrame", rows: "pd.DataFrame", group: "pd.Series[int]", resampler: Resampler, progress: Progress
) -> None:
    """Replace, in place, the estimates of the cells whose every seed has items."""
    resampler.prepare(rows[["probe", "key"]].drop_duplicates().itertuples(index=False, name=None), progress)
    for index, part in rows.groupby(group.loc[rows.index]):
        if len(part) < table.at[index, "seeds"]:
            continue
        first = part.iloc[0]
        runs = [Run(float(value), key) for value, key in zip(part["value"], part["key"], strict=True)]
        estimate = resampler.summary(Cell(*(first[name] for name in CELL)), runs)
        how: How = estimate.how
        low, high = estimate.interval or (np.nan, np.nan)
        table.loc[index, ["items", "low", "high", "how"]] = [estimate.items, low, high, how]


def _stored_items(home: Path) -> set[str]:
    """Keys of the results that have items."""
    folder = items_path(home, "").parent
    return {path.stem for path in folder.glob("*.parquet")} if folder.is_dir() else set()
