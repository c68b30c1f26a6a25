"""Pictures with boxes per second and core: our stream against the usual PIL pipeline. Exits 1 where a figure fails.

    python benchmarks/loader.py [--pictures FOLDER] [--count 48] [--rounds 7] [--json FILE]

Both do the same work on one thread: read the bytes, decode, crop and resize to 224, mirror, take N of the boxes that
are still visible along, and stack a batch. The crops, mirrorings and choices of boxes are ours, and are given to the
others for nothing. Rounds alternate in one process; the median of their ratios counts.

    usual   torchvision's transforms.v2 on a PIL picture and tv_tensors boxes, to float tensors
    lean    PIL's own crop and resize, boxes by numpy, to uint8 tensors: the least that PIL takes
    packed  ours, from shards that `rice pack --short-edge 384` made of the same files; the others read the files
    limit   libjpeg-turbo at 1/8: parsing the entropy-coded bytes, which no decoder avoids, and next to nothing else
"""

import io
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import functional as pil_functional
from torchvision.transforms.v2 import functional as v2

from benchmarks.timing import alternate, begin, finish, ratios, shown
from rice.data.batches import View, training_view
from rice.data.coco_sample import shrunk
from rice.data.decode import decode_picture
from rice.data.regions import Draws, through_crop
from rice.data.shard_reader import Record
from rice.data.shards import DatasetInfo, Sample, write_dataset, write_shard
from rice.data.stream import Batch, RegionStream, StreamConfig
from rice.errors import RiceError, require

SIZE = 224
RATIO = 2.5
BOX_TOLERANCE = 1e-3
"""Pixels; the others compute boxes in float32."""
SHORT_EDGE = 384
"""1.7 times the size: the smallest crop of 0.4 of the area still has 224 pixels."""
PIXEL_TOLERANCE = 3.0
"""Mean difference in levels of 255."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        pictures: Folder of JPEG files to measure as they are, too. How fast they can be read is not judged: it
            depends on their bits per pixel.
        count: Pictures of each kind.
        regions: Boxes in a picture.
        batch: Pictures in a batch.
        rounds: Alternating rounds; the median of their ratios counts.
        json: Write the figures here, too.
    """

    pictures: Path | None = None
    count: int = 48
    regions: int = 7
    batch: int = 16
    rounds: int = 7
    json: Path | None = None


class Kind(NamedTuple):
    """A sort of pictures, made from sample photos. Photos of the web have 1 to 2 bits a pixel, COCO's 4 to 5."""

    name: str
    width: int
    height: int
    quality: int
    subsampling: int  # PIL's: 0 is 4:4:4, 2 is 4:2:0


KINDS = (
    Kind("640x480, quality 85, 4:2:0", 640, 480, 85, 2),
    Kind("1280x960, quality 85, 4:2:0", 1280, 960, 85, 2),
    Kind("1640x1230, quality 90, 4:2:0", 1640, 1230, 90, 2),
)


class Item(NamedTuple):
    """What the other pipelines are given of one sample: the file, the view that we drew, and all its boxes."""

    path: Path
    view: View
    boxes: NDArray[np.float64]
    chosen: NDArray[np.int32]


def main(config: Config) -> int:
    """Run everything; 0 where every figure holds."""
    torch.set_num_threads(1)
    report, kinds = begin(config), {}
    print("ms per picture")
    for name, pictures in _workloads(config):
        judged = ("usual/ours",) if name in {kind.name for kind in KINDS} else ()
        kinds[name] = _measure(pictures, config, judged)
        _print(name, kinds[name])
    holds = all(figures["holds"] for figures in kinds.values())
    return finish(report | {"kinds": kinds}, config.json, holds=holds)


def _workloads(config: Config) -> Iterator[tuple[str, list[bytes]]]:
    """(name, JPEG files) of each kind, and of the user's folder."""
    if config.pictures is not None:
        paths = sorted(p for p in config.pictures.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))[: config.count]
        if len(paths) < config.batch:
            raise RiceError(f"expected at least {config.batch} JPEG files in {config.pictures}, got {len(paths)}")
        files = [path.read_bytes() for path in paths]
        yield f"{config.pictures.name}, as they are", files
        photos = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    else:
        photos = _sample_photos()
    for kind in KINDS:
        yield kind.name, [_jpeg(photos[i % len(photos)], kind, seed=i) for i in range(config.count)]


def _sample_photos() -> list[Image.Image]:
    data, sets = require("skimage.data", "samples"), require("sklearn.datasets", "samples")
    arrays = [data.astronaut(), data.coffee(), data.rocket(), data.chelsea(), *sets.load_sample_images().images]
    return [Image.fromarray(array) for array in arrays]


