"""What turns tokens into colours, and the file that keeps it: fit on one video, use on another.

Shapes: T tokens of a frame, D width, K components (3: red, green, blue).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from probes.visual.pca.components import Components
from probes.visual.pca.foreground import Foreground
from rice.errors import RiceError
from rice.files import atomic_path, sort_facts

Float32 = NDArray[np.float32]

BACKGROUND = 20
"""Grey level of tokens that are not foreground."""


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Scaled components, and the foreground that they were fitted to, if any."""

    components: Components
    foreground: Foreground | None = None

    def colours(self, projected_T3: Float32, first_T1: Float32 | None) -> NDArray[np.uint8]:
        """(T, 3) levels 0..255; tokens outside the foreground are near black."""
        colours_T3 = self.components.colours(projected_T3)
        if self.foreground is not None and first_T1 is not None:
            colours_T3[~self.foreground.mask(first_T1)] = BACKGROUND
        return colours_T3

    def digest(self) -> str:
        """Hex SHA-256 of everything that decides a colour."""
        return hashlib.sha256(_serialised(self, {})).hexdigest()


def save_palette(path: Path, palette: Palette, facts: Mapping[str, str]) -> None:
    """Write a safetensors file: tensors in float64, `facts` (the encoder's) as its metadata."""
    with atomic_path(path) as file:
        file.write_bytes(_serialised(palette, facts))
        sort_facts(file)


def load_palette(path: Path) -> tuple[Palette, dict[str, str]]:
    """Read `save_palette`'s file: the palette and the facts. Errors: RiceError when it is not such a file."""
    try:
        with safe_open(path, framework="np") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        components = _components(tensors, "")
        foreground = None
        if "foreground.rule" in tensors:
            threshold, above, share = map(float, tensors["foreground.rule"])
            first = _components(tensors, "foreground.")
            foreground = Foreground(first=first, threshold=threshold, above=bool(above), share=share)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RiceError(f"{path} is not a components.safetensors of `rice pca` ({error})") from error
    return Palette(components=components, foreground=foreground), facts


def _serialised(palette: Palette, facts: Mapping[str, str]) -> bytes:
    tensors = _tensors(palette.components)
    if palette.foreground is not None:
        rule = palette.foreground
        tensors |= {f"foreground.{name}": tensor for name, tensor in _tensors(rule.first).items()}
        tensors["foreground.rule"] = np.array([rule.threshold, float(rule.above), rule.share])
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return bytes(save(contiguous, metadata=dict(facts)))


def _tensors(components: Components) -> dict[str, NDArray[np.float64]]:
    tensors = {
        "mean": components.mean,
        "components": components.axes,
        "explained_variance": components.variance,
        "totals": np.array([components.total_variance, float(components.count)]),
    }
    if components.low is not None and components.high is not None:
        tensors |= {"low": components.low, "high": components.high}
    return tensors


def _components(tensors: Mapping[str, NDArray[np.float64]], prefix: str) -> Components:
    mean, axes = tensors[f"{prefix}mean"], tensors[f"{prefix}components"]
    variance, totals = tensors[f"{prefix}explained_variance"], tensors[f"{prefix}totals"]
    if axes.shape != (len(variance), len(mean)) or not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError(f"components {axes.shape}, mean {mean.shape}")
    total, count = map(float, totals)
    components = Components(mean=mean, axes=axes, variance=variance, total_variance=total, count=int(count))
    if prefix:
        return components
    return components.scaled(tensors["low"], tensors["high"])
