"""A crop's pixels are those of PIL's crop and resize, whatever the file; damage is told, never shown."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from shard_samples import encoded

from rice.data.decode import DamagedPictureError, decode_crop, decode_picture, reduction_for
from rice.data.regions import Crop

SIZE = 64


def scene(width: int, height: int) -> Image.Image:
    """Smooth waves with edges, different in every corner."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    red = 127 + 120 * np.sin(9 * x + 4 * y)
    green = np.where((x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.04, 230, 255 * y)
    blue = 255 * x * (1 - y)
    return Image.fromarray(np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8))


def reference(image: Image.Image, crop: Crop, size: int, flip: bool = False) -> NDArray[np.int64]:
    """(3, size, size), by PIL."""
    window = image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    window = window.resize((size, size), Image.Resampling.BILINEAR)
    if flip:
        window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(window).transpose(2, 0, 1).astype(np.int64)


def difference(data: bytes, image: Image.Image, crop: Crop, size: int, flip: bool = False) -> NDArray[np.int64]:
    ours = decode_crop(data, image.size, crop, size, flip=flip).numpy().astype(np.int64)
    return np.abs(ours - reference(image, crop, size, flip))


def jpeg(image: Image.Image, **options: Any) -> tuple[bytes, Image.Image]:
    """The file, and what PIL reads from it."""
    data = encoded(image, "JPEG", **{"quality": 90} | options)
    return data, Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [Crop(0, 0, 199, 150), Crop(13, 7, 101, 90), Crop(160, 100, 40, 50)])
def test_a_jpeg_crop_is_that_of_pil(crop: Crop, flip: bool) -> None:
    data, image = jpeg(scene(200, 150), subsampling=0)
    assert difference(data, image, crop, SIZE, flip).max() <= 1


@pytest.mark.parametrize(("edge", "reduction"), [(2 * SIZE, 2), (4 * SIZE, 4), (8 * SIZE, 8)])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_reduced_decoding_stays_close_and_in_place(edge: int, reduction: int, subsampling: int) -> None:
    data, image = jpeg(scene(edge + 75, edge + 43), subsampling=subsampling)
    crop = Crop(56, 32, edge, edge)
    assert reduction_for(crop, SIZE) == reduction
    ours = decode_crop(data, image.size, crop, SIZE).numpy().astype(np.int64)
    apart = np.abs(ours - reference(image, crop, SIZE)).mean()
    assert apart < 1
    half = reduction // 2
    for x, y in ((-half, 0), (half, 0), (0, -half), (0, half)):
        elsewhere = Crop(crop.left + x, crop.top + y, edge, edge)
        assert np.abs(ours - reference(image, elsewhere, SIZE)).mean() > 1.1 * apart


@pytest.mark.parametrize(
    ("crop", "reduction"),
    [(Crop(0, 0, 127, 500), 1), (Crop(0, 0, 128, 128), 2), (Crop(1, 0, 128, 128), 1), (Crop(4, 4, 260, 260), 4)],
)
def test_a_picture_shrinks_while_decoding_only_as_far_as_the_crop_stays_sharp_and_in_place(
    crop: Crop, reduction: int
) -> None:
    assert reduction_for(crop, SIZE) == reduction


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_other_modes_are_shown_as_pil_converts_them(mode: str) -> None:
    image = scene(80, 70).convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    assert difference(data, image.convert("RGB"), Crop(8, 8, 64, 56), SIZE).max() <= 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_one_and_four_channels_are_those_of_pil(mode: str) -> None:
    data, image = jpeg(scene(80, 70).convert(mode))
    assert difference(data, image, Crop(0, 0, 80, 70), SIZE).max() <= 1


def test_sixteen_bits_lose_the_lower_eight() -> None:
    wide = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    data = encoded(Image.fromarray(wide))
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    shown = decode_crop(data, (64, 64), Crop(0, 0, 64, 64), 64).numpy()
    np.testing.assert_array_equal(shown, np.broadcast_to(wide >> 8, (3, 64, 64)))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_picture_lying_on_its_side_is_turned_where_the_sizes_call_for_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data, stored = jpeg(scene(120, 80), exif=exif, subsampling=0)
    turned = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE}
    upright = stored.transpose(turned.get(orientation, Image.Transpose.ROTATE_90))
    assert difference(data, upright, Crop(8, 16, 64, 96), SIZE).max() <= 1
    assert difference(data, stored, Crop(8, 16, 96, 64), SIZE).max() <= 1  # annotated without the turn, as COCO is


def test_the_whole_picture_is_that_of_pil() -> None:
    data, image = jpeg(scene(77, 55), subsampling=0)
    np.testing.assert_array_equal(decode_picture(data, (77, 55)), np.asarray(image))
    np.testing.assert_array_equal(decode_picture(encoded(image), (77, 55)), np.asarray(image))


FRAME = (200, 150)
WHOLE = Crop(0, 0, *FRAME)


@pytest.mark.parametrize("kept", [0, 3, 100, 700, 3000])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_file_is_told(kind: str, kept: int) -> None:
    data = encoded(scene(*FRAME), kind)[:kept]
    for attempt in (lambda: decode_crop(data, FRAME, WHOLE, SIZE), lambda: decode_picture(data, FRAME)):
        with pytest.raises(DamagedPictureError) as caught:
            attempt()
        assert str(caught.value)
        assert "\n" not in str(caught.value)


def test_another_size_is_told() -> None:
    data, _ = jpeg(scene(150, 151))
    with pytest.raises(DamagedPictureError, match="expected 200x150 pixels, got 150x151"):
        decode_crop(data, FRAME, WHOLE, SIZE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_bomb_is_told_from_its_header(kind: str) -> None:
    data = bytearray(encoded(Image.new("L", (10, 10)), kind))
    if kind == "PNG":
        data[16:24] = (60_000).to_bytes(4, "big") * 2
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(DamagedPictureError, match="pixels" if kind == "JPEG" else None):
        decode_crop(bytes(data), (60_000, 60_000), Crop(0, 0, 60_000, 60_000), SIZE)


@pytest.mark.data
def test_the_corrupt_jpeg_is_told(shared_data: Path) -> None:
    data = (shared_data / "broken" / "broken.jpg").read_bytes()
    with pytest.raises(DamagedPictureError):
        decode_crop(data, FRAME, WHOLE, SIZE)


@pytest.mark.data
def test_photos_of_coco_stay_close_to_pil(shared_data: Path) -> None:
    means = {1: [], 2: []}
    for path in sorted((shared_data / "coco" / "train2017").glob("*.jpg"))[:16]:
        image = Image.open(path).convert("RGB")
        crop = Crop(16, 8, (image.width - 16) // 8 * 8, (image.height - 8) // 8 * 8)
        for reduction, found in means.items():
            size = min(crop.width, crop.height) // reduction - (reduction == 1)
            assert reduction_for(crop, size) == reduction
            found.append(difference(path.read_bytes(), image, crop, size).mean())
    assert np.mean(means[1]) < 0.2
    assert np.mean(means[2]) < 3
