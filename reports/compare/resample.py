"""Scores of stored results on bootstrap draws of their items: the same draws for all seeds and encoders.

Shapes: S seeds, N items, R replicates.
"""

import functools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.protocol import ITEMS, Resamples, Resampling, probe_class, probe_names
from probes.results import RESULTS, items_path
from reports.compare.statistics import Estimate, Values, summary
from reports.measurements import Cell, Run
from rice.errors import RiceError
from rice.files import sha256_json
from rice.progress import Progress

RESAMPLES = 2000
FEWEST_RESAMPLES, MOST_RESAMPLES = 100, 1_000_000

_AT_ONCE = 50
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Replicates:
    """One metric of one result on all draws, (R,), as it is stored. `items`: digest of `count` ids. `whole`: the metric
    of each item counted once."""

    values: Values
    items: str
    count: int
    whole: float


class Resampler:
    """Draws items and computes metrics anew, once per result; `notes` says where that was not possible, and why."""

    def __init__(self, directory: Path, resamples: int = RESAMPLES, seed: int = 0) -> None:
        if not FEWEST_RESAMPLES <= resamples <= MOST_RESAMPLES:
            raise RiceError(f"expected {FEWEST_RESAMPLES:,} to {MOST_RESAMPLES:,} resamples, got {resamples:,}")
        if seed < 0:
            raise RiceError(f"expected a seed of at least 0, got {seed}")
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

    def summary(
        self,
        cell: Cell,
        runs: Sequence[Run],
        minus: Sequence[Run] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> Estimate:
        """Of one encoder's seeds; or, with `minus`, of paired differences to another's, seed by seed.

        groups: where several runs are not independent, the seed that each belongs to; they are averaged first.
        """
        values_S = np.array([run.value for run in runs])
        if minus is not None:
            values_S = np.array([run.value - other.value for run, other in zip(runs, minus, strict=True)])
        drawn = self._drawn(cell, [*runs, *(minus or ())])
        if drawn is None:
            return summary(_averaged(values_S, groups))
        draws_SR = cell.factor * np.stack([part.values for part in drawn])
        first_SR = draws_SR[: len(runs)]
        if minus is not None:
            first_SR = first_SR - draws_SR[len(runs) :]
        return summary(_averaged(values_S, groups), _averaged(first_SR, groups), drawn[0].count)

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
            stored = run.value / cell.factor
            if not abs(part.whole - stored) <= _SAME * max(1.0, abs(stored)):
                self._note(
                    f"{cell.probe} / {cell.metric}: items give {part.whole:g} where result {run.key[:8]} says "
                    f"{stored:g}; over seeds alone."
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


def _averaged(values_S: Values, groups: Sequence[Hashable] | None) -> Values:
    """The mean of each group's rows, groups in the order in which they come; without groups the rows."""
    if groups is None:
        return values_S
    names = list(dict.fromkeys(groups))
    return np.stack([values_S[[group == name for group in groups]].mean(axis=0) for name in names])


@functools.cache
def _probe(name: str) -> Resamples | None:
    """A probe that can be resampled. A file's own `module:Class` is not followed: results do not choose what runs."""
    if name not in (*probe_names(), *ITEMS):
        return None
    cls = probe_class(ITEMS.get(name, name))
    return cls if isinstance(cls, Resamples) else None
