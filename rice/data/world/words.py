"""Words printed in the world: on signs that hide what is behind them, or straight onto what is there.

Boxes must be equal on every machine, but fonts are not drawn equally everywhere. So a word's rectangle comes first,
from nominal letter widths, and the drawn ink is stretched to fill it exactly.

Shapes: H, W the image; h, w the word's window.
"""

import functools
import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from rice.data.world.draws import TURN, Dice, Part, cos_sin
from rice.data.world.shapes import Plane, Stencil, box_stencil
from rice.data.world.spelling import draw_spelling
from rice.data.world.textures import Colour, brightness, coverage

Point = tuple[float, float]

PILLOW = "Pillow"
"""The font that Pillow itself carries; all others come with matplotlib."""

FONTS = {
    False: ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Bold", "STIXGeneral", "cmss10", "cmtt10"),
    True: (PILLOW, "DejaVuSerif-Bold", "STIXGeneralBol", "DejaVuSansMono", "cmb10"),
}
"""By whether they are held out; likewise the words."""

_COMMON_WORDS = (
    "acorn amber anchor april atlas autumn bakery basket beacon birch bridge bronze butter cabin candle canyon carpet "
    "cedar cherry cinema clover coffee copper coral cotton crane dawn delta desert dragon eagle echo ember falcon "
    "farm fern field flint forest fox garden ginger glass gold grove harbour hazel honey hotel island ivory jacket "
    "jungle kettle lagoon lantern lemon lily linen lion maple market meadow melon mill mint moon mosaic motel north "
    "oak ocean olive onyx orchid otter palace paper pearl pepper pine plum pocket polar quartz rain raven reef ribbon "
    "river robin rocket saddle salt sand silver spark spring stone storm sugar summit swan table temple thunder tiger "
    "timber tulip valley velvet violet walnut water willow window winter wolf yellow zebra open exit sale taxi free "
    "stop bank shop cafe 12 25 37 48 64 79 108 250 512 1984"
)
_HELD_OUT_WORDS = (
    "arrow aspen badger barley blossom boulder breeze brook cactus camel castle cliff cobalt comet cricket crown "
    "diesel domino engine fabric finch fountain galaxy goose granite hammer heron horizon iris jasmine kayak lemur "
    "lobster magnet lantana museum nectar needle orange oxygen panda pebble pilot planet prairie pumpkin rabbit "
    "saffron salmon shadow sierra spruce station sunset thistle topaz turtle umbrella vapour village voyage wagon "
    "closed entry bus metro park toll pier 17 33 56 81 99 140 365 720 2049"
)
MADE_UP = 0.85
"""Chance of a training word to be made up, where words are what is learnt."""
WORDS = {False: tuple(_COMMON_WORDS.split()), True: tuple(_HELD_OUT_WORDS.split())}
_RESERVED = frozenset(WORDS[True])

DIGITS = tuple("0123456789")

EM_SHARE = (0.07, 0.16)
"""Height of a word's em as a share of the image's shorter side."""
_SMALLEST_EM = 10.0
_NARROW, _WIDE = frozenset("fijlrtI1"), frozenset("mwMWQO")
_TALL, _DEEP = frozenset("bdfhiklt"), frozenset("gjpqy")
_MAX_TILT = TURN // 24


@dataclass(frozen=True, slots=True)
class Word:
    """A printed word. quad: its four corners from the first letter's top, clockwise, image pixels.

    box: xyxy, whole pixels around the quad. plate: whether it stands on a sign, which hides what lies behind it.
    """

    text: str
    box: tuple[int, int, int, int]
    quad: tuple[Point, Point, Point, Point]
    font: str
    plate: bool


@dataclass(frozen=True, slots=True)
class Print:
    """A word with what is needed to draw it. width, height: of the ink, pixels; x, y: its centre."""

    word: Word
    x: float
    y: float
    turn: int
    width: float
    height: float
    ink: Colour
    paper: Colour

    def plate(self) -> Stencil:
        """The sign: the ink's rectangle and a margin."""
        margin = self.height * 0.3
        return box_stencil(self.x, self.y, self.turn, self.width / 2 + margin, self.height / 2 + margin)


def draw_print(
    dice: Dice,
    part: Part,
    height: int,
    width: int,
    palette: tuple[Colour, ...],
    made_up: float = 0.0,
    em_share: tuple[float, float] = EM_SHARE,
    digits: bool = False,
) -> Print:
    """A word from the part's own pool, wholly inside the image.

    made_up, em_share, digits: see `rice.data.world.scene.SceneConfig`.
    """
    text = dice.choice(DIGITS) if digits else _cased(dice, _draw_text(dice, part, made_up))
    em_width, em_height = _nominal_size(text)
    em = max(min(height, width) * dice.real(*em_share), _SMALLEST_EM)
    em = min(em, 0.8 * width / em_width, 0.5 * height / em_height)
    w, h, turn = em * em_width, em * em_height, dice.integer(-_MAX_TILT, _MAX_TILT) % TURN
    cos, sin = cos_sin(turn)
    reach_x = min((w * cos + h * abs(sin)) / 2 + 1, width / 2)
    reach_y = min((w * abs(sin) + h * cos) / 2 + 1, height / 2)
    x, y = dice.real(reach_x, width - reach_x), dice.real(reach_y, height - reach_y)
    corners = [(x + u * w * cos - v * h * sin, y + u * w * sin + v * h * cos) for u, v in _CORNERS]
    quad = (corners[0], corners[1], corners[2], corners[3])
    word = Word(text, _bounds(quad), quad, dice.choice(FONTS[part.held_out]), plate=dice.chance(0.6))
    return Print(word, x, y, turn, w, h, *_colours(dice, palette))


