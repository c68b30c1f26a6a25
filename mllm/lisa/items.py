"""Scores of single expressions, and the measures of a split that follow from them. Imports no torch.

A row an expression: `id` (SPLIT/TARGET/NUMBER), `split`, `picture`, `kind`, `text`, `answer`; in pixels that count
`intersection` and `union`; `target`, `empty`, `iou`; and `forced_...` of the mask whose [SEG] was given to the model.

Shapes: R resamplings, P pictures, N expressions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.lisa.measures import PRECISE, Measure, Overlap, summary
from mllm.llava.items import write_items as write
from probes.protocol import Metric, Resampling

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

FORCED = "forced"
_BOTH = ("ciou", "giou", "pr50")
"""Measures that are also stored of the masks whose [SEG] was given: the other two say whether one was written."""

_MEANINGS = {
    "ciou": "sum of intersections over sum of unions, in pixels; without a target the predicted pixels are the union",
    "giou": "mean IoU of the expressions; without a target 1 where the mask is empty, else 0",
    "pr50": "expressions with a target whose IoU is at least 0.5",
    "n_acc": "expressions without a target whose mask is empty",
    "t_acc": "expressions with a target whose mask is not empty",
}
_GENERATED = "masks of the [SEG] in answers of the model (greedy), their union where there are several, empty without"
_GIVEN = "masks of the [SEG] in the answer '[SEG].', which was given to the model (LISA's validation)"


class SplitItems:
    """What `rice lisa eval` stores beside a result; see `probes.protocol.ITEMS`."""

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`."""
        return resampling(items, named=False)


def write_items(path: Path, tables: "Sequence[pd.DataFrame]") -> None:
    """Atomically, in order. Errors: ValueError where an expression is there twice."""
    import pandas as pd

    rows = pd.concat(tables, ignore_index=True)
    if not rows["id"].is_unique:
        raise ValueError(f"expected every expression once, got {rows['id'][rows['id'].duplicated()].iloc[0]} twice")
    write(path, [rows])


def row_of(said: Overlap, forced: Overlap) -> dict[str, Any]:
    """The columns that are numbers."""
    whole = {**_columns(said), **{f"{FORCED}_{name}": value for name, value in _columns(forced).items()}}
    return {name: value for name, value in whole.items() if name != f"{FORCED}_target"}


def _columns(one: Overlap) -> dict[str, Any]:
    return {**{name: getattr(one, name) for name in ("target", "empty", "intersection", "union")}, "iou": one.iou}


def split_metrics(rows: "pd.DataFrame", split: str, most: int, *, prefix: str = "") -> Iterator[Metric]:
    """Of one split. split: as results name it, e.g. val. most: tokens of an answer. prefix: of the metrics' names."""
    for forced in (False, True):
        for name, measure in _measures(rows, forced=forced).items():
            asked = _GIVEN if forced else f"{_GENERATED}; at most {most} new tokens"
            yield Metric(
                name=f"{prefix}{_named(name, forced)}",
                value=measure.value,
                n=measure.n,
                unit="%",
                higher_is_better=True,
                split=split,
                stderr=measure.stderr,
                protocol=f"{_MEANINGS[name]}; {asked}; at the picture's own size, logit above 0",
            )


def _measures(rows: "pd.DataFrame", *, forced: bool) -> Mapping[str, Measure]:
    place = f"{FORCED}_" if forced else ""
    columns = (rows[name].tolist() for name in (f"{place}intersection", f"{place}union", "target", f"{place}empty"))
    found = summary(Overlap(*values) for values in zip(*columns, strict=True))
    return {name: measure for name, measure in found.items() if not forced or name in _BOTH}


def _named(name: str, forced: bool) -> str:
    return f"{name}_{FORCED}" if forced else name


def resampling(items: Path, *, named: bool = True) -> list[Resampling]:
    """See `probes.protocol.Resamples`: each split's pictures are drawn, with all their expressions, since these are
    answered alike. named: metrics are called SPLIT MEASURE; else the file is of one split."""
    import pandas as pd

    found = []
    for split, rows in pd.read_parquet(items).groupby("split", sort=True):
        numbers_N, pictures = pd.factorize(rows["picture"])
        scores = partial(_scores, rows, numbers_N, f"{split} " if named else "")
        found.append(Resampling(ids=[f"{split}/{picture}" for picture in pictures], scores=scores))
    return found


def _scores(
    rows: "pd.DataFrame", numbers_N: "NDArray[np.int64]", prefix: str, weights_RP: "NDArray[np.float64]"
) -> "dict[str, NDArray[np.float64]]":
    import numpy as np

    weights_RN = weights_RP[:, numbers_N]
    target_N = rows["target"].to_numpy(dtype=bool)
    every_N = np.ones(len(rows), dtype=bool)
    found = {}
    for forced in (False, True):
        place = f"{FORCED}_" if forced else ""
        empty_N, iou_N = rows[f"{place}empty"].to_numpy(dtype=bool), rows[f"{place}iou"].to_numpy()
        shares = {
            "ciou": (rows[f"{place}intersection"].to_numpy(float), rows[f"{place}union"].to_numpy(float)),
            "giou": (iou_N, every_N),
            "pr50": ((iou_N >= PRECISE) & target_N, target_N),
            "n_acc": (empty_N & ~target_N, ~target_N),
            "t_acc": (~empty_N & target_N, target_N),
        }
        for name, (part_N, whole_N) in shares.items():
            if whole_N.any() and (not forced or name in _BOTH):
                found[f"{prefix}{_named(name, forced)}"] = _ratio(weights_RN @ part_N, weights_RN @ whole_N)
    return found


def _ratio(part_R: "NDArray[np.float64]", whole_R: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """In percent; NaN where there is nothing to judge by."""
    import numpy as np

    share_R = np.full(len(whole_R), np.nan)
    np.divide(part_R, whole_R, out=share_R, where=whole_R > 0)
    return 100 * share_R
