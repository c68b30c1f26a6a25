"""Tiny sets of words in ICDAR 2015's layout, and an encoder that sees brightness."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from rice.data.icdar import ICDAR_2015
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec

EIGHT = ("acorn", "12", "zebra", "mill", "108", "fox", "oo", "q7")
BOX = (3, 5, 61, 21)


def paint(text: str) -> Image.Image:
    """A picture of 64 x 26 pixels with the word in BOX."""
    picture = Image.new("RGB", (64, 26), (200, 180, 90))
    font = ImageFont.load_default(14)
    word = Image.new("RGB", (round(font.getlength(text)) + 1, 17), "white")
    ImageDraw.Draw(word).text((0, 0), text, font=font, fill="black")
    picture.paste(word.resize((BOX[2] - BOX[0], BOX[3] - BOX[1])), BOX[:2])
    return picture


@pytest.fixture
def make_words(tmp_path: Path) -> Callable[..., Path]:
    """`make_words(train, test, name=...)`: a root with a picture for each word."""

    def make(train: Sequence[str] = EIGHT, test: Sequence[str] = EIGHT, name: str = "words") -> Path:
        left, top, right, bottom = BOX
        for split, words in (("train", train), ("test", test)):
            pictures, truths = (tmp_path / name / folder for folder in ICDAR_2015[split])
            pictures.mkdir(parents=True)
            truths.mkdir()
            for number, word in enumerate(words, start=1):
                paint(word).save(pictures / f"img_{number}.png")
                line = f"{left},{top},{right},{top},{right},{bottom},{left},{bottom},{word}\r\n"
                (truths / f"gt_img_{number}.txt").write_bytes(line.encode("utf-8-sig"))
        return tmp_path / name

    return make


@pytest.fixture
def make_encoder() -> Callable[..., Encoder]:
    """`make_encoder()`: tokens are patches of pixels in a fixed random code."""

    def make(patch: int = 4, size: int = 32, width: int = 32) -> Encoder:
        module = nn.Conv2d(3, width, patch, patch)
        generator = torch.Generator().manual_seed(0)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        spec = EncoderSpec(
            name="pixels", source="test", patch=patch, size_multiple=patch, width=width, native_size=size
        )

        def extract(module: nn.Module, images: Tensor, layer: int) -> Features:
            return Features(module(images).sin(), None)

        return Encoder(module, spec, extract, weights="random")

    return make
