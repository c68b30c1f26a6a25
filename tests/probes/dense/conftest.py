"""Tiny datasets in COCO's layout and encoders whose features are known."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec

Scene = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""A picture (H, W, 3), and its classes (H, W): 0 background, k the k-th category, -1 crowd."""

PALETTE = np.array([(30, 30, 30), (220, 40, 40), (40, 200, 60), (60, 60, 230)], np.uint8)


def run_lengths(mask_HW: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, background first."""
    flat = mask_HW.T.ravel()
    edges = np.nonzero(np.diff(flat))[0] + 1
    lengths = np.diff([0, *edges, len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def annotations_of(classes_HW: NDArray[np.int64], image_id: int, first_id: int) -> list[dict[str, Any]]:
    """One annotation per class in the map."""
    found = []
    for value in np.unique(classes_HW[classes_HW != 0]).tolist():
        mask = classes_HW == value
        found.append(
            {
                "id": first_id + len(found),
                "image_id": image_id,
                "category_id": max(value, 1) * 10,  # not contiguous, as COCO's
                "bbox": [0, 0, *mask.shape[::-1]],
                "area": int(mask.sum()),
                "iscrowd": int(value < 0),
                "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
            }
        )
    return found


def write_split(root: Path, name: str, scenes: Sequence[Scene], first_id: int) -> None:
    """ROOT/{name}/*.png and its annotations."""
    (root / name).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (picture, classes_HW) in enumerate(scenes):
        id_ = first_id + index
        Image.fromarray(picture).save(root / name / f"{id_}.png")
        images.append({"id": id_, "file_name": f"{id_}.png", "width": picture.shape[1], "height": picture.shape[0]})
        annotations += annotations_of(classes_HW, id_, len(annotations) + 1)
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 10 * k, "name": f"kind {k}"} for k in range(1, len(PALETTE))],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(document))


def random_classes(generator: np.random.Generator, edge: int) -> NDArray[np.int64]:
    """Background with three rectangles of random classes."""
    classes_HW = np.zeros((edge, edge), np.int64)
    for _ in range(3):
        y, x = generator.integers(0, edge // 2, 2)
        height, width = generator.integers(2, edge // 2, 2)
        classes_HW[y : y + height, x : x + width] = generator.integers(1, len(PALETTE))
    return classes_HW


@pytest.fixture
def make_root(tmp_path: Path) -> Callable[..., Path]:
    """`make_root(paint, name=..., edge=..., counts=(train, val))`: a dataset whose pictures are `paint(classes)`."""

    def make(
        paint: Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.uint8]],
        name: str = "root",
        edge: int = 16,
        counts: tuple[int, int] = (20, 8),
        relabel: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda classes: classes,
    ) -> Path:
        generator = np.random.default_rng(0)
        root = tmp_path / name
        for split, count, first_id in (("train", counts[0], 100), ("val", counts[1], 900)):
            drawn = [random_classes(generator, edge) for _ in range(count)]
            scenes = [(paint(c, generator), relabel(c) if split == "val" else c) for c in drawn]
            write_split(root, split, scenes, first_id)
        return root

    return make


def paint_colours(classes_HW: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Each class has its colour: a pixel says exactly what it is."""
    return PALETTE[classes_HW]


def paint_noise(classes_HW: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.uint8]:
    """The picture says nothing."""
    return generator.integers(0, 256, (*classes_HW.shape, 3), dtype=np.uint8)


def paint_murky(classes_HW: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Colours under heavy noise: some of it can be learnt."""
    return (PALETTE[classes_HW] + generator.normal(0, 70, (*classes_HW.shape, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture
def murky() -> Callable[..., NDArray[np.uint8]]:
    """See paint_murky."""
    return paint_murky


@pytest.fixture
def colours() -> Callable[..., NDArray[np.uint8]]:
    """See paint_colours."""
    return paint_colours


@pytest.fixture
def noise() -> Callable[..., NDArray[np.uint8]]:
    """See paint_noise."""
    return paint_noise


class PatchColours(nn.Module):
    """A fixed random nonlinear code of each patch's mean colour."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.code = nn.Parameter(torch.randn(width, 3, generator=generator))
        self.offset = nn.Parameter(torch.randn(width, generator=generator))
        self.pool = nn.AvgPool2d(patch)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        code_BDhw = torch.einsum("dc,bchw->bdhw", self.code, self.pool(images_B3HW))
        return (2 * code_BDhw + self.offset[:, None, None]).sin()


def _extract(module: nn.Module, images_B3HW: Tensor, layer: int) -> Features:
    return Features(module(images_B3HW), None)


@pytest.fixture
def make_encoder() -> Callable[..., Encoder]:
    """`make_encoder(patch=..., size=..., extract=...)`: a tiny encoder of patch colours."""

    def make(
        patch: int = 1,
        size: int = 16,
        width: int = 16,
        extract: Callable[[nn.Module, Tensor, int], Features] = _extract,
        size_multiple: int | None = None,
    ) -> Encoder:
        spec = EncoderSpec(
            name="patch-colours",
            source="test",
            patch=patch,
            size_multiple=size_multiple or patch,
            width=width,
            native_size=size,
        )
        return Encoder(PatchColours(width, patch), spec, extract, weights="random")

    return make
