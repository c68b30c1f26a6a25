"""A thumbnail shows its region and nothing else, in its shape, where the sheet's layout says."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from planted_regions import Picture, colour, paint, pictures, write

from rice.curate.montage.choose import choose
from rice.curate.montage.config import MontageConfig
from rice.curate.montage.regions import Collection
from rice.curate.montage.sheets import (
    COLUMNS,
    GAP,
    TEXT_HEIGHT,
    Thumbnails,
    fitted,
    places,
    save_texts,
    sheet_size,
    sources,
)
from rice.progress import SilentProgress

EDGE = 24


def test_every_thumbnail_has_the_colour_and_the_shape_of_its_region(tmp_path: Path) -> None:
    made = pictures(80, 12)
    collection = Collection(write(tmp_path / "shards", [made[:50], made[50:]], 12))
    choice = choose(collection, MontageConfig(regions=12), SilentProgress())
    thumbnails = Thumbnails(tmp_path / "tiles", choice.regions, EDGE)
    for source in sources(collection, choice.regions, SilentProgress(), ""):
        thumbnails.take(source)
    checked = 0
    for cluster, which in zip(choice.clusters.tolist(), choice.slices(), strict=True):
        sheet = np.asarray(thumbnails.sheet(which)).astype(int)
        rows = choice.regions[which]
        near = int(rows["near"].sum())
        covered = 0
        for row, (x, y) in zip(rows, places(near, len(rows) - near, EDGE), strict=True):
            tile = sheet[y : y + EDGE, x : x + EDGE]
            there = tile[..., 3] == 255
            width, height = np.ptp(np.flatnonzero(there.any(0))) + 1, np.ptp(np.flatnonzero(there.any(1))) + 1
            left, top, right, bottom = row["box"].tolist()
            scale = EDGE / max(right - left, bottom - top)
            assert (width, height) == pytest.approx(((right - left) * scale, (bottom - top) * scale), abs=0.51)
            assert np.abs(tile[there][:, :3] - colour(cluster)).max() <= 2
            covered += int(there.sum())
            checked += 1
        assert (sheet[..., 3] > 0).sum() == covered
    assert checked == len(choice.regions) > 60
    thumbnails.close()
    assert not (tmp_path / "tiles").exists()


def test_a_damaged_picture_leaves_its_place_empty_and_is_known(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = [paint(Picture(f"p{i}", [0, -1]), rng) for i in range(3)]
    made[1].image = b"no picture"
    collection = Collection(write(tmp_path / "shards", [made], 1))
    choice = choose(collection, MontageConfig(), SilentProgress())
    thumbnails = Thumbnails(tmp_path / "tiles", choice.regions, EDGE)
    for source in sources(collection, choice.regions, SilentProgress(), ""):
        thumbnails.take(source)
    assert thumbnails.damaged.tolist() == [key == "p1" for key in thumbnails.keys]
    assert int((np.asarray(thumbnails.sheet(slice(0, 3)))[..., 3].max(axis=0) > 0).sum()) < 3 * EDGE
    texts = [
        crop
        for source in sources(collection, choice.texts, SilentProgress(), "")
        for crop in save_texts(source, choice.texts, tmp_path)
    ]
    assert [bool(crop.file) for crop in texts] == [crop.key != "p1" for crop in texts]
    for crop in texts:
        if crop.file:
            with Image.open(tmp_path / crop.file) as image:
                assert image.size == crop.size
                assert image.height <= TEXT_HEIGHT


@given(st.integers(0, 40), st.integers(0, 40), st.integers(8, 80))
def test_places_lie_on_the_sheet_apart_from_each_other_with_a_gap_below_the_nearest(
    near: int, drawn: int, edge: int
) -> None:
    found = list(places(near, drawn, edge))
    width, height = sheet_size(near, drawn, edge)
    assert len(found) == near + drawn
    assert all(x + edge <= width and y + edge <= height for x, y in found)
    assert all(
        abs(x - u) >= edge or abs(y - v) >= edge for k, (x, y) in enumerate(found) for u, v in found[max(0, k - 9) : k]
    )
    if found:
        assert max(y for _, y in found) + edge == height
        assert max(x for x, _ in found) + edge <= width < (COLUMNS + 1) * (edge + GAP)
    if near and drawn:
        assert found[near][1] - (found[near - 1][1] + edge) == GAP


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 128))
def test_a_thumbnail_fills_its_edge_and_keeps_its_shape(width: int, height: int, edge: int) -> None:
    w, h = fitted([0, 0, width, height], edge)
    assert max(w, h) == edge
    assert min(w, h) >= 1
    assert abs(min(w, h) - edge * min(width, height) / max(width, height)) <= 1
