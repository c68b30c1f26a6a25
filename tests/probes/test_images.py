"""Pictures: resized as a whole, loaded ahead, in order."""

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from probes.images import AHEAD, load_ahead, load_each, read_picture, squash
from rice.errors import RiceError


def test_squash_keeps_the_whole_picture_and_the_range() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = (255, 128, 0)
    square = squash(Image.fromarray(pixels), 20)
    assert square.shape == (3, 20, 20)
    assert square.dtype == torch.float32
    assert square[:, :, :9].abs().max() == 0
    expected = torch.tensor([1, 128 / 255, 0])[:, None, None].expand(3, 20, 9)
    torch.testing.assert_close(square[:, :, 11:], expected)


def test_squash_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    square = squash(Image.fromarray(stripes), 8)
    assert (square - 0.5).abs().max() < 0.05


def test_grey_and_palette_pictures_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA"):
        Image.new(mode, (5, 4)).save(tmp_path / f"{mode}.png")
        assert read_picture(tmp_path / f"{mode}.png").mode == "RGB"


@pytest.mark.parametrize("content", [None, b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RiceError, match=r"cannot read the image .*bad\.png"):
        read_picture(path)


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(RiceError, match=r"cut\.jpg"):
        read_picture(path)


def test_batches_come_in_order_whatever_the_threads_do() -> None:
    def load(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * 10

    batches = [[5, 1], [2], [9, 8, 7], [0]]
    assert list(load_ahead(load, batches, workers=4)) == [[10 * i for i in batch] for batch in batches]


def test_endless_batches_are_read_only_a_little_ahead() -> None:
    asked = itertools.count()
    loaded = load_ahead(lambda item: item, ([next(asked)] for _ in itertools.count()), workers=1)
    assert [next(loaded) for _ in range(3)] == [[0], [1], [2]]
    assert next(asked) <= 3 + AHEAD
    loaded.close()


def test_an_error_is_raised_where_its_batch_is_due_and_ends_the_threads() -> None:
    def load(item: int) -> int:
        if item == 3:
            raise RiceError("picture 3 is damaged")
        return item

    loaded = load_ahead(load, [[1], [2], [3], [4]], workers=2)
    assert next(loaded) == [1]
    assert next(loaded) == [2]
    with pytest.raises(RiceError, match="picture 3"):
        next(loaded)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("load")]


def test_one_by_one_threads_keep_the_order_and_raise_what_is_raised_in_them() -> None:
    assert list(load_each(lambda n: n * n, iter(range(50)))) == [n * n for n in range(50)]
    with pytest.raises(ZeroDivisionError):
        list(load_each(lambda n: 1 / n, iter([1, 0, 2])))
