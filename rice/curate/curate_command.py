"""The verbs `rice curate` and `rice curate STAGE`. Imports no torch, for --help."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from rice.curate.config import CheckConfig, EmbedConfig, EngineConfig, KMeansConfig, SampleConfig
from rice.curate.proposals.config import ProposalConfig
from rice.curate.text.config import TextConfig
from rice.errors import RiceError
from rice.progress import BarProgress

Until = Literal["decode", "propose", "embed", "ocr", "cluster", "label"]


def curate(
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    out: Path,
    kmeans: Annotated[KMeansConfig, tyro.conf.arg(name="")],
    check: Annotated[CheckConfig, tyro.conf.arg(name="")],
    proposals: Annotated[ProposalConfig, tyro.conf.arg(name="")],
    embed: Annotated[EmbedConfig, tyro.conf.arg(name="")],
    text: Annotated[TextConfig, tyro.conf.arg(name="")],
    drawing: Annotated[SampleConfig, tyro.conf.arg(name="")],
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")],
    per_shard: int = 200,
    until: Until = "label",
    dry_run: bool = False,
) -> None:
    """A pile of pictures to labelled regions that `rice train OUT/shards` learns from (paper, section 3.1).

    Stages: scan (headers, sizes, duplicates), decode (upright RGB into tars), propose (regions), embed (a feature of
    each), ocr (text), cluster (K-means of features: what labels mean), label (annotations beside the pictures). Each
    works shard by shard and keeps what is done: killed at any instant, the same command goes on. rice curate STAGE OUT
    does one of them.

    OUT/shards is the data set, OUT/page/index.html shows the clusters, OUT/report.json tells what was left out and why,
    OUT/decode has a row for every picture that was found.

    Example: rice curate photos/ --out curated -k 1000 --encoder dinov2-b14-518@224

    Args:
        images: Folders (COCO's layout brings its boxes, KEY.json beside KEY.jpg SA-1B's), tar files in WebDataset's
            layout, or Parquet files with pictures' bytes, as img2dataset writes them; or folders of such files.
        out: Folder to write; the same one resumes.
        kmeans: How centres are found.
        check: Which pictures are taken.
        proposals: Where regions are.
        embed: What the clusters are of.
        text: How text is read.
        drawing: What centres are learnt from.
        engine: Where stages run.
        per_shard: Pictures of a folder in each shard; a tar or Parquet file is one shard.
        until: The last stage to do.
        dry_run: Say what would be done, and write nothing.
    """
    from rice.curate.sources import find_sources

    if per_shard < 1:
        raise RiceError(f"expected --per-shard of at least 1, got {per_shard}")
    if not images:
        raise RiceError("expected folders, tar or Parquet files of pictures before --out")
    inside = [place for place in images if place.is_dir() and out.resolve().is_relative_to(place.resolve())]
    if inside:
        raise RiceError(f"--out {out} lies in {inside[0]}, whose pictures are read; choose a place outside")
    sources = find_sources(images, per_shard)
    if dry_run:
        counts = [source.count() for source in sources]
        known = sum(count for count in counts if count is not None)
        more = f" and {counts.count(None):,} tar files" if None in counts else ""
        print(f"{known:,} pictures{more} in {len(sources):,} shards; stages scan to {until} into {out}")  # noqa: T201
        return
    from rice.curate.pipeline import CurationConfig, curate_all
    from rice.curate.summary import lines

    config = CurationConfig(
        check=check, proposals=proposals, embed=embed, text=text, kmeans=kmeans, sample=drawing, engine=engine
    )
    report = curate_all(sources, out, config, until, BarProgress())
    print("\n".join(lines(report)))  # noqa: T201
    print(f"written to {out}")  # noqa: T201
    if until == "label":
        print(f"look at {out / 'page' / 'index.html'}, then: rice train RECIPE --data {out / 'shards'} --out RUN")  # noqa: T201


def propose(
    out: Annotated[Path, tyro.conf.Positional],
    *,
    proposals: Annotated[ProposalConfig, tyro.conf.arg(name="")],
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")],
) -> None:
    """The stage `propose` of a curation alone: boxes of regions of every picture.

    Example: rice curate propose curated --proposals sam --sam-checkpoint facebook/sam-vit-huge

    Args:
        out: Folder of a curation that has its pictures (rice curate IMAGES --out OUT --until decode).
        proposals: Where regions are.
        engine: Where stages run.
    """
    from rice.curate.pipeline import one_stage
    from rice.curate.propose import ProposeStage

    _print(one_stage(ProposeStage(out, proposals), engine, BarProgress()))


def embed(
    out: Annotated[Path, tyro.conf.Positional],
    *,
    embed: Annotated[EmbedConfig, tyro.conf.arg(name="")],
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")],
) -> None:
    """The stage `embed` of a curation alone: a feature of every region, OUT/embed/SHARD.npy.

    Example: rice curate embed curated --encoder clip-l14-336

    Args:
        out: Folder of a curation that has its regions.
        embed: What the clusters are of.
        engine: Where stages run.
    """
    from rice.curate.embed import EmbedStage
    from rice.curate.pipeline import one_stage

    _print(one_stage(EmbedStage(out, embed), engine, BarProgress()))


def ocr(
    out: Annotated[Path, tyro.conf.Positional],
    *,
    text: Annotated[TextConfig, tyro.conf.arg(name="")],
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")],
) -> None:
    """The stage `ocr` of a curation alone: lines of text of every picture, and their tokens.

    Example: rice curate ocr curated --tokenizer openai/clip-vit-large-patch14

    Args:
        out: Folder of a curation that has its pictures.
        text: How text is read.
        engine: Where stages run.
    """
    from rice.curate.ocr import OcrStage
    from rice.curate.pipeline import one_stage

    _print(one_stage(OcrStage(out, text), engine, BarProgress()))


def label(
    out: Annotated[Path, tyro.conf.Positional],
    *,
    clusters: Path | None = None,
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")],
) -> None:
    """The stage `label` of a curation alone: rewrites the annotations in OUT/shards, not the pictures, and the page.

    Example: rice curate label curated --clusters clusters-4096

    Args:
        out: Folder of a curation that has its regions, text and clusters.
        clusters: What rice curate cluster OUT/embed wrote; OUT/clusters where it is not given.
        engine: Where stages run.
    """
    from rice.curate.pipeline import relabel

    _print(relabel(out, clusters, engine, BarProgress()))


def _print(lines: list[str]) -> None:
    print("\n".join(lines))  # noqa: T201
