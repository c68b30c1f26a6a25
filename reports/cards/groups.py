"""What of an encoder's results goes together on a model card.

Everything in a result may have been written by anybody, so each text is cleaned of what does not print.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probes.results import Identity, rows_of
from reports.measurements import Measurement, measurements


@dataclass(frozen=True, kw_only=True)
class Group:
    """Results that differ in nothing but the seed, which a card calls a measurement, with all their metrics.

    `key`: of all but the seed; `documents` in the order of their seeds; `scores` in that of the results' metrics.
    """

    key: str
    documents: list[dict[str, Any]]
    scores: list[Measurement]

    @property
    def identity(self) -> dict[str, Any]:
        """Of the results (`probes.results.Identity`)."""
        identity: dict[str, Any] = self.documents[0]["identity"]
        return identity

    @property
    def probe(self) -> str:
        """The probe's name."""
        return clean(self.identity["probe"])

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return clean(self.documents[0]["dataset"])

    @property
    def imported(self) -> bool:
        """Whether `rice import` brought it: nothing is then known of how the encoder was run."""
        return any(document["device"].endswith("(imported)") for document in self.documents)


def groups(documents: Sequence[dict[str, Any]]) -> list[Group]:
    """Of the results of one encoder, in the order of probe and data."""
    by_key = {document["key"]: document for document in documents}
    order = {(m["name"], m["split"]): i for d in reversed(documents) for i, m in enumerate(d["metrics"])}
    scores: dict[tuple[str, str], list[Measurement]] = {}
    for one in sorted(measurements(rows_of(documents)), key=lambda one: order[one["metric"], one["split"]]):
        identity = by_key[one["key"]]["identity"]
        scores.setdefault((one["dataset"], Identity(**identity).cell_key()), []).append(one)
    found = [
        Group(key=key, documents=_documents(of_group, by_key), scores=of_group) for (_, key), of_group in scores.items()
    ]
    return sorted(found, key=lambda group: (group.probe, group.dataset, group.identity["size"] or 0, group.key))


def clean(text: str) -> str:
    """On one line, and printable: what does not print becomes U+FFFD."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "�" for character in line) or "(no name)"


def _documents(scores: Sequence[Measurement], by_key: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    seeds = {row["seed"]: row["key"] for score in scores for row in score.rows}
    return [by_key[seeds[seed]] for seed in sorted(seeds)]
