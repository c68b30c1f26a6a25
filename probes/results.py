"""The store of results: one atomic JSON file per (encoder, probe, dataset, config, protocol version, seed).

A file's name is the hash of what identifies its numbers, so writers on many hosts never meet, and a changed encoder,
dataset or config makes its results missing instead of wrong. Imports no torch; pandas only inside `load`.
"""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.protocol import Metric
from probes.stored import REMEDY, SCHEMA, Rejected, parse, unsafe_label
from rice.errors import RiceError
from rice.files import sha256_json, write_json

if TYPE_CHECKING:
    import pandas

_MOST_BYTES = 1 << 28
"""Of one result: 256 MiB, as of results of others."""

RESULTS, ITEMS, KEPT = "results", "items", "kept"

COLUMNS = (
    *("encoder", "reference", "encoder_fingerprint", "trained", "weights", "probe", "dataset", "dataset_fingerprint"),
    *("metric", "value", "n", "unit", "higher_is_better", "split", "stderr", "protocol", "protocol_version"),
    *("seed", "size", "layer", "norm", "tokens", "gflops", "images_per_s", "seconds", "config", "device", "key"),
)
ORDER = ("encoder", "probe", "dataset", "metric", "split", "seed", "key")
"""Of a frame's rows."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes two numbers the same measurement. `config` is `protocol.identity` of the probe's config.

    `size` is the edge in pixels of the encoder's square input and `layer` the hidden state that was read: one
    fingerprint of weights serves several of both. Both are None where results came from elsewhere and do not say.
    """

    encoder_fingerprint: str
    size: int | None
    layer: int | None
    probe: str
    protocol_version: int
    dataset_fingerprint: str
    config: dict[str, Any]

    def cell_key(self) -> str:
        """Hex SHA-256 of everything but the seed: names the lock, log and work folder of a sweep's cell."""
        return sha256_json(vars(self))

    def result_key(self, seed: int) -> str:
        """Hex SHA-256 of one seed's result: its file name."""
        return sha256_json(vars(self) | {"seed": seed})


@dataclass(frozen=True, kw_only=True)
class Result:
    """One seed's numbers with all that is needed to trust, compare and repeat them.

    `encoder` is the label or the reference as written, `reference` the reference; `encoder_spec` an EncoderSpec as a
    dict; `tokens` and `gflops` are of one image's forward, None where they are not known; `images_per_s` and `seconds`
    were measured on `device`; `peak_memory` is in bytes; `versions` of packages; `commit` of the rice checkout, None
    where there is none; `finished` is UTC, ISO 8601.
    """

    encoder: str
    reference: str
    weights: str
    trained: bool
    encoder_spec: dict[str, Any]
    identity: Identity
    seed: int
    dataset: str
    tokens: int | None
    gflops: float | None
    images_per_s: float | None
    resolved_config: dict[str, Any]
    metrics: Sequence[Metric]
    versions: dict[str, str | None]
    commit: str | None
    device: str
    seconds: float
    peak_memory: dict[str, int]
    finished: str

    @property
    def key(self) -> str:
        """The result's file name, without suffix."""
        return self.identity.result_key(self.seed)


def result_path(directory: Path, key: str) -> Path:
    """Where a result lies under a sweep's --out."""
    return directory / RESULTS / f"{key}.json"


def items_path(directory: Path, key: str) -> Path:
    """Where the per-item scores of a result lie, where its probe wrote any."""
    return directory / ITEMS / f"{key}.parquet"


def kept_path(directory: Path, key: str) -> Path:
    """Folder of what a probe left to keep beside a result: a trained head, say; where it left any."""
    return directory / KEPT / key


