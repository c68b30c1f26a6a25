"""What each toolkit calls success, precision and normalised precision: thresholds, comparisons, summaries.

The same boxes get scores that lie points apart from toolkit to toolkit, so that a figure means something only with its
protocol's name. Shapes: N frames, T thresholds. How frames are compared is in `tracking.metrics`.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from rice.errors import RiceError, nearest

Protocol: TypeAlias = Literal["got10k", "lasot-matlab", "pytracking", "ostrack", "got10k-lasot", "trackingnet", "tnl2k"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

DEFAULT_PROTOCOL: dict[str, Protocol] = {
    "got10k": "got10k",
    "lasot": "lasot-matlab",
    "trackingnet": "trackingnet",
    "tnl2k": "tnl2k",
    "folder": "ostrack",
}
"""Benchmark -> the protocol of its own toolkit."""

TITLES = {
    "got10k": "GOT-10k",
    "lasot": "LaSOT",
    "trackingnet": "TrackingNet",
    "tnl2k": "TNL2K",
    "folder": "clips",
}
"""Of benchmarks, as papers write them."""

Values_N: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plot:
    """One curve of a toolkit, and how it becomes a score.

    thresholds: (T,) ascending. rule: a frame's value is over (>) or at least (>=) a threshold, or within it (<=).
    summary: the curve's mean, its area over 0..1 by trapezoids, or its height at `mark`, an index of thresholds.
    """

    thresholds: Values_N
    rule: Literal["over", "at least", "within"]
    summary: Literal["mean", "area", "mark"]
    mark: int = 0

    def hits(self, values_N: Values_N) -> NDArray[np.int64]:
        """(T,) how many values pass each threshold; NaN passes none."""
        values = values_N[~np.isnan(values_N)]
        side: Literal["left", "right"] = "right" if self.rule == "at least" else "left"
        places = np.searchsorted(self.thresholds, values, side=side)
        up_to_T = np.cumsum(np.bincount(places, minlength=len(self.thresholds) + 1))[:-1]
        return up_to_T if self.rule == "within" else len(values) - up_to_T

    def score(self, curve_T: Values_N) -> float:
        """A fraction, 0 to 1."""
        if self.summary == "mark":
            return float(curve_T[self.mark])
        if self.summary == "area":
            return float(np.trapezoid(curve_T, np.linspace(0, 1, len(curve_T))))
        return float(curve_T.mean())


def matlab_range(step: float, count: int) -> Values_N:
    """(count,) 0:step:1 as MATLAB makes it: its second half is counted down from 1, so that 13 steps of .05 are less
    than .65, and an overlap of just .65 is over them.
    """
    rising_T = np.arange(count) * step
    falling_T = 1 - np.arange(count)[::-1] * step
    middle = (count - 1) / 2
    return np.where(np.arange(count) < middle, rising_T, np.where(np.arange(count) > middle, falling_T, 0.5))


_PIXELS: Values_N = np.arange(51, dtype=np.float64)
_PRECISION = Plot(thresholds=_PIXELS, rule="within", summary="mark", mark=20)
_NORM_PRECISION = Plot(thresholds=_PIXELS / 100, rule="within", summary="mark", mark=20)
_STEPS: Values_N = np.arange(21, dtype=np.float64) * 0.05


def _over(thresholds_T: Values_N) -> Plot:
    return Plot(thresholds=thresholds_T, rule="over", summary="mean")


_MATLAB = {"success": _over(matlab_range(0.05, 21)), "precision": _PRECISION, "norm_precision": _NORM_PRECISION}
_PYTRACKING = {"success": _over(_STEPS), "precision": _PRECISION, "norm_precision": _NORM_PRECISION}

PLOTS: dict[Protocol, dict[str, Plot]] = {
    "got10k": {"success": _over(np.linspace(0, 1, 101))},
    "lasot-matlab": _MATLAB,
    "tnl2k": _MATLAB,
    "pytracking": _PYTRACKING,
    "ostrack": _PYTRACKING,
    "got10k-lasot": {
        "success": _over(np.linspace(0, 1, 21)),
        "precision": _PRECISION,
        "norm_precision": Plot(thresholds=np.linspace(0, 0.5, 51), rule="within", summary="mean"),
    },
    "trackingnet": {
        "success": Plot(thresholds=np.linspace(0, 1, 21), rule="at least", summary="area"),
        "precision": Plot(thresholds=np.linspace(0, 50, 21), rule="within", summary="area"),
        "norm_precision": Plot(thresholds=np.linspace(0, 0.5, 21), rule="within", summary="area"),
    },
}
"""In the order in which scores are printed. GOT-10k's scores come from the overlaps, not from its plot."""

