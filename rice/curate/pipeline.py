"""From a pile of pictures to labelled regions: the stages in their order, and the report.

OUT/run.json          whose the folder is
OUT/scan, OUT/decode  every picture that was found, and why it was left out
OUT/pictures.json     shards and their numbers of pictures, once all are decoded
OUT/propose, embed, ocr   regions, their features, text
OUT/clusters          what `rice curate cluster` writes
OUT/shards            the data set to train on
OUT/page              clusters to look at
OUT/report.json       what became of pictures and regions, with settings and rates
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rice.curate.cluster import REPORT as CLUSTER_REPORT
from rice.curate.cluster import cluster_features
from rice.curate.config import CheckConfig, EmbedConfig, EngineConfig, KMeansConfig, SampleConfig
from rice.curate.decode import DecodeStage
from rice.curate.embed import EmbedStage
from rice.curate.engine import Engine
from rice.curate.label import LabelStage, publish
from rice.curate.montage.config import MontageConfig
from rice.curate.montage.page import build_montage
from rice.curate.ocr import OcrStage
from rice.curate.proposals.config import ProposalConfig
from rice.curate.propose import ProposeStage
from rice.curate.sources import SourceShard
from rice.curate.stage import CLUSTERS, PAGE, REPORT, SHARDS, Stage, totals
from rice.curate.summary import lines, write_report
from rice.curate.take import pictures_of, take_pictures
from rice.curate.text.config import TextConfig
from rice.errors import RiceError
from rice.files import make_folder, read_object, remove_leftovers, sha256_json
from rice.progress import Progress
from rice.runs import RUN, alone, refuse_other, same_run

LOCK = ".curate.lock"
STAGES = ("decode", "propose", "embed", "ocr", "cluster", "label")


@dataclass(frozen=True, kw_only=True)
class CurationConfig:
    """All that may be set."""

    check: CheckConfig
    proposals: ProposalConfig
    embed: EmbedConfig
    text: TextConfig
    kmeans: KMeansConfig
    sample: SampleConfig
    engine: EngineConfig


def curate_all(
    sources: Sequence[SourceShard], out: Path, config: CurationConfig, until: str, progress: Progress
) -> dict[str, Any]:
    """All stages up to `until`; the report. Errors: RiceError; also where no picture is left, once that is reported."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RiceError("only rice curate cluster runs under torchrun; on several machines take --engine ray")
    stages = ProposeStage(out, config.proposals), EmbedStage(out, config.embed), OcrStage(out, config.text)
    for stage in stages:
        stage.settings()  # an unknown encoder, tokenizer or missing package is told at once
    facts = {"kind": "curation", "sources": sha256_json([[source.name, source.fingerprint()] for source in sources])}
    refuse_other(out, facts, LOCK)
    make_folder(out)
    with _alone(out), Engine(config.engine, len(sources)) as engine:
        same_run(out, facts)
        pictures = take_pictures(sources, out, config.check, engine, progress)
        steps: dict[str, Callable[[], Any]] = {
            **{stage.name: functools.partial(engine.run, stage, pictures, progress) for stage in stages},
            "cluster": lambda: _cluster(out, config),
            "label": lambda: label(out, out / CLUSTERS, engine, progress),
        }
        for name in STAGES[1 : STAGES.index(until) + 1] if pictures else ():
            steps[name]()
            if name == ProposeStage.name and until in ("cluster", "label"):
                _enough(out, list(pictures), config.kmeans.clusters)
        report = _report(out)
        if pictures and until == "label":
            _show(out, progress)
    if not pictures:
        raise RiceError(f"no picture is left; {lines(report)[0]}")
    return report


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Nobody else curates into `out`, and what killed ones were writing at its top is gone; stages see to their own."""
    with alone(out, LOCK, "curating into"):
        remove_leftovers(out)
        yield


def label(out: Path, clusters: Path, engine: Engine, progress: Progress) -> None:
    """Labels, and dataset.json."""
    pictures = pictures_of(out)
    found, text = read_object(clusters / CLUSTER_REPORT), read_object(out / OcrStage.name / RUN)
    stage = LabelStage(out, clusters)
    engine.run(stage, pictures, progress)
    source = {"kind": "curation", "clusters": found["settings"], "text": text}
    publish(stage, list(pictures), (int(found["clusters"]), int(text["classes"])), source)


def one_stage(stage: Stage, engine: EngineConfig, progress: Progress) -> list[str]:
    """A stage over all shards of its curation; the report's lines. Errors: RiceError."""
    pictures = pictures_of(stage.out)
    with _alone(stage.out), Engine(engine, len(pictures)) as running:
        running.run(stage, pictures, progress)
        return lines(_report(stage.out))


def relabel(out: Path, clusters: Path | None, engine: EngineConfig, progress: Progress) -> list[str]:
    """`label` by any clusters of the curation's features; the report's lines. Errors: RiceError."""
    with _alone(out), Engine(engine, len(pictures_of(out))) as running:
        label(out, clusters or out / CLUSTERS, running, progress)
        report = _report(out, clusters)
        _show(out, progress)
    return lines(report)


def _show(out: Path, progress: Progress) -> None:
    build_montage(out / SHARDS, out / PAGE, MontageConfig(), progress, report=out / REPORT)


def _report(out: Path, clusters: Path | None = None) -> dict[str, Any]:
    shards = sorted(path.stem for path in (out / DecodeStage.name).glob("*.parquet"))
    return write_report(out, shards, clusters or out / CLUSTERS)


def _enough(out: Path, shards: Sequence[str], clusters: int) -> None:
    """Errors: RiceError where there are fewer regions than clusters, before they are embedded."""
    regions = totals(out, ProposeStage.name, shards).counts["regions"]
    if not regions:
        raise RiceError(
            "no region was found in any picture; ask for smaller ones (--min-region), or of SAM for less sure ones "
            "(--sam-iou, --sam-stability), in another --out"
        )
    if regions < clusters:
        raise RiceError(
            f"expected at least as many regions as clusters, got {regions:,} for -k {clusters:,}; ask for fewer "
            f"clusters, or for smaller regions (--min-region) in another --out"
        )


def _cluster(out: Path, config: CurationConfig) -> None:
    from rice.train.world import join

    with join(config.engine.device) as world:
        cluster_features(out / EmbedStage.name, out / CLUSTERS, config.kmeans, config.sample, world)
