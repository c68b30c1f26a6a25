"""A prepared folder gives back the rows that were written, in any order, in any process."""

import multiprocessing
import operator
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mllm.llava.rows import PREPARED, ROWS, ROWS_PER_GROUP, Row, Rows, Turn
from mllm.llava.rows_writer import writing_rows
from rice.errors import RiceError
from rice.files import write_json

TURNS = st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), st.text())
SIZED = st.lists(st.tuples(st.text(), st.tuples(st.integers(1, 70_000), st.integers(1, 70_000))), max_size=3)


def a_row(name: str, turns: list[Turn], sized: list[tuple[str, tuple[int, int]]]) -> Row:
    return Row(name, tuple(turns), tuple(path for path, _ in sized), tuple(size for _, size in sized))


A_ROW = st.builds(a_row, st.text(), st.lists(TURNS, min_size=1, max_size=4), SIZED)


def write(folder: Path, rows: list[Row], images: Path | None = None) -> Rows:
    folder.mkdir(exist_ok=True)
    with writing_rows(folder / ROWS) as writer:
        for row in rows:
            writer.write("source", row)
    found = {"format": 1, "kept": len(rows), "images": str(images or folder), "fingerprint": writer.fingerprint()}
    write_json(folder / PREPARED, found)
    return Rows(folder)


def numbered(count: int) -> list[Row]:
    return [Row(str(i), (Turn("user", f"{i}?"), Turn("assistant", str(i * i)))) for i in range(count)]


@given(few=st.lists(A_ROW, min_size=1, max_size=3), count=st.sampled_from([1, 63, 64, 65, 130]), data=st.data())
@settings(max_examples=30)
def test_rows_come_back_as_they_were_written(
    few: list[Row], count: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = [few[i % len(few)] for i in range(count)]
    rows = write(tmp_path_factory.getbasetemp() / "rows", expected)
    assert len(rows) == count
    assert list(rows) == expected
    place = data.draw(st.integers(-count, count - 1))
    assert rows[place] == expected[place]


@pytest.mark.parametrize("count", [1, ROWS_PER_GROUP, 32 * ROWS_PER_GROUP, 32 * ROWS_PER_GROUP + 1, 5000])
def test_every_row_stands_in_the_group_that_its_number_tells(count: int, tmp_path: Path) -> None:
    rows = write(tmp_path, numbered(count))
    groups = pq.ParquetFile(tmp_path / ROWS).metadata
    sizes = [groups.row_group(k).num_rows for k in range(groups.num_row_groups)]
    assert all(size == ROWS_PER_GROUP for size in sizes[:-1])
    assert [row.id for row in rows] == [str(i) for i in range(count)]
    order = np.random.default_rng(0).permutation(count)[:200]
    assert [rows[int(i)].id for i in order] == [str(i) for i in order]
    assert rows[-1] == rows[count - 1]
    assert rows[:3] == numbered(min(3, count))
    with pytest.raises(IndexError):
        rows[count]


def test_other_processes_and_threads_read_the_same(tmp_path: Path) -> None:
    rows = write(tmp_path, numbered(300))
    assert rows[7].id == "7"  # a group is held
    assert pickle.loads(pickle.dumps(rows))[299] == rows[299]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(operator.getitem, (rows, 200)) == rows[200]
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    child = fork.Process(target=lambda: answers.put([rows[i].id for i in range(1, 300, 2)]))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == [str(i) for i in range(1, 300, 2)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: rows[i].id, [i * 67 % 300 for i in range(600)]))
    assert found == [str(i * 67 % 300) for i in range(600)]


def test_the_fingerprint_is_that_of_the_rows_alone(tmp_path: Path) -> None:
    rows = numbered(3)
    first = write(tmp_path / "a", rows, images=tmp_path).fingerprint()
    assert write(tmp_path / "b", rows).fingerprint() == first
    others = [rows[:2], rows[::-1], [rows[0], rows[1], Row("2", rows[2].turns, ("a.jpg",), ((1, 2),))]]
    assert len({first, *(write(tmp_path / "c", other).fingerprint() for other in others)}) == 4


def test_a_picture_is_opened_upright_in_three_colours_of_eight_bits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65_535, (20, 40), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 4), 7).save(tmp_path / "images" / "b.png")
    row = Row("a", (), ("a.png", "/images/b.png"), ((40, 20), (4, 8)))
    (tmp_path / "prepared").mkdir()
    (tmp_path / "images").rename(tmp_path / "prepared" / "images")
    rows = write(tmp_path / "prepared", [row], images=tmp_path)
    opened = rows.open_image(rows[0], 0)
    assert opened.mode == "RGB"
    expected = np.rot90(pixels >> 8, k=-1).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(opened), np.repeat(expected[..., None], 3, axis=2))
    assert np.asarray(rows.open_image(rows[0], 1)).tolist() == [[[7, 7, 7]] * 8] * 4


def test_a_picture_that_is_gone_damaged_or_another_one_is_named(tmp_path: Path) -> None:
    row = Row("a", (), ("a.png", "none.png", "text.png", "../a.png"), ((4, 9),) * 4)
    rows = write(tmp_path, [row])
    Image.new("RGB", (8, 4)).save(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("no picture")
    for k, says in enumerate(
        ["a.png has 8x4 pixels, and had 9x4 when row 'a'", "cannot read .*none.png", "cannot read .*text.png", "inside"]
    ):
        with pytest.raises(RiceError, match=says):
            rows.open_image(rows[0], k)


def test_the_image_root_may_have_moved(tmp_path: Path) -> None:
    write(tmp_path / "rows", [Row("a", (), ("a.png",), ((4, 8),))], images=tmp_path / "gone")
    Image.new("RGB", (8, 4)).save(tmp_path / "a.png")
    rows = Rows(tmp_path / "rows", images=tmp_path)
    assert rows.open_image(rows[0], 0).size == (8, 4)


def test_a_folder_that_is_no_prepared_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected a folder that rice llava prepare wrote"):
        Rows(tmp_path)
    write(tmp_path, numbered(3))
    (tmp_path / ROWS).write_bytes((tmp_path / ROWS).read_bytes()[:-9])
    with pytest.raises(RiceError, match="cannot read .*rows.parquet"):
        Rows(tmp_path)
    write_json(tmp_path / PREPARED, {"format": 99})
    with pytest.raises(RiceError, match="of another version"):
        Rows(tmp_path)
    write(tmp_path / "b", numbered(4))
    (tmp_path / "b" / ROWS).replace(tmp_path / ROWS)
    write_json(tmp_path / PREPARED, {"format": 1, "kept": 3, "images": ""})
    with pytest.raises(RiceError, match="is not the one that prepared.json describes"):
        Rows(tmp_path)
