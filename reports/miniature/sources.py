"""From each of the miniature's numbers to the result files that it comes from, and from each encoder to its run."""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from probes.results import RESULTS
from reports.grid import defuse
from reports.miniature import tables
from reports.miniature.claims import NAMES
from reports.miniature.scores import BUDGETS, Budget, Scores, Trained
from rice.files import atomic_write

_ORDER = [(budget, arm) for budget in BUDGETS for arm in NAMES]


@dataclass(frozen=True)
class Sources:
    """Paths as seen from the page. folder: of the result files. runs: encoder's name -> its run.json."""

    scores: Scores
    folder: str
    runs: Mapping[str, str] = field(default_factory=dict)

    def run(self, trained: Trained) -> str | None:
        """Link to what says how an encoder was pretrained."""
        path = self.runs.get(trained.name)
        return None if path is None else quote(path)

    def encoders(self) -> list[dict[str, Any]]:
        """Every arm's encoders: name, link."""
        known = sorted(self.scores.of, key=lambda one: (_ORDER.index((one.budget, one.arm)), one.seed))
        groups: dict[tuple[Budget, str], list[Trained]] = {}
        for one in known:
            groups.setdefault((one.budget, one.arm), []).append(one)
        return [
            {
                "arm": NAMES[arm],
                "budget": tables.TITLES[budget],
                "runs": [{"seed": one.seed, "name": one.name, "link": self.run(one)} for one in group],
            }
            for (budget, arm), group in groups.items()
        ]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each metric of each result file, in the order of the tables."""
        metrics = [measure for group in tables.MEASURES.values() for measure in group]
        found = [
            {"trained": trained, "dataset": one["dataset"], "probe": cell.probe, "metric": cell.metric}
            | {"seed": seed, "value": run.value, "key": run.key, "unit": cell.shown_unit}
            for trained, measured in self.scores.of.items()
            for cell, one in measured.items()
            for seed, run in one.runs.items()
            if (cell.probe, cell.metric) in metrics
        ]
        return sorted(found, key=lambda row: (metrics.index((row["probe"], row["metric"])), *_place(row)))

    def probes(self) -> list[dict[str, Any]]:
        """Of each probe its metrics, and by arm and budget the result files with their numbers."""
        probes: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            trained: Trained = row["trained"]
            probe = probes.setdefault(row["probe"], {"name": row["probe"], "metrics": [], "groups": {}})
            if row["metric"] not in probe["metrics"]:
                probe["metrics"].append(row["metric"])
            group = probe["groups"].setdefault(anchor(row["probe"], trained.arm, trained.budget), {})
            file = group.setdefault(row["key"], row | self._file(row))
            file["values"][row["metric"]] = f"{row['value']:.2f}"
        return list(probes.values())

    def _file(self, row: Mapping[str, Any]) -> dict[str, Any]:
        trained: Trained = row["trained"]
        link = quote(f"{self.folder}/{row['key']}.json")
        return {"encoder": trained.name, "run": self.run(trained), "link": link, "values": {}}

    def write(self, path: Path) -> None:
        """`rows` as CSV, in full precision; files as they are linked from the page."""
        with atomic_write(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("encoder", "probe", "dataset", "metric", "probe seed", "value", "unit", "result", "run"))
            for row in self.rows():
                name = row["trained"].name
                what = [name, *(defuse(str(row[key])) for key in ("probe", "dataset", "metric"))]
                where = [f"{self.folder}/{row['key']}.json", self.runs.get(name, "")]
                writer.writerow([*what, row["seed"], row["value"], row["unit"], *map(defuse, where)])


def anchor(probe: str, arm: str, budget: Budget) -> str:
    """Where the page lists the results of an arm by a probe."""
    return f"{probe}-{arm}-{budget}"


def folder_from(results: Path, out: Path) -> str:
    """The folder of result files of a sweep as seen from `out`: a relative path."""
    folder = results / RESULTS if (results / RESULTS).is_dir() else results
    return Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """In the order of the tables, then of the seeds."""
    trained: Trained = row["trained"]
    return _ORDER.index((trained.budget, trained.arm)), trained.seed, row["dataset"], row["seed"]
