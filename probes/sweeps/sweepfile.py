"""A sweep as its YAML file writes it, checked. Imports no torch.

name: corner
encoders: [rice-b16-512, {encoder: "timm:vit_tiny_patch16_224", weights: none, name: ViT-Ti}]
datasets:
  scenes: {world: {train: 200}}         # generated under --out
  coco: {path: ../data/coco}            # relative to this file; `path: null` must be given by --data
probes:
  - {probe: dense, data: [scenes, coco], grid: matched}    # other keys: `dotted.name: value` of the probe's config
seeds: [0, 1, 2]                        # or 3
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.stored import unsafe_label
from probes.yaml_files import read_yaml
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError, nearest, os_errors_as

BUILT_IN = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class EncoderEntry:
    """`label` names its rows in tables. `weights`: "default" (the published ones), None (random), or a path.

    A file may say `weights: unpublished`: --weights names the path, or the encoder is left out, and the sweep says so.
    """

    reference: EncoderReference
    label: str
    weights: str | None = "default"
    allow_pickle: bool = False


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """A folder on disk, or the settings of a generated world; neither where --data must still name the folder."""

    name: str
    path: Path | None = None
    world: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeEntry:
    """A probe by name or `module:Class`, the names of its datasets, and `dotted.name: value` for its config."""

    probe: str
    data: tuple[str, ...]
    overrides: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """encoders x probes x datasets x seeds."""

    name: str
    encoders: tuple[EncoderEntry, ...]
    datasets: tuple[DatasetEntry, ...]
    probes: tuple[ProbeEntry, ...]
    seeds: tuple[int, ...]
    left_out: tuple[str, ...] = ()
    """Encoders without weights: labels."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, for `OUT/sweep.json`."""
        document = dataclasses.asdict(self)
        for entry in document["encoders"]:
            entry["reference"] = str(EncoderReference(**entry["reference"]))
        for entry in document["datasets"]:
            entry["path"] = None if entry["path"] is None else str(entry["path"])
        return document


UNPUBLISHED = "unpublished"


