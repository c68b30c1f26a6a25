"""From encoders and objects to spheres, encoder by encoder, in a folder that keeps what a killed run finished.

Shapes: N objects, D width, 3 space.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.dense.model import TokenGrid
from probes.provenance import commit, versions
from probes.visual.folder import Folder
from probes.visual.towers import Tower
from probes.visual.tsne.draw import Panel, Shown, write_pictures
from probes.visual.tsne.objects import SMALLEST_SHARE, Objects, object_features
from probes.visual.tsne.page import write_page
from probes.visual.tsne.separation import Separation, separation
from probes.visual.tsne.sphere import ITERATIONS, project
from rice.data.coco import CocoSplit
from rice.files import atomic_write, read_json, write_json
from rice.progress import Progress

FORMAT = 1
"""Raised when a change of code changes the numbers: what an older version left is then not continued."""
PICTURES, PAGE, REPORT = "tsne", "tsne.html", "tsne.json"
OUTPUTS = (f"{PICTURES}.png", f"{PICTURES}.pdf", PAGE, REPORT)


@dataclass(frozen=True, kw_only=True)
class TsneConfig:
    """What is chosen and how it is projected; see the verb's flags."""

    objects: int
    categories: int
    perplexity: float
    seed: int


class Atlas:
    """Spheres of the same objects under several encoders, in one folder."""

    def __init__(
        self,
        towers: Sequence[Tower],
        sizes: Sequence[int],
        split: CocoSplit,
        config: TsneConfig,
        out: Path,
        *,
        name: str = "",
    ) -> None:
        """Writes nothing. `sizes`: input pixels of each tower. `name`: what captions call the data set.

        Errors: RiceError where `out` holds anything else, or the same of another setting.
        """
        self.towers, self.sizes, self.config = towers, sizes, config
        self.data = f"{name} {split.name}".strip()
        facts = {
            "verb": "tsne",
            "format": FORMAT,
            **dataclasses.asdict(config),
            "encoders": [tower.label for tower in towers],
            "sizes": list(sizes),
            "iterations": ITERATIONS,
            "split": split.name,
            "data": split.fingerprint(),
            "fingerprints": [tower.fingerprint for tower in towers],
        }
        self.folder = Folder(out, facts, OUTPUTS)

    def run(self, objects: Objects, device: str, progress: Progress) -> list[Panel]:
        """Do what earlier runs left to do. Nothing is written before the first encoder has seen all objects.

        Errors: RiceError naming a picture that is damaged, or an encoder that gives no usable features.
        """
        shown, folder = self._shown(objects), self.folder
        panels, facts = [], []
        for tower, size in zip(self.towers, self.sizes, strict=True):
            if not folder.part(tower, ".json").is_file():
                self._encode(tower, size, objects, device, progress)
        for tower in self.towers:
            fact = read_json(folder.part(tower, ".json"))
            features_ND = torch.from_numpy(np.load(folder.part(tower, ".npy"), allow_pickle=False))
            panels.append(self._panel(features_ND, fact["label"], objects.labels, progress))
            facts.append(fact)
        write_pictures(folder.out / PICTURES, panels, shown)
        write_page(folder.out / PAGE, panels, shown)
        write_json(folder.report, self._report(panels, facts, shown, objects))
        folder.clean()
        return panels

    def read(self) -> list[Panel]:
        """What the report of a finished run holds. Errors: RiceError where it cannot be read, or was edited."""
        return self.folder.read(_from_json, self.towers)

    def _encode(self, tower: Tower, size: int, objects: Objects, device: str, progress: Progress) -> None:
        encoder = tower.load(device)
        grid = TokenGrid.of(encoder.spec, size)
        label = tower.shown(encoder)
        features_ND = object_features(encoder, objects, grid, progress, label)
        self.folder.claim()
        with atomic_write(self.folder.part(tower, ".npy"), "wb") as file:
            np.save(file, features_ND.numpy())
        write_json(self.folder.part(tower, ".json"), {"label": label} | tower.facts(encoder, grid.tokens, size))

    def _panel(self, features_ND: Tensor, label: str, labels: list[int], progress: Progress) -> Panel:
        found = project(features_ND, self.config.perplexity, progress, f"{label}: t-SNE")
        return Panel(
            label=label,
            points=found.points.numpy(),
            radius=found.radius,
            kl=found.kl,
            separation=separation(features_ND, labels),
        )

    def _shown(self, objects: Objects) -> Shown:
        grids = {size // tower.spec.patch for tower, size in zip(self.towers, self.sizes, strict=True)}
        tokens = " and ".join(f"{edge} × {edge}" for edge in sorted(grids))  # noqa: RUF001
        region = "mask" if objects.masks else "box"
        return Shown(
            categories=[category.name for category in objects.categories],
            labels=np.array(objects.labels),
            images=[objects.split.images[annotation.image].id for annotation in objects.annotations],
            annotations=[annotation.id for annotation in objects.annotations],
            caption=(
                f"{len(objects.annotations):,} objects of {self.data} in "
                f"{len(objects.categories)} categories, each the mean of the patch tokens under its {region}; "
                f"{tokens} tokens; perplexity {self.config.perplexity:g}"
            ),
        )

    def _report(
        self, panels: Sequence[Panel], facts: Sequence[Mapping[str, Any]], shown: Shown, objects: Objects
    ) -> dict[str, Any]:
        rows = zip(shown.annotations, shown.images, shown.labels.tolist(), strict=True)
        return {
            "config": self.folder.facts
            | {"smallest_share": SMALLEST_SHARE, "region": "mask" if objects.masks else "box"},
            "caption": shown.caption,
            "categories": [{"id": category.id, "name": category.name} for category in objects.categories],
            "objects": [{"annotation": a, "image": i, "category": c} for a, i, c in rows],
            "encoders": [
                dict(fact)
                | dataclasses.asdict(panel.separation)
                | {"radius": panel.radius, "kl": panel.kl, "points": panel.points.tolist()}
                for panel, fact in zip(panels, facts, strict=True)
            ],
            "versions": versions(),
            "commit": commit(),
        }


def _from_json(value: Mapping[str, Any]) -> Panel:
    """Errors: KeyError, TypeError or ValueError for what is no encoder of a report."""
    points = np.array(value["points"], dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not isinstance(value["label"], str):
        raise ValueError("expected a label, and points in space")
    purity, chance, silhouette = (float(value[name]) for name in ("purity", "chance", "silhouette"))
    return Panel(
        label=value["label"],
        points=points,
        radius=float(value["radius"]),
        kl=float(value["kl"]),
        separation=Separation(n=len(points), purity=purity, chance=chance, silhouette=silhouette),
    )