_CORNERS = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))


def _draw_text(dice: Dice, part: Part, made_up: float) -> str:
    """Held-out words are always those of the pool, which no spelling meets."""
    if made_up and not part.held_out and dice.chance(made_up):
        return draw_spelling(dice, _RESERVED)
    return dice.choice(WORDS[part.held_out])


def _cased(dice: Dice, text: str) -> str:
    return dice.choice((text, text.upper(), text.capitalize()))


def _nominal_size(text: str) -> Point:
    """Width and height of the ink in ems, as a typical sans-serif has them."""
    advances = [0.32 if c in _NARROW else 0.86 if c in _WIDE else 0.66 if c.isupper() else 0.56 for c in text]
    tall = any(not c.islower() or c in _TALL for c in text)
    deep = any(c in _DEEP for c in text)
    return sum(advances), (0.73 if tall else 0.55) + (0.2 if deep else 0)


def _colours(dice: Dice, palette: tuple[Colour, ...]) -> tuple[Colour, Colour]:
    """Ink and paper, far apart in brightness."""
    paper = dice.choice(palette)
    level = dice.real(5, 45) if brightness(paper) > 128 else dice.real(215, 250)
    red, green, blue = (level * 0.8 + channel * 0.2 for channel in paper)
    return (red, green, blue), paper


def _bounds(quad: tuple[Point, ...]) -> tuple[int, int, int, int]:
    xs, ys = [x for x, _ in quad], [y for _, y in quad]
    return math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys))


def paint_print(image_3HW: Plane, printed: Print) -> None:
    """Draw the sign, if any, and the ink; without a sign the ink gets a rim of the paper's colour, to stay legible."""
    plate = printed.plate()
    _, height, width = image_3HW.shape
    meet = plate.clip(height, width)
    if meet is None:
        return
    (rows, columns), window = meet
    target_3hw, ink_hw = image_3HW[:, rows, columns], _ink(printed, plate)
    if printed.word.plate:
        ground_hw = coverage(-plate.distance_hw)
    else:
        rim = 2 * max(round(printed.height / 12), 1) + 1
        ground_hw = _unit(ink_hw.filter(ImageFilter.MaxFilter(rim))) * np.float32(0.85)
    for cover_hw, colour in ((ground_hw, printed.paper), (_unit(ink_hw), printed.ink)):
        for plane_hw, channel in zip(target_3hw, colour, strict=True):
            plane_hw += cover_hw[window] * (np.float32(channel) - plane_hw)


def _unit(picture: Image.Image) -> Plane:
    return np.asarray(picture, dtype=np.float32) * np.float32(1 / 255)


def _ink(printed: Print, plate: Stencil) -> Image.Image:
    """Coverage by ink on the plate's window: the raster, turned."""
    w, h = max(round(printed.width), 1), max(round(printed.height), 1)
    size = 1 << max(math.ceil(math.log2(printed.height)) + 1, 5)
    raster = _raster(printed.word.text, printed.word.font, size).resize((w, h), Image.Resampling.BOX)
    padded = Image.new("L", (w + 2, h + 2))
    padded.paste(raster, (1, 1))
    cos, sin = cos_sin(printed.turn)
    across, down = w / printed.width, h / printed.height
    x, y = plate.left - printed.x, plate.top - printed.y
    matrix = (
        *(cos * across, sin * across, (x * cos + y * sin) * across + w / 2 + 1),
        *(-sin * down, cos * down, (y * cos - x * sin) * down + h / 2 + 1),
    )
    rows, columns = plate.distance_hw.shape
    return padded.transform((columns, rows), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


@functools.lru_cache(maxsize=2048)
def _raster(text: str, font: str, size: int) -> Image.Image:
    """The ink, cropped to its own bounds."""
    face = _font(font, size)
    left, top, right, bottom = face.getbbox(text)
    picture = Image.new("L", (math.ceil(right - left) + 8, math.ceil(bottom - top) + 8))
    ImageDraw.Draw(picture).text((4 - left, 4 - top), text, font=face, fill=255)
    return picture.crop(picture.getbbox())


@functools.lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size) if name == PILLOW else ImageFont.truetype(_font_folder() / f"{name}.ttf", size)


@functools.cache
def _font_folder() -> Path:
    """Without importing matplotlib, which takes half a second."""
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("matplotlib, whose fonts the world prints with, is not installed")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
