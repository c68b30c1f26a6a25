"""`rice reproduce mini --extended`: variants of RICE, one setting at a time, and multimodal probes. Keeps what is done.

OUT/extended/clusters-K   the curation by other numbers of clusters: the same regions, features and text
OUT/extended/boxed        whole pictures as regions
OUT/extended/runs/NAME    variants, pretrained from seed 0 as RICE's first encoder is
OUT/extended/sweep        their results; OUT/extended/multimodal: of LLaVA and LISA in miniature
OUT/extended/index.html   panels, each number with its file
"""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.sweeps.sweepfile import BUILT_IN
from probes.yaml_files import read_yaml
from reports.miniature import panels
from reports.miniature.arms import ARMS, WHOLE, Arm, Flags, command, folder
from reports.miniature.panels import CLUSTERED, PanelId, Variant
from reports.miniature.run import RUNS, SWEEP, Miniature, is_done
from reports.miniature.scores import YARDSTICK, Trained
from rice.files import atomic_folder, link_or_copy

FOLDER, MULTIMODAL = "extended", "multimodal"
_MULTIMODAL = ("llava-mini", "lisa-mini")
"""Built-in sweeps whose first probe is taken; the others are their controls."""
_REMADE = ("clusters", "label", "page", "report.json", "dataset.json", ".curate.lock")
"""What depends on the number of clusters."""


@dataclass(frozen=True)
class Extension:
    """What comes after a miniature that is done. chosen: settings that its search found. only: panels by their ids, all
    for none; those that an earlier run has made stay on the page."""

    of: Miniature
    chosen: dict[str, Flags]
    only: Collection[PanelId] = ()

    @property
    def out(self) -> Path:
        """Its folder."""
        return self.of.out / FOLDER

    def run(self) -> Path:
        """All of it; the page. Errors: RiceError of any part, in one line."""
        return self.of.locked(self._run_all)

    def _run_all(self) -> Path:
        from reports.miniature.extended_page import extended_page

        found = [
            panel
            for panel in panels.panels(self.of.config.regions, self.chosen[YARDSTICK])
            if self._is_wanted(panel.id) or all(is_done(self._run(one.name)) for one in panel.variants)
        ]
        variants = {one.name: one for panel in found for one in panel.variants}
        self._make_data(list(variants.values()))
        self._train(list(variants.values()))
        encoders = [{"encoder": f"rice:{self._run(name) / 'final'}", "name": name} for name in variants]
        probes = panels.probe_rows(self.of.config.probes)
        if encoders:
            self.of.run_sweep(self.out / SWEEP, FOLDER, encoders, self.of.datasets(), probes)
        if self._is_wanted("multimodal"):
            self._judge_multimodal()
        results = [self.of.out / SWEEP, self.out / SWEEP, self.out / MULTIMODAL]
        runs = {name: self._run(name) / "run.json" for name in variants}
        main = {one for panel in (*found, panels.multimodal(())) for one in panel.encoders.values()} - variants.keys()
        runs |= {name: self._main_run(name) / "run.json" for name in main}
        return extended_page(results, self.out, found, runs)

    def _is_wanted(self, panel: str) -> bool:
        return not self.only or panel in self.only

    def _run(self, name: str) -> Path:
        return self.out / RUNS / name

    def _main_run(self, name: str) -> Path:
        """Of one of the miniature's own encoders."""
        trained = Trained.parse(name)
        assert trained is not None, name
        return self.of.out / RUNS / folder(trained)

    def _make_data(self, variants: list[Variant]) -> None:
        from rice.curate.whole import as_regions
        from rice.data.shards import DATASET

        jobs = {}
        for clusters in sorted({one.clusters for one in variants if one.clusters}):
            place = (self.of.out / CLUSTERED.format(clusters)).parent
            if not (place / "shards" / DATASET).is_file():
                _recluster(self.of.out / "curated", place)
                jobs[place.name] = self.of.curation(self.of.pictures(), place, clusters)
        self.of.run_jobs(jobs, "cluster")
        if not (self.of.out / panels.BOXED / DATASET).is_file():
            as_regions(self.of.out / WHOLE, self.of.out / panels.BOXED)

    def _train(self, variants: list[Variant]) -> None:
        rice = next(arm for arm in ARMS if arm.name == YARDSTICK)
        jobs = {}
        for one in variants:
            arm = Arm(one.name, one.data or rice.data, {}, ())
            flags = {**rice.flags, **self.chosen[YARDSTICK], **one.flags}
            config, place = self.of.config, self._run(one.name)
            jobs[place] = command(arm, flags, config, self.of.out, place, updates=config.updates, seed=0)
        self.of.pretrain(jobs, "pretrain variants")

    def _judge_multimodal(self) -> None:
        datasets: dict[str, dict[str, Any]] = {}
        probes = []
        for name in _MULTIMODAL:
            document = read_yaml(BUILT_IN / f"{name}.yaml")
            datasets |= {
                name: {"world": data["world"] | {"seed": self.of.config.world_seed}}
                for name, data in document["datasets"].items()
            }
            probes.append(document["probes"][0])
        names = panels.multimodal(()).encoders.values()
        encoders = [{"encoder": f"rice:{self._main_run(name) / 'final'}", "name": name} for name in names]
        self.of.run_sweep(self.out / MULTIMODAL, MULTIMODAL, encoders, datasets, probes)


def _recluster(curated: Path, place: Path) -> None:
    """Another curation that has done all but what depends on the number of clusters; pictures are links."""
    if place.is_dir():
        return
    with atomic_folder(place) as temporary:
        shutil.copytree(
            curated,
            temporary,
            ignore=lambda _, names: [name for name in names if name in _REMADE],
            copy_function=lambda source, target: link_or_copy(Path(source), Path(target)),
            dirs_exist_ok=True,
        )