def read_sweep(file_or_name: str, data: Sequence[str] = (), weights: Sequence[str] = ()) -> Sweep:
    """Read FILE.yaml or a built-in sweep.

    `data` holds NAME=PATH; PATH alone is the one dataset that the sweep has, or a folder that holds those that the
    file leaves open, by their names. `weights` holds LABEL=PATH, for encoders whose weights are not published.
    Errors: RiceError in one line for whatever is unknown, repeated, empty or of the wrong type.
    """
    path = _locate(file_or_name)
    where = str(path) if path.parent != BUILT_IN else f"sweep {path.stem}"
    document = _mapping(
        read_yaml(path), where, required=("name", "encoders", "datasets", "probes"), optional=("seeds",)
    )
    name = _typed(document["name"], str, f"{where}: name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RiceError(f"{where}: expected a name of letters, digits, '.', '_' and '-', got {name!r}")
    datasets = _datasets(document["datasets"], f"{where}: datasets", path.parent, data)
    encoders = [_encoder(entry, f"{where}: encoders") for entry in _list(document["encoders"], f"{where}: encoders")]
    _unique([entry.label for entry in encoders], f"{where}: encoders")
    encoders = _with_weights(encoders, weights)
    there = tuple(entry for entry in encoders if entry.weights != UNPUBLISHED)
    left_out = tuple(entry.label for entry in encoders if entry.weights == UNPUBLISHED)
    if not there:
        raise RiceError(f'{where}: no encoder has weights; give some: --weights "{left_out[0]}=PATH"')
    probes = [_probe(entry, f"{where}: probes", datasets) for entry in _list(document["probes"], f"{where}: probes")]
    seeds = _seeds(document.get("seeds", 1), f"{where}: seeds")
    return Sweep(
        name=name,
        encoders=there,
        datasets=tuple(datasets.values()),
        probes=tuple(probes),
        seeds=seeds,
        left_out=left_out,
    )


def built_in_probes(name: str) -> list[ProbeEntry]:
    """The probes of a built-in sweep with their settings: the protocol that a table of the paper is measured by."""
    document = read_yaml(BUILT_IN / f"{name}.yaml")
    datasets = {key: DatasetEntry(name=key) for key in document["datasets"]}
    return [_probe(entry, f"sweep {name}: probes", datasets) for entry in document["probes"]]


def _locate(file_or_name: str) -> Path:
    built_in = sorted(path.stem for path in BUILT_IN.glob("*.yaml"))
    if file_or_name in built_in:
        return BUILT_IN / f"{file_or_name}.yaml"
    if Path(file_or_name).is_file():
        return Path(file_or_name).absolute()
    raise RiceError(
        f"expected the YAML file of a sweep or a built-in name ({', '.join(built_in)}), got {file_or_name!r}."
        f"{nearest(file_or_name, built_in)}"
    )


def _encoder(value: Any, where: str) -> EncoderEntry:
    if isinstance(value, str):
        return EncoderEntry(reference=EncoderReference.parse(value), label=value)
    optional = ("name", "weights", "size", "layer", "allow_pickle")
    entry = _mapping(value, where, required=("encoder",), optional=optional)
    reference = EncoderReference.parse(_typed(entry["encoder"], str, f"{where}: encoder"))
    for key in ("size", "layer"):
        if key in entry and getattr(reference, key) is not None:
            raise RiceError(f"{where}: {reference} already says its {key}; remove `{key}: {entry[key]}`")
        if key in entry:
            number = _typed(entry[key], int, f"{where}: {reference}: {key}")
            reference = EncoderReference.parse(str(dataclasses.replace(reference, **{key: number})))
    weights = entry.get("weights", "default")
    label = _typed(entry.get("name", str(reference)), str, f"{where}: {reference}: name")
    _safe(label, f"{where}: {reference}: name")
    return EncoderEntry(
        reference=reference,
        label=label,
        weights=None if weights in (None, "none") else _typed(weights, str, f"{where}: {reference}: weights"),
        allow_pickle=_typed(entry.get("allow_pickle", False), bool, f"{where}: {reference}: allow_pickle"),
    )


def _with_weights(encoders: Sequence[EncoderEntry], weights: Sequence[str]) -> list[EncoderEntry]:
    given: dict[str, str] = {}
    labels = [entry.label for entry in encoders]
    for word in weights:
        label, _, path = word.rpartition("=")
        if label not in labels or not path:
            raise RiceError(f"--weights takes LABEL=PATH with LABEL one of {', '.join(labels)}, got {word!r}")
        given[label] = path
    return [dataclasses.replace(e, weights=given[e.label]) if e.label in given else e for e in encoders]


def _datasets(value: Any, where: str, folder: Path, data: Sequence[str]) -> dict[str, DatasetEntry]:
    entries = {name: _dataset(name, entry, where, folder) for name, entry in _filled(value, dict, where).items()}
    for word in data:
        name, equals, path = word.partition("=")
        open_ = [entry.name for entry in entries.values() if entry.path is None and entry.world is None]
        if not equals and len(entries) > 1 and Path(word).is_dir():
            entries |= {n: DatasetEntry(name=n, path=(Path(word) / n).absolute()) for n in open_}
            continue
        if not equals and len(entries) == 1:
            name, path = next(iter(entries)), word
        if name not in entries or not path:
            raise RiceError(f"--data takes NAME=PATH with NAME one of {', '.join(entries)}, got {word!r}")
        entries[name] = DatasetEntry(name=name, path=Path(path).absolute())
    for entry in entries.values():
        if entry.path is None and entry.world is None:
            raise RiceError(f"{where}: say where {entry.name} lies: --data {entry.name}=PATH")
        if entry.path is not None and not _is_folder(entry.path):
            raise RiceError(f"{where}: {entry.name}: there is no folder {entry.path}")
    return entries


def _is_folder(path: Path) -> bool:
    """Errors: RiceError for a path that no system has: too long, say."""
    with os_errors_as(f"cannot look for the folder {path}"):
        return path.is_dir()


def _safe(label: str, where: str, *, identifier: bool = False) -> None:
    """Refuse before computing what could not be read back."""
    found = unsafe_label(label, identifier=identifier)
    if found:
        raise RiceError(f"{where}: {label!r} holds {found}; name it otherwise")


def _dataset(name: Any, value: Any, where: str, folder: Path) -> DatasetEntry:
    name = _typed(name, str, where)
    _safe(name, where, identifier=True)
    entry = _mapping(value, f"{where}: {name}", optional=("path", "world"))
    if len(entry) != 1:
        raise RiceError(f"{where}: {name}: expected either `path` or `world`, got {', '.join(entry) or 'neither'}")
    if "world" in entry:
        return DatasetEntry(name=name, world=_typed(entry["world"] or {}, dict, f"{where}: {name}: world"))
    if entry["path"] is None:
        return DatasetEntry(name=name)
    return DatasetEntry(name=name, path=(folder / _typed(entry["path"], str, f"{where}: {name}: path")).absolute())


def _probe(value: Any, where: str, datasets: Mapping[str, DatasetEntry]) -> ProbeEntry:
    entry = dict(_typed(value, dict, where))
    for key in ("probe", "data"):
        if key not in entry:
            raise RiceError(f"{where}: expected `{{probe: NAME, data: [NAMES]}}`, got {value!r} without {key!r}")
    probe = _typed(entry.pop("probe"), str, f"{where}: probe")
    names = _list(entry.pop("data"), f"{where}: {probe}: data")
    for name in names:
        if _typed(name, str, f"{where}: {probe}: data") not in datasets:
            raise RiceError(f"{where}: {probe}: unknown dataset {name!r}. Known: {', '.join(datasets)}")
    _unique(names, f"{where}: {probe}: data")
    for key in entry:
        _typed(key, str, f"{where}: {probe}")
    return ProbeEntry(probe=probe, data=tuple(names), overrides=entry)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = list(range(value)) if type(value) is int else value
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise RiceError(f"{where}: expected a count of at least 1 or a list of integers from 0, got {value!r}")
    _unique(seeds, where)
    return tuple(seeds)


def _mapping(
    value: Any, where: str, *, required: Sequence[str] = (), optional: Sequence[str] = ()
) -> Mapping[str, Any]:
    entry: Mapping[str, Any] = _typed(value, dict, where)
    known = [*required, *optional]
    for key in entry:
        if key not in known:
            raise RiceError(f"{where}: unknown key {key!r}.{nearest(str(key), known)} Known: {', '.join(known)}")
    for key in required:
        if key not in entry:
            raise RiceError(f"{where}: the key {key!r} is missing")
    return entry


def _typed(value: Any, kind: type, where: str) -> Any:
    if type(value) is not kind:
        names = {dict: "a mapping", list: "a list", str: "a text", int: "an integer", bool: "true or false"}
        raise RiceError(f"{where}: expected {names[kind]}, got {value!r}")
    return value


def _filled(value: Any, kind: type, where: str) -> Any:
    if not _typed(value, kind, where):
        raise RiceError(f"{where}: expected at least one entry, got none")
    return value


def _list(value: Any, where: str) -> list[Any]:
    items: list[Any] = _filled(value, list, where)
    return items


def _unique(values: Sequence[Any], where: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise RiceError(f"{where}: {value!r} is listed twice")
