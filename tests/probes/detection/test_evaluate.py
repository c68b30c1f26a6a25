"""Perfect detections, put through views, pasted masks and results, are perfect in pycocotools' own judgement."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import roi_align

from probes.detection.evaluate import detect_split, to_results
from probes.detection.material import HeldOut, held_out
from probes.detection.model import Detections
from probes.detection.views import View
from rice.progress import SilentProgress
from rice.train.world import World

from .folders import CATEGORIES, Scene, Thing, tiny_encoder, write_split

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

SIZE = 64
SHAPES = [(200, 60), (50, 180), (64, 64), (40, 30), (300, 300), (61, 97)]
ALONE = World(0, 1, torch.device("cpu"))


def ellipse(width: int, height: int, box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    x, y, w, h = box
    rows, columns = np.mgrid[:height, :width] + 0.5
    found: NDArray[np.bool_] = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
    return found


def scenes() -> list[Scene]:
    """Two or three ellipses in each picture, of sizes and places of its own; pictures in no order of their ids."""
    dice = np.random.default_rng(0)
    found = []
    for number in range(12):
        width, height = SHAPES[number % len(SHAPES)]
        things = []
        for k in range(2 + number % 2):
            w, h = width * dice.uniform(0.3, 0.6), height * dice.uniform(0.3, 0.6)
            x, y = dice.uniform(0, width - w), dice.uniform(0, height - h)
            mask = ellipse(width, height, (x, y, w, h))
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
            things.append(Thing((number + k) % 4, tuple(float(v) for v in box), mask))  # type: ignore[arg-type]
        found.append(Scene(width, height, things, id=(number * 37) % 101 + 5))
    return found


class Perfect:
    """A detector that is told the truth: item k's annotations as pixels of the square, in the order of the calls."""

    def __init__(self, part: HeldOut, *, masks: bool = True, extra: Sequence[Sequence[float]] = ()) -> None:
        self.part, self.masks, self.extra = part, masks, torch.tensor(extra).reshape(-1, 4)
        self.next, self.evaluating = 0, False
        self.sizes: list[tuple[int, int]] = []

    def eval(self) -> None:
        self.evaluating = True

    def detect(self, tokens_BDhw: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        assert self.evaluating
        assert tokens_BDhw.shape[1:] == (4, SIZE // 4, SIZE // 4)
        assert len(tokens_BDhw) == len(sizes)
        found = [self._one(item, size) for item, size in enumerate(sizes, self.next)]
        self.next += len(sizes)
        self.sizes += sizes
        return found

    def _one(self, item: int, size: tuple[int, int]) -> Detections:
        split = self.part.split
        record = split.images[self.part.images[item]]
        scale = torch.tensor([size[1] / record.width, size[0] / record.height] * 2, dtype=torch.float64)
        truth = torch.tensor([a.box for a in record.annotations], dtype=torch.float64)
        labels = torch.tensor([a.category for a in record.annotations])
        whole = torch.from_numpy(np.stack([split.mask(a) for a in record.annotations])).float()
        rois = torch.cat([torch.arange(len(truth))[:, None], truth], 1).float()
        masks = roi_align(whole[:, None], rois, 28, sampling_ratio=4, aligned=True)[:, 0]
        boxes, count = torch.cat([self.extra.double(), truth * scale]).float(), len(self.extra)
        labels = torch.cat([torch.zeros(count, dtype=torch.int64), labels])
        masks = torch.cat([torch.ones(count, 28, 28), masks])
        scores = torch.linspace(0.9, 0.8, len(labels))
        return Detections(boxes, scores, labels, masks if self.masks else None)


def detected(part: HeldOut, detector: Perfect, folder: Path) -> list[dict[str, Any]]:
    return detect_split(part, detector, folder=folder, progress=SilentProgress(), world=ALONE)  # type: ignore[arg-type]


def pycocotools_ap(part: HeldOut, results: list[dict[str, Any]], kind: str) -> Any:
    """The 12 numbers, from the files' own document."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(part.split.files.annotations))
        judged = COCOeval(truth, truth.loadRes(results), kind)
        judged.evaluate(), judged.accumulate(), judged.summarize()
    return judged.stats


@pytest.fixture
def part(tmp_path: Path) -> HeldOut:
    return held_out(tiny_encoder(native=SIZE), write_split(tmp_path / "data", "val", scenes()), SIZE)


def test_perfect_detections_have_box_ap_1_and_mask_ap_close_to_1(part: HeldOut, tmp_path: Path) -> None:
    results = detected(part, Perfect(part), tmp_path)
    boxes, masks = (pycocotools_ap(part, results, kind) for kind in ("bbox", "segm"))
    assert boxes[0] == pytest.approx(1.0)
    assert boxes[2] == pytest.approx(1.0)
    assert masks[0] > 0.95
    assert masks[1] == pytest.approx(1.0)
    assert list(tmp_path.glob("*.json")) == [], "one rank leaves nothing behind"


def test_detections_that_are_mapped_as_if_pictures_were_squashed_are_not_perfect(part: HeldOut, tmp_path: Path) -> None:
    """The test above can tell: it holds pictures of other shapes than the square."""
    results = detected(part, Perfect(part), tmp_path)
    for result in results:
        record = next(image for image in part.split.images if image.id == result["image_id"])
        x, y, w, h = result["bbox"]
        longer = max(record.width, record.height)
        across, down = record.width / longer, record.height / longer
        result["bbox"] = [x * across, y * down, w * across, h * down]
    assert pycocotools_ap(part, results, "bbox")[0] < 0.7


def test_pasted_masks_are_the_objects_and_lie_where_the_picture_is(part: HeldOut, tmp_path: Path) -> None:
    results = detected(part, Perfect(part), tmp_path)
    truth = {image.id: [part.split.mask(a) for a in image.annotations] for image in part.split.images}
    for image_id, masks in truth.items():
        mine = [rle.decode(r["segmentation"]).astype(bool) for r in results if r["image_id"] == image_id]
        for found, expected in zip(mine, masks, strict=True):
            assert found.shape == expected.shape
            assert (found & expected).sum() / (found | expected).sum() > 0.9


def test_results_come_in_the_order_of_the_images_with_the_ids_of_the_file(part: HeldOut, tmp_path: Path) -> None:
    detector = Perfect(part)
    results = detected(part, detector, tmp_path)
    assert detector.sizes == [part.view(index).shown[::-1] for index in part.images]
    wanted = [
        (part.split.images[index].id, CATEGORIES[a.category])
        for index in part.images
        for a in part.split.images[index].annotations
    ]
    assert [(r["image_id"], r["category_id"]) for r in results] == wanted
    assert {r["category_id"] for r in results} == set(CATEGORIES)
    ids = [r["image_id"] for r in results]
    assert ids != sorted(ids)
    scores = [r["score"] for r in results if r["image_id"] == ids[0]]
    assert scores == sorted(scores, reverse=True)


def test_boxes_without_an_area_are_dropped_and_the_rest_keep_their_masks(part: HeldOut, tmp_path: Path) -> None:
    """Beyond the picture, in the padding, without a width: they are cut to nothing on their way back."""
    empty = [[5.0, 5, 5, 9], [5, 9, 9, 9], [70, 70, 80, 80], [-9, -9, 0, 0], [9, 9, 5, 20]]
    plain = detected(part, Perfect(part), tmp_path)
    more = detected(part, Perfect(part, extra=empty), tmp_path)
    assert [r | {"score": 0} for r in more] == [r | {"score": 0} for r in plain]


def test_without_a_mask_head_results_are_boxes_alone(part: HeldOut, tmp_path: Path) -> None:
    results = detected(part, Perfect(part, masks=False), tmp_path)
    assert all(set(result) == {"image_id", "category_id", "bbox", "score"} for result in results)
    assert pycocotools_ap(part, results, "bbox")[0] == pytest.approx(1.0)


def test_a_limit_judges_the_images_of_the_limit(tmp_path: Path) -> None:
    split = write_split(tmp_path / "data", "val", scenes())
    part = held_out(tiny_encoder(native=SIZE), split, SIZE, limit=5)
    results = detected(part, Perfect(part), tmp_path)
    assert list(dict.fromkeys(r["image_id"] for r in results)) == [split.images[index].id for index in part.images]
    assert len({r["image_id"] for r in results}) == 5


def test_a_result_is_xywh_in_the_pictures_own_pixels() -> None:
    view = View.whole(200, 50, SIZE)  # shown at 64 x 16
    found = Detections(torch.tensor([[16.0, 4, 48, 12]]), torch.tensor([0.25]), torch.tensor([2]), None)
    (result,) = to_results(found, view, 17, CATEGORIES)
    assert result == {"image_id": 17, "category_id": 40, "bbox": [50.0, 12.5, 100.0, 25.0], "score": 0.25}
