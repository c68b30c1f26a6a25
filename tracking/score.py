"""How good are these tracks? Success, precision and average overlap, by the definitions of a named toolkit.

    scores = judge("lasot-matlab", {"bear-17": Truth(boxes=..., absent=...)}, {"bear-17": boxes_N4})
    scores.values["success"], definition(scores.protocol)

Shapes: N frames of a truth, M of a prediction, T thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rice.errors import RiceError
from tracking.metrics import Frames, Truth, frames_of
from tracking.protocols import MATLAB_PROTOCOLS, PLOTS, READS, Protocol, Values_N, known
from tracking.sequence import Boxes_N4

_PERCENT = 100.0
_NAMED = 5
"""So many sequences are named in a message."""

_NOT_GIVEN = {
    "absent": "no absent flags are given: no frame is taken for absent",
    "cover": "no cover levels are given: all frames but the first count",
    "size": "no picture sizes are given: boxes are not clipped to the picture",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A plot over all sequences. thresholds, shares: (T,), shares of frames, 0 to 1."""

    thresholds: Values_N
    shares: Values_N


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a toolkit says.

    values: percent; success, precision, norm_precision, or GOT-10k's ao, sr_0.5, sr_0.75. per_sequence: the same, of
    each sequence that has frames to judge. frames: those with a truth to be found, by sequence. curves: success, and
    precision and norm_precision where the protocol has them. left_out: by plot, sequences that its mean leaves out.
    notes: what a reader of the figures should know.
    """

    protocol: Protocol
    values: dict[str, float]
    per_sequence: dict[str, dict[str, float]]
    frames: dict[str, int]
    curves: dict[str, Curve]
    left_out: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Values first; all numbers finite."""
        return {
            **self.values,
            "protocol": self.protocol,
            "sequences": len(self.frames),
            "frames": sum(self.frames.values()),
            "per_sequence": self.per_sequence,
            "notes": list(self.notes),
        }


def judge(protocol: Protocol, truths: Mapping[str, Truth], predictions: Mapping[str, NDArray[Any] | None]) -> Scores:
    """Scores of predictions, (M, 4) a sequence or None where there are none, in the benchmark's own coordinates.

    Errors: RiceError for an unknown protocol, shapes that do not fit, sequences without predictions, and whatever the
    toolkit itself stops at: lengths that differ, NaN, boxes of negative size.
    """
    protocol = known(protocol)
    if not truths:
        raise RiceError("expected at least one sequence to judge, got none")
    for name, truth in truths.items():
        _check_truth(name, truth)
    missing = [name for name in truths if predictions.get(name) is None]
    if missing and protocol != "trackingnet":
        raise RiceError(
            f"expected predictions for every sequence, got none for {named(missing, len(truths))}; add their files"
        )
    frames = {
        name: frames_of(protocol, name, truth, _boxes(name, predictions.get(name))) for name, truth in truths.items()
    }
    notes = _notes(protocol, truths, frames, missing)
    unknown = [name for name in predictions if name not in truths]
    if unknown:
        notes.append(f"predictions for sequences without a truth are ignored ({named(unknown, len(predictions))})")
    return (_pooled if protocol == "got10k" else _averaged)(protocol, frames, notes)


def stderr(scores: Scores) -> dict[str, float]:
    """Standard errors of `scores.values`, percent points, with sequences drawn at random from a population.

    GOT-10k's figures are ratios of sums over sequences: the delta method's linearisation of the ratio. Others are
    means. A key is left out where fewer than two sequences count.
    """
    errors = {}
    for key, value in scores.values.items():
        left_out = scores.left_out.get(key, ())
        names = [name for name in scores.per_sequence if name not in left_out]
        if len(names) < 2:
            continue
        weights = np.array([scores.frames[name] if scores.protocol == "got10k" else 1.0 for name in names])
        residuals = weights * (np.array([scores.per_sequence[name][key] for name in names]) - value)
        spread = len(names) / (len(names) - 1) * (residuals**2).sum()
        errors[key] = float(np.sqrt(spread) / weights.sum())
    return errors


