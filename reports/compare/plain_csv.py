"""Comparisons as CSV: plain numbers in full precision, a column each; an absent number is empty."""

import csv
import io
from collections.abc import Iterable, Sequence

from reports.compare.measured import Measured
from reports.compare.pairs import Comparison
from reports.compare.ranks import Ranked, Ranking
from reports.grid import defuse

_DIFFERENCE = ("difference", "low", "high", "p", "p_holm", "verdict", "how")
_RANKED = ("mean", "std", "low", "high", "best rank", "worst rank")

Number = float | str | None


def pair_csv(comparison: Comparison, stored: Measured) -> str:
    """A line a cell: its probe, dataset and metric, both means, and their difference (fractions in percent)."""
    heads = ["probe", "dataset", "metric", comparison.first, comparison.second, *_DIFFERENCE]
    lines = []
    for pair in comparison.pairs:
        low, high = pair.difference.interval or (None, None)
        numbers = [pair.first, pair.second, pair.difference.mean, low, high, pair.difference.p, pair.p]
        lines.append([*stored.labels[pair.cell], *numbers, pair.verdict, pair.difference.how])
    return _write(heads, lines)


def rank_csv(ranking: Ranking, stored: Measured) -> str:
    """A line an encoder: for each column its score and range of ranks; the mean rank (fractions in percent)."""
    heads = ["encoder", *(f"{stored.title(cell)} {part}" for cell in ranking.columns for part in _RANKED), "mean rank"]
    lines = []
    for name in ranking.encoders:
        parts = [_numbers(ranking.ranked.get((name, cell))) for cell in ranking.columns]
        ranks = ranking.mean_ranks
        mean = None if ranks is None else ranks.means[ranking.mean_rank_of[name]]
        lines.append([stored.shown(name), *(number for part in parts for number in part), mean])
    return _write(heads, lines)


def _numbers(entry: Ranked | None) -> Sequence[Number]:
    if entry is None:
        return [None] * len(_RANKED)
    return [entry.score.mean, entry.score.spread, *(entry.interval or (None, None)), entry.best, entry.worst]


def _write(heads: Iterable[str], lines: Iterable[Iterable[Number]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(defuse, heads))
    for line in lines:
        writer.writerow(defuse(value) if isinstance(value, str) else value for value in line)
    return file.getvalue().rstrip("\n")
