"""From a pile to pictures: what is bad is left out and named, what is odd is made plain, nothing else changes."""

import dataclasses
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pile
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rice.curate.config import CheckConfig, EngineConfig
from rice.curate.decode import own_regions, turned_boxes
from rice.curate.engine import Engine
from rice.curate.pictures import decoded, kept
from rice.curate.scan import described, duplicates
from rice.curate.sources import Annotated, Candidate, find_sources
from rice.curate.tables import read_rows
from rice.curate.take import take_pictures
from rice.errors import RiceError
from rice.progress import SilentProgress

CHECK = CheckConfig(min_edge=48)
ENGINE = EngineConfig(workers=1, device="cpu")


def take(place: Path, out: Path, per_shard: int = 100, check: CheckConfig = CHECK) -> dict[str, int]:
    with Engine(ENGINE, 100) as engine:
        return take_pictures(find_sources([place], per_shard), out, check, engine, SilentProgress())


def reasons(out: Path) -> dict[str, str]:
    rows = [row for path in sorted((out / "decode").glob("*.parquet")) for row in read_rows(path)]
    return {row["source"]: row["reason"] for row in rows}


def test_every_kind_of_bad_picture_has_its_reason_and_the_good_ones_stay_as_they_are(tmp_path: Path) -> None:
    good = {"a.jpg": pile.jpeg(1), "b.png": pile.encoded(pile.pixels(2), "PNG")}
    bad = {
        "c.jpg": (good["a.jpg"], "duplicate"),
        "d.jpg": (pile.jpeg(3)[:400], "damaged"),
        "e.jpg": (b"<html>", "damaged"),
        "f.jpg": (b"", "no content"),
        "g.png": (pile.bomb(), "too many pixels"),
        "h.jpg": (pile.jpeg(4, width=200, height=40), "edge below min_edge"),
    }
    pile.write_files(tmp_path / "in", good | {name: content for name, (content, _) in bad.items()})
    assert take(tmp_path / "in", tmp_path / "out") == {"in-000000": 2}
    assert reasons(tmp_path / "out") == {"a.jpg": "", "b.png": ""} | {name: why for name, (_, why) in bad.items()}
    rows = kept(tmp_path / "out", "in-000000")
    tar = (tmp_path / "out" / "shards" / "in-000000.tar").read_bytes()
    assert [tar[row["offset"] : row["offset"] + row["length"]] for row in rows] == list(good.values())


def test_what_is_said_of_a_bad_picture_is_the_same_every_time() -> None:
    first, second = (described(Candidate("x.jpg", b"<html>"), CHECK) for _ in range(2))
    assert first == second
    assert first["detail"] == "cannot identify image file"


