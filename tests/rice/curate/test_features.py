"""Files of features are read as they are, whatever their kind; what is none is named in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rice.curate import features as module
from rice.curate.features import clean, find_features
from rice.errors import RiceError

VALUES = np.random.default_rng(0).standard_normal((23, 5)).astype(np.float16)


def write_parquet(path: Path, values: Any, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"id": range(len(values)), "feature": pa.array(list(values), kind)}), path)


@pytest.mark.parametrize("kind", ["fp16", "fp32", "fp64", "list", "fixed"])
def test_rows_come_in_order_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    if kind == "list":
        write_parquet(tmp_path / "a.parquet", VALUES.astype(np.float32), pa.list_(pa.float32()))
    elif kind == "fixed":
        write_parquet(tmp_path / "a.parquet", VALUES, pa.list_(pa.float16(), 5))
    else:
        np.save(tmp_path / "a.npy", VALUES.astype(f"f{int(kind[2:]) // 8}"))
    (file,) = find_features(tmp_path).files
    assert (file.rows, file.width) == (23, 5)
    blocks = list(file.blocks())
    assert [len(block) for block in blocks] == [7, 7, 7, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), VALUES.astype(np.float32))


def test_files_come_by_name_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        np.save(tmp_path / f"{name}.npy", VALUES[: ord(name) - 90])
    (tmp_path / "notes.txt").write_text("no features")
    found = find_features(tmp_path)
    assert [file.path.stem for file in found.files] == ["a", "b", "c"]
    assert (found.rows, found.width) == (7 + 8 + 9, 5)
    assert find_features(tmp_path / "b.npy").rows == 8


def broken(folder: Path, kind: str) -> None:
    np.save(folder / "a.npy", VALUES)
    if kind == "cut off":
        (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes()[:-1])
    elif kind == "pickled":
        np.save(folder / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    elif kind == "no header":
        (folder / "a.npy").write_bytes(b"")
    elif kind == "header cut":
        (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes().replace(b"}", b"("))
    elif kind == "negative":
        (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes().replace(b"(23, 5)", b"(-9, 9)"))
    elif kind == "integers":
        np.save(folder / "a.npy", VALUES.astype(np.int32))
    elif kind == "one axis":
        np.save(folder / "a.npy", VALUES[0])
    elif kind == "other width":
        np.save(folder / "b.npy", VALUES[:, :3])
    elif kind == "twice":
        write_parquet(folder / "a.parquet", VALUES, pa.list_(pa.float16(), 5))
    elif kind == "no column":
        pq.write_table(pa.table({"id": [1]}), folder / "b.parquet")
    elif kind == "texts":
        pq.write_table(pa.table({"feature": ["x"]}), folder / "b.parquet")
    elif kind == "none":
        (folder / "a.npy").unlink()


KINDS = [
    "cut off",
    "pickled",
    "no header",
    "header cut",
    "negative",
    "integers",
    "one axis",
    "other width",
    "twice",
    "no column",
    "texts",
    "none",
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_folder_of_features_is_named(tmp_path: Path, kind: str) -> None:
    broken(tmp_path, kind)
    with pytest.raises(RiceError) as caught:
        find_features(tmp_path)
    assert str(tmp_path) in str(caught.value) or ".npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_of_several_lengths_are_found_when_they_are_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [[1.0, 2.0], [3.0]], pa.list_(pa.float32()))
    with pytest.raises(RiceError, match="one width"):
        list(find_features(tmp_path).files[0].blocks())


@pytest.mark.parametrize("unit_length", [False, True])
def test_rows_that_cannot_be_compared_are_left_out(unit_length: bool) -> None:
    block_ND = np.array([[3, 4], [np.nan, 1], [0, 0], [np.inf, 0], [-np.inf, np.nan], [0, -2]], np.float32)
    kept_ND, finite_N, kept_N = clean(block_ND, unit_length=unit_length)
    assert finite_N.tolist() == [True, False, True, False, False, True]
    if unit_length:
        assert kept_N.tolist() == [True, False, False, False, False, True]
        np.testing.assert_allclose(kept_ND, [[0.6, 0.8], [0, -1]])
    else:
        assert kept_N.tolist() == finite_N.tolist()
        np.testing.assert_array_equal(kept_ND, block_ND[finite_N])
