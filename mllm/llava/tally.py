"""What became of the rows of a data set: every one that was read is kept, or refused for a reason that is counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mllm.llava.parse import Change, Reason, RefusedRowError

NAMED = 20
"""Rows of every reason that are named in prepared.json."""

_PRINTED = 3


@dataclass
class Tally:
    """Counts of one source. `refused` and `changed` follow the order of the rules, not of the rows."""

    read: int = 0
    kept: int = 0
    refused: Counter[Reason] = field(default_factory=Counter)
    changed: Counter[Change] = field(default_factory=Counter)
    named: dict[Reason, list[dict[str, str]]] = field(default_factory=dict)

    def keep(self, changes: Iterable[Change]) -> None:
        """A row that stays, and what was done to it."""
        self.read += 1
        self.kept += 1
        self.changed.update(changes)

    def refuse(self, row: str, error: RefusedRowError) -> None:
        """A row that does not. row: its id."""
        self.read += 1
        self.refused[error.reason] += 1
        named = self.named.setdefault(error.reason, [])
        if len(named) < NAMED:
            named.append({"id": row, "detail": error.detail})

    def counts(self) -> dict[str, Any]:
        """As JSON, without names."""
        refused = {str(reason): self.refused[reason] for reason in Reason if self.refused[reason]}
        changed = {str(change): self.changed[change] for change in Change if self.changed[change]}
        return {"read": self.read, "kept": self.kept, "refused": refused, "changed": changed}

    def reasons(self) -> list[str]:
        """Every reason with its count and first rows: 'missing image: 3 (a, b, c)'."""
        counts = self.counts()["refused"]
        return [_reason(reason, count, self.named[Reason(reason)]) for reason, count in counts.items()]


def total(tallies: Iterable[Tally]) -> Tally:
    """All sources as one, the first ids of every reason in the order of the sources."""
    whole = Tally()
    for tally in tallies:
        whole.read += tally.read
        whole.kept += tally.kept
        whole.refused.update(tally.refused)
        whole.changed.update(tally.changed)
        for reason, named in tally.named.items():
            known = whole.named.setdefault(reason, [])
            known += named[: NAMED - len(known)]
    return whole


def lines(report: Mapping[str, Any]) -> list[str]:
    """prepared.json for people: a table of sources, then reasons and changes."""
    width = max(map(len, ["source", *report["sources"]]))
    table = [f"{'source':<{width}}  {'read':>9}  {'kept':>9}  {'refused':>9}"]
    for name, counts in report["sources"].items():
        refused = counts["read"] - counts["kept"]
        table.append(f"{name:<{width}}  {counts['read']:>9,}  {counts['kept']:>9,}  {refused:>9,}")
    for reason, found in report["refused"].items():
        table.append(f"refused: {_reason(reason, found['count'], found['rows'])}")
        if found["rows"][0]["detail"]:
            table.append(f"  the first: {found['rows'][0]['detail']}")
    table += [f"changed: {change}: {count:,}" for change, count in report["changed"].items()]
    return table


def _reason(reason: str, count: int, rows: Sequence[Mapping[str, str]]) -> str:
    ids = ", ".join(one["id"][:60] for one in rows[:_PRINTED])
    return f"{reason}: {count:,} ({ids}{', ...' if count > _PRINTED else ''})"
