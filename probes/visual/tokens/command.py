"""`rice tokens`: how far apart an image's patch tokens lie, encoder beside encoder or step by step (Fig. 4).

`distances` is the statistic, `sample` chooses the pictures, `towers` the encoders.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rice.device import AUTO, pick_device
from rice.errors import RiceError
from rice.progress import BarProgress

if TYPE_CHECKING:
    from probes.visual.tokens.measure import Measured


def tokens(
    data: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    out: Path,
    encoders: tuple[str, ...] = (),
    weights: tuple[str, ...] = ("default",),
    run: tuple[Path, ...] = (),
    images: int = 200,
    split: str | None = None,
    seed: int = 0,
    grid: int | None = None,
    device: str = AUTO,
) -> None:
    """How far apart the patch tokens of an image lie: cosine distances of all its pairs of tokens, as Fig. 4 shows.

    Every encoder sees the same pictures, squashed to one grid of tokens, and gives its own last hidden state. Distances
    are shown as they are, which is the paper's figure, and with the encoder's mean token over the pictures taken off:
    an offset that all tokens share makes them look alike, whatever they tell apart.

    Writes tokens.png, tokens.pdf (density curves) and tokens.json (statistics, histograms, each image's mean, paired
    differences with 95 % bootstrap intervals over images). A killed run goes on with the same command.

    Example: rice tokens COCO --encoders mini-s8-128 mini-s8-128 --weights default none --out out/tokens

    The course of a training, or of two side by side: rice tokens COCO --run out/mlcd out/rice --out out/course

    Args:
        data: Data set in COCO's layout or a relative's, or any folder of pictures.
        out: Folder to write to: new, empty, or of an earlier run of the same command.
        encoders: NAME or NAME,layer=-2, one or more; `rice encoders` lists them.
        weights: "default" (published), "none" (random, offline) or a local path: once for all, or once for each of
            --encoders, in their order.
        run: The --out of `rice train`: every checkpoint that it kept, and `final`. Two are compared at the steps that
            both have kept; train with --machine.save-every and --machine.keep.
        images: Pictures to look at.
        split: Of the data set. Default: the one that `rice data check` would test on.
        seed: Decides which pictures, and what the bootstrap draws.
        grid: Tokens along each edge; pictures are squashed to GRID x patch pixels. Default: 16, or the most below it
            that all encoders take.
        device: auto (the GPU where there is one), cpu, cuda or cuda:1.
    """
    _consistent(encoders, weights, run)
    from probes.visual.tokens.sample import draw_sample
    from probes.visual.towers import matched_grid, named_towers, run_towers

    sample = draw_sample(data, split, images, seed)
    towers = run_towers(run) if run else named_towers(encoders, weights)
    edge = matched_grid(towers, grid)

    from probes.visual.tokens.run import OUTPUTS, Comparison

    comparison = Comparison(towers, sample, edge, out, seed=seed, data=data.resolve().name)
    if comparison.folder.done:
        print("all is there")  # noqa: T201
    found = comparison.run(str(pick_device(device)), BarProgress())
    print(report(found, comparison.caption, seed))  # noqa: T201
    print("\n".join(str(out / name) for name in OUTPUTS))  # noqa: T201


def _consistent(encoders: Sequence[str], weights: Sequence[str], run: Sequence[Path]) -> None:
    if bool(encoders) == bool(run):
        raise RiceError("expected --encoders, or --run; see: rice tokens --help")
    if run and tuple(weights) != ("default",):
        raise RiceError("--weights goes with --encoders; a --run has its own")


def report(found: "Sequence[Measured]", caption: str, seed: int) -> str:
    """The statistics as lines of text, and differences: of encoders to the first, of a run its last step to its first,
    of two runs step for step.
    """
    from probes.visual.tokens.run import differences

    rows = [("", "mean ± s.d.", "median", "5 % to 95 %", "centred", "centred 5 % to 95 %")]
    for measured in found:
        raw, centred = measured.raw, measured.centred
        rows.append(
            (
                measured.label,
                f"{raw.mean:.4f} ± {raw.std:.4f}",
                f"{raw.quantile(0.5):.3f}",
                f"{raw.quantile(0.05):.3f} to {raw.quantile(0.95):.3f}",
                f"{centred.mean:.4f} ± {centred.std:.4f}",
                f"{centred.quantile(0.05):.3f} to {centred.quantile(0.95):.3f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([caption, "", *lines, "", *map(_difference, _shown(found, differences(found, seed))), ""])


def _shown(found: "Sequence[Measured]", differences: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of all pairs that the terminal shows."""
    by_label = {measured.label: measured for measured in found}
    runs = {measured.run for measured in found}
    shown = []
    for row in differences:
        first, second = by_label[row["first"]], by_label[row["second"]]
        if len(runs) > 1:
            wanted = first.step == second.step
        else:
            wanted = first is found[0] and (first.run is None or second is found[-1])
        if wanted:
            shown.append(row)
    return shown


def _difference(row: dict[str, Any]) -> str:
    words = [f"{kind} {_interval(row[kind])}" for kind in ("raw", "centred")]
    return f"{row['second']} minus {row['first']}: {', '.join(words)}"


def _interval(value: dict[str, float | None]) -> str:
    if value["low"] is None:
        return f"{value['mean']:+.4f}"
    return f"{value['mean']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]"
