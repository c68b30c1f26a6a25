"""`rice reproduce mini`: from nothing to verdicts. Every step keeps what is done: killed, the same command goes on.

OUT/run.json          the settings
OUT/pictures          scenes with captions and annotations, in COCO's layout
OUT/packed            the same as shards: annotated boxes and captions
OUT/teacher           the CLIP whose features are clustered; OUT/teacher-pictures, -packed: what it learns from
OUT/curated           proposed regions, text, clusters: `rice curate`
OUT/whole             clusters of whole pictures
OUT/search            short runs, their scores on validation scenes; chosen.json: what each arm is trained with
OUT/runs/ARM-sSEED    the arms: `rice train`
OUT/sweep             the probes' results: `rice sweep`
OUT/index.html        verdicts and tables, each number with its files
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from reports.miniature.arms import ARMS, PACKED, TEACHER, Arm, Flags, command, folder
from reports.miniature.claims import UNRANKED
from reports.miniature.data import SPLIT, write_pictures
from reports.miniature.jobs import run_all
from reports.miniature.scores import Budget, Trained
from reports.miniature.settings import MiniatureConfig
from rice.errors import RiceError
from rice.files import atomic_folder, atomic_write, make_folder, read_json, write_json
from rice.progress import Progress
from rice.runs import alone, same_run
from rice.train.loop import METRICS
from rice.train.metrics import read_lines

RUNS, SEARCH, CHOSEN, SWEEP = "runs", "search", "chosen.json", "sweep"
TIMED = ("mlcd", "unicom", "clip")
"""Arms that are cheaper than rice, and so are trained for as long, too."""

_VALIDATION = 1
"""Added to the seed of the world for the scenes that settings are chosen on."""
_SEARCH_SEED = 100
_TEACHERS = 1000
"""Added to the seed of the world for the teacher's pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Miniature:
    """One miniature in a folder. at_once: trainings and cells at a time, which share the cores."""

    config: MiniatureConfig
    out: Path
    progress: Progress
    at_once: int

    def run(self) -> Path:
        """All of it; the page. Errors: RiceError of any part, in one line."""
        return self.locked(lambda: self.finish(None))

    def locked(self, work: Callable[[], Path]) -> Path:
        """`work`, while no other process reproduces into the folder, which holds no other miniature."""
        make_folder(self.out)
        with alone(self.out, ".miniature.lock", "reproducing into"):
            same_run(self.out, {"kind": "miniature", "config": dataclasses.asdict(self.config)})
            return work()

    def finish(self, chosen: dict[str, Flags] | None) -> Path:
        """All of it, with settings of each arm that were found elsewhere or, for None, are searched for; the page.

        What claims are about comes first, and has a page before equal time is begun.
        """
        self.make_data()
        chosen = self.search() if chosen is None else chosen
        names = self.train(chosen)
        self.sweep(names)
        page = self.page(names)
        if not self.config.equal_time:
            return page
        names |= self.train_timed(chosen)
        self.sweep(names)
        return self.page(names)

    def refreshed_page(self) -> Path:
        """The page of a miniature that is done, with links to the others."""

        def page() -> Path:
            chosen = self.search()
            return self.page(self.train(chosen) | (self.train_timed(chosen) if self.config.equal_time else {}))

        return self.locked(page)

    @property
    def teacher(self) -> str:
        """What features are taken from, as `load_encoder` takes it."""
        return f"rice:{self.out / 'teacher' / 'final'}"

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Those that are trained."""
        return ARMS

    def pictures(self) -> Path:
        """What all arms learn from, in COCO's layout."""
        config = self.config
        return write_pictures(self.out / "pictures", config.scenes, config.size, config.world_seed, self.progress)

    def teacher_pictures(self, pictures: Path) -> Path:
        """What the teacher learns from."""
        config, seed = self.config, self.config.world_seed + _TEACHERS
        place = self.out / "teacher-pictures"
        return write_pictures(place, config.teacher_scenes, config.size, seed, self.progress, single=True)

    def datasets(self) -> dict[str, dict[str, Any]]:
        """What the probes judge on, as a sweep's file has it."""
        seed = {"seed": self.config.world_seed}
        return {name: {"world": dict(world) | seed} for name, world in self.config.worlds.items()}

    def probes(self) -> list[dict[str, Any]]:
        """As a sweep's file has them."""
        return [dict(probe) for probe in self.config.probes]

    def make_data(self) -> None:
        """Pictures, shards, the teacher, regions with labels, labels of whole pictures."""
        from rice.curate.config import KMeansConfig
        from rice.curate.whole import label_whole
        from rice.data.coco import open_split
        from rice.data.pack import PackConfig, pack_split

        config, out = self.config, self.out
        pictures = self.pictures()
        pack_split(open_split(pictures, SPLIT), out / PACKED, PackConfig(min_edge=8), self.progress)
        singles = open_split(self.teacher_pictures(pictures), SPLIT)
        pack_split(singles, out / TEACHER.data, PackConfig(min_edge=8), self.progress)
        teacher = command(TEACHER, _TEACHER, config, out, out / "teacher", updates=config.teacher_updates, seed=0)
        self.pretrain({out / "teacher": teacher}, "teacher")
        self.run_jobs({"curate": self.curation(pictures, out / "curated", config.regions)}, "curate")
        kmeans = KMeansConfig(clusters=config.wholes)
        label_whole(out / PACKED, out / "whole", self.teacher, kmeans, self.progress, nearest=min(8, config.wholes))

    def search(self) -> dict[str, Flags]:
        """The best of each arm's candidates by mIoU on validation scenes, after a share of the updates."""
        place = self.out / SEARCH
        if (place / CHOSEN).is_file():
            return _flags(read_json(place / CHOSEN))
        updates = max(1, round(self.config.search * self.config.updates))
        tried: dict[str, tuple[Arm, Flags]] = {
            f"{arm.name}-{k}": (arm, flags) for arm in self.arms for k, flags in enumerate(arm.candidates)
        }
        jobs = {
            place / name: command(arm, flags, self.config, self.out, place / name, updates=updates, seed=_SEARCH_SEED)
            for name, (arm, flags) in tried.items()
        }
        self.pretrain(jobs, "search")
        world = self.config.worlds["scenes"] | {"seed": self.config.world_seed + _VALIDATION}
        dense = next(dict(probe) for probe in self.config.probes if probe["probe"] == "dense")
        encoders = [{"encoder": f"rice:{place / name / 'final'}", "name": name} for name in tried]
        self.run_sweep(place / "sweep", "search", encoders, {"scenes": {"world": world}}, [dense])
        scores = _scores(place / "sweep", "mIoU")
        chosen = {}
        for arm in self.arms:
            own = {name: scores[name] for name, (tried_arm, _) in tried.items() if tried_arm is arm}
            best = max(own, key=lambda name: own[name])
            chosen[arm.name] = {"flags": dict(tried[best][1]), "mIoU": own}
        write_json(place / CHOSEN, chosen)
        return _flags(chosen)

    def train(self, chosen: dict[str, Flags]) -> dict[str, Path]:
        """At equal updates: every arm from every seed, those that no claim names from one. Name in the store of results
        -> its folder."""
        updates = {arm.name: self.config.updates for arm in self.arms}
        seeds = {arm.name: 1 if arm.name in UNRANKED else self.config.seeds for arm in self.arms}
        random = Trained("random", "updates", 0)
        return self._train_each(chosen, updates, seeds, "updates") | {random.name: self._untrained(random)}

    def train_timed(self, chosen: dict[str, Flags]) -> dict[str, Path]:
        """At equal time: from one seed, for no claim is about them."""
        updates = self._timed_updates()
        return self._train_each(chosen, updates, dict.fromkeys(updates, 1), "time")

    def _train_each(
        self, chosen: dict[str, Flags], updates: Mapping[str, int], seeds: Mapping[str, int], budget: Budget
    ) -> dict[str, Path]:
        jobs, names = {}, {}
        for seed in range(max(seeds.values(), default=0)):
            for arm in (arm for arm in self.arms if seed < seeds.get(arm.name, 0)):
                trained = Trained(arm.name, budget, seed)
                names[trained.name] = place = self.out / RUNS / folder(trained)
                count = updates[arm.name]
                jobs[place] = command(arm, chosen[arm.name], self.config, self.out, place, updates=count, seed=seed)
        self.pretrain(jobs, f"pretrain, equal {budget}")
        return names

    def _timed_updates(self) -> dict[str, int]:
        """As many updates as take as long as rice's, by the median pace of seed 0; without arms that are no faster."""
        paces = {name: _pace(self.out / RUNS / folder(Trained(name, "updates", 0))) for name in ("rice", *TIMED)}
        updates = {name: round(self.config.updates * paces[name] / paces["rice"]) for name in TIMED}
        return {name: count for name, count in updates.items() if count > self.config.updates}

    def _untrained(self, trained: Trained) -> Path:
        """The tower before its first update."""
        import torch

        from rice.encoders.region_checkpoint import save_rice
        from rice.model.vit import ViT
        from rice.train.final import new_tower
        from rice.train.recipe import micro

        place = self.out / RUNS / folder(trained)
        if not is_done(place):
            with torch.random.fork_rng(devices=[]), atomic_folder(place / "final") as temporary:
                torch.manual_seed(trained.seed)
                tower = new_tower(dataclasses.replace(micro(), target="image"))
                assert isinstance(tower, ViT)
                save_rice(tower, temporary)
            write_json(place / "run.json", {"kind": "untrained", "seed": trained.seed})
        return place

    def sweep(self, names: dict[str, Path]) -> None:
        """All probes on all encoders."""
        encoders = [{"encoder": f"rice:{place / 'final'}", "name": name} for name, place in names.items()]
        self.run_sweep(self.out / SWEEP, "miniature", encoders, self.datasets(), self.probes())

    def page(self, names: dict[str, Path]) -> Path:
        """Verdicts, tables, page."""
        from reports.miniature.shipped import as_shipped
        from reports.miniature.summary import summary_page

        runs = {name: str((place / "run.json").relative_to(self.out)) for name, place in names.items()}
        again = as_shipped(self.config)
        return summary_page(self.out / SWEEP, self.out, runs=runs, progress=self.progress, beside_shipped=again)

    def curation(self, pictures: Path, out: Path, clusters: int) -> list[str]:
        """Arguments of `rice` that curate into `out`."""
        flags = {
            "--out": out,
            "-k": clusters,
            "--encoder": self.teacher,
            "--min-edge": self.config.size,
            "--min-region": 20,
            "--most-regions": 8,
            "--read-shortest": 256,
        }
        return ["curate", str(pictures / SPLIT), *(str(part) for pair in flags.items() for part in pair)]

    def run_sweep(
        self,
        out: Path,
        name: str,
        encoders: list[dict[str, Any]],
        datasets: dict[str, dict[str, Any]],
        probes: list[dict[str, Any]],
    ) -> None:
        """`rice sweep` into `out`, with its file beside it. Errors: RiceError where a cell fails."""
        from probes.sweeps.command import sweep

        document = {
            "name": name,
            "encoders": encoders,
            "datasets": datasets,
            "probes": probes,
            "seeds": 1,
        }
        file = out.parent / f"{out.name}.yaml"
        make_folder(out.parent)
        with atomic_write(file) as stream:
            yaml.safe_dump(document, stream, sort_keys=False)
        if sweep(str(file), out=out, jobs=self.at_once):
            raise RiceError(f"cells of the sweep failed; their logs are in {out / 'logs'}")

    def pretrain(self, jobs: dict[Path, list[str]], what: str) -> None:
        """Run those of `rice train`, by the folder that each writes, that have not ended yet; logs have its name."""
        self.run_jobs({run.name: words for run, words in jobs.items() if not is_done(run)}, what)

    def run_jobs(self, jobs: dict[str, list[str]], what: str) -> None:
        """As `run_all`."""
        if jobs:
            run_all(jobs, self.out / "logs", self.at_once, self.progress, what)


_TEACHER = {"optimiser.learning-rate": "0.001"}


def _flags(chosen: Mapping[str, Any]) -> dict[str, Flags]:
    return {name: dict(found["flags"]) for name, found in chosen.items()}


def is_done(run: Path) -> bool:
    """Whether a run of `rice train` has ended."""
    return (run / "final").is_dir()


def _scores(results: Path, metric: str) -> dict[str, float]:
    """Encoder's name -> its score."""
    from reports.reading import read_frame

    frame, _ = read_frame(results, (metric,))
    return {str(row.encoder): float(row.value) for row in frame.itertuples()}


def _pace(run: Path) -> float:
    """Median pictures a second."""
    speeds = [float(line["images_per_s"]) for line in read_lines(run / METRICS) if line.get("images_per_s")]
    if not speeds:
        raise RiceError(f"expected speeds in {run / METRICS}, found none")
    return statistics.median(speeds)
