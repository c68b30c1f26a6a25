"""The passes over a video's tokens: fit, project, scale. Each goes on where a killed run left it.

Shapes: T tokens of a frame, D width, K components.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from probes.visual.pca.components import Components, StreamingPca
from probes.visual.pca.frame_tokens import FrameTokens
from probes.visual.pca.percentile import percentiles
from probes.visual.pca.records import ArrayRecords
from rice.files import atomic_write
from rice.progress import Progress

Float32 = NDArray[np.float32]
Masks = Callable[[int], NDArray[np.bool_]]
"""Number of a frame -> (T,): which of its tokens count."""

RGB = 3
TAILS = (0.01, 0.99)
_SAVE_EVERY_S = 30.0
_FRAMES = "frames"


def fit(
    tokens: FrameTokens,
    checkpoint: Path,
    progress: Progress,
    label: str,
    *,
    k: int = RGB,
    masks: Masks | None = None,
) -> Components:
    """The leading `k` components of all tokens, or of those that `masks` keeps.

    Where tokens are not stored, the moments are saved to `checkpoint` with the number of frames that they cover.
    """
    pca = StreamingPca(tokens.shape[1])
    start = _restore(pca, checkpoint) if tokens.store is None else 0
    saved_at = time.monotonic()
    remaining = progress.track(tokens.read(start), label, total=len(tokens) - start)
    for index, tokens_TD in enumerate(remaining, start=start):
        pca.update(tokens_TD if masks is None else tokens_TD[masks(index)])
        if tokens.store is None and time.monotonic() - saved_at > _SAVE_EVERY_S:
            _save(pca, checkpoint, index + 1)
            saved_at = time.monotonic()
    if tokens.store is None:
        _save(pca, checkpoint, len(tokens))
    return pca.finish(k)


def project(tokens: FrameTokens, components: Components, into: ArrayRecords, progress: Progress, label: str) -> None:
    """Append the components' coordinates (T, K) of each frame that `into` lacks."""
    start = into.count
    for tokens_TD in progress.track(tokens.read(start), label, total=len(tokens) - start):
        into.append(components.project(tokens_TD))


def scale(components: Components, projected: ArrayRecords, masks: Masks | None = None) -> Components:
    """Components scaled from the 1st to the 99th percentile of all projections, or of those that a mask keeps."""

    def values() -> Iterable[Float32]:
        for index in range(projected.count):
            frame = projected.read(index)
            yield frame if masks is None else frame[masks(index)]

    low, high = percentiles(values, TAILS)
    return components.scaled(low, high)


def _save(pca: StreamingPca, checkpoint: Path, frames: int) -> None:
    with atomic_write(checkpoint, "wb") as file:
        file.write(save(pca.state(), metadata={_FRAMES: str(frames)}))


def _restore(pca: StreamingPca, checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    with safe_open(checkpoint, framework="np") as file:
        pca.restore({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a mapping
        return int(file.metadata()[_FRAMES])
