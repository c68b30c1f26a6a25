"""Tiles and tokens are those that transformers' Llava processors and models count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextImageProcessor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from mllm.llava.check import random_sizes
from mllm.llava.tiling import GRIDS, Tiles, Tiling

CUT: tuple[Tiling, ...] = ("2x2+1", "anyres5", "anyres9")
SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@pytest.mark.parametrize(("edge", "patch"), [(336, 14), (378, 14), (560, 14)])
def test_2x2_and_the_whole_are_always_five_tiles(edge: int, patch: int) -> None:
    tiles = Tiles(tiling="2x2+1", edge=edge, side=edge // patch)
    sizes = random_sizes(400)
    assert {tiles.count(size) for size in sizes} == {5}
    assert {image_size_to_num_patches(size, tiles.pinpoints, edge) for size in sizes} == {5}
    processor = LlavaNextImageProcessor(size={"height": edge, "width": edge}, image_grid_pinpoints=tiles.pinpoints,
        crop_size={"height": edge, "width": edge}, do_center_crop=False)  # fmt: skip
    for height, width in sizes[:8]:
        picture = Image.fromarray(np.zeros((min(height, 900), min(width, 900), 3), dtype=np.uint8))
        assert processor(picture, return_tensors="pt")["pixel_values"].shape == (1, 5, 3, edge, edge)


@given(size=SIZES, tiling=st.sampled_from(CUT), edge=st.sampled_from([64, 336, 378, 560]))
def test_the_grid_is_transformers_best_resolution(size: tuple[int, int], tiling: Tiling, edge: int) -> None:
    tiles = Tiles(tiling=tiling, edge=edge, side=edge // 14)
    best = select_best_resolution(size, tiles.pinpoints)
    if best is None:  # so thin that no grid keeps a pixel: rice llava prepare refuses such pictures
        assert tiles.grid(size) == (0, 0)
    else:
        assert tuple(edge * n for n in tiles.grid(size)) == best


@given(size=SIZES, edge=st.sampled_from([336, 378, 560]))
def test_anyres5_makes_three_to_five_tiles(size: tuple[int, int], edge: int) -> None:
    height, width = size
    if max(size) <= 20 * min(size):
        assert 3 <= Tiles(tiling="anyres5", edge=edge, side=edge // 14).count((height, width)) <= 5


@pytest.mark.parametrize(("edge", "most"), [(336, 2928), (378, 3699), (560, 8080)])
def test_the_most_tokens_of_a_picture_are_those_of_a_square_one(edge: int, most: int) -> None:
    tiles = Tiles(tiling="2x2+1", edge=edge, side=edge // 14)
    side = edge // 14
    assert tiles.tokens((1000, 1000)) == side**2 + 2 * side * (2 * side + 1) == most
    assert max(map(tiles.tokens, random_sizes(1000))) <= most


def test_only_a_conversations_single_picture_is_cut_for_onevision() -> None:
    tiles = Tiles(tiling="anyres9", edge=384, side=27)
    assert (tiles.count((500, 900), among=2), tiles.tokens((500, 900), among=2)) == (1, 27**2 + 1)
    assert tiles.total([(500, 900)] * 2) == 2 * (27**2 + 1)
    assert tiles.count((500, 900)) > 1


def test_grids_of_llavas_own_presets() -> None:
    assert Tiles(tiling="anyres5", edge=336, side=24).pinpoints == [
        [336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]  # fmt: skip
    assert len(GRIDS["anyres9"]) == 36
