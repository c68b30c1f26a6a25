"""The verb `rice pack`: a data set in COCO's layout as shards to train on."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from rice.data.coco import CocoImage, CocoSplit, find_splits, open_split, role
from rice.data.coco_captions import captions_file, read_captions
from rice.data.coco_sample import sample_of, shrunk
from rice.data.shards import DATASET, DatasetInfo, Sample, ShardInfo, finished_shard, write_dataset, write_shard
from rice.errors import RiceError, os_errors_as
from rice.files import atomic_write, leftovers, read_json, sha256_file, sha256_json
from rice.progress import BarProgress, Progress
from rice.runs import alone

QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """What becomes of a data set.

    Args:
        samples_per_shard: Pictures in each tar.
        min_edge: Leave out regions with an edge shorter than this many pixels (the paper: 128).
        short_edge: Shrink pictures whose shorter edge is longer than this, in pixels, and store them as JPEG of
            quality 90. 1.7 times the size to train at keeps every crop sharp.
    """

    samples_per_shard: int = 1000
    min_edge: int = 1
    short_edge: int | None = None

    def __post_init__(self) -> None:
        """Errors: RiceError naming the field."""
        for name, value in asdict(self).items():
            if value is not None and value < 1:
                raise RiceError(f"expected --{name.replace('_', '-')} of at least 1, got {value}")


def pack(
    coco: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path,
    split: str | None = None,
    config: Annotated[PackConfig, tyro.conf.arg(name="")] = PackConfig(),
) -> None:
    """Turn a data set in COCO's layout into shards that `rice train` reads: boxes, with their category as label.

    Pictures are copied as they are, or made smaller once with --short-edge, which training reads several times as
    fast. Each is decoded, and damaged ones go to OUT/quarantine.jsonl with the reason. Crowds are left out, boxes are
    clipped to their picture and rounded outwards to whole pixels, pictures without a region stay. Image-level labels
    are the categories by the area that they cover, largest first. Captions come from captions_SPLIT.json beside the
    annotations, where there is one.

    OUT/NAME-000000.tar holds the pictures (any tar reader opens it), OUT/NAME-000000.parquet the annotations,
    OUT/dataset.json what there is. Killed at any instant, the same command resumes.

    Example: rice pack data/coco --split train2017 --out shards/coco

    Args:
        coco: Folder of the data set, in COCO's, LVIS's, Roboflow's or Pascal VOC's layout.
        out: Folder to write the shards to.
        split: Which split; the one to train on where it is not given.
        config: How.
    """
    splits = find_splits(coco)
    data = open_split(coco, split or (role(splits).train if len(splits) > 1 else None))
    info, damaged = pack_split(data, out, config, BarProgress())
    pictures, regions = (sum(getattr(s, field) for s in info.shards) for field in ("samples", "regions"))
    print(  # noqa: T201
        f"{pictures:,} pictures with {regions:,} regions of {info.object_classes:,} classes "
        f"in {len(info.shards):,} shards"
    )
    if not regions:
        print(f"no region has edges of {config.min_edge} pixels: there is nothing to train on")  # noqa: T201
    if damaged:
        print(f"{damaged} pictures are damaged: see {out / QUARANTINE}")  # noqa: T201
    print(f"written to {out}")  # noqa: T201


def pack_split(data: CocoSplit, out: Path, config: PackConfig, progress: Progress) -> tuple[DatasetInfo, int]:
    """Write one split as shards; returns dataset.json's content and how many pictures are damaged.

    Errors: RiceError where `out` holds shards of something else, another process is at work on it, or no picture can
    be read.
    """
    source = {"fingerprint": data.fingerprint(), "split": data.name} | asdict(config)
    said = captions_file(data.files)
    if said is not None:
        source["captions"] = sha256_file(said)
    _claim(out, source)
    with alone(out, ".pack.lock", "packing into"):
        return _pack(data, out, config, source, progress)


def _claim(out: Path, source: dict[str, Any]) -> None:
    """dataset.json without shards says what is being written; the reader refuses it until they are there."""
    path = out / DATASET
    found = read_json(path) if path.is_file() else None
    if found is None and out.is_dir() and any(not p.name.startswith(".") for p in out.iterdir()):
        raise RiceError(f"{out} holds something else, and no {DATASET}; choose an empty folder for --out")
    if found is not None and (not isinstance(found, dict) or found.get("source") != source):
        raise RiceError(f"{out} holds shards of other data or settings; choose another folder for --out")
    if found is None:
        write_dataset(out, DatasetInfo(object_classes=0, ocr_classes=0, shards=(), source=source))


def _pack(
    data: CocoSplit, out: Path, config: PackConfig, source: dict[str, Any], progress: Progress
) -> tuple[DatasetInfo, int]:
    identity, stem = sha256_json(source), re.sub(r"[^A-Za-z0-9._-]", "_", data.name)
    each, said = config.samples_per_shard, captions_file(data.files)
    captions = {} if said is None else read_captions(said)
    groups = [data.images[i : i + each] for i in range(0, len(data.images), each)]
    shards: list[ShardInfo] = []
    damaged: list[dict[str, str]] = []
    for number, images in enumerate(progress.track(groups, f"packing {data.name}")):
        name = f"{stem}-{number:06d}"
        done = finished_shard(out, name, identity=identity)
        if done is None or done.samples < len(images):  # of a shard with damage, the reasons are found anew
            done = _shard(images, captions, out, name, identity, config, damaged)
        shards += [done] if done else []
    if not shards:
        reason = f": {damaged[0]['picture']}: {damaged[0]['reason']}" if damaged else ""
        raise RiceError(f"expected pictures in {data.files.folder}, none of {len(damaged)} can be read{reason}")
    if damaged:
        with atomic_write(out / QUARANTINE) as file:
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in damaged)
    names = tuple(category.name for category in data.categories)
    info = DatasetInfo(object_classes=len(names), ocr_classes=0, shards=tuple(shards), classes=names, source=source)
    write_dataset(out, info)
    return info, len(damaged)


def _shard(
    images: Sequence[CocoImage],
    captions: Mapping[int, list[str]],
    out: Path,
    name: str,
    identity: str,
    config: PackConfig,
    damaged: list[dict[str, str]],
) -> ShardInfo | None:
    """None where no picture of it can be read."""
    for suffix in ("tar", "parquet"):
        for path in leftovers(out / f"{name}.{suffix}"):
            path.unlink()
    samples = _samples(images, captions, config, damaged)
    first = next(samples, None)
    return None if first is None else write_shard(out, name, itertools.chain([first], samples), identity=identity)


def _samples(
    images: Sequence[CocoImage],
    captions: Mapping[int, list[str]],
    config: PackConfig,
    damaged: list[dict[str, str]],
) -> Iterator[Sample]:
    from rice.data.decode import DamagedPictureError, decode_picture  # torch, which --help does not wait for

    for image in images:
        with os_errors_as(f"cannot read {image.path}"):
            content = image.path.read_bytes()
        try:
            pixels = decode_picture(content, (image.width, image.height))
        except DamagedPictureError as error:
            damaged.append({"picture": image.file_name, "reason": str(error)})
            continue
        sample = replace(sample_of(image, content, config.min_edge), captions=captions.get(image.id, []))
        yield sample if config.short_edge is None else shrunk(sample, pixels, config.short_edge)
