"""The distances that one tower's tokens have, over all pictures of a sample.

Shapes: B images at once, T patch tokens of an image, D width, h w patch grid, S input edge in pixels.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch

from probes.images import load_ahead, squash
from probes.visual.tokens.distances import Distribution, Float64, image_distances
from probes.visual.tokens.sample import Sample
from probes.visual.towers import Tower, refused_size
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.progress import Progress

_TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One tower's distributions, as it gives its tokens and with its mean token over the sample taken off each."""

    label: str
    run: str | None
    step: int | None
    raw: Distribution
    centred: Distribution
    facts: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        own = {"label": self.label, "run": self.run, "step": self.step}
        return own | dict(self.facts) | {"raw": self.raw.as_json(), "centred": self.centred.as_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Measured":
        """`as_json`'s values, to the bit. Errors: KeyError, TypeError or ValueError for others."""
        label, run, step = value["label"], value["run"], value["step"]
        if not (isinstance(label, str) and isinstance(run, str | None) and isinstance(step, int | None)):
            raise ValueError("expected an encoder's label, and a run with a step or neither")
        own = ("label", "run", "step", "raw", "centred")
        raw, centred = (Distribution.from_json(value[name]) for name in ("raw", "centred"))
        facts = {name: fact for name, fact in value.items() if name not in own}
        return cls(label=label, run=run, step=step, raw=raw, centred=centred, facts=facts)


def measure(tower: Tower, sample: Sample, grid: int, device: str, progress: Progress) -> Measured:
    """The distributions of one tower. Its tokens lie in an unnamed temporary file meanwhile; memory stays flat.

    Errors: RiceError naming the tower, or the picture.
    """
    began = time.monotonic()
    encoder = tower.load(device)
    label = tower.shown(encoder)
    shape = grid * grid, encoder.spec.width
    with tempfile.TemporaryFile() as file:
        centre_D = _encode(encoder, label, sample, grid, file, progress)
        file.seek(0)
        raw, centred = [], []
        for _ in progress.track(range(len(sample)), f"{label}: distances"):
            tokens_TD = np.fromfile(file, np.float32, shape[0] * shape[1]).reshape(shape).astype(np.float64)
            try:
                raw.append(image_distances(tokens_TD))
                centred.append(image_distances(tokens_TD, centre_D))
            except RiceError as error:
                raise RiceError(f"{label} gives {error}") from error
    return Measured(
        label=label,
        run=tower.run,
        step=tower.step,
        raw=Distribution.of(raw),
        centred=Distribution.of(centred),
        facts=tower.facts(encoder, grid, grid * encoder.spec.patch)
        | {
            "pairs": len(sample) * shape[0] * (shape[0] - 1) // 2,
            "seconds": round(time.monotonic() - began, 3),
        },
    )


def _encode(encoder: Encoder, label: str, sample: Sample, grid: int, file: IO[bytes], progress: Progress) -> Float64:
    """Write every image's tokens (T, D) in fp32 to `file`, in order; return the mean token (D,)."""
    edge = grid * encoder.spec.patch
    total_D = np.zeros(encoder.spec.width)
    at_once = max(_TOKENS_PER_BATCH // grid**2, 1)
    batches = [range(start, min(start + at_once, len(sample))) for start in range(0, len(sample), at_once)]
    loaded = load_ahead(lambda index: squash(sample.read(index), edge), batches)
    for images in progress.track(loaded, f"{label}: encode", len(batches)):
        tokens_BTD = _tokens(encoder, label, torch.stack(images))
        total_D += tokens_BTD.sum(axis=(0, 1), dtype=np.float64)
        try:
            file.write(tokens_BTD.tobytes())
            file.flush()
        except OSError as error:
            raise RiceError(
                f"no room for the tokens in {tempfile.gettempdir()} ({error.strerror}); lower --images or --grid, "
                "or set TMPDIR"
            ) from error
    mean_D: Float64 = total_D / (len(sample) * grid**2)
    return mean_D


def _tokens(encoder: Encoder, label: str, images_B3SS: torch.Tensor) -> Any:
    """Patch tokens (B, T, D), fp32, contiguous. Errors: RiceError for one that fails on this size or gives NaN."""
    with refused_size(encoder, label, images_B3SS, "choose another --grid"):
        patches_BDhw = encoder(images_B3SS).patches
    if not torch.isfinite(patches_BDhw).all():
        raise RiceError(f"{label} gives tokens with NaN or infinity; try another dtype or weights")
    return np.ascontiguousarray(patches_BDhw.flatten(2).mT.float().cpu().numpy())
