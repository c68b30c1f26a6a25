"""The page's folder: totals of the sidecars, replaced as a whole, never over what is not its own, whole when killed."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_regions import HEIGHT, TEXT, WIDTH, Picture, pictures, write

from rice.curate.montage import page as module
from rice.curate.montage.config import MontageConfig
from rice.curate.montage.content import histogram
from rice.curate.montage.page import build_montage, left_out
from rice.data.shard_reader import Shard
from rice.errors import RiceError
from rice.progress import SilentProgress

CLUSTERS = 16
SMALL = {"regions": 4, "tile": 16}


@pytest.fixture(scope="module")
def made() -> list[Picture]:
    return pictures(40, CLUSTERS)


@pytest.fixture(scope="module")
def shards(made: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("page") / "shards", [made[:25], made[25:]], CLUSTERS)


def build(shards: Path, out: Path, report: Path | None = None, **settings: int) -> Path:
    return build_montage(shards, out, MontageConfig(**(SMALL | settings)), SilentProgress(), report=report)


def data_of(page: Path) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    return json.loads(text)


def test_the_totals_are_those_of_the_sidecars(made: list[Picture], shards: Path, tmp_path: Path) -> None:
    data = data_of(build(shards, tmp_path / "page"))
    labels = [label for picture in made for label in picture.labels]
    filled = len({label for label in labels if label >= 0})
    assert dict(data["totals"]) == {
        "pictures": 40,
        "regions": len(labels),
        "in clusters": sum(label >= 0 for label in labels),
        "of text": labels.count(-1),
        "clusters": CLUSTERS,
        "empty clusters": CLUSTERS - filled,
    }
    assert [(cluster[0], cluster[2]) for cluster in data["clusters"]] == [
        (label, labels.count(label)) for label in sorted(set(labels)) if label >= 0
    ]
    assert json.loads((tmp_path / "page" / "montage.json").read_text())["totals"] == dict(data["totals"])


def test_every_region_of_the_page_is_in_its_picture_with_that_label(
    made: list[Picture], shards: Path, tmp_path: Path
) -> None:
    page = build(shards, tmp_path / "page")
    data, by_key = data_of(page), {picture.key: picture for picture in made}
    for number, name, _, mean, (sheet, width, height), regions in data["clusters"]:
        assert (page.parent / data["folder"] / sheet).is_file()
        assert name == ""
        own = [d for p in made for d, label in zip(p.distances, p.labels, strict=True) if label == number]
        assert mean == pytest.approx(np.mean(own), rel=1e-4)
        for x, y, key, *box, squared, score, _, damaged in regions:
            slot = by_key[key].boxes.index(box)
            assert by_key[key].labels[slot] == number
            assert squared == pytest.approx(by_key[key].distances[slot], rel=1e-4)
            assert score == pytest.approx(0.5 + slot / 16)
            assert not damaged
            assert 0 <= x <= width - 16
            assert 0 <= y <= height - 16
    for file, width, height, text, _, key in data["texts"]:
        assert (page.parent / data["folder"] / file).is_file()
        assert text == TEXT
        assert -1 in by_key[key].labels
        assert 0 < width <= WIDTH
        assert 0 < height <= HEIGHT


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_same_again_does_nothing_and_other_settings_replace_it_whole(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "page"
    page = build(shards, out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "run.json"}
    (first,) = (out / "sheets").iterdir()
    build(shards, out)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    build(shards, out, seed=1)
    (second,) = (out / "sheets").iterdir()
    assert first != second
    assert data_of(page)["folder"] == f"sheets/{second.name}"


def test_a_page_is_the_same_bytes_whenever_it_is_built(shards: Path, tmp_path: Path) -> None:
    one, other = build(shards, tmp_path / "a").parent, build(shards, tmp_path / "b").parent
    for name in tree(one):
        assert (one / name).is_dir() or (one / name).read_bytes() == (other / name).read_bytes()
    assert tree(one) == tree(other)


def test_nothing_but_the_page_is_written(shards: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in shards.parent.rglob("*")}
    build(shards, tmp_path / "page")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    assert {path: path.stat().st_mtime_ns for path in shards.parent.rglob("*")} == before
    names = {name.partition("/")[0] for name in tree(tmp_path / "page")}
    assert names == {".view.lock", "index.html", "montage.json", "run.json", "sheets"}


@pytest.mark.parametrize("name", ["index.html", "notes.txt", "sheets/mine.png"])
def test_a_folder_with_anything_else_is_refused_and_left_alone(shards: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "mine"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    with pytest.raises(RiceError, match="choose another --out"):
        build(shards, out)
    assert (out / name).read_text() == "mine"
    assert len(tree(out)) == 1 + name.count("/")


@pytest.mark.parametrize("stops_in", ["save_sheet", "write_json", "_render"])
def test_stopped_anywhere_the_page_before_still_works_and_the_next_run_ends_clean(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_in: str
) -> None:
    out = tmp_path / "page"
    page = build(shards, out)
    before = page.read_bytes()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, stops_in, stop)
        with pytest.raises(KeyboardInterrupt):
            build(shards, out, seed=2)
    assert (page.read_bytes() == before) == (stops_in != "write_json")
    folder = out / data_of(page)["folder"]
    assert all((folder / cluster[4][0]).is_file() for cluster in data_of(page)["clusters"])
    (out / "sheets" / f".{'0' * 16}.killed.tmp").mkdir()  # what a kill without a chance to tidy up leaves
    build(shards, out, seed=2)
    assert [path.name for path in (out / "sheets").iterdir()] == [data_of(page)["folder"].partition("/")[2]]


def test_only_shards_with_shown_regions_are_opened_for_pictures(  # not for sidecars
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pictures(60, 30)
    shards = write(tmp_path / "shards", [made[i : i + 2] for i in range(0, 60, 2)], 30)
    opened: list[str] = []
    whole: Callable[..., Any] = Shard.images

    def images(self: Shard, rows: Any) -> Any:
        opened.append(self.info.name)
        return whole(self, rows)

    monkeypatch.setattr(Shard, "images", images)
    data = data_of(build(shards, tmp_path / "page", regions=2, most_clusters=2, texts=0))
    assert len(data["clusters"]) == 2
    keys = {region[2] for cluster in data["clusters"] for region in cluster[5]}
    assert sorted(opened) == sorted({f"part-{k // 2:06d}" for k, picture in enumerate(made) if picture.key in keys})
    assert len(opened) <= 4


@given(st.lists(st.integers(0, 10**7), max_size=60))
def test_every_cluster_with_regions_is_in_one_bin_of_the_histogram(sizes: list[int]) -> None:
    bins = histogram(np.array(sizes, np.int64))
    filled = [size for size in sizes if size]
    assert sum(number for _, _, number in bins) == len(filled)
    for least, largest, number in bins:
        assert number == sum(least <= size <= largest for size in filled)
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(bins))


def test_what_the_curation_left_out_is_said_with_where(shards: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    drops = {"pictures": {"found": 9, "left out": {"too small": 7}}, "labels": {"left out": {"not finite": 2}}}
    report.write_text(json.dumps(drops | {"regions": {"left out": {}}, "clusters": None}))
    assert left_out(report) == {"pictures: too small": 7, "labels: not finite": 2}
    assert data_of(build(shards, tmp_path / "page", report))["dropped"] == [
        ["labels: not finite", 2],
        ["pictures: too small", 7],
    ]


def test_shards_without_any_class_have_a_page(tmp_path: Path) -> None:
    made = [Picture(p.key, [-1] * 6, p.boxes, [float("nan")] * 6, p.image) for p in pictures(2, 1)]
    data = data_of(build(write(tmp_path / "shards", [made], 0), tmp_path / "page"))
    assert data["clusters"] == data["histogram"] == []
    assert len(data["texts"]) == 12


@pytest.mark.parametrize("wrong", [{"regions": 1}, {"tile": 4}, {"most_clusters": 0}, {"texts": -1}, {"seed": -1}])
def test_settings_out_of_range_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(RiceError, match=next(iter(wrong))):
        MontageConfig(**wrong)
