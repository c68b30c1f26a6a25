"""Whatever a pile's layout, every picture of it comes out once, in one order, with its annotations."""

import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rice.curate.sources import Annotated, find_sources
from rice.errors import RiceError

PICTURES = {f"{k:03d}.jpg": pile.jpeg(k) for k in range(7)}


def candidates(place: Path, per_shard: int = 3) -> list[tuple[str, bytes | None]]:
    return [(c.name, c.content) for shard in find_sources([place], per_shard) for c in shard.candidates()]


def test_a_folder_gives_its_pictures_by_name_in_shards_of_the_size_asked_for(tmp_path: Path) -> None:
    files = {f"deep/{name}" if k % 2 else name: content for k, (name, content) in enumerate(PICTURES.items())}
    pile.write_files(tmp_path, files | {"notes.txt": b"none", ".hidden.jpg": b"none", ".git/x.jpg": b"none"})
    assert candidates(tmp_path) == sorted(files.items())
    assert [shard.count() for shard in find_sources([tmp_path], 3)] == [3, 3, 1]


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz")])
def test_a_tar_gives_its_pictures_in_its_order(tmp_path: Path, suffix: str, mode: str) -> None:
    members = {"b.jpg": PICTURES["001.jpg"], "b.txt": b"a caption", "a.png": PICTURES["000.jpg"], "a.json": b"{}"}
    place = pile.write_tar(tmp_path / f"00000.{suffix}", members, mode)
    assert candidates(place) == [("b.jpg", members["b.jpg"]), ("a.png", members["a.png"])]
    assert [c.annotation for c in find_sources([place], 3)[0].candidates()] == [None, b"{}"]


@pytest.mark.parametrize("kept", [700, 3000, 5000, 9000])
def test_a_tar_that_is_cut_off_gives_what_is_whole_and_says_that_something_is_missing(
    tmp_path: Path, kept: int
) -> None:
    place = pile.write_tar(tmp_path / "0.tar", PICTURES)
    assert place.stat().st_size > kept
    place.write_bytes(place.read_bytes()[:kept])
    found = candidates(place)
    whole = [(name, content) for name, content in found if content is not None]
    assert whole == list(PICTURES.items())[: len(whole)]
    assert len(whole) < len(PICTURES)
    assert any(content is None for _, content in found)


def test_what_is_no_tar_is_one_candidate_without_content(tmp_path: Path) -> None:
    place = tmp_path / "0.tar"
    place.write_bytes(b"<html>404</html>" * 100)
    assert [content for _, content in candidates(place)] == [None]


@pytest.mark.parametrize("layout", ["img2dataset", "hugging face"])
def test_a_parquet_file_gives_its_rows_and_those_that_were_not_downloaded(tmp_path: Path, layout: str) -> None:
    contents = [*PICTURES.values(), None]
    keys = [f"{k:09d}" for k in range(len(contents))]
    if layout == "img2dataset":
        table = pa.table({"key": keys, "caption": ["x"] * len(keys), "jpg": pa.array(contents, pa.binary())})
    else:
        structs = [{"bytes": content, "path": "../../etc/passwd"} for content in contents]
        table = pa.table({"key": keys, "image": structs})
    pq.write_table(table, tmp_path / "00000.parquet", row_group_size=3)
    assert candidates(tmp_path) == list(zip(keys, contents, strict=True))
    assert find_sources([tmp_path], 3)[0].count() == len(contents)


def test_a_dot_in_a_name_hides_no_file(tmp_path: Path) -> None:
    pile.write_tar(tmp_path / "laion-2.0" / "a.tar", PICTURES)
    table = pa.table({"jpg": pa.array(PICTURES.values(), pa.binary())})
    pq.write_table(table, tmp_path / "laion-2.0" / "b.parquet")
    assert len(candidates(tmp_path)) == 2 * len(PICTURES)


def test_links_in_a_tar_are_read_and_what_follows_its_end_is_told(tmp_path: Path) -> None:
    first = pile.write_tar(tmp_path / "0.tar", PICTURES)
    with tarfile.open(first, "a") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "000.jpg"
        tar.addfile(link)
    assert candidates(first)[-1] == ("link.jpg", PICTURES["000.jpg"])
    second = pile.write_tar(tmp_path / "1.tar", {"more.jpg": pile.jpeg(9)})
    first.write_bytes(first.read_bytes() + second.read_bytes())
    assert candidates(first)[-1][1] is None


