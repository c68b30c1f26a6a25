"""Pictures are found below their root, and measured by their headers as they are opened."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mllm.llava.parse import Picture, Reason, RefusedRowError
from mllm.llava.pictures import Found, Gallery, PictureConfig, header
from rice.data.picture import open_upright
from rice.errors import RiceError
from rice.files import safe_join


def gallery(root: Path, **settings: object) -> Gallery:
    return Gallery(root, root / "out", PictureConfig(**settings))  # type: ignore[arg-type]


def look(found: Gallery, *pictures: Picture) -> list[Found | Reason]:
    with ThreadPoolExecutor(4) as pool:
        looked = found.look(pictures, pool)
    seen = [looked[picture] for picture in pictures]
    return [one.reason if isinstance(one, RefusedRowError) else one for one in seen]


def save(path: Path, width: int = 40, height: int = 20, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_tells_the_size_that_the_picture_has_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    save(tmp_path / f"a.{suffix}", orientation=orientation)
    upright = open_upright(tmp_path / f"a.{suffix}")
    assert upright.size == ((40, 20) if orientation < 5 else (20, 40))
    found = look(gallery(tmp_path), Picture(f"a.{suffix}"))
    assert found == [Found(f"a.{suffix}", upright.height, upright.width)]


def test_decoding_also_finds_exif_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    save(tmp_path / "a.png", orientation=6)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"eXIf") - 4
    length = int.from_bytes(content[start : start + 4], "big") + 12
    chunk, end = content[start : start + length], content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:start] + content[start + length : end] + chunk + content[end:])
    assert open_upright(tmp_path / "a.png").size == (20, 40)
    assert look(gallery(tmp_path), Picture("a.png")) == [Found("a.png", 20, 40)]  # a header says nothing of it
    assert look(gallery(tmp_path, decode=True), Picture("a.png")) == [Found("a.png", 40, 20)]


def test_each_picture_that_cannot_be_used_has_its_reason(tmp_path: Path) -> None:
    save(tmp_path / "root" / "good.jpg")
    save(tmp_path / "root" / "strip.png", 10_000, 100)
    save(tmp_path / "root" / "tall.png", 1, 21)
    save(tmp_path / "root" / "edge.png", 20, 400)
    save(tmp_path / "root" / "large.png", 401, 300)
    save(tmp_path / "outside.jpg")
    root = tmp_path / "root"
    (root / "text.jpg").write_text("no picture")
    (root / "empty.jpg").write_bytes(b"")
    (root / "folder.jpg").mkdir()
    os.mkfifo(root / "pipe.jpg")
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    (root / "leaves.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "stays.jpg").symlink_to(root / "good.jpg")
    (root / "out").symlink_to(tmp_path)
    (root / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 20\n%%EndComments\n")
    expected: dict[str, Found | Reason] = {
        "good.jpg": Found("good.jpg", 20, 40),
        "stays.jpg": Found("stays.jpg", 20, 40),
        "edge.png": Found("edge.png", 400, 20),
        "strip.png": Reason.ASPECT,
        "tall.png": Reason.ASPECT,
        "large.png": Reason.EDGE,
        "text.jpg": Reason.UNREADABLE,
        "empty.jpg": Reason.UNREADABLE,
        "page.eps": Reason.UNREADABLE,
        "none.jpg": Reason.MISSING,
        "good.jpg/a.jpg": Reason.MISSING,
        "folder.jpg": Reason.MISSING,
        ".": Reason.MISSING,
        "pipe.jpg": Reason.MISSING,
        "circle.jpg": Reason.MISSING,
        "x" * 5000: Reason.MISSING,
        "\ud800.jpg": Reason.MISSING,
        "../outside.jpg": Reason.OUTSIDE,
        "out/outside.jpg": Reason.OUTSIDE,
        "leaves.jpg": Reason.OUTSIDE,
        str(root / "good.jpg"): Reason.OUTSIDE,
        "/good.jpg": Reason.OUTSIDE,
        "//good.jpg": Reason.OUTSIDE,
        "..": Reason.OUTSIDE,
        "C:\\a.jpg": Reason.OUTSIDE,
        "a\0.jpg": Reason.OUTSIDE,
    }
    found = look(gallery(root, max_edge=400), *map(Picture, expected))
    assert dict(zip(expected, found, strict=True)) == expected


@given(parts=st.lists(st.sampled_from(["/", "..", ".", "a", "b", "\\", "C:", "\0", "a.jpg", "away", "to"]), max_size=6))
def test_no_name_reaches_a_file_that_the_safe_join_refuses(
    parts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp() / "joined"
    if not base.exists():
        for place in ("a.jpg", "root/a.jpg", "root/a/a.jpg", "root/a/b/a.jpg"):
            save(base / place)
        (base / "root" / "away").symlink_to(base)
        (base / "root" / "to").symlink_to(base / "root" / "a")
    root, name = base / "root", "".join(parts)
    (found,) = look(gallery(root), Picture(name))
    try:
        there = safe_join(root, name).is_file()
    except RiceError:
        assert found is Reason.OUTSIDE
    else:
        assert isinstance(found, Found) == there


def test_bytes_are_kept_once_under_a_name_that_is_made_of_them(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, format="PNG")
    evil = Picture("../../evil.png", buffer.getvalue())
    twin = Picture("b.png", buffer.getvalue())
    here = gallery(tmp_path)
    one, two = look(here, evil, twin)
    assert isinstance(one, Found)
    assert one == two
    here.keep(evil, one.name)
    here.keep(twin, one.name)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept == [tmp_path / "out" / one.name[1:]]
    assert kept[0].suffix == ".png"
    assert kept[0].read_bytes() == buffer.getvalue()
    assert look(here, Picture("", b"no picture")) == [Reason.UNREADABLE]


def test_a_picture_that_is_cut_off_passes_by_its_header_and_not_when_it_is_decoded(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", 200, 200)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    half = Picture("", content[: len(content) // 2])
    assert all(isinstance(one, Found) for one in look(gallery(tmp_path), Picture("a.jpg"), half))
    assert look(gallery(tmp_path, decode=True), Picture("a.jpg"), half) == [Reason.UNREADABLE] * 2
    assert isinstance(look(gallery(tmp_path, decode=True), Picture("", content))[0], Found)


@pytest.mark.data
def test_headers_of_real_pictures_say_what_opening_them_says(shared_data: Path) -> None:
    paths = sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[:30]
    assert paths
    for path in paths:
        with path.open("rb") as file:
            kind, height, width = header(file)
        assert (kind, (width, height)) == ("JPEG", ImageOps.exif_transpose(Image.open(path)).size)
    (broken,) = (shared_data / "broken").glob("*.jpg")
    assert look(gallery(broken.parent, decode=True), Picture(broken.name)) == [Reason.UNREADABLE]


def test_limits_out_of_range_are_named() -> None:
    with pytest.raises(RiceError, match="max_aspect=0.5, max_edge=0 is out of range"):
        PictureConfig(max_aspect=0.5, max_edge=0)