def _jpeg(photo: Image.Image, kind: Kind, seed: int) -> bytes:
    """A window of the photo of 0.7 to 1 of its edges, enlarged to the kind's size and compressed."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.7, 1.0)
    width, height = share * photo.width, share * photo.height
    left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
    box = (left, top, left + width, top + height)
    buffer = io.BytesIO()
    resized = photo.resize((kind.width, kind.height), Image.Resampling.LANCZOS, box=box)
    resized.save(buffer, "JPEG", quality=kind.quality, subsampling=kind.subsampling)
    return buffer.getvalue()


def _measure(pictures: Sequence[bytes], config: Config, judged: tuple[str, ...]) -> dict[str, Any]:
    samples = [_sample(i, picture, config.regions) for i, picture in enumerate(pictures)]
    samples = samples[: len(samples) // config.batch * config.batch]
    smaller = [shrunk(s, decode_picture(s.image, (s.width, s.height)), SHORT_EDGE) for s in samples]
    with tempfile.TemporaryDirectory() as name:
        stream, packed = _stream(samples, Path(name) / "as-they-are"), _stream(smaller, Path(name) / "packed")
        items = _items(stream, samples, Path(name), config.batch)
        batches = [items[i : i + config.batch] for i in range(0, len(items), config.batch)]
        runs: dict[str, Callable[[], Any]] = {
            "ours": lambda: _read(stream, config.batch),
            "packed": lambda: _read(packed, config.batch),
            "usual": lambda: [_collate([_usual(item) for item in batch]) for batch in batches],
            "lean": lambda: [_collate([_lean(item) for item in batch]) for batch in batches],
            "limit": lambda: [_entropy(item) for item in items],
        }
        difference = _compare(runs["ours"](), runs["usual"](), runs["lean"]())
        difference["packed_mean"] = _compare_whole(stream, packed, config.batch)
        seconds = alternate(runs, config.rounds)
    measured = {
        f"{slow}/{fast}": ratios(seconds, slow, fast)
        for slow, fast in (("usual", "ours"), ("lean", "ours"), ("usual", "packed"), ("usual", "limit"))
    }
    close = difference["boxes"] <= BOX_TOLERANCE and difference["pixels_mean"] <= PIXEL_TOLERANCE
    pixels = sum(s.width * s.height for s in samples)
    return {
        "bits_per_pixel": 8 * sum(len(s.image) for s in samples) / pixels,
        "megapixels": pixels / len(samples) / 1e6,
        "bytes_packed": sum(len(s.image) for s in smaller) / sum(len(s.image) for s in samples),
        "ms": {name: statistics.median(values) / len(samples) * 1e3 for name, values in seconds.items()},
        "ratio": measured,
        "difference": difference,
        "holds": close and all(measured[name]["median"] >= RATIO for name in ("usual/packed", *judged)),
    }


def _sample(number: int, picture: bytes, regions: int) -> Sample:
    """With random boxes; a region's label is its index, by which the others find those that were chosen."""
    rng = np.random.default_rng(number)
    width, height = _size(picture)
    low_R2 = rng.uniform(0, 0.7, (regions, 2))
    corners_R4 = np.concatenate([low_R2, low_R2 + rng.uniform(0.05, 0.3, low_R2.shape)], axis=1)
    return Sample(
        key=f"{number:06d}",
        image=picture,
        suffix="jpg",
        width=width,
        height=height,
        boxes=(corners_R4 * [width, height, width, height]).round().astype(np.uint16),
        labels=list(range(regions)),
        tokens=[[]] * regions,
        scores=[1.0] * regions,
    )


def _stream(samples: list[Sample], folder: Path) -> RegionStream:
    shard = write_shard(folder, "speed-000000", samples)
    write_dataset(folder, DatasetInfo(object_classes=len(samples[0].labels), ocr_classes=0, shards=(shard,)))
    return RegionStream.open(folder, StreamConfig(size=SIZE))


def _read(stream: RegionStream, batch: int) -> list[Batch]:
    """One epoch."""
    return list(itertools.islice(stream.batches(batch=batch), stream.samples // batch))


def _items(stream: RegionStream, samples: list[Sample], folder: Path, batch: int) -> list[Item]:
    """In the order of the stream's first epoch."""
    for sample in samples:
        (folder / f"{sample.key}.jpg").write_bytes(sample.image)
    order = torch.cat([b.samples for b in _read(stream, batch)])
    return [_item(folder, samples[i], stream, i) for i in order.tolist()]


def _item(folder: Path, sample: Sample, stream: RegionStream, index: int) -> Item:
    none: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)] * len(sample.labels)
    labels = np.array(sample.labels, dtype=np.int32)
    record = Record(sample.key, sample.width, sample.height, sample.boxes, labels, none, none[0])
    view = training_view(record, stream.config, Draws(stream.seed, 0, index))
    return Item(folder / f"{sample.key}.jpg", view, sample.boxes.astype(np.float64), view.labels)