def test_pictures_of_every_kind_are_looked_at(tmp_path: Path) -> None:
    names = ["a.gif", "b.jfif", "c.avif", "d.heic", "e.JPG", "f.tiff"]
    pile.write_files(tmp_path, dict.fromkeys(names, b"x"))
    assert [name for name, _ in candidates(tmp_path)] == sorted(names)


def test_what_img2dataset_leaves_beside_a_tar_is_no_source(tmp_path: Path) -> None:
    pile.write_tar(tmp_path / "00000.tar", PICTURES)
    pq.write_table(pa.table({"key": ["0"], "url": ["http://x"]}), tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_text("{}")
    assert candidates(tmp_path) == list(PICTURES.items())


def test_a_coco_file_gives_its_boxes_and_the_size_they_are_for_but_no_crowds(tmp_path: Path) -> None:
    def annotation(number: int, crowd: int) -> dict[str, object]:
        box = {"bbox": [10, 5, 30, 20], "area": 600, "iscrowd": crowd}
        if crowd:
            box["segmentation"] = {"size": [64, 80], "counts": [0, 64 * 80]}
        return {"id": number, "image_id": 1, "category_id": 1} | box

    document = {
        "images": [{"id": 1, "file_name": "000.jpg", "width": 80, "height": 64}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [annotation(1, 0), annotation(2, 1)],
    }
    pile.write_files(tmp_path / "train2017", {name: PICTURES[name] for name in ("000.jpg", "001.jpg")})
    pile.write_files(tmp_path, {"annotations/instances_train2017.json": json.dumps(document).encode()})
    first, second = (c for shard in find_sources([tmp_path], 10) for c in shard.candidates())
    assert isinstance(first.annotation, Annotated)
    assert first.annotation.boxes.tolist() == [[10, 5, 40, 25]]
    assert first.annotation[1:] == (80, 64)
    assert second.annotation is None


def test_shards_have_names_of_their_own_and_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    places = [pile.write_files(tmp_path / side / "same name!", {"x.jpg": PICTURES["000.jpg"]}) for side in "ab"]
    sources = find_sources(places, 3)
    assert len({source.name for source in sources}) == 2
    for source in sources:
        again = pickle.loads(pickle.dumps(source))
        assert again.name == source.name
        assert again.fingerprint() == source.fingerprint()


def test_a_fingerprint_changes_with_a_file_a_size_and_a_box(tmp_path: Path) -> None:
    pile.write_files(tmp_path, PICTURES)

    def fingerprint() -> str:
        return find_sources([tmp_path], 100)[0].fingerprint()

    seen = {fingerprint()}
    (tmp_path / "000.jpg").write_bytes(PICTURES["000.jpg"] + b"\0")
    seen.add(fingerprint())
    (tmp_path / "000.jpg").rename(tmp_path / "new.jpg")
    seen.add(fingerprint())
    (shard,) = find_sources([tmp_path], 100)
    shard.annotated["001.jpg"] = Annotated(np.zeros((1, 4)), 80, 64)  # type: ignore[attr-defined]
    seen.add(shard.fingerprint())
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "absent", "no such file or folder"),
        (lambda p: pile.write_files(p, {"a.txt": b""}), "found none"),
        (lambda p: pile.write_files(p, {"a.txt": b""}) / "a.txt", "expected a folder, a tar file or a Parquet file"),
    ],
)
def test_a_place_without_pictures_is_named(tmp_path: Path, make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RiceError, match=says):
        find_sources([make(tmp_path)], 3)


@pytest.mark.parametrize(
    ("content", "says"), [(b"PAR1 cut off", "not a readable Parquet file"), (None, "expected pictures' bytes in a col")]
)
def test_a_parquet_file_without_pictures_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "0.parquet"
    if content is None:
        pq.write_table(pa.table({"jpg": ["text"], "url": ["x"]}), path)
    else:
        path.write_bytes(content)
    with pytest.raises(RiceError, match=says):
        list(find_sources([path], 3)[0].candidates())
