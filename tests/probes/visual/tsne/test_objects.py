"""Which objects are chosen, the area of cells under them, and their features, against plain loops."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from probes.dense.model import TokenGrid
from probes.visual.tsne.objects import Objects, choose, coverage, object_features
from probes.visual.tsne.separation import separation
from rice.data.coco import CocoSplit, open_split
from rice.data.segmentation import encode_mask
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.progress import SilentProgress

PATCH, WIDTH, EDGE = 8, 12, 64
SPEC = EncoderSpec(name="tiny", source="test", patch=PATCH, size_multiple=PATCH, width=WIDTH, native_size=32)


class Tiny(nn.Module):
    """Patches through one convolution; the same for every picture's same patch."""

    def __init__(self, gives_nan: bool = False) -> None:
        super().__init__()
        weight = torch.randn(WIDTH, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(0))
        self.weight, self.factor = nn.Parameter(weight, requires_grad=False), torch.nan if gives_nan else 1.0

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return torch.conv2d(images_B3HW, self.weight, stride=PATCH) * self.factor


def tiny(gives_nan: bool = False) -> Encoder:
    return Encoder(Tiny(gives_nan), SPEC, lambda m, x, _: Features(m(x), None), weights="random")


def rectangle(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {"bbox": [x, y, width, height], "segmentation": [polygon]}


def write_coco(root: Path, annotations: list[dict[str, Any]], size: tuple[int, int] = (EDGE, EDGE)) -> CocoSplit:
    """One picture of noise for each image id; categories 1 to 4."""
    (root / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    ids = sorted({annotation["image_id"] for annotation in annotations})
    for number in ids:
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(root / "val" / f"{number}.png")
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]} for i in ids],
        "categories": [{"id": c, "name": f"kind {c}"} for c in range(1, 5)],
        "annotations": [{"id": n + 1, "iscrowd": 0} | annotation for n, annotation in enumerate(annotations)],
    }
    (root / "annotations" / "instances_val.json").write_text(json.dumps(document))
    return open_split(root)


def many(counts: dict[int, int]) -> list[dict[str, Any]]:
    """`counts[c]` objects of category c, spread over seven pictures."""
    categories = [category for category, count in counts.items() for _ in range(count)]
    return [
        {"image_id": 1 + n % 7, "category_id": c, **rectangle(n % 40, (3 * n) % 40, 16, 16)}
        for n, c in enumerate(categories)
    ]


def test_the_most_frequent_categories_share_the_objects_equally(tmp_path: Path) -> None:
    split = write_coco(tmp_path, many({1: 9, 2: 30, 3: 20, 4: 25}))
    chosen = choose(split, objects=22, categories=3, seed=0)
    assert [category.id for category in chosen.categories] == [2, 4, 3]
    assert Counter(chosen.labels) == {0: 8, 1: 7, 2: 7}
    assert [split.categories[a.category].id for a in chosen.annotations] == [2] * 8 + [4] * 7 + [3] * 7
    assert Counter(choose(split, objects=100, categories=4, seed=0).labels) == {0: 25, 1: 25, 2: 20, 3: 9}


def test_fewer_objects_are_a_subset_and_another_seed_draws_others(tmp_path: Path) -> None:
    split = write_coco(tmp_path, many({1: 40, 2: 40}))
    ids = {
        (objects, seed): {a.id for a in choose(split, objects=objects, categories=2, seed=seed).annotations}
        for objects, seed in ((10, 0), (30, 0), (10, 1))
    }
    assert ids[10, 0] < ids[30, 0]
    assert ids[10, 0] != ids[10, 1]


def test_the_choice_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    annotations = [{"id": n + 1} | annotation for n, annotation in enumerate(many({1: 20, 2: 20}))]
    splits = [write_coco(tmp_path / name, found) for name, found in (("a", annotations), ("b", annotations[::-1]))]
    first, second = ([a.id for a in choose(s, objects=12, categories=2, seed=3).annotations] for s in splits)
    assert first == second


def test_crowds_specks_empty_masks_and_objects_outside_are_left_out(tmp_path: Path) -> None:
    whole = rectangle(8, 8, 20, 20)
    empty = encode_mask(np.zeros((EDGE, EDGE), bool))
    odd = [
        whole | {"iscrowd": 1, "segmentation": encode_mask(np.ones((EDGE, EDGE), bool))},
        rectangle(8, 8, 1.9, 2),  # less than 1/1024 of 64 x 64
        {"bbox": [8, 8, 20, 20]},  # no mask where others have one
        {"bbox": [8, 8, 20, 20], "segmentation": empty},
        rectangle(62, 62, 2, 1.9),
    ]
    fine = [whole, rectangle(8, 8, 2, 2), whole, whole]
    annotations = [{"image_id": 1, "category_id": 1 + n % 2, **a} for n, a in enumerate([*fine, *odd])]
    chosen = choose(write_coco(tmp_path, annotations), objects=20, categories=4, seed=0)
    assert sorted(a.id for a in chosen.annotations) == [1, 2, 3, 4]
    assert chosen.masks


def test_fewer_than_two_categories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="two categories, found 1"):
        choose(write_coco(tmp_path, many({1: 9})), objects=9, categories=2, seed=0)


