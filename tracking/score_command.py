"""`rice track score`: success, precision and average overlap of result files, as a table, as JSON, and as files."""

import csv
import dataclasses
import json as json_format
from pathlib import Path
from typing import Annotated

import tyro

from rice.errors import RiceError
from rice.files import atomic_write, write_json
from tracking.curves import write_curves
from tracking.protocols import PROTOCOLS, READS, Protocol, definition, known
from tracking.score import Scores, judge
from tracking.score_inputs import Sides, read_predictions, read_truths

_SHOWN = 5
"""So many of the best and of the worst sequences are in the table."""

_FLAGS = {"absent": "--absent", "cover": "--cover", "sizes": "--sizes", "size": "--image-size"}


def score(
    *,
    gt: Path,
    pred: Path,
    protocol: Annotated[str | None, tyro.conf.arg(metavar="{" + ",".join(PROTOCOLS) + "}")] = None,
    absent: Path | None = None,
    cover: Path | None = None,
    sizes: Path | None = None,
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="W H")] = None,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Score single-object tracks against a truth, by the definitions of a toolkit of your choice.

    The toolkits disagree on the same boxes by points, so --protocol must be named: each is that toolkit's own figure,
    its treatment of absent targets, damaged boxes and early ends included. Figures are percent.

    Folders hold one SEQUENCE.txt for each sequence with a line x, y, width, height for each frame, between commas, tabs
    or spaces, in the benchmark's own coordinates. Bad input ends with one line and status 2, and nothing is written.

    Example: rice track score --protocol lasot-matlab --gt annos/ --absent annos/absent/ --pred results/

    GOT-10k: rice track score --protocol got10k --gt gt/ --cover cover/ --sizes sizes.txt --pred results/ --json

    Args:
        gt: Folder of the truth; lines of 8 numbers are polygons, judged by the upright box around them.
        pred: Folder of the results; GOT-10k's SEQUENCE/SEQUENCE_001.txt is read too.
        protocol: Whose definitions: got10k, trackingnet and tnl2k are those benchmarks' own, lasot-matlab is LaSOT's
            own; pytracking, ostrack and got10k-lasot are what these code bases print for LaSOT and others.
        absent: Folder with a 1 for each frame where the target is absent, else 0 (lasot-matlab, tnl2k, pytracking,
            ostrack).
        cover: Folder with GOT-10k's visible shares, 0 to 8; frames of 0 do not count (got10k).
        sizes: File with a line SEQUENCE WIDTH HEIGHT for each, or JSON {"SEQUENCE": [W, H]}; boxes are clipped to it
            (got10k).
        image_size: Width and height of all sequences, instead of --sizes.
        json: Print one JSON object instead of tables.
        out: Folder for scores.json, per_sequence.csv, and the plots success, precision and norm_precision, each as .png
            and .pdf.
    """
    chosen = known(protocol)
    if out is not None and out.exists() and not out.is_dir():
        raise RiceError(f"expected a folder as --out, got the file {out}")
    if sizes is not None and image_size is not None:
        raise RiceError("expected --sizes or --image-size, got both; leave one out")
    if image_size is not None and min(image_size) < 1:
        raise RiceError(f"expected a width and a height of at least 1 pixel as --image-size, got {image_size}")
    scores = _judge_files(chosen, gt, pred, Sides(absent=absent, cover=cover, sizes=sizes, size=image_size))
    if out is not None:
        _write(out, scores)
    print(json_format.dumps(scores.as_json(), allow_nan=False) if json else table(scores))  # noqa: T201
    if out is not None and not json:
        print(f"written to {out}")  # noqa: T201


def table(scores: Scores) -> str:
    """What a person reads: the definition, the scores, the best and the worst sequences by the first of them."""
    key, *others = scores.values
    ranked = sorted(scores.per_sequence, key=lambda name: (-scores.per_sequence[name][key], name))
    if len(ranked) > 2 * _SHOWN:
        ranked = [*ranked[:_SHOWN], "", *ranked[-_SHOWN:]]
    lines = [
        f"{scores.protocol}: {len(scores.frames):,} sequences, {sum(scores.frames.values()):,} frames to judge",
        f"({definition(scores.protocol)})",
        _columns(list(scores.values)),
        _columns([f"{value:.2f}" for value in scores.values.values()]),
        "",
        f"{_columns([key, *others])}  {'frames':>7}  sequence, best first",
    ]
    for name in ranked:
        row = [f"{value:.2f}" for value in scores.per_sequence[name].values()] if name else []
        lines.append(f"{_columns(row)}  {scores.frames[name]:>7,}  {name}" if name else "...")
    return "\n".join([*lines, *(f"note: {note}" for note in scores.notes)])


def _columns(cells: list[str]) -> str:
    return "  ".join(f"{cell:>14}" for cell in cells)


def _judge_files(protocol: Protocol, gt: Path, pred: Path, given: Sides) -> Scores:
    """What `protocol` does not use is not read either."""
    reads = READS[protocol] | ({"sizes"} if "size" in READS[protocol] else set())
    unused = {field for field in _FLAGS if field not in reads and getattr(given, field) is not None}
    truths, notes = read_truths(gt, dataclasses.replace(given, **dict.fromkeys(unused)))
    predictions, more = read_predictions(pred, truths)
    notes += more
    notes += [f"{_FLAGS[field]} is not read: {protocol} does not use it" for field in _FLAGS if field in unused]
    scores = judge(protocol, truths, predictions)
    return dataclasses.replace(scores, notes=(*scores.notes, *notes))


def _write(out: Path, scores: Scores) -> None:
    """scores.json comes last: where it stands, the other files belong to it."""
    write_curves(out, scores)
    with atomic_write(out / "per_sequence.csv") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["sequence", *scores.values, "frames"])
        rows.writerows([name, *values.values(), scores.frames[name]] for name, values in scores.per_sequence.items())
    write_json(out / "scores.json", scores.as_json())
