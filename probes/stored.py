"""What makes a file a stored result: the checks of `probes.results`, for files that anybody may have written.

Nothing of a file is trusted before it has passed: a report shows labels from it, and follows its identifiers.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from probes.protocol import Metric
from rice.errors import RiceError
from rice.files import sha256_json

SCHEMA = 1
REMEDY = "move it out of the folder, or delete it and run the sweep again"

_METRIC_FIELDS = frozenset(field.name for field in dataclasses.fields(Metric))
_NUMBER, _COUNT = (int, float), (int,)
_OPTIONAL_NUMBER, _OPTIONAL_COUNT, _OPTIONAL_TEXT = (int, float, type(None)), (int, type(None)), (str, type(None))
_RESULT_TYPES: Mapping[str, tuple[type, ...]] = {
    "encoder": (str,), "reference": (str,), "weights": (str,), "trained": (bool,), "encoder_spec": (dict,),
    "identity": (dict,), "seed": _COUNT, "dataset": (str,), "tokens": _OPTIONAL_COUNT, "gflops": _OPTIONAL_NUMBER,
    "images_per_s": _OPTIONAL_NUMBER, "resolved_config": (dict,), "metrics": (list,), "versions": (dict,),
    "commit": _OPTIONAL_TEXT, "device": (str,), "seconds": _NUMBER, "peak_memory": (dict,), "finished": (str,),
}  # fmt: skip
_IDENTITY_TYPES: Mapping[str, tuple[type, ...]] = {
    "encoder_fingerprint": (str,), "size": _OPTIONAL_COUNT, "layer": _OPTIONAL_COUNT, "probe": (str,),
    "protocol_version": _COUNT, "dataset_fingerprint": (str,), "config": (dict,),
}  # fmt: skip
_METRIC_TYPES: Mapping[str, tuple[type, ...]] = {
    "name": (str,), "value": _NUMBER, "n": _COUNT, "unit": (str,), "higher_is_better": (bool,), "split": (str,),
    "stderr": _OPTIONAL_NUMBER, "protocol": (str,),
}  # fmt: skip
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TAG = re.compile(r"<[A-Za-z/!?]")


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A file that lies among results and is none, and why; one line each."""

    file: str
    reason: str


def parse(text: bytes, stem: str) -> dict[str, Any]:
    """A stored result from the bytes of the file STEM.json. Errors: RiceError, saying what is wrong with it."""
    try:
        document = json.loads(text.decode(), parse_constant=_refuse_constant)
        if b"\\ud" in text.lower():  # JSON can spell half of a surrogate pair, which no table or page can hold
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RiceError(f"is not a valid result: {error}") from error
    problem = _problem(document, stem)
    if problem:
        raise RiceError(problem)
    return document  # type: ignore[no-any-return]  # checked to be a dict


def unsafe_label(text: str, *, identifier: bool = False) -> str | None:
    """What makes a label one that no honest run writes, if anything: markup, control characters, and in an
    `identifier`, which may become part of a file's name, steps to a parent folder."""
    if _UNPRINTABLE.search(text):
        return "control characters"
    if _TAG.search(text):
        return "markup"
    return "a step to a parent folder" if identifier and ".." in re.split(r"[/\\]", text) else None


def _problem(document: Any, stem: str) -> str | None:
    """What keeps a parsed file from being a result of this schema under this name, if anything."""
    if not isinstance(document, dict) or type(document.get("schema")) is not int:
        return "is not a result of rice sweep"
    if document["schema"] > SCHEMA:
        return f"has schema {document['schema']}, this rice-suite reads up to {SCHEMA}: update it"
    if document["schema"] < 1:
        return f"has schema {document['schema']}, which never was"
    expected = _RESULT_TYPES.keys() | {"schema", "key"}
    if document.keys() != expected:
        return f"has other fields than a result: {', '.join(sorted(document.keys() ^ expected))}"
    if document["key"] != stem:
        return f"holds the result {document['key']!r}, which is not its name: a copy, or renamed"
    identity = document["identity"]
    problem = _mistyped(document, _RESULT_TYPES) or (
        "identity" if identity.keys() != _IDENTITY_TYPES.keys() else _mistyped(identity, _IDENTITY_TYPES)
    )
    problem = problem or (None if isinstance(document["encoder_spec"].get("norm"), str) else "encoder_spec")
    if problem:
        return f"has a malformed {problem}"
    return _malformed_metrics(document["metrics"]) or _dishonest(document, identity)


def _mistyped(document: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> str | None:
    """The first field of another type than it has; numbers must be finite (JSON's 1e999 is not)."""
    for name, allowed in types.items():
        value = document[name]
        if type(value) not in allowed or (type(value) is float and not math.isfinite(value)):
            return name
    return None


def _malformed_metrics(metrics: list[Any]) -> str | None:
    if not metrics:
        return "has no metric"
    for metric in metrics:
        if not isinstance(metric, dict) or metric.keys() != _METRIC_FIELDS or _mistyped(metric, _METRIC_TYPES):
            return "has malformed metrics"
    return None


def _dishonest(document: Mapping[str, Any], identity: Mapping[str, Any]) -> str | None:
    """Labels that are no labels, and a name that is not the hash of what the file says it measured."""
    identifiers = {"dataset": document["dataset"], "probe": identity["probe"]}
    labels = {"encoder": document["encoder"]} | {f"metric {i}": m["name"] for i, m in enumerate(document["metrics"])}
    for name, text in (*labels.items(), *identifiers.items()):
        found = unsafe_label(text, identifier=name in identifiers)
        if found:
            return f"has {found} in its {name}: {text[:60]!r}"
    key = sha256_json({**identity, "seed": document["seed"]})
    return None if key == document["key"] else "has a key that is not the hash of its identity: edited by hand"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