MATLAB_PROTOCOLS: tuple[Protocol, ...] = ("lasot-matlab", "tnl2k")
"""These leave a sequence out of a plot where its whole curve is zero."""

READS: dict[Protocol, frozenset[str]] = {
    "got10k": frozenset({"cover", "size"}),
    "lasot-matlab": frozenset({"absent"}),
    "tnl2k": frozenset({"absent"}),
    "pytracking": frozenset({"absent"}),
    "ostrack": frozenset({"absent"}),
    "got10k-lasot": frozenset(),
    "trackingnet": frozenset(),
}
"""What a protocol uses of a truth besides its boxes."""

_AUC = "success: mean over the 21 IoU thresholds 0:.05:1, strictly over"
_AT_20 = "precision: centre error of at most 20 px"
_AT_02 = "norm. precision: centre error over the truth's width and height of at most .2"
_LASOT_FRAMES = (
    "first frame given, predictions without an area or with NaN replaced by the one before, absent frames miss, frames "
    "without a truth of four values > 0 miss in success and hit in both precisions, sequences with a curve of zeros "
    "left out of that curve"
)
_PYTRACKING_FRAMES = (
    "first frame given, predictions of zero width or height replaced by the one before, absent frames miss, frames "
    "without a truth {valid} miss in success and precision and, if not absent, hit in norm. precision"
)

_DEFINITIONS: dict[Protocol, str] = {
    "got10k": "AO: mean IoU; SR: share of IoU strictly over .5 and .75; without the first frame, frames with cover > 0 "
    "only, both boxes clipped to the picture, frames of all sequences pooled; GOT-10k toolkit",
    "lasot-matlab": f"{_AUC}; {_AT_20}; {_AT_02}; {_LASOT_FRAMES}; LaSOT MATLAB toolkit",
    "tnl2k": f"{_AUC}; {_AT_20}; {_AT_02}; {_LASOT_FRAMES}; TNL2K toolkit (LaSOT's MATLAB code)",
    "pytracking": f"{_AUC}; {_AT_20}; {_AT_02}; {_PYTRACKING_FRAMES.format(valid='of four values > 0')}; pytracking",
    "ostrack": f"{_AUC}; {_AT_20}; {_AT_02}; {_PYTRACKING_FRAMES.format(valid='of width and height > 0')}; OSTrack",
    "got10k-lasot": f"{_AUC}; {_AT_20}; norm. precision: mean over the 51 thresholds 0:.01:.5 of the centre error over "
    "the truth's width and height, these at least 1; first frame given, sequences cut to the shorter of truth and "
    "prediction, frames with NaN in the truth dropped, absent flags unused; LaSOT in the GOT-10k toolkit",
    "trackingnet": "success: area under the curve over the 21 IoU thresholds 0:.05:1, at least; precision: area under "
    "the curve over the 21 centre errors 0:2.5:50 px, at most; norm. precision: area under the curve over the 21 "
    "centre errors over the truth's width and height 0:.025:.5, at most; first frame given, all boxes rounded, frames "
    "without prediction miss; TrackingNet devkit",
}


def definition(protocol: Protocol) -> str:
    """The protocol in one sentence, to be stored beside a figure. Errors: RiceError listing the known ones."""
    return _DEFINITIONS[known(protocol)]


def known(protocol: str | None) -> Protocol:
    """`protocol` itself. Errors: RiceError listing the known ones."""
    for name in PROTOCOLS:
        if name == protocol:
            return name
    listed = ", ".join(PROTOCOLS)
    if protocol is None:
        raise RiceError(f"expected --protocol, whose toolkit's definitions are used: {listed}")
    raise RiceError(f"unknown protocol {protocol!r}, expected one of {listed}.{nearest(protocol, PROTOCOLS)}")
