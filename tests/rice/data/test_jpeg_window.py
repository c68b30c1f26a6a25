"""A JPEG cut at its restart markers shows the very pixels of the whole; what cannot be cut is left alone."""

import functools
import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from shard_samples import encoded

from rice.data.jpeg_window import cut, restart_interval
from rice.data.regions import Crop


@functools.cache
def noise(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    """A JPEG of coloured noise: every pixel tells where it is from."""
    rng = np.random.default_rng(width * height)
    small = rng.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR).convert(mode)
    return encoded(image, "JPEG", **{"quality": 92} | options)


def pixels(data: bytes, reduction: int = 1) -> NDArray[np.uint8]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    least = -(-height // reduction), -(-width // reduction)
    return simplejpeg.decode_jpeg(data, fastupsample=True, min_height=least[0], min_width=least[1])


def inside(image: NDArray[np.uint8], crop: Crop, reduction: int = 1) -> NDArray[np.uint8]:
    left, top, width, height = (edge // reduction for edge in crop)
    return image[top : top + height, left : left + width]


@given(
    st.integers(40, 300),
    st.integers(40, 200),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0", "grey"]),
    st.sampled_from([1, 2, 4]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_the_window_holds_the_pixels_of_the_whole(
    width: int, height: int, sampling: str, reduction: int, data: st.DataObject
) -> None:
    unit = 8 if sampling in ("4:4:4", "grey") else 16
    across = -(-width // unit)
    interval = data.draw(st.sampled_from([n for n in range(1, across + 1) if across % n == 0]))
    options = {"restart_marker_blocks": interval} | ({} if sampling == "grey" else {"subsampling": sampling})
    file = noise(width, height, "L" if sampling == "grey" else "RGB", **options)
    left, top = (8 * data.draw(st.integers(0, edge // 8 - 2)) for edge in (width, height))
    crop = Crop(left, top, *(8 * data.draw(st.integers(1, (e - at) // 8)) for e, at in ((width, left), (height, top))))
    window = cut(file, crop)
    if window is None:
        return
    small, place = window
    assert len(small) < len(file)
    assert place[2:] == crop[2:]
    found, expected = (
        inside(pixels(small, reduction), place, reduction),
        inside(pixels(file, reduction), crop, reduction),
    )
    np.testing.assert_array_equal(found, expected)
    Image.open(io.BytesIO(small)).load()  # Pillow takes it for a whole file, too


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_half_a_picture_is_half_a_file(sampling: str) -> None:
    file = noise(512, 384, subsampling=sampling, restart_marker_blocks=4)
    window = cut(file, Crop(128, 0, 256, 384))
    assert window is not None
    assert simplejpeg.decode_jpeg_header(window[0])[:2] == (384, 256)
    assert len(window[0]) / len(file) == pytest.approx(0.5, abs=0.03)


def test_markers_at_the_ends_of_rows_leave_out_rows() -> None:
    file = noise(200, 160, subsampling="4:2:0", restart_marker_rows=1)
    window = cut(file, Crop(90, 50, 20, 20))
    assert window is not None
    assert simplejpeg.decode_jpeg_header(window[0])[:2] == (32, 200)
    np.testing.assert_array_equal(inside(pixels(window[0]), window[1]), inside(pixels(file), Crop(90, 50, 20, 20)))


SMALL = Crop(64, 64, 64, 64)


@pytest.mark.parametrize(
    "file",
    [
        noise(256, 256, subsampling="4:2:0"),
        noise(256, 256, subsampling="4:2:0", restart_marker_blocks=5),
        noise(256, 256, subsampling="4:2:0", restart_marker_blocks=4, progressive=True),
        encoded(Image.new("RGB", (256, 256)), "PNG"),
        b"",
        b"\xff\xd8\xff",
    ],
    ids=["no markers", "markers within rows", "progressive", "png", "nothing", "a beginning"],
)
def test_what_has_no_markers_in_place_is_left_alone(file: bytes) -> None:
    assert cut(file, SMALL) is None


def test_a_crop_of_nearly_all_is_left_alone() -> None:
    assert cut(noise(256, 256, restart_marker_blocks=4), Crop(8, 8, 240, 240)) is None


@given(st.integers(0, 10_000), st.integers(1, 400), st.binary(max_size=40))
@example(620, 1, b"")  # the second file ends within the scan's header
@settings(max_examples=100, deadline=None)
def test_damage_never_escapes_as_another_error(at: int, removed: int, put: bytes) -> None:
    file = noise(256, 256, subsampling="4:2:0", restart_marker_blocks=4)
    at %= len(file)
    damaged = file[:at] + put + file[at + removed :]
    for data in (damaged, file[:at]):
        window = cut(data, SMALL)
        assert window is None or len(window[0]) <= len(data)


def test_a_cut_file_without_its_end_is_left_to_the_whole_decoder() -> None:
    file = noise(256, 256, subsampling="4:2:0", restart_marker_blocks=4)
    assert cut(file, SMALL) is not None
    assert cut(file[:-2], SMALL) is None


@given(st.integers(1, 70_000))
def test_intervals_divide_the_row(width: int) -> None:
    assert -(-width // 16) % restart_interval(width) == 0


def test_intervals_are_near_four() -> None:
    assert [restart_interval(width) for width in (512, 640, 480, 683, 16)] == [4, 4, 5, 1, 1]