def check_metrics(metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics as plain Python values. Errors: RiceError when there are none, one repeats, or one is not finite."""
    checked = [_plain(metric) for metric in metrics]
    if not checked:
        raise RiceError("the probe gave no metric; a probe must yield at least one per seed")
    for metric in checked:
        found = unsafe_label(metric.name)
        if found:
            raise RiceError(f"the probe gave a metric whose name holds {found}: {metric.name!r}")
    names = [(metric.name, metric.split) for metric in checked]
    if len(set(names)) < len(names):
        raise RiceError(f"the probe gave a metric twice: {sorted({name for name in names if names.count(name) > 1})}")
    return checked


def store(directory: Path, result: Result) -> Path:
    """Write one result atomically; returns its path. Errors: RiceError for metrics that `check_metrics` refuses."""
    document = dataclasses.asdict(dataclasses.replace(result, metrics=check_metrics(result.metrics)))
    path = result_path(directory, result.key)
    write_json(path, {"schema": SCHEMA, "key": result.key, **document})
    return path


def load(directory: Path | str, rejected: list[Rejected] | None = None) -> "pandas.DataFrame":
    """All results under a sweep's --out (or its `results` folder): one row per (result, metric), columns COLUMNS.

    Rows are in ORDER, whatever order the files were written in.
    `rejected` and errors: as `documents`.
    """
    return frame_of(documents(Path(directory), rejected))


def frame_of(results: Iterable[dict[str, Any]]) -> "pandas.DataFrame":
    """Documents as `load` gives them."""
    import pandas

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    texts: dict[str, str] = {}  # a million results say the same few: of each one is kept
    for row in rows_of(results):
        for name, values in columns.items():
            value = row[name]
            values.append(texts.setdefault(value, value) if type(value) is str and name != "key" else value)
    frame = pandas.DataFrame(columns if columns["key"] else None, columns=list(COLUMNS))
    return frame.sort_values(list(ORDER), kind="stable", ignore_index=True)


def rows_of(results: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each metric of each document: COLUMNS, as a frame has them; None for what is not known."""
    for document in results:
        identity = document["identity"]
        shared = document | identity | {"norm": document["encoder_spec"]["norm"]}
        shared["config"] = json.dumps(identity["config"], sort_keys=True)
        for metric in document["metrics"]:
            row = shared | metric | {"metric": metric["name"]}
            yield {column: row[column] for column in COLUMNS}


def documents(directory: Path, rejected: list[Rejected] | None = None) -> Iterator[dict[str, Any]]:
    """Every stored result as written, checked, in the order of the keys.

    A file that is corrupt, foreign, copied, hostile or of a newer schema is appended to `rejected`; without such a list
    it is an error that names the file: none is skipped unsaid. Errors: RiceError.
    """
    folder = directory / RESULTS if (directory / RESULTS).is_dir() else directory
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
    except OSError as error:
        raise RiceError(f"cannot read results in {folder}: {error.strerror}; give the --out of a sweep") from error
    for name in names:
        path = os.path.join(folder, name)  # noqa: PTH118 - Path is half the time
        try:
            document = _read(path, name.removesuffix(".json"))
        except RiceError as error:
            if rejected is None:
                raise RiceError(f"{path} {error}; {REMEDY}") from error
            rejected.append(Rejected(name, str(error)))
            continue
        yield document


def _read(path: str, stem: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise RiceError(f"cannot be read: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise RiceError(f"has more than {_MOST_BYTES:,} bytes, which no result has")
    return parse(text, stem)


def _plain(metric: Metric) -> Metric:
    """A metric whose numbers are Python's own (a probe may hand over numpy's), all finite."""
    plain = dataclasses.replace(
        metric,
        value=float(metric.value),
        n=int(metric.n),
        stderr=None if metric.stderr is None else float(metric.stderr),
        higher_is_better=bool(metric.higher_is_better),
    )
    for what, value in (("value", plain.value), ("standard error", plain.stderr)):
        if value is not None and not math.isfinite(value):
            raise RiceError(f"metric {plain.name} has the {what} {value}; nothing is stored for this seed")
    return plain
