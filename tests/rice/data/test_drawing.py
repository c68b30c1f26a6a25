"""Boxes are drawn where they are, and their names where they can be read."""

import itertools

import numpy as np
import pytest
from PIL import Image

from rice.data.drawing import distinct_colour, draw_box

RED = (255, 64, 64)


def drawn(box: tuple[float, ...], text: str = "", size: tuple[int, int] = (160, 120)) -> np.ndarray:
    picture = Image.new("RGB", size, (90, 90, 90))
    draw_box(picture, box, RED, text)
    return np.asarray(picture)


def bounds(pixels: np.ndarray) -> tuple[int, ...]:
    rows, columns = np.nonzero((pixels == RED).all(2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_a_box_is_outlined_on_its_own_border_pixels() -> None:
    pixels = drawn((40, 60, 60, 90))
    assert bounds(pixels) == (40, 60, 60, 90)
    assert (pixels[61:89, 41:59] == 90).all(), "what is inside is seen"


def test_a_name_stands_above_its_box_and_inside_where_the_picture_ends() -> None:
    above, inside = bounds(drawn((40, 60, 60, 90), "dog")), bounds(drawn((40, 0, 60, 30), "dog"))
    assert above[1] < 60
    assert above[3] == 90
    assert inside == (40, 0, inside[2], 30)
    assert bounds(drawn((150, 60, 160, 90), "a long name"))[2] == 160


@pytest.mark.parametrize("box", [(-30, -30, -25, -25), (500, 0, 501, 1), (0, 0, 0.2, 0.2), (-9, -9, 900, 900)])
@pytest.mark.parametrize("size", [(160, 120), (9, 8)])
def test_any_box_can_be_drawn(box: tuple[float, ...], size: tuple[int, int]) -> None:
    assert drawn(box, "a long name", size).shape == (size[1], size[0], 3)


def test_neighbouring_colours_are_far_apart_and_never_black() -> None:
    colours = [np.array(distinct_colour(index)) for index in range(64)]
    assert len({tuple(colour) for colour in colours}) == 64
    assert all(np.abs(a - b).max() > 100 for a, b in itertools.pairwise(colours))
    assert all(colour.max() == 255 for colour in colours)
