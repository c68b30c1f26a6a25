"""Towers over one sample, one after the other, in a folder that keeps what a killed run finished.

Shapes: N images, K towers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.provenance import commit, versions
from probes.visual.folder import Folder
from probes.visual.tokens.distances import BINS, LEVEL, REPLICATES, paired_differences
from probes.visual.tokens.draw import write_pictures
from probes.visual.tokens.measure import Measured, measure
from probes.visual.tokens.sample import Sample
from probes.visual.towers import Tower
from rice.files import read_json, write_json
from rice.progress import Progress

FORMAT = 1
"""Raised when a change of code changes the numbers: what an older version left is then not continued."""
PICTURE, REPORT = "tokens", "tokens.json"
OUTPUTS = (f"{PICTURE}.png", f"{PICTURE}.pdf", REPORT)


class Comparison:
    """Towers over one sample at one grid, in one folder."""

    def __init__(
        self, towers: Sequence[Tower], sample: Sample, grid: int, out: Path, *, seed: int, data: str = ""
    ) -> None:
        """Writes nothing. `data`: what the report calls the data set.

        Errors: RiceError where `out` holds anything else, or the same of another setting.
        """
        self.towers, self.sample, self.grid, self.seed, self.data = towers, sample, grid, seed, data
        facts = {
            "verb": "tokens",
            "format": FORMAT,
            "images": len(sample),
            "seed": seed,
            "grid": grid,
            "split": sample.split,
            "encoders": [tower.label for tower in towers],
            "pictures": sample.sha256,
            "fingerprints": [tower.fingerprint for tower in towers],
        }
        self.folder = Folder(out, facts, OUTPUTS)

    def run(self, device: str, progress: Progress) -> list[Measured]:
        """Do what earlier runs left to do. Nothing is written before the first tower is measured.

        Errors: RiceError naming a picture that is damaged, or a tower that gives no usable tokens.
        """
        folder = self.folder
        if not folder.report.is_file():
            for tower in self.towers:
                if not folder.part(tower, ".json").is_file():
                    measured = measure(tower, self.sample, self.grid, device, progress)
                    folder.claim()
                    write_json(folder.part(tower, ".json"), measured.as_json())
            found = [Measured.from_json(read_json(folder.part(tower, ".json"))) for tower in self.towers]
            write_json(folder.report, self._report(found))
        found = folder.read(self._measured, self.towers)
        if not folder.done:
            write_pictures(folder.out / PICTURE, found, self.caption)
        folder.clean()
        return found

    def _measured(self, value: Mapping[str, Any]) -> Measured:
        measured = Measured.from_json(value)
        if {len(measured.raw.image_means), len(measured.centred.image_means)} != {len(self.sample)}:
            raise ValueError(f"expected the means of {len(self.sample)} images")
        return measured

    @property
    def caption(self) -> str:
        """One line on what was measured."""
        pairs = self.grid**2 * (self.grid**2 - 1) // 2
        place = f" of {self.data}" if self.data else ""
        split = f" {self.sample.split}" if self.sample.split else ""
        images = f"{len(self.sample):,} image{'s' if len(self.sample) != 1 else ''}"
        return f"{images}{place}{split}, {self.grid} × {self.grid} tokens each, {pairs:,} pairs an image"  # noqa: RUF001

    def _report(self, found: Sequence[Measured]) -> dict[str, Any]:
        return {
            "config": self.folder.facts
            | {"bins": BINS, "range": [0, 2], "distance": "1 - cosine, pairs within one image"},
            "data": {"name": self.data, "split": self.sample.split, "images": list(self.sample.names)},
            "encoders": [measured.as_json() for measured in found],
            "differences": differences(found, self.seed),
            "bootstrap": {"resampled": "images", "replicates": REPLICATES, "level": LEVEL, "interval": "percentiles"},
            "versions": versions(),
            "commit": commit(),
        }


def differences(found: Sequence[Measured], seed: int) -> list[dict[str, Any]]:
    """All pairs of towers: mean distance of the second minus that of the first, raw and centred, paired over images."""
    kinds = {}
    for kind in ("raw", "centred"):
        means_NK = np.stack([getattr(measured, kind).image_means for measured in found], axis=1)
        kinds[kind] = paired_differences(means_NK, seed)
    rows = []
    for raw, centred in zip(kinds["raw"], kinds["centred"], strict=True):
        row: dict[str, Any] = {"first": found[raw.first].label, "second": found[raw.second].label}
        for kind, difference in (("raw", raw), ("centred", centred)):
            row[kind] = {"mean": difference.mean, "low": difference.low, "high": difference.high}
        rows.append(row)
    return rows
