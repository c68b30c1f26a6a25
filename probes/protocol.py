"""What a probe is, and the table of probes. Imports no torch."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from rice.errors import RiceError, nearest
from rice.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rice.encoders.base import Encoder
    from rice.encoders.spec import EncoderSpec

PROBES: dict[str, str] = {
    "dense": "probes.dense.probe:DenseProbe",
    "detection": "probes.detection.probe:DetectionProbe",
    "knn": "probes.knn.probe:KnnProbe",
    "llava": "mllm.llava.probe:LlavaProbe",
    "refseg": "mllm.lisa.probe:LisaProbe",
    "text": "probes.text.probe:TextProbe",
    "tracking": "tracking.probe:TrackingProbe",
}

ITEMS: Mapping[str, str] = {"lmms-eval": "mllm.llava.items:TaskItems", "lisa-eval": "mllm.lisa.items:SplitItems"}
"""Names of results that no sweep computes, and what knows their items: see `Resamples`."""

ENTRY_POINTS = "rice.probes"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number. `n` counts the items behind it; `stderr` is over these items, where it is known.

    `protocol` names the definition that was used, in full, so that two numbers under one name are comparable.
    """

    name: str
    value: float
    n: int
    unit: str
    higher_is_better: bool
    split: str
    stderr: float | None = None
    protocol: str


class NotThisLayoutError(RiceError):
    """A data root holds nothing that a probe could read: another layout, or no split to train or to test on.

    Any other RiceError of `Probe.inspect` means that the layout is the probe's and its content is broken.
    """


def run_only(default: Any, **metadata: Any) -> Any:
    """A config field that changes how a probe runs but not what it computes: it is not part of a result's identity."""
    return field(default=default, metadata={"run_only": True, **metadata})


def identity(config: Any) -> dict[str, Any]:
    """The config's fields that belong to a result's identity, as JSON values."""
    fields = (f for f in dataclasses.fields(config) if not f.metadata.get("run_only"))
    return {f.name: _plain(getattr(config, f.name)) for f in fields}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return identity(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class Probe(Protocol):
    """Judges one frozen encoder on one dataset.

    A probe is a class with a frozen keyword-only config; `Probe(config, data)` where `data` is the root of a dataset
    in the layout that the probe reads. Creating one touches no file and imports no torch. It may derive from this
    class, which then keeps both and takes any size that the encoder takes.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    """Of the protocol: raised whenever a change of code changes the numbers."""
    Config: ClassVar[type]

    config: Any
    data: Path

    def __init__(self, config: Any, data: Path) -> None:
        self.config, self.data = config, data

    def inspect(self) -> str:
        """One line on what this probe finds at its data root.

        Errors: NotThisLayoutError when the root is not for this probe; RiceError when it is, and is broken.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 that changes when the annotations or the files that the probe would read change (names and sizes)."""
        ...

    def input_size(self, spec: "EncoderSpec", size: int | None) -> int:
        """Edge in pixels of the square input that the encoder will see. `size`: asked for by `NAME@SIZE`, or None.

        Errors: RiceError when the encoder cannot take it.
        """
        edge = spec.native_size if size is None else size
        spec.check_size(edge, edge)
        return edge

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterable[Metric]:
        """Yield the metrics of one seed. Writes only under `workdir`; `workdir/items.parquet` holds per-item scores,
        and what lies in `workdir/kept` is kept beside the result.

        `workdir` is kept between the seeds of one cell and between restarts, so it may cache and resume there.
        """
        ...


@runtime_checkable
class CountsImages(Protocol):
    """A probe that can say beforehand how much work it has: `rice sweep --dry-run` then adds it up."""

    def count_images(self) -> int:
        """How many pictures pass through the encoder before the first seed's numbers. Errors: as `Probe.inspect`."""
        ...


@runtime_checkable
class DecodesAll(Protocol):
    """A probe that can read all of its data, which `inspect` does not: `rice data check --decode` asks it to."""

    def decode_all(self, progress: Progress) -> None:
        """Decode every picture and mask once. Errors: RiceError naming the first that is damaged."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampling:
    """Metrics of one seed as functions of how often each item is counted, for bootstraps over items.

    `ids`: of the N items (pictures, sequences), unique. `scores`: weights (R, N), >= 0, column i for `ids[i]` -> by
    metric's name (R,) values in its stored unit, NaN where a row leaves nothing to judge; ones give the stored value.
    """

    ids: Sequence[str]
    scores: "Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]"


@runtime_checkable
class Resamples(Protocol):
    """A probe whose metrics follow from its `items.parquet`: intervals and comparisons then resample the items."""

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """One for each set of items that is drawn on its own (a benchmark's clips, say). Imports no torch."""
        ...


def probe_names() -> list[str]:
    """Names of all probes, our own first, then those of entry points."""
    return [*PROBES, *(name for name in _plugins() if name not in PROBES)]


def probe_class(name: str) -> type[Probe]:
    """The class behind a probe's name, or behind `module:Class`. Errors: RiceError with the nearest names."""
    target = PROBES.get(name) or _plugins().get(name) or (name if ":" in name else None)
    if target is None:
        raise RiceError(f"unknown probe {name!r}.{nearest(name, probe_names())} Known: {', '.join(probe_names())}")
    module, _, attribute = target.partition(":")
    try:
        cls: type[Probe] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it needs is not
        raise RiceError(f"probe {name!r}: there is no module {module!r} on the Python path") from error
    except AttributeError as error:
        raise RiceError(f"probe {name!r}: the module {module!r} has no {attribute!r}") from error
    return cls


@functools.cache
def _plugins() -> Mapping[str, str]:
    """Read once: it opens a file of every installed package."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