def test_what_cannot_be_read_is_counted_and_the_rest_is_taken(tmp_path: Path) -> None:
    place = pile.write_files(tmp_path / "in", {"a.jpg": pile.jpeg(1)})
    (place / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    odd = os.fsdecode(b"caf\xe9.jpg")  # Latin-1, on a file system of UTF-8
    (place / odd).write_bytes(pile.jpeg(2))
    assert take(place, tmp_path / "out") == {"in-000000": 2}
    assert reasons(tmp_path / "out") == {"a.jpg": "", "caf\\udce9.jpg": "", "gone.jpg": "no content"}


def test_a_file_that_would_be_drawn_by_a_program_is_no_picture() -> None:
    content = pile.encoded(pile.pixels(1), "EPS")
    assert Image.open(io.BytesIO(content)).format == "EPS"
    assert described(Candidate("x.jpg", content), CHECK)["reason"] == "damaged"


def test_no_pixel_of_a_bomb_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    sound = pile.encoded(pile.pixels(1), "PNG")
    monkeypatch.setattr(Image.Image, "load", forbidden)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", forbidden)
    assert described(Candidate("x.png", pile.bomb()), CHECK)["reason"] == "too many pixels"
    limited = dataclasses.replace(CHECK, most_pixels=80 * 64 - 1)
    assert described(Candidate("x.png", sound), limited)["reason"] == "too many pixels"
    assert described(Candidate("x.png", sound), CHECK)["reason"] == ""


@pytest.mark.parametrize(("edge", "reason"), [(48, ""), (49, "edge below min_edge")])
def test_the_least_edge_is_taken(edge: int, reason: str) -> None:
    content = pile.jpeg(1, width=100, height=48)
    assert described(Candidate("x.jpg", content), CheckConfig(min_edge=edge))["reason"] == reason


def test_a_picture_that_is_too_small_before_it_is_turned_is_too_small_after(tmp_path: Path) -> None:
    row = described(Candidate("x.jpg", pile.turned(pile.pixels(1, 100, 40), 6)), CHECK)
    assert (row["width"], row["height"], row["reason"]) == (40, 100, "edge below min_edge")


def upright_of(stored: np.ndarray, orientation: int) -> np.ndarray:
    """As the EXIF standard has it, in numpy."""
    mirrored = stored[:, ::-1] if orientation in (2, 4, 5, 7) else stored
    return np.rot90(mirrored, {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_is_stored_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    stored = pile.pixels(1, 96, 64)
    suffix, options = kind.lower(), {"lossless": True} if kind == "WEBP" else {}
    pile.write_files(tmp_path / "in", {f"a.{suffix}": pile.turned(stored, orientation, kind, **options)})
    take(tmp_path / "in", tmp_path / "out")
    (row,) = kept(tmp_path / "out", "in-000000")
    (found,) = decoded(tmp_path / "out", "in-000000", [row])
    upright = upright_of(stored, orientation)
    assert found.shape == upright.shape == (row["height"], row["width"], 3)
    assert np.abs(found.astype(int) - upright).mean() < 4  # encoded once more
    assert row["converted"] == "turned"


def sixteen_bits() -> tuple[bytes, np.ndarray]:
    grey = np.linspace(0, 65_535, 80 * 64).reshape(64, 80).astype(np.uint16)
    return pile.encoded(Image.fromarray(grey), "PNG"), np.stack([grey >> 8] * 3, axis=2).astype(np.uint8)


def cmyk() -> tuple[bytes, np.ndarray]:
    image = Image.fromarray(pile.pixels(5)).convert("CMYK")
    return pile.encoded(image, "JPEG", quality=95), np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(("make", "name", "said"), [(sixteen_bits, "a.png", "16 bits"), (cmyk, "a.jpg", "CMYK")])
def test_an_odd_mode_becomes_rgb_of_eight_bits(tmp_path: Path, make: Any, name: str, said: str) -> None:
    content, expected = make()
    pile.write_files(tmp_path / "in", {name: content})
    take(tmp_path / "in", tmp_path / "out")
    (row,) = kept(tmp_path / "out", "in-000000")
    tar = (tmp_path / "out" / "shards" / "in-000000.tar").read_bytes()
    with Image.open(io.BytesIO(tar[row["offset"] : row["offset"] + row["length"]])) as stored:
        assert (stored.mode, row["converted"]) == ("RGB", said)
        assert np.abs(np.asarray(stored).astype(int) - expected).mean() < 4


def test_the_first_of_equal_pictures_stays_whichever_shard_it_is_in(tmp_path: Path) -> None:
    order = [3, 1, 3, 2, 1, 1, 4, 2]
    pile.write_files(tmp_path / "in", {f"{k}.jpg": pile.jpeg(number) for k, number in enumerate(order)})
    take(tmp_path / "in", tmp_path / "out", per_shard=3)
    firsts = {f"{order.index(number)}.jpg" for number in order}
    assert {name for name, why in reasons(tmp_path / "out").items() if not why} == firsts
    assert Counter(reasons(tmp_path / "out").values()) == {"": 4, "duplicate": 4}


def test_a_picture_that_is_left_out_makes_no_later_one_a_duplicate(tmp_path: Path) -> None:
    pile.write_files(tmp_path / "in", {"a.jpg": b"<html>", "b.jpg": b"<html>"})
    with pytest.raises(KeyError):
        take(tmp_path / "in", tmp_path / "out")["in-000000"]
    assert set(reasons(tmp_path / "out").values()) == {"damaged"}
    assert duplicates(tmp_path / "out", ["in-000000"]) == {"in-000000": frozenset()}


def test_a_source_that_changes_between_scan_and_decode_is_refused(tmp_path: Path) -> None:
    place = pile.write_files(tmp_path / "in", {"a.jpg": pile.jpeg(1), "b.jpg": pile.jpeg(2)})
    (source,) = find_sources([place], 10)

    class Changing:
        name, fingerprint, count = source.name, source.fingerprint, source.count
        reads = 0

        def candidates(self) -> Any:
            Changing.reads += 1
            return list(source.candidates())[: 2 if Changing.reads == 1 else 1]

    with pytest.raises(RiceError, match="was changed meanwhile"):
        take_pictures([Changing()], tmp_path / "out", CHECK, Engine(ENGINE, 1), SilentProgress())


@given(
    orientation=st.integers(1, 8),
    box=st.tuples(st.integers(0, 20), st.integers(0, 12), st.integers(1, 10), st.integers(1, 8)),
)
def test_boxes_turn_with_their_picture(orientation: int, box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    plane = np.zeros((20, 30), np.uint8)
    plane[top : top + height, left : left + width] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = pile.encoded(plane, "PNG", exif=exif)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    rows, columns = np.nonzero(turned)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    found = turned_boxes(np.array([[left, top, left + width, top + height]], float), (30, 20), orientation)
    assert found.tolist() == [expected]


def test_annotations_for_the_stored_picture_turn_with_it_and_those_for_the_upright_one_do_not() -> None:
    boxes = np.array([[10.0, 5, 40, 25]])
    stored = own_regions(Annotated(boxes, 80, 64), 64, 80, orientation=6)
    upright = own_regions(Annotated(boxes, 64, 80), 64, 80, orientation=6)
    assert stored["annotated"] == [[64 - 25, 10, 64 - 5, 40]]
    assert upright["annotated"] == boxes.tolist()
    with pytest.raises(RiceError, match="annotated at 81x64"):
        own_regions(Annotated(boxes, 81, 64), 64, 80, orientation=6)


def test_regions_of_an_sa1b_file_are_those_of_its_masks(tmp_path: Path) -> None:
    boxes = [[10, 5, 40, 25], [0, 0, 80, 64]]
    files = {"sa_1.jpg": pile.jpeg(1), "sa_1.json": pile.sa1b(80, 64, boxes), "sa_2.jpg": pile.jpeg(2)}
    pile.write_tar(tmp_path / "sa_000000.tar", files)
    take(tmp_path / "sa_000000.tar", tmp_path / "out")
    first, second = kept(tmp_path / "out", "sa_000000-000000")
    assert first["annotated"] == boxes
    assert first["confidence"] == pytest.approx([0.9, 0.8])
    assert second["annotated"] is None


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (b'{"caption": "a dog", "width": 3}', ""),
        (b"{cut off", "not valid"),
        (pile.sa1b(80, 65, [[1, 1, 9, 9]]), "annotated at 80x65"),
    ],
)
def test_a_file_that_is_not_about_the_regions_leaves_the_picture_without_any(
    tmp_path: Path, beside: bytes, said: str
) -> None:
    pile.write_files(tmp_path / "in", {"a.jpg": pile.jpeg(1), "a.json": beside})
    take(tmp_path / "in", tmp_path / "out")
    (row,) = kept(tmp_path / "out", "in-000000")
    assert row["annotated"] is None
    assert said in row["detail"]


def test_a_tar_that_is_cut_off_is_counted(tmp_path: Path) -> None:
    path = pile.write_tar(tmp_path / "0.tar", {f"{k}.jpg": pile.jpeg(k) for k in range(4)})
    path.write_bytes(path.read_bytes()[:-12_000])
    take(path, tmp_path / "out")
    assert Counter(reasons(tmp_path / "out").values())["no content"] >= 1


@pytest.mark.data
def test_the_broken_photo_is_left_out_with_its_reason(shared_data: Path, tmp_path: Path) -> None:
    (name,) = {path.name for path in (shared_data / "broken").iterdir() if path.suffix == ".jpg"}
    take(shared_data / "broken", tmp_path / "out")
    assert reasons(tmp_path / "out") == {name: "damaged"}


def test_what_is_kept_decodes_to_what_was_found(tmp_path: Path) -> None:
    content = pile.jpeg(7)
    pile.write_files(tmp_path / "in", {"a.jpg": content})
    take(tmp_path / "in", tmp_path / "out")
    (row,) = kept(tmp_path / "out", "in-000000")
    (found,) = decoded(tmp_path / "out", "in-000000", [row])
    assert np.abs(found.astype(int) - np.asarray(Image.open(io.BytesIO(content)))).mean() < 2  # chroma is repeated
    assert pq.read_table(tmp_path / "out" / "scan" / "in-000000.parquet")["bytes"].to_pylist() == [len(content)]
