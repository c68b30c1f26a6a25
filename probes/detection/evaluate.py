"""Run a detector over a split and give its results as COCO's own tools take them; scores come from `score`.

Shapes: N detections, H W the picture. Boxes are xyxy in pixels, xywh in results.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from probes.detection.masks import paste_mask
from probes.detection.material import HeldOut, as_tokens
from probes.detection.model import Detections, Detector
from probes.detection.views import View
from probes.fit import split_batches
from probes.images import load_each
from rice.data.segmentation import encode_mask
from rice.files import read_json, write_json
from rice.progress import Progress
from rice.train.world import World

Result = dict[str, Any]
"""One detection in COCO's results format: image_id, category_id, bbox (xywh), score, and segmentation (run lengths)."""

_BATCH = 8


def detect_split(part: HeldOut, detector: Detector, *, folder: Path, progress: Progress, world: World) -> list[Result]:
    """Every test image's detections, in the order of the images; each rank does its share, and all get the whole.

    The detector is left in evaluation mode. `folder`: where ranks leave their shares for each other.
    """
    detector.eval()
    mine = np.arange(len(part.images))[world.rank :: world.size]
    found = [
        result
        for results in progress.track(
            _detect(part, detector, split_batches(mine, _BATCH)),
            f"{part.split.name}: detect in {len(part.images)} images",
            len(mine),
        )
        for result in results
    ]
    return found if world.size == 1 else _gather(part, found, folder, world)


def _detect(part: HeldOut, detector: Detector, batches: Sequence[Any]) -> Iterator[list[Result]]:
    """The results of each image; masks are pasted and encoded in threads while the next batch is computed."""
    split, device = part.split, part.encoder.device
    ids = [category.id for category in split.categories]

    def found() -> Iterator[tuple[int, Detections, View]]:
        for batch, features in zip(batches, part.features.stream(batches), strict=True):
            images = [part.images[item] for item in batch]
            views = [part.view(index) for index in images]
            sizes = [(view.shown[1], view.shown[0]) for view in views]
            detections = detector.detect(as_tokens(features.to(device)), sizes)
            yield from zip(images, map(on_cpu, detections), views, strict=True)

    yield from load_each(lambda work: to_results(work[1], work[2], split.images[work[0]].id, ids), found())


def on_cpu(detections: Detections) -> Detections:
    """Detections as CPU tensors."""
    return Detections(*(None if part is None else part.cpu() for part in detections))  # type: ignore[arg-type]


def to_results(found: Detections, view: View, image_id: int, category_ids: Sequence[int]) -> list[Result]:
    """Detections of the encoder's square as results in the picture's own pixels; boxes without an area are dropped."""
    boxes_N4 = view.boxes_back(found.boxes.double().numpy())
    results = []
    for row, (left, top, right, bottom) in enumerate(boxes_N4.tolist()):
        if not (right > left and bottom > top):
            continue
        result: Result = {
            "image_id": image_id,
            "category_id": category_ids[int(found.labels[row])],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(found.scores[row]),
        }
        if found.masks is not None:
            pasted = paste_mask(found.masks[row].float().numpy(), (left, top, right, bottom), view.height, view.width)
            result["segmentation"] = encode_mask(pasted)
        results.append(result)
    return results


def _gather(part: HeldOut, found: list[Result], folder: Path, world: World) -> list[Result]:
    """Through files that all ranks see: results are large, and nothing is pickled."""
    write_json(_share(folder, world.rank), found)
    dist.barrier()
    order = {part.split.images[index].id: k for k, index in enumerate(part.images)}
    every = [result for rank in range(world.size) for result in read_json(_share(folder, rank))]
    every.sort(key=lambda result: order[result["image_id"]])  # stable: an image is one rank's, best first
    dist.barrier()
    _share(folder, world.rank).unlink()
    return every


def _share(folder: Path, rank: int) -> Path:
    return folder / f"results-rank{rank}.json"
