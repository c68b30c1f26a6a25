"""What of an encoder's results goes together: the measurements of a model card.

Everything in a result may have been written by anybody, so each text is cleaned of what does not print.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from probes.results import Identity

_PERCENT = "%"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one measurement. `values`: by seed, fractions in percent; `n`: the distinct counts of items."""

    metric: str
    split: str
    protocol: str
    unit: str
    higher_is_better: bool
    values: dict[int, float]
    n: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation (ddof 1) over the seeds, None for one seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def text(self) -> str:
        """'8.27 ± 0.08'."""
        return f"{self.mean:.2f}" + ("" if self.spread is None else f" ± {self.spread:.2f}")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Results that differ in nothing but the seed; `documents` in the order of their seeds."""

    key: str
    dataset: str
    identity: dict[str, Any]
    documents: list[dict[str, Any]]
    scores: list[Score]

    @property
    def probe(self) -> str:
        """The probe's name."""
        return clean(self.identity["probe"])

    @property
    def imported(self) -> bool:
        """Whether `rice import` brought it: nothing is then known of how the encoder was run."""
        return any(document["device"].endswith("(imported)") for document in self.documents)


def measurements(documents: Iterable[dict[str, Any]]) -> list[Measurement]:
    """Group results so that no two that differ in more than the seed are averaged; in the order of probe and data."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for document in documents:
        key = (clean(document["dataset"]), Identity(**document["identity"]).cell_key())
        groups.setdefault(key, []).append(document)
    found = [
        Measurement(
            key=key,
            dataset=dataset,
            identity=group[0]["identity"],
            documents=sorted(group, key=lambda document: int(document["seed"])),
            scores=_scores(group),
        )
        for (dataset, key), group in groups.items()
    ]
    return sorted(found, key=lambda m: (m.probe, m.dataset, m.identity["size"] or 0, m.key))


def clean(text: str) -> str:
    """On one line, and printable: what does not print becomes U+FFFD."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "�" for character in line) or "(no name)"


def _scores(documents: Sequence[dict[str, Any]]) -> list[Score]:
    groups: dict[tuple[Any, ...], dict[int, tuple[float, int]]] = {}
    for document in documents:
        for metric in document["metrics"]:
            factor, unit = (100, _PERCENT) if metric["unit"] == "fraction" else (1, clean(metric["unit"]))
            what = (*(clean(metric[k]) for k in ("name", "split", "protocol")), unit, metric["higher_is_better"])
            groups.setdefault(what, {})[document["seed"]] = (factor * metric["value"], metric["n"])
    return [
        Score(
            metric=name,
            split=split,
            protocol=protocol,
            unit=unit,
            higher_is_better=better,
            values={seed: value for seed, (value, _) in sorted(group.items())},
            n=tuple(sorted({n for _, n in group.values()})),
        )
        for (name, split, protocol, unit, better), group in groups.items()
    ]
