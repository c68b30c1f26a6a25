"""The detection probe's metrics from its items, for bootstraps over images, or over the datasets of a suite.

Shapes: N items, D domains, R rows of item weights. Imports no torch.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probes.detection.bootstrap import read_items, replicates
from probes.detection.suites import AVERAGE
from probes.protocol import Resampling

if TYPE_CHECKING:
    import pandas as pd

Scores = Mapping[str, NDArray[np.float64]]


def resampling(items: Path) -> Iterator[Resampling]:
    """See `probes.protocol.Resamples`. Errors: RiceError for a file that is not of this probe."""
    import pandas as pd
    from pyarrow import parquet

    if "domain" in parquet.read_schema(items).names:
        yield from _of_suite(pd.read_parquet(items))
        return
    table = read_items(items)

    def scores(weights_RN: NDArray[np.float64]) -> Scores:
        return {f"box {name}": values_R for name, values_R in replicates(table, weights_RN).items()}

    yield Resampling(ids=table.image_ids.astype(str).tolist(), scores=scores)


def _of_suite(frame: "pd.DataFrame") -> Iterator[Resampling]:
    """The datasets of each domain are drawn on their own; for the mean of the domains, all datasets."""
    domains = sorted(set(frame["domain"]))
    for name, members in {**{domain: [domain] for domain in domains}, AVERAGE: domains}.items():
        rows = frame[frame["domain"].isin(members)]
        yield Resampling(ids=rows["id"].tolist(), scores=partial(_mean_of_domains, f"{name} AP", rows))


def _mean_of_domains(metric: str, rows: "pd.DataFrame", weights_RN: NDArray[np.float64]) -> Scores:
    """Unweighted mean of the domains' means; a domain of which a row drew no dataset is left out of that row."""
    names = sorted(set(rows["domain"]))
    member_ND = (rows["domain"].to_numpy()[:, None] == np.array(names, dtype=object)).astype(np.float64)
    drawn_RD = weights_RN @ member_ND
    total_RD = (weights_RN * rows["box AP"].to_numpy(dtype=np.float64)) @ member_ND
    mean_RD = np.divide(total_RD, drawn_RD, out=np.full(drawn_RD.shape, np.nan), where=drawn_RD > 0)
    return {metric: np.nanmean(mean_RD, axis=1)}
