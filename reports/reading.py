"""Every stored result of several folders, once; what is left out, and why."""

import operator
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.results import documents, frame_of
from probes.stored import Rejected
from rice.errors import RiceError, nearest

if TYPE_CHECKING:
    import pandas as pd

_LARGEST = 1e100
"""Of a metric's size: its square is still finite, and no score comes near."""


def read(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """The documents (`probes.results.documents`) under sweeps' --out folders, and the files that are left out.

    A key says what was measured, so of two files with one key only the first counts: its seed is not averaged twice.
    Errors: RiceError for a folder that cannot be read, where none holds a result, and for results of one name with
    other weights.
    """
    left: list[Rejected] = []
    found = sorted(_each(folders, left), key=operator.itemgetter("key"))
    if not found:
        raise _none(folders, left)
    return found, left


def read_frame(folder: Path, metrics: Sequence[str] = ()) -> "tuple[pd.DataFrame, list[Rejected]]":
    """The same of one folder as a frame (`probes.results.load`), of these metrics only; all without any. What is left
    out is said on standard error. No more than one document is held at a time.

    Errors: RiceError as `read`, and for a metric that none has.
    """
    left: list[Rejected] = []
    frame = frame_of(_each([folder], left))
    if frame.empty:
        raise _none([folder], left)
    say_left_out(left)
    known = sorted(set(frame["metric"]))
    for metric in metrics:
        if metric not in known:
            raise RiceError(f"no metric {metric!r} in {folder}.{nearest(metric, known)} Known: {', '.join(known)}")
    return (frame[frame["metric"].isin(metrics)] if metrics else frame), left


def _each(folders: Sequence[Path], left: list[Rejected]) -> Iterator[dict[str, Any]]:
    """The documents of `read`, folder by folder; what is left out is appended to `left` at the end of each."""
    places: dict[str, str] = {}
    weights: dict[str, tuple[str, str]] = {}
    for folder in folders:
        rejected: list[Rejected] = []
        label = folder.resolve().name
        for document in documents(folder, rejected):
            key = document["key"]
            reason = f"holds the same measurement as the one in {places[key]}" if key in places else _unusable(document)
            if reason:
                rejected.append(Rejected(f"{key}.json", reason))
                continue
            _refuse_other_weights(document, weights)
            places[key] = label
            yield document
        left += [Rejected(f"{label}/{one.file}", one.reason) for one in rejected]


def _refuse_other_weights(document: dict[str, Any], seen: dict[str, tuple[str, str]]) -> None:
    """A name of the hub may come to mean other weights, and its results would still count as one encoder's."""
    fingerprint, digest = document["identity"]["encoder_fingerprint"], document["encoder_spec"].get("digest")
    if not isinstance(digest, str):  # not published, or of a version that did not note it
        return
    other, key = seen.setdefault(fingerprint, (digest, document["key"]))
    if other != digest:
        raise RiceError(
            f"results of {document['encoder']} were measured with other weights of the same name: {key}.json with "
            f"{other[:12]}, {document['key']}.json with {digest[:12]}; keep those of one apart, in another folder"
        )


def _none(folders: Sequence[Path], left: Sequence[Rejected]) -> RiceError:
    why = f" ({len(left)} left out, such as {left[0].file}, which {left[0].reason})" if left else ""
    return RiceError(
        f"expected results under {', '.join(map(str, folders))}, found none{why}; make some with: rice sweep"
    )


def say_left_out(left: Iterable[Rejected]) -> None:
    """Name on standard error what is no result."""
    for one in left:
        print(f"left out: {one.file}: {one.reason}", file=sys.stderr)  # noqa: T201


def _unusable(document: dict[str, Any]) -> str | None:
    """What keeps a result's numbers from being averaged, if anything."""
    names = [(metric["name"], metric["split"]) for metric in document["metrics"]]
    if len(set(names)) < len(names):
        return "gives a metric twice"
    values = [value for metric in document["metrics"] for value in (metric["value"], metric["stderr"] or 0)]
    return "has a number that no score reaches" if any(abs(value) > _LARGEST for value in values) else None
