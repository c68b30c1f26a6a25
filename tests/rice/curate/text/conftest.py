"""The engine, built once, and pages of known words."""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rice.curate.text.config import TextConfig
from rice.curate.text.reader import TextReader, build_reader

Page = tuple[NDArray[np.uint8], list[tuple[float, float, float, float]]]


@pytest.fixture(scope="session")
def reader() -> TextReader:
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    return build_reader(TextConfig(), "cpu", threads=min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def page() -> Callable[..., Page]:
    """Lines of DejaVu Sans on paper, and the boxes (xyxy) of their ink."""
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    font_file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"

    def draw(
        texts: Sequence[str],
        *,
        size: tuple[int, int] = (640, 480),
        em: float = 32,
        ink: tuple[int, int, int] = (0, 0, 0),
        paper: tuple[int, int, int] = (255, 255, 255),
    ) -> Page:
        picture = Image.new("RGB", size, paper)
        canvas, font = ImageDraw.Draw(picture), ImageFont.truetype(font_file, em)
        boxes = []
        for row, text in enumerate(texts):
            place = (1.5 * em, (1 + 2 * row) * em)
            canvas.text(place, text, font=font, fill=ink)
            boxes.append(canvas.textbbox(place, text, font=font))
        return np.array(picture), boxes

    return draw
