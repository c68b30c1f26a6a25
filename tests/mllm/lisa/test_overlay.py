"""What an overlay leaves of the picture, and what it says."""

import numpy as np
import pytest
from PIL import Image

from mllm.lisa import overlay
from mllm.lisa.overlay import draw_overlay
from rice.data.drawing import distinct_colour


def _picture(height: int = 400, width: int = 500) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _box(height: int = 400, width: int = 500) -> np.ndarray:
    masks = np.zeros((1, height, width), dtype=bool)
    masks[0, 100:200, 50:300] = True
    return masks


def test_pixels_outside_all_masks_are_the_pictures_own_and_it_is_not_changed() -> None:
    picture, masks = _picture(), _box()
    before = np.array(picture)
    drawn = np.array(draw_overlay(picture, masks, ["a box"]))[:400]
    np.testing.assert_array_equal(drawn[~masks[0]], before[~masks[0]])
    np.testing.assert_array_equal(np.array(picture), before)


def test_a_mask_is_outlined_within_itself_and_tinted_inside() -> None:
    picture, masks = _picture(), _box()
    drawn, colour = np.array(draw_overlay(picture, masks, ["a box"]))[:400], distinct_colour(0)
    line = 2  # of a picture of 400 pixels
    inner = np.zeros_like(masks[0])
    inner[100 + line : 200 - line, 50 + line : 300 - line] = True
    assert (drawn[masks[0] & ~inner] == colour).all()
    tinted = 0.55 * np.array(picture)[inner] + 0.45 * np.array(colour)
    np.testing.assert_allclose(drawn[inner], tinted, atol=0.51)


def test_a_small_picture_is_enlarged_by_a_whole_factor_with_its_masks() -> None:
    masks = np.zeros((1, 96, 64), dtype=bool)
    masks[0, 10:30, 20:40] = True
    picture = _picture(96, 64)
    drawn = np.array(draw_overlay(picture, masks, ["it"]))[: 4 * 96]
    assert drawn.shape == (384, 256, 3)
    expected = np.array(picture).repeat(4, axis=0).repeat(4, axis=1)
    outside = ~masks[0].repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(drawn[outside], expected[outside])


def test_every_text_is_written_whole_on_lines_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "the striped disc that lies to the left of the red box and is partly hidden by it " * 2
    written: list[tuple[float, str]] = []
    draw = overlay.ImageDraw.ImageDraw.text

    def spy(pen: object, xy: tuple[float, float], words: str, **rest: object) -> None:
        written.append((xy[0] + pen.textlength(words, font=rest["font"]), words))  # type: ignore[attr-defined]
        draw(pen, xy, words, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(overlay.ImageDraw.ImageDraw, "text", spy)
    drawn = draw_overlay(_picture(), np.concatenate([_box(), np.zeros_like(_box())]), [text, "a ship"])
    assert " ".join(words for _, words in written) == f"{text.strip()} a ship (nothing found)"
    assert max(end for end, _ in written) <= drawn.width == 500
    assert len(written) > 2
    assert drawn.height > 400


def test_no_mask_gives_the_picture() -> None:
    drawn = draw_overlay(_picture(), np.zeros((0, 400, 500), dtype=bool), [])
    np.testing.assert_array_equal(np.array(drawn), np.array(_picture()))
