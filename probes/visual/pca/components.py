"""Principal components of a stream of tokens, exact and flat in memory.

Shapes: N tokens, D width, K components. Torch-free: the tokens of long videos come from disk, and BLAS has symmetric
updates (half a GEMM's work) that add to what is there.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rice.errors import RiceError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ROWS = 512
"""Tokens that are shifted and multiplied at a time: few enough to stay in a core's cache between the two."""
_BLOCK = 8192
"""Tokens about one shift, whose products are summed in fp32."""
_CORRECTIONS = 64
"""Of rank one, that wait for one product: each by itself would write D x D numbers."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """The leading components of `count` tokens, largest variance first, orthonormal, in a fixed sign.

    The sign makes each component's largest loading by magnitude positive, so that it depends on the covariance alone.
    `variance` (K) is the unbiased variance along each component, `total_variance` that of all D. `low` and `high` (K),
    where known, are the projections shown as 0 and 1.
    """

    mean: Float64
    axes: Float64
    variance: Float64
    total_variance: float
    count: int
    low: Float64 | None = None
    high: Float64 | None = None

    @property
    def explained(self) -> Float64:
        """Share of the total variance along each component (K); zeros where all tokens are equal."""
        return self.variance / self.total_variance if self.total_variance > 0 else np.zeros_like(self.variance)

    def project(self, tokens_ND: ArrayLike) -> Float32:
        """(N, D) -> (N, K): coordinates of the centred tokens."""
        tokens = np.asarray(tokens_ND, dtype=np.float32)
        projected: Float32 = (tokens - self.mean.astype(np.float32)) @ self.axes.T.astype(np.float32)
        return projected

    def scaled(self, low_K: ArrayLike, high_K: ArrayLike) -> "Components":
        """The same components with the projections that are shown as 0 and 1."""
        low, high = np.asarray(low_K, dtype=np.float64), np.asarray(high_K, dtype=np.float64)
        return dataclasses.replace(self, low=low, high=high)

    def colours(self, projected_NK: Float32) -> NDArray[np.uint8]:
        """(N, K) projections -> (N, K) levels 0..255, clipped at `low` and `high`; mid-grey where they coincide."""
        if self.low is None or self.high is None:
            raise ValueError("these components have no scale yet; see scaled()")
        span = self.high - self.low
        unit = (projected_NK - self.low) / np.where(span > 0, span, 1.0)
        levels: NDArray[np.uint8] = np.rint(np.where(span > 0, unit, 0.5).clip(0, 1) * 255).astype(np.uint8)
        return levels


class StreamingPca:
    """PCA of tokens that arrive in chunks of any size; memory does not depend on their number.

    Tokens are shifted by the mean of the first chunk of a block, multiplied block by block in fp32, and merged into
    float64 moments about the true mean (Chan, Golub and LeVeque, 1979). A mean a thousand deviations away therefore
    costs no digits; scikit-learn's covariance solver takes it out of the uncentred fp32 products instead.
    """

    def __init__(self, width: int) -> None:
        """`width`: D, the length of a token."""
        self.width = width
        self.count = 0
        self._mean = np.zeros(width)
        self._scatter = np.zeros((width, width))  # its lower triangle, as of _products: the upper one to BLAS
        self._shift = np.zeros(width, np.float32)
        self._rows = np.empty((_ROWS, width), np.float32)
        self._filled = 0  # of _rows
        self._products = np.zeros((width, width), np.float32)
        self._sum = np.zeros(width)
        self._multiplied = 0  # tokens in _products and _sum
        self._corrections: list[tuple[float, Float64]] = []  # of _scatter: weight, vector

    def update(self, tokens_ND: ArrayLike) -> None:
        """Add tokens (N, D), any N. Errors: RiceError for another width, or NaN or infinity (at the block's end)."""
        tokens = np.asarray(tokens_ND, dtype=np.float32)
        if tokens.ndim != 2 or tokens.shape[1] != self.width:
            raise RiceError(f"expected tokens (N, {self.width}), got {tokens.shape}")
        while len(tokens):
            if not self._filled and not self._multiplied:
                self._shift = tokens[:_BLOCK].mean(axis=0)
            room = min(_ROWS - self._filled, _BLOCK - self._multiplied - self._filled)
            taken, tokens = np.split(tokens, [room])
            with np.errstate(invalid="ignore"):  # infinities are reported by _merge
                np.subtract(taken, self._shift, out=self._rows[self._filled : self._filled + len(taken)])
            self._filled += len(taken)
            if len(taken) == room:
                self._multiply()
            if self._multiplied == _BLOCK:
                self._merge()

    def covariance(self) -> Float64:
        """(D, D): unbiased covariance of the tokens so far. Errors: RiceError for fewer than two tokens."""
        lower_DD = self._lower()
        return np.tril(lower_DD) + np.tril(lower_DD, -1).T

    def _lower(self) -> Float64:
        """The covariance's lower triangle; what stands above it means nothing."""
        self._settle()
        if self.count < 2:
            raise RiceError(
                f"a covariance needs at least 2 tokens, got {self.count}; give a larger size or more frames"
            )
        return self._scatter / (self.count - 1)

    def finish(self, k: int = 3) -> Components:
        """The leading `k` components. Errors: RiceError when there are fewer dimensions or tokens than that."""
        from scipy.linalg import eigh

        lower_DD = self._lower()
        if not 1 <= k <= min(self.width, self.count - 1):
            raise RiceError(
                f"expected 1 to {min(self.width, self.count - 1)} components of {self.count} tokens of width "
                f"{self.width}, got {k}; give a larger size or more frames"
            )
        total = float(np.trace(lower_DD))
        leading = (self.width - k, self.width - 1)
        variance, axes_DK = eigh(lower_DD.T, lower=False, subset_by_index=leading, overwrite_a=True)
        axes_KD = np.ascontiguousarray(axes_DK.T[::-1])
        largest_K = axes_KD[np.arange(k), np.abs(axes_KD).argmax(axis=1)]
        return Components(
            mean=self._mean.copy(),
            axes=axes_KD * np.sign(largest_K)[:, None],
            variance=variance[::-1].clip(min=0.0),
            total_variance=total,
            count=self.count,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that `restore` needs to go on from here."""
        self._settle()
        return {"count": np.array(self.count), "mean": self._mean, "scatter": self._scatter}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state()` of the same width."""
        self.count, self._filled, self._multiplied = int(state["count"]), 0, 0
        self._corrections.clear()
        self._mean, self._scatter = state["mean"].copy(), state["scatter"].copy()

    def _multiply(self) -> None:
        from scipy.linalg.blas import ssyrk

        rows = self._rows[: self._filled]
        if not self._multiplied:
            self._sum[:] = 0.0
        self._sum += rows.sum(axis=0)
        # beta = 0 also where NaN stands; overwrite_c: nothing is returned that is not in place.
        ssyrk(1.0, rows.T, beta=float(self._multiplied > 0), c=self._products.T, overwrite_c=1)
        self._multiplied += self._filled
        self._filled = 0

    def _merge(self) -> None:
        count, self._multiplied = self._multiplied, 0
        offset = self._sum / count  # of the block's mean from the shift
        if not np.isfinite(offset).all():
            raise RiceError("the encoder gave tokens with NaN or infinity; try another dtype or weights")
        delta = self._shift + offset - self._mean
        total = self.count + count
        self._scatter += self._products
        self._corrections += [(-count, offset), (self.count * count / total, delta)]
        self._mean += delta * (count / total)
        self.count = total
        if len(self._corrections) >= _CORRECTIONS:
            self._correct()

    def _correct(self) -> None:
        weights_C, vectors_CD = (np.array(part) for part in zip(*self._corrections, strict=True))
        self._scatter += (vectors_CD * weights_C[:, None]).T @ vectors_CD
        self._corrections.clear()

    def _settle(self) -> None:
        """All that came is in count, mean and scatter."""
        if self._filled:
            self._multiply()
        if self._multiplied:
            self._merge()
        if self._corrections:
            self._correct()
