"""Which differences between encoders are more than noise? `rice compare`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from reports.grid import GRID_WRITERS, Format
from rice.errors import RiceError, nearest
from rice.files import atomic_write

if TYPE_CHECKING:
    from reports.compare.measured import Measured
    from reports.compare.resample import Resampler


def compare(
    directory: Annotated[Path, tyro.conf.Positional],
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    *,
    metrics: tuple[str, ...] = (),
    format: Format = "markdown",  # noqa: A002 - the flag's name
    json: bool = False,
    out: Path | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> None:
    """Say which differences between encoders are more than noise.

    With two names: is the first better than the second, cell by cell (same probe, dataset, metric, split, config and
    protocol; paired by seed and by test item), with p-values corrected for the number of cells (Holm), and over
    datasets. What the two do not share is listed, never compared. Without names: all encoders, each with the range of
    ranks that noise leaves it, as in 41.20 ± 0.31 (1-3); bold: no other encoder of the column is better beyond noise.

    Example: rice compare out dinov2-b14-518 rice-l14-560

    Args:
        directory: A sweep's --out folder, or its results folder.
        names: Two encoders, as rice tables prints them.
        metrics: Only these metrics; default all. Fewer cells are corrected for less.
        format: markdown, latex (booktabs), csv (plain numbers) or html.
        json: All numbers as JSON instead.
        out: Write to this file; default: print.
        seed: Of the bootstrap over items.
        resamples: Bootstrap draws of the items.
    """
    from reports.compare.measured import measured
    from reports.compare.resample import Resampler
    from reports.reading import read_frame

    frame, _ = read_frame(directory, metrics)
    stored = measured(frame)
    resampler = Resampler(directory, resamples, seed)
    if not names:
        text = _all(stored, resampler, format, json)
    else:
        text = _two(stored, _chosen(names, stored), resampler, format, json)
    if out is None:
        print(text)  # noqa: T201
    else:
        with atomic_write(out) as file:
            file.write(text + "\n")
        print(f"wrote {out}")  # noqa: T201


def _chosen(names: tuple[str, ...], stored: "Measured") -> tuple[str, str]:
    """Two labels. A name may be given as shown, with its remark."""
    if len(names) != 2:
        raise RiceError(f"expected two encoders to compare, or none for all, got {len(names)}: {', '.join(names)}")
    shown = {stored.shown(label): label for label in stored.scores}
    labels = []
    for name in names:
        label = shown.get(name, name)
        if label not in stored.scores:
            variants = [known for known in stored.scores if known.startswith((f"{name}@", f"{name},", f"{name} ["))]
            hint = f" It is several here: {', '.join(variants)}." if variants else nearest(name, stored.scores)
            raise RiceError(f"no encoder {name!r} in the results.{hint} Known: {', '.join(sorted(stored.scores))}")
        labels.append(label)
    if labels[0] == labels[1]:
        raise RiceError(f"expected two different encoders, got {labels[0]} twice")
    return labels[0], labels[1]


def _two(stored: "Measured", names: tuple[str, str], resampler: "Resampler", form: Format, as_json: bool) -> str:
    from reports.compare import pairs
    from reports.compare.grids import pair_grid
    from reports.compare.plain_csv import pair_csv
    from rice.progress import BarProgress

    first, second = (stored.scores[name] for name in names)
    both = first.keys() & second.keys()
    runs = {(cell.probe, run.key) for scores in (first, second) for cell in both for run in scores[cell].values()}
    resampler.prepare(sorted(runs), BarProgress())
    comparison = pairs.compare_pair(stored, *names, resampler)
    if as_json:
        return _dump(pairs.as_json(comparison, stored), resampler)
    if form == "csv":
        return pair_csv(comparison, stored)
    return GRID_WRITERS[form](pair_grid(comparison, stored, resampler))


def _all(stored: "Measured", resampler: "Resampler", form: Format, as_json: bool) -> str:
    from reports.compare import ranks
    from reports.compare.grids import rank_grid
    from reports.compare.plain_csv import rank_csv
    from rice.progress import BarProgress

    runs = {(c.probe, r.key) for scores in stored.scores.values() for c, rs in scores.items() for r in rs.values()}
    progress = BarProgress()
    resampler.prepare(sorted(runs), progress)
    ranking = ranks.rank_all(stored, resampler, progress)
    if as_json:
        return _dump(ranks.as_json(ranking, stored), resampler)
    return rank_csv(ranking, stored) if form == "csv" else GRID_WRITERS[form](rank_grid(ranking, stored, resampler))


def _dump(document: dict[str, Any], resampler: "Resampler") -> str:
    from reports.compare.grids import method

    notes = [f"{method(resampler)}.", *resampler.notes]
    return json.dumps(document | {"notes": notes}, indent=1, ensure_ascii=False, allow_nan=False)
