from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rice.data.parquet import reading_parquet
from rice.errors import RiceError


def written(path: Path) -> Path:
    table = pa.table({"caption": ["x"] * 100})
    pq.write_table(table, path, compression="none", use_dictionary=False, store_schema=False)
    return path


def name_in_latin_1(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"caption", b"captio\xf1"))


def text_in_latin_1(path: Path) -> None:
    texts = pa.array([b"\xf1"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"caption": texts}), path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36  # the header of the first page
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [name_in_latin_1, text_in_latin_1, cut_off, damaged, Path.unlink])
def test_whatever_a_file_has_wrong_is_one_line_that_names_it(damage: Callable[[Path], None], tmp_path: Path) -> None:
    damage(written(tmp_path / "a.parquet"))
    with pytest.raises(RiceError, match=r"a\.parquet is not a readable Parquet file \(") as caught:
        read(tmp_path / "a.parquet")
    assert "\n" not in str(caught.value)


def read(path: Path) -> list[dict[str, str]]:
    with reading_parquet(path):
        return [row for batch in pq.ParquetFile(path).iter_batches() for row in batch.to_pylist()]


def test_other_errors_pass(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet")
    assert len(read(path)) == 100
    with pytest.raises(RiceError, match="no pictures"), reading_parquet(path):
        raise RiceError("no pictures")
    with pytest.raises(ZeroDivisionError), reading_parquet(path):
        raise ZeroDivisionError
