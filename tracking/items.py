"""Scores of a benchmark as metrics and as rows of items, whoever made the tracks; and the metrics from drawn items."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from probes.protocol import Metric, Resampling
from tracking.protocols import DEFAULT_PROTOCOL, TITLES, definition

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from tracking.score import Scores

NAMES = {
    "success": "success",
    "precision": "precision",
    "norm_precision": "norm. precision",
    "ao": "AO",
    "sr_0.5": "SR0.5",
    "sr_0.75": "SR0.75",
}
"""Of the scores, as tables show them."""


def metrics(benchmark: str, scores: "Scores", split: str, made_by: str) -> Iterator[Metric]:
    """Fractions: 'LaSOT success', ... `made_by`: how the tracks came about, for the protocol's text."""
    from tracking.score import stderr

    errors = stderr(scores)
    for name, value in scores.values.items():
        yield Metric(
            name=f"{TITLES[benchmark]} {NAMES[name]}",
            value=value / 100,
            n=len(scores.frames),
            unit="fraction",
            higher_is_better=True,
            split=split,
            stderr=errors[name] / 100 if name in errors else None,
            protocol=f"{scores.protocol}: {definition(scores.protocol)}; {made_by}",
        )


def write_items(path: Path, scores: "Mapping[str, Scores]") -> None:
    """A row a sequence, by benchmark: its frames and scores in percent, none where a mean leaves it out. Atomically."""
    import pandas as pd

    from rice.files import atomic_write

    rows = [
        {"id": f"{benchmark}/{name}", "benchmark": benchmark, "frames": found.frames[name]}
        | {key: None if name in found.left_out.get(key, ()) else value for key, value in values.items()}
        for benchmark, found in scores.items()
        for name, values in found.per_sequence.items()
    ]
    with atomic_write(path, "wb") as file:
        pd.DataFrame(rows).to_parquet(file)


def resampling(items: Path) -> Iterator[Resampling]:
    """See `probes.protocol.Resamples`; each benchmark's clips are drawn on their own."""
    import pandas as pd

    for benchmark, rows in pd.read_parquet(items).groupby("benchmark", sort=True):
        yield Resampling(ids=rows["id"].tolist(), scores=partial(_weighted_means, str(benchmark), rows))


def _weighted_means(
    benchmark: str, rows: "pd.DataFrame", weights_RN: "NDArray[np.float64]"
) -> "Mapping[str, NDArray[np.float64]]":
    """Fractions: means over clips, GOT-10k's over all their frames (`tracking.score`)."""
    import numpy as np

    if DEFAULT_PROTOCOL[benchmark] == "got10k":
        weights_RN = weights_RN * rows["frames"].to_numpy(dtype=np.float64)
    means = {}
    for key, name in NAMES.items():
        if key in rows and rows[key].notna().any():
            value_N = rows[key].to_numpy(dtype=np.float64)
            counted_N = np.isfinite(value_N)
            share_R = weights_RN[:, counted_N].sum(axis=1)
            total_R = weights_RN[:, counted_N] @ value_N[counted_N] / 100
            means[f"{TITLES[benchmark]} {name}"] = np.divide(
                total_R, share_R, out=np.full(len(weights_RN), np.nan), where=share_R > 0
            )
    return means
