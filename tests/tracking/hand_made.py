"""Boxes to write cases with."""

import numpy as np
from numpy.typing import NDArray

G = [5.0, 7.0, 20.0, 20.0]
"""A valid truth for every toolkit."""
FAR = [500.0, 500.0, 20.0, 20.0]


def boxes(*rows: list[float]) -> NDArray[np.float64]:
    return np.array(rows, dtype=np.float64).reshape(-1, 4)