def _averaged(protocol: Protocol, frames: Mapping[str, Frames], notes: list[str]) -> Scores:
    """Mean of the sequences' curves."""
    values, curves, left_out = {}, {}, {}
    per_sequence: dict[str, dict[str, float]] = {name: {} for name in frames}
    for plot_name, plot in PLOTS[protocol].items():
        field = {"success": "overlap", "precision": "error", "norm_precision": "norm_error"}[plot_name]
        rows = {name: plot.hits(getattr(judged, field)) / judged.length for name, judged in frames.items()}
        for name, row_T in rows.items():
            per_sequence[name][plot_name] = _PERCENT * plot.score(row_T)
        nothing = [name for name, row_T in rows.items() if not row_T.any()] if protocol in MATLAB_PROTOCOLS else []
        if nothing:
            notes.append(f"sequences without any hit are left out of {plot_name} ({named(nothing, len(frames))})")
        kept = [row_T for name, row_T in rows.items() if name not in set(nothing)]
        mean_T = np.mean(kept, axis=0) if kept else np.zeros(len(plot.thresholds))
        values[plot_name] = _PERCENT * plot.score(mean_T)
        curves[plot_name] = Curve(thresholds=plot.thresholds, shares=mean_T)
        left_out[plot_name] = tuple(nothing)
    return Scores(
        protocol=protocol,
        values=values,
        per_sequence=per_sequence,
        frames={name: judged.counted for name, judged in frames.items()},
        curves=curves,
        left_out=left_out,
        notes=tuple(notes),
    )


def _pooled(protocol: Protocol, frames: Mapping[str, Frames], notes: list[str]) -> Scores:
    """GOT-10k: every frame weighs the same, whatever its sequence."""
    empty = [name for name, judged in frames.items() if not judged.counted]
    if len(empty) == len(frames):
        raise RiceError(f"expected a frame to judge, got none after the first in {named(empty, len(frames))}")
    if empty:
        notes.append(f"sequences without a frame to judge say nothing ({named(empty, len(frames))})")
    overlap = np.concatenate([judged.overlap for judged in frames.values()])
    plot = PLOTS[protocol]["success"]
    return Scores(
        protocol=protocol,
        values=_overlaps(overlap),
        per_sequence={name: _overlaps(judged.overlap) for name, judged in frames.items() if judged.counted},
        frames={name: judged.counted for name, judged in frames.items()},
        curves={"success": Curve(thresholds=plot.thresholds, shares=plot.hits(overlap) / len(overlap))},
        left_out={},
        notes=tuple(notes),
    )


def _overlaps(overlap_N: Values_N) -> dict[str, float]:
    return {
        "ao": _PERCENT * float(overlap_N.mean()),
        "sr_0.5": _PERCENT * float((overlap_N > 0.5).mean()),
        "sr_0.75": _PERCENT * float((overlap_N > 0.75).mean()),
    }


def _notes(
    protocol: Protocol, truths: Mapping[str, Truth], frames: Mapping[str, Frames], missing: list[str]
) -> list[str]:
    notes = []
    for field in sorted(READS[protocol]):
        lacking = [name for name, truth in truths.items() if getattr(truth, field) is None]
        if lacking:
            some = "" if len(lacking) == len(truths) else f" ({named(lacking, len(truths))})"
            notes.append(_NOT_GIVEN[field] + some)
    if missing:
        notes.append(f"sequences without predictions are judged as zero boxes ({named(missing, len(truths))})")
    remarks: dict[str, list[str]] = {}
    for name, judged in frames.items():
        for remark in judged.remarks:
            remarks.setdefault(remark, []).append(name)
    return notes + [f"{remark} ({named(names, len(truths))})" for remark, names in remarks.items()]


def _check_truth(name: str, truth: Truth) -> None:
    length = len(truth.boxes)
    if truth.boxes.ndim != 2 or truth.boxes.shape[1] != 4 or not length:
        raise RiceError(f"{name}: expected a truth of (frames, 4), at least one frame, got {truth.boxes.shape}")
    for kind, values in (("absent flags", truth.absent), ("cover levels", truth.cover)):
        if values is not None and values.shape != (length,):
            raise RiceError(f"{name}: expected {length} {kind}, one a frame, got {values.shape}")


def _boxes(name: str, prediction: NDArray[Any] | None) -> Boxes_N4 | None:
    if prediction is None:
        return None
    boxes_M4 = np.asarray(prediction, dtype=np.float64)
    if boxes_M4.ndim != 2 or boxes_M4.shape[1] != 4 or not len(boxes_M4):
        raise RiceError(f"{name}: expected predictions of (frames, 4), at least one, got {boxes_M4.shape}")
    return boxes_M4


def named(names: Sequence[str], total: int) -> str:
    """How many sequences of `total`, and the first few, for a message."""
    return f"{len(names)} of {total} sequences: " + ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
