"""Regions, labels, scores and texts of shards as a FiftyOne data set.

FiftyOne shows files, so pictures are copied out of the tars first: OUT/pictures/TARS/SHARD/KEY.jpg, where TARS names
the tars. Copies that are there whole are not made again. FiftyOne itself keeps its database in a place of its own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rice.curate.montage.choose import picture_lots
from rice.curate.montage.page import claimed
from rice.curate.montage.regions import Collection, Regions
from rice.errors import RiceError, require
from rice.files import atomic_write, format_bytes, sha256_json
from rice.progress import Progress

PICTURES = "pictures"
_AT_ONCE = 64


class Copy(NamedTuple):
    """A picture that is shown. row: in its shard. size: of the file, in bytes."""

    shard: int
    row: int
    path: Path
    size: int


def why_not() -> str:
    """Why FiftyOne cannot be used here, in one line; empty where it can."""
    try:
        fiftyone = require("fiftyone", "fiftyone")
    except RiceError as error:
        return str(error)
    try:
        fiftyone.list_datasets()
    except Exception as error:  # of whatever it starts its database with; the page serves then
        return f"its database does not start: {' '.join(str(error).split()) or type(error).__name__}"
    return ""


def chosen_pictures(collection: Collection, folder: Path, most: int, seed: int, progress: Progress) -> list[Copy]:
    """`most` pictures drawn by the seed, all where it is 0, by shard and row. folder: of the copies."""
    tars = sha256_json([[shard.name, shard.tar_bytes] for shard in collection.info.shards])[:16]
    drawn: list[tuple[int, Copy]] = []
    for number, shard in enumerate(progress.track(collection.shards, "choose pictures")):
        sidecar = shard.sidecar
        for row, lot in enumerate(picture_lots(sidecar.keys, seed).tolist()):
            name = f"{sidecar.keys[row]}.{sidecar.suffixes[row]}"
            path = folder / tars / shard.info.name / name
            drawn.append((lot, Copy(number, row, path, int(sidecar.lengths[row]))))
        if most:
            drawn = sorted(drawn)[:most]
        shard.close()
    return sorted(copy for _, copy in drawn)


def copy_pictures(collection: Collection, copies: Sequence[Copy], progress: Progress) -> None:
    """Write those that are not there whole."""
    missing = [one for one in copies if not one.path.is_file() or one.path.stat().st_size != one.size]
    blocks = [missing[i : i + _AT_ONCE] for i in range(0, len(missing), _AT_ONCE)]
    for block in progress.track(blocks, "copy pictures"):
        for number in sorted({one.shard for one in block}):
            own = [one for one in block if one.shard == number]
            for one, image in zip(own, collection.shards[number].images([one.row for one in own]), strict=True):
                with atomic_write(one.path, "wb") as file:
                    file.write(image)
            collection.shards[number].close()


def to_fiftyone(collection: Collection, copies: Sequence[Copy], progress: Progress) -> Any:
    """A `fiftyone.Dataset` of the pictures: fields `regions` and `texts`, both `Detections`.

    A region has its class or cluster as label, the score as confidence, and `cluster`, `squared_distance`; a region of
    text has what is written there as label. Boxes are (left, top, width, height) in [0, 1] of the picture.
    """
    fiftyone = require("fiftyone", "fiftyone")
    name = f"rice-{sha256_json([str(one.path) for one in copies])[:16]}"
    dataset = fiftyone.Dataset(name, overwrite=True)
    dataset.add_samples(_samples(fiftyone, collection, copies, progress), num_samples=len(copies), progress=False)
    return dataset


def _samples(fiftyone: Any, collection: Collection, copies: Sequence[Copy], progress: Progress) -> Iterator[Any]:
    number, found = -1, None
    for one in progress.track(copies, "add pictures"):
        if one.shard != number or found is None:
            number, found = one.shard, collection.regions(one.shard)
            collection.shards[number].close()
        yield _sample(fiftyone, collection, found, one)


def _sample(fiftyone: Any, collection: Collection, found: Regions, one: Copy) -> Any:
    width, height = found.sidecar.sizes[one.row].tolist()
    begin, end = found.sidecar.regions_at[one.row : one.row + 2].tolist()
    objects, texts = [], []
    for region in range(begin, end):
        left, top, right, bottom = found.sidecar.boxes[region].tolist()
        place = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        about = {"bounding_box": place, "confidence": float(found.scores[region])}
        label, distance = int(found.sidecar.labels[region]), float(found.distances[region])
        if found.is_text[region]:
            texts.append(fiftyone.Detection(label=found.text(region) or "text", **about))
        else:
            squared = distance if np.isfinite(distance) else None
            name = collection.class_name(label) or (f"cluster {label}" if label >= 0 else "no class")
            objects.append(fiftyone.Detection(label=name, **about, cluster=label, squared_distance=squared))
    return fiftyone.Sample(
        filepath=str(one.path.resolve()),
        tags=[collection.shards[one.shard].info.name],
        metadata=fiftyone.ImageMetadata(width=width, height=height),
        regions=fiftyone.Detections(detections=objects),
        texts=fiftyone.Detections(detections=texts),
    )


def open_in_fiftyone(shards: Path, out: Path, most: int, seed: int, progress: Progress) -> None:
    """Copy pictures, fill a data set, and serve FiftyOne's app until it is closed. Says the bytes before it copies."""
    fiftyone = require("fiftyone", "fiftyone")
    collection = Collection(shards)
    with claimed(out):
        copies = chosen_pictures(collection, out / PICTURES, most, seed, progress)
        total = format_bytes(sum(one.size for one in copies))
        print(f"{len(copies):,} pictures, {total}, as files in {out / PICTURES}")  # noqa: T201
        copy_pictures(collection, copies, progress)
    dataset = to_fiftyone(collection, copies, progress)
    print(f"FiftyOne's data set {dataset.name}")  # noqa: T201
    # In a container FiftyOne would otherwise listen on every address.
    fiftyone.launch_app(dataset, address=fiftyone.config.default_app_address).wait()
