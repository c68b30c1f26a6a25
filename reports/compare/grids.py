"""Comparisons as grids of texts: what a hurried reader sees of `rice compare`."""

from reports.compare.measured import Measured
from reports.compare.pairs import Comparison, show_p
from reports.compare.ranks import Ranked, Ranking
from reports.compare.resample import Resampler
from reports.compare.statistics import FEWEST_DATASETS
from reports.grid import BEST, EMPTY, OTHER, Entry, Grid, Line

_DECIMALS = 2


def method(resampler: Resampler) -> str:
    """How intervals and p-values came about, without the full stop."""
    return (
        "Intervals: 95 %, from the standard error over seeds (Student's t) and, where the probe stores items, over "
        f"items (bootstrap, {resampler.resamples:,} draws, the same for all encoders and seeds); p: two-sided, "
        "Student's t test of the paired difference"
    )


def pair_grid(comparison: Comparison, stored: Measured, resampler: Resampler) -> Grid:
    """A line a cell, its last column in words; the better of two means is bold."""
    first, second = stored.shown(comparison.first), stored.shown(comparison.second)
    heads = ["probe", "dataset", "metric", first, second, f"{first} is"]
    lines = []
    for pair in comparison.pairs:
        means = [
            Entry(f"{mean:.{_DECIMALS}f}", BEST if pair.verdict == won else OTHER)
            for mean, won in ((pair.first, "better"), (pair.second, "worse"))
        ]
        lines.append(Line((*map(Entry, stored.labels[pair.cell]), *means, Entry(pair.words(_DECIMALS)))))
    notes = [*_pair_notes(comparison, first, second), f"{method(resampler)}, Holm's over the {_tests(comparison)}."]
    notes += [*resampler.notes, *(f"Left out: {text}." for text in comparison.left_out)]
    return Grid(heads=[[(head, 1) for head in heads]], labels=3, lines=lines, notes=notes)


def _tests(comparison: Comparison) -> str:
    count = sum(pair.p is not None for pair in comparison.pairs)
    return f"{count} cell{'' if count == 1 else 's'} tested"


def _pair_notes(comparison: Comparison, first: str, second: str) -> list[str]:
    """The whole in two sentences."""
    verdicts = [pair.verdict for pair in comparison.pairs]
    kinds = ("better", "worse", "indistinguishable", "equal", "not tested")
    counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in kinds if kind in verdicts)
    notes = [f"{first} against {second} in {len(verdicts)} shared cells: {counts}."]
    if "indistinguishable" in verdicts:
        notes.append("Indistinguishable: these seeds and items cannot tell which is better; not that both are equal.")
    over = comparison.over_datasets
    if over is not None:
        number = over.wins + over.losses
        tests = f"too few for a test over datasets ({FEWEST_DATASETS} that differ)"
        if over.sign is not None and over.wilcoxon is not None:
            tests = f"sign test {show_p(over.sign)}, Wilcoxon's signed ranks {show_p(over.wilcoxon)}"
        notes.append(
            f"Over datasets: better on {over.wins}, worse on {over.losses}, by {over.mean:+.{_DECIMALS}f} points on "
            f"average (metrics in percent, averaged in each dataset); {tests}."
            if number
            else "Over datasets: no difference."
        )
    return notes


def rank_grid(ranking: Ranking, stored: Measured, resampler: Resampler) -> Grid:
    """A line an encoder, the best first; bold where no other encoder of the column is better beyond noise."""
    metrics = [(stored.labels[cell][2], 1) for cell in ranking.columns]
    heads = [_upper(ranking, stored), [("encoder", 1), *metrics, ("mean rank", 1)]]
    lines = []
    for name in ranking.encoders:
        entries = [_ranked_entry(ranking.ranked.get((name, cell))) for cell in ranking.columns]
        lines.append(Line((Entry(stored.shown(name)), *entries, Entry(_mean_rank(ranking, name)))))
    return Grid(heads=heads, labels=1, lines=lines, notes=_rank_notes(ranking, resampler))


def _ranked_entry(entry: Ranked | None) -> Entry:
    if entry is None:
        return Entry(EMPTY)
    return Entry(entry.text(_DECIMALS), BEST if entry.rivals and entry.best == 1 else OTHER)


def _upper(ranking: Ranking, stored: Measured) -> list[tuple[str, int]]:
    """Neighbours of one probe and dataset under one head."""
    heads: list[tuple[str, int]] = [("", 1)]
    for cell in ranking.columns:
        text = " / ".join(stored.labels[cell][:2])
        if heads[-1][0] == text:
            heads[-1] = (text, heads[-1][1] + 1)
        else:
            heads.append((text, 1))
    return [*heads, ("", 1)]


def _mean_rank(ranking: Ranking, name: str) -> str:
    ranks = ranking.mean_ranks
    if ranks is None:
        return EMPTY
    index = ranking.mean_rank_of[name]
    between = ""
    if ranks.intervals is not None:
        low, high = ranks.intervals[index]
        between = f" ({low:.1f} to {high:.1f})"
    return f"{ranks.means[index]:.2f}{between}"


def _rank_notes(ranking: Ranking, resampler: Resampler) -> list[str]:
    notes = [
        "In brackets: the ranks that noise leaves to an encoder; bold: no encoder is better beyond noise. A false "
        "difference in a column has a chance of at most 5 % (Holm's correction over its pairs of encoders).",
        "Mean ± standard deviation (ddof 1) over seeds; fractions in percent.",
        f"{method(resampler)}.",
    ]
    ranks = ranking.mean_ranks
    if ranks is None:
        notes.append("No mean rank: there is no column that all encoders have, or one encoder only.")
        return [*notes, *resampler.notes]
    several = f"{len(ranking.complete)} of {len(ranking.columns)} columns, which all encoders have"
    notes.append(f"Mean rank: over {ranks.datasets} dataset{'s' if ranks.datasets > 1 else ''} ({several}).")
    if ranks.intervals is None:
        notes[-1] += f" Its interval and Friedman's test need {FEWEST_DATASETS} datasets."
    else:
        notes[-1] += " Its interval is from a bootstrap over datasets."
    if ranks.friedman is not None:
        notes.append(f"Friedman's test that all encoders rank alike: {show_p(ranks.friedman)}.")
    return [*notes, *resampler.notes]
