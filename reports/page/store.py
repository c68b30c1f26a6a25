"""Every stored result of several folders, once; what is left out, and why."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.results import documents
from probes.stored import Rejected

_LARGEST = 1e100
"""Of a metric's size: its square is still finite, and no score comes near."""


def read(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """The documents (`probes.results.documents`) under sweeps' --out folders, and the files that are left out.

    A key says what was measured, so of two files with one key only the first counts: its seed is not averaged twice.
    Errors: RiceError for a folder that cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    left: list[Rejected] = []
    for folder in folders:
        rejected: list[Rejected] = []
        label = folder.resolve().name
        for document in documents(folder, rejected):
            key = document["key"]
            reason = f"holds the same measurement as the one in {places[key]}" if key in places else _unusable(document)
            if reason:
                rejected.append(Rejected(f"{key}.json", reason))
                continue
            found[key], places[key] = document, label
        left += [Rejected(f"{label}/{one.file}", one.reason) for one in rejected]
    return [found[key] for key in sorted(found)], left


def _unusable(document: dict[str, Any]) -> str | None:
    """What keeps a result's numbers from being averaged, if anything."""
    names = [(metric["name"], metric["split"]) for metric in document["metrics"]]
    if len(set(names)) < len(names):
        return "gives a metric twice"
    values = [value for metric in document["metrics"] for value in (metric["value"], metric["stderr"] or 0)]
    return "has a number that no score reaches" if any(abs(value) > _LARGEST for value in values) else None
