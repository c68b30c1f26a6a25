"""Words' boxes hold their ink exactly, whatever a machine's fonts look like."""

import numpy as np
import pytest
from PIL import Image

from rice.data.world import words
from rice.data.world.actors import CATEGORIES
from rice.data.world.draws import Dice, Part
from rice.data.world.textures import brightness, draw_palette
from rice.data.world.words import FONTS, WORDS, Print, draw_print, paint_print


def some_prints(part: Part, count: int, size: int = 256) -> list[Print]:
    dices = (Dice(7, part, index) for index in range(count))
    return [draw_print(dice, part, size, size, draw_palette(dice)) for dice in dices]


def test_the_test_part_has_its_own_words_and_fonts() -> None:
    assert not set(WORDS[True]) & set(WORDS[False])
    assert not set(FONTS[True]) & set(FONTS[False])
    used = {word for name in CATEGORIES for word in name.split()}
    assert not used & {*WORDS[True], *WORDS[False]}
    for part in Part:
        for printed in some_prints(part, 40):
            assert printed.word.text.lower() in WORDS[part is Part.TEST]
            assert printed.word.font in FONTS[part is Part.TEST]


@pytest.mark.parametrize("part", [Part.TRAIN, Part.TEST])
def test_ink_fills_the_quad(part: Part) -> None:
    for printed in some_prints(part, 30):
        image_3HW = np.full((3, 256, 256), 128, dtype=np.float32)
        bare = Print(
            words.Word(printed.word.text, printed.word.box, printed.word.quad, printed.word.font, plate=False),
            *(printed.x, printed.y, printed.turn, printed.width, printed.height),
            ink=(255, 255, 255),
            paper=(128, 128, 128),
        )
        paint_print(image_3HW, bare)
        rows, columns = np.nonzero(image_3HW[0] > 170)
        corner, right, _, below = np.array(printed.word.quad)
        points = np.stack([columns, rows], axis=-1) + 0.5 - corner
        along = points @ (right - corner) / printed.width
        down = points @ (below - corner) / printed.height
        np.testing.assert_allclose([along.min(), along.max()], [0, printed.width], atol=2.5)  # faint tips of letters
        np.testing.assert_allclose([down.min(), down.max()], [0, printed.height], atol=2.5)


def test_quads_are_rectangles_inside_the_image_and_their_boxes_are_tight() -> None:
    for size in (64, 100, 700):
        for printed in some_prints(Part.TRAIN, 40, size):
            quad = np.array(printed.word.quad)
            assert quad.min() >= -1e-6
            assert quad.max() <= size + 1e-6
            np.testing.assert_allclose(quad[1] - quad[0], quad[2] - quad[3], atol=1e-6)
            assert abs(np.dot(quad[1] - quad[0], quad[3] - quad[0])) < 1e-3 * printed.width * printed.height + 1e-6
            assert np.linalg.norm(quad[1] - quad[0]) == pytest.approx(printed.width, rel=1e-6)
            box = printed.word.box
            assert box == (*np.floor(quad.min(axis=0)).astype(int), *np.ceil(quad.max(axis=0)).astype(int))


def test_ink_and_paper_are_far_apart_in_brightness() -> None:
    assert min(abs(brightness(p.ink) - brightness(p.paper)) for p in some_prints(Part.TRAIN, 100)) > 60


def test_records_do_not_depend_on_how_fonts_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [printed.word for printed in some_prints(Part.TRAIN, 20)]
    monkeypatch.setattr(words, "_raster", lambda *_: Image.new("L", (7, 90), 255))
    after = some_prints(Part.TRAIN, 20)
    for printed in after:
        paint_print(np.zeros((3, 256, 256), dtype=np.float32), printed)
    assert [printed.word for printed in after] == before