def one(root: Path, annotation: dict[str, Any], size: tuple[int, int]) -> Objects:
    split = write_coco(root, [{"image_id": 1, "category_id": 1, **annotation}], size)
    return Objects(split, split.categories[:1], split.images[0].annotations, masks="segmentation" in annotation)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 20), st.integers(3, 20), st.integers(1, 3), st.integers(0, 10**6))
def test_the_coverage_is_that_of_a_common_refinement(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, tokens: int, seed: int
) -> None:
    mask_HW = np.random.default_rng(seed).random((height, width)) < 0.3
    annotation = {"bbox": [0, 0, width, height], "segmentation": encode_mask(mask_HW)}
    objects = one(tmp_path_factory.mktemp("coco"), annotation, (width, height))
    grid = TokenGrid(size=tokens * PATCH, patch=PATCH, tokens=tokens)
    fine = np.kron(mask_HW, np.ones((tokens, tokens)))  # now every cell is a whole number of these, height x width each
    expected = fine.reshape(tokens, height, tokens, width).mean(axis=(1, 3)).ravel() * PATCH**2
    np.testing.assert_allclose(coverage(objects, objects.annotations[0], grid), expected, atol=1e-9)


def test_a_box_covers_what_its_mask_would_and_what_leaves_the_picture_counts_nothing(tmp_path: Path) -> None:
    grid = TokenGrid(size=64, patch=PATCH, tokens=8)
    box = {"bbox": [10, 20, 30, 24]}
    masked = one(tmp_path / "mask", rectangle(10, 20, 30, 24), (80, 48))
    boxed = one(tmp_path / "box", box, (80, 48))
    expected = coverage(masked, masked.annotations[0], grid)
    np.testing.assert_allclose(coverage(boxed, boxed.annotations[0], grid), expected, atol=1e-9)
    assert expected.sum() == pytest.approx(30 * 24 / (80 * 48) * 64**2)
    outside = one(tmp_path / "out", {"bbox": [-40, 24, 80, 48]}, (80, 48))
    assert coverage(outside, outside.annotations[0], grid).sum() == pytest.approx(40 * 24 / (80 * 48) * 64**2)


def test_an_object_in_the_remainder_that_the_encoder_drops_belongs_to_the_last_cell(tmp_path: Path) -> None:
    objects = one(tmp_path, {"bbox": [62, 62, 2, 2]}, (64, 64))
    found = coverage(objects, objects.annotations[0], TokenGrid(size=32, patch=10, tokens=3))
    np.testing.assert_allclose(found, [0] * 8 + [1])


def test_features_are_weighted_means_of_normalised_tokens_of_unit_length(tmp_path: Path) -> None:
    annotations = [*many({1: 4, 2: 4}), {"image_id": 3, "category_id": 1, **rectangle(41, 33, 2, 2)}]
    split = write_coco(tmp_path, annotations)
    objects = choose(split, objects=9, categories=2, seed=0)
    encoder, grid = tiny(), TokenGrid(size=EDGE, patch=PATCH, tokens=8)  # one pixel of the picture is one of the input
    found_ND = object_features(encoder, objects, grid, SilentProgress(), "")
    assert found_ND.shape == (9, WIDTH)
    for annotation, found_D in zip(objects.annotations, found_ND, strict=True):
        pixels = np.asarray(split.load_image(annotation.image), np.float32) / 255
        patches_Dhw = encoder(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]).patches[0].double()
        total_D, mask_HW = torch.zeros(WIDTH, dtype=torch.float64), split.mask(annotation)
        for y, x in zip(*np.nonzero(mask_HW), strict=True):  # every pixel brings the token that it lies under
            token_D = patches_Dhw[:, y // PATCH, x // PATCH]
            total_D += (token_D - token_D.mean()) / (token_D.var(unbiased=False) + 1e-5).sqrt()
        np.testing.assert_allclose(found_D.numpy(), (total_D / total_D.norm()).numpy(), atol=1e-5)
    speck = next(i for i, a in enumerate(objects.annotations) if a.id == 9)
    assert found_ND[speck].norm() == pytest.approx(1)


def test_features_with_nan_are_refused(tmp_path: Path) -> None:
    objects = choose(write_coco(tmp_path, many({1: 4, 2: 4})), objects=8, categories=2, seed=0)
    with pytest.raises(RiceError, match="tiny gave features that are NaN"):
        object_features(tiny(gives_nan=True), objects, TokenGrid(32, PATCH, 4), SilentProgress(), "tiny")


def test_purity_is_that_of_scikit_learns_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = [0] * 30 + [1] * 50 + [2] * 20
    x_ND = torch.randn(3, 16, generator=generator)[labels] + torch.randn(100, 16, generator=generator)
    found = separation(x_ND, labels)
    search = NearestNeighbors(n_neighbors=10, metric="cosine").fit(x_ND.double().numpy())
    nearest_NK = search.kneighbors(return_distance=False)  # without the object itself
    assert found.purity == pytest.approx((np.array(labels)[nearest_NK] == np.array(labels)[:, None]).mean())
    assert found.chance == pytest.approx((30 * 29 + 50 * 49 + 20 * 19) / (100 * 99))
    assert found.n == 100
    longer = separation(x_ND * torch.linspace(1, 9, 100)[:, None], labels)
    assert longer.silhouette == pytest.approx(found.silhouette)  # cosine, so no length counts
    assert longer.purity == found.purity