def _usual(item: Item) -> tuple[Tensor, Tensor]:
    """transforms.v2 on a PIL picture and its boxes."""
    crop, size = item.view.crop, [SIZE, SIZE]
    picture: Any = Image.open(item.path).convert("RGB")
    canvas = (picture.height, picture.width)
    boxes: Any = tv_tensors.BoundingBoxes(torch.from_numpy(item.boxes).float(), format="XYXY", canvas_size=canvas)
    picture = v2.resized_crop(picture, crop.top, crop.left, crop.height, crop.width, size)
    boxes = v2.resized_crop(boxes, crop.top, crop.left, crop.height, crop.width, size)
    if item.view.flip:
        picture, boxes = v2.horizontal_flip(picture), v2.horizontal_flip(boxes)
    boxes = v2.clamp_bounding_boxes(boxes)
    image = v2.to_dtype(v2.to_image(picture), torch.float32, scale=True)
    return image.as_subclass(Tensor), _padded(boxes.as_subclass(Tensor)[torch.from_numpy(item.chosen).long()])


def _lean(item: Item) -> tuple[Tensor, Tensor]:
    """PIL and numpy alone; the picture stays uint8."""
    crop = item.view.crop
    picture = Image.open(item.path).convert("RGB")
    picture = picture.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if item.view.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    boxes_R4 = through_crop(item.boxes, crop, SIZE, item.view.flip)
    image: Tensor = pil_functional.pil_to_tensor(picture)
    return image, _padded(torch.from_numpy(boxes_R4[item.chosen]).float())


def _padded(boxes_N4: Tensor) -> Tensor:
    """A picture without visible regions has the whole crop instead, as in ours."""
    return (
        boxes_N4 if len(boxes_N4) else torch.tensor([[0.0, 0.0, SIZE, SIZE]]).expand(StreamConfig(size=SIZE).regions, 4)
    )


def _collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in samples]), torch.stack([boxes for _, boxes in samples])


def _entropy(item: Item) -> NDArray[np.uint8]:
    width, height = item.view.frame
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        item.path.read_bytes(), "GRAY", fastdct=True, min_height=-(-height // 8), min_width=-(-width // 8)
    )
    return decoded


def _compare(ours: list[Batch], usual: list[Any], lean: list[Any]) -> dict[str, float]:
    """Largest difference of boxes in pixels; mean, and largest, difference of pixels in levels."""
    boxes, means, largest = 0.0, [], 0.0
    for mine, (floats, their_boxes), (images, _) in zip(ours, usual, lean, strict=True):
        if not torch.equal((floats * 255).round().byte(), images):
            raise RiceError("expected the same pixels of both PIL pipelines; is torchvision's resize another one?")
        boxes = max(boxes, (mine.boxes - their_boxes).abs().max().item())
        difference = (mine.images.int() - images.int()).abs()
        means.append(difference.float().mean().item())
        largest = max(largest, difference.max().item())
    return {"boxes": boxes, "pixels_mean": statistics.mean(means), "pixels_max": largest}


def _compare_whole(stream: RegionStream, packed: RegionStream, batch: int) -> float:
    """Mean difference, in levels, of the whole pictures from the shrunk files and from the original ones."""
    pairs = zip(stream.all_regions(batch=batch), packed.all_regions(batch=batch), strict=True)
    return statistics.mean((a.images.int() - b.images.int()).abs().float().mean().item() for a, b in pairs)


def _size(picture: bytes) -> tuple[int, int]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(picture)
    return width, height


def _print(name: str, figures: dict[str, Any]) -> None:
    print(f"{name}: {figures['megapixels']:.2f} MP, {figures['bits_per_pixel']:.2f} bits a pixel")
    ms, ratio, difference = (
        figures["ms"],
        {k: shown(v, ".2f") for k, v in figures["ratio"].items()},
        figures["difference"],
    )
    for name, told in {
        "usual": "",
        "lean": "",
        "limit": f"{ratio['usual/limit']} times as fast as the usual: parsing the files alone",
        "ours": f"{ratio['usual/ours']} times as fast as the usual, {ratio['lean/ours']} as the lean",
        "packed": f"{ratio['usual/packed']} times as fast as the usual from the original files",
    }.items():
        print(f"  {name:<6} {ms[name]:6.2f}  {told}")
    apart, largest, shrunk_apart = (difference[k] for k in ("pixels_mean", "pixels_max", "packed_mean"))
    print(
        f"  ours differs by {difference['boxes']:.0e} px in boxes, {apart:.2f} levels in pixels ({largest:.0f} at most)"
    )
    print(
        f"  packed has {figures['bytes_packed']:.0%} of the bytes; whole pictures differ by {shrunk_apart:.2f} levels"
    )
    verdict = "holds" if figures["holds"] else "FAILS"
    print(f"  {verdict} (at least {RATIO} times the usual: ours, where judged, and packed; boxes equal, pixels close)")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
