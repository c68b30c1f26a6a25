"""A result that was made elsewhere in the form of our own: what is not known of it is None, never invented."""

import dataclasses
import datetime
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes import provenance
from probes.import_formats.document import label
from probes.protocol import Metric
from probes.results import Identity, Result
from probes.stored import SCHEMA, parse
from rice.encoders.load import applied
from rice.encoders.spec import EncoderReference, EncoderSpec
from rice.encoders.zoo import ZOO
from rice.errors import RiceError
from rice.files import sha256_json

VERSION = 1
"""Of how results are imported: raised whenever a change of code changes what is stored."""

UNIT = "as reported"
"""Of numbers whose scale is not known."""


@dataclass(frozen=True, kw_only=True)
class Whose:
    """The encoder that results belong to. `size` and `layer` are None unless the name says them (NAME@SIZE,layer=K)."""

    label: str
    reference: str
    spec: dict[str, Any]
    size: int | None = None
    layer: int | None = None

    @classmethod
    def named(cls, name: str) -> "Whose":
        """As a user names it: a zoo name brings its spec, any other label nothing. Errors: RiceError."""
        if re.split("[@,]", name)[0] not in ZOO:
            return cls.unknown(name)
        reference = EncoderReference.parse(name)
        spec = dataclasses.asdict(applied(ZOO[reference.name].spec, reference))
        return cls(label=name, reference=str(reference), spec=spec, size=reference.size, layer=reference.layer)

    @classmethod
    def unknown(cls, name: str) -> "Whose":
        """One of which nothing but the name is known. Errors: RiceError for a name that is none."""
        nothing = dict.fromkeys(field.name for field in dataclasses.fields(EncoderSpec))
        spec = nothing | {"name": label(name, "the encoder's name"), "source": "imported", "norm": "none"}
        return cls(label=name, reference=f"imported:{name}", spec=spec)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A result to be stored. `notes`: what of the file is not in it. `write_items`: writes its items to a path."""

    result: Result
    notes: tuple[str, ...] = ()
    write_items: Callable[[Path], None] | None = None


def make_result(
    *,
    whose: Whose,
    model: Sequence[Any],
    weights: str,
    probe: str,
    dataset: str,
    data: str,
    config: dict[str, Any],
    settings: dict[str, Any],
    metrics: Sequence[Metric],
    versions: dict[str, str | None],
    seconds: float,
    seed: int,
) -> Result:
    """The result, checked as the store will check it.

    model: all that names the model, JSON values; its hash can equal no real fingerprint, which is of an object.
    data: the fingerprint. config: what makes the measurement. settings: whatever else is known of it. finished: when
    it was imported, since neither tool says when it ran in UTC.
    Errors: RiceError for names that are none, numbers that are not finite, no metric, a metric twice.
    """
    result = Result(
        encoder=whose.label,
        reference=whose.reference,
        weights=weights,
        trained=True,
        encoder_spec=whose.spec,
        identity=Identity(
            encoder_fingerprint=sha256_json(["imported", *model]),
            size=whose.size,
            layer=whose.layer,
            probe=probe,
            protocol_version=VERSION,
            dataset_fingerprint=data,
            config=config,
        ),
        seed=seed,
        dataset=dataset,
        tokens=None,
        gflops=None,
        images_per_s=None,
        resolved_config=config | settings,
        metrics=tuple(metrics),
        versions=versions | {"rice-suite": provenance.versions()["rice-suite"]},
        commit=None,
        device="unknown (imported)",
        seconds=seconds,
        peak_memory={},
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    _check(result)
    return result


def _check(result: Result) -> None:
    times = Counter((metric.name, metric.split) for metric in result.metrics)
    if len(times) < len(result.metrics):
        raise RiceError(f"{result.dataset} has the metric {times.most_common(1)[0][0][0]} twice")
    document = {"schema": SCHEMA, "key": result.key, **dataclasses.asdict(result)}
    document["metrics"] = list(document["metrics"])
    try:
        parse(json.dumps(document).encode(), result.key)
    except RiceError as error:
        raise RiceError(f"{result.dataset} {error}") from error
