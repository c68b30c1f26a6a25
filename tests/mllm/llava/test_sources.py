"""Files and folders of rows: what is read from them, in what order, under what name."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm.llava.parse import Reason, RefusedRowError
from mllm.llava.sources import Source, find_sources
from rice.errors import RiceError

ROWS: list[dict[str, Any]] = [
    {"id": "a", "image": "a.jpg", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "ä"}]},
    {"id": "b", "image": None, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "b"}]},
]


def only(path: Path) -> Source:
    (source,) = find_sources([path])
    return source


def test_json_and_json_lines_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "b.json").write_text(json.dumps({"dataset_name": "x", "data": ROWS}))
    (tmp_path / "c.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    for name in ("a.json", "b.json", "c.jsonl", "d.parquet"):
        assert list(only(tmp_path / name).values()) == ROWS, name
    assert [only(path).count() for path in sorted(tmp_path.iterdir())] == [None, None, None, 2]


def test_a_line_that_is_no_json_is_a_refusal_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\r\n{"id": 2\n"\xff"\n' + b"[" * 100_000 + b'\n{"id": "\xe2\x80\xa8"}\n')
    first, *broken, last = only(path).values()
    assert (first, last) == ({"id": 1}, {"id": "\u2028"})
    assert len(broken) == 3
    assert all(isinstance(one, RefusedRowError) and one.reason is Reason.BAD_LINE for one in broken)


def test_a_folder_of_parquet_files_is_one_source_in_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "LLaVA-NeXT-Data"
    (folder / "data").mkdir(parents=True)
    for name, row in zip(("train-00001-of-00002", "train-00000-of-00002"), ROWS, strict=True):
        pq.write_table(pa.Table.from_pylist([row]), folder / "data" / f"{name}.parquet")
    source = only(folder)
    assert source.name == "LLaVA-NeXT-Data"
    assert [row["id"] for row in source.values()] == ["b", "a"]
    assert source.count() == 2


def test_columns_that_are_not_of_rows_are_not_read(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROWS[0] | {"ocr": "x" * 1000}]), tmp_path / "a.parquet")
    assert list(only(tmp_path / "a.parquet").values()) == ROWS[:1]


def test_a_parquet_file_is_read_in_the_memory_of_a_few_of_its_groups(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    rows = [ROWS[0] | {"image": {"bytes": noise.bytes(50_000), "path": None}} for _ in range(640)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=16)
    del rows
    before, peak = pa.total_allocated_bytes(), 0
    for _ in only(tmp_path / "a.parquet").values():
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert (tmp_path / "a.parquet").stat().st_size > 30e6
    assert peak < 15e6


def test_sources_are_named_apart_and_their_bytes_are_known(tmp_path: Path) -> None:
    places = [tmp_path / folder / "train.json" for folder in ("a", "b", "c")]
    for place in places:
        place.parent.mkdir()
        place.write_text(f'["{place.parent.name}"]')
    sources = find_sources(places)
    assert [source.name for source in sources] == ["train", "train-2", "train-3"]
    assert sources[1].digests() == {"train.json": hashlib.sha256(b'["b"]').hexdigest()}


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b")
    (tmp_path / "a.parquet").write_text("no")
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "b.parquet")
    for name, says in (
        ("none.json", "no such file: .*none.json"),
        ("a.csv", "expected a file .json, .jsonl, .parquet, or a folder of Parquet files, got .*a.csv"),
        ("empty", "expected Parquet files in the folder .*empty, found none"),
        ("a.parquet", "a.parquet is not a readable Parquet file"),
        ("b.parquet", "b.parquet: expected a column conversations or messages or conversation, got text"),
    ):
        with pytest.raises(RiceError, match=says) as error:
            list(only(tmp_path / name).values())
        assert "\n" not in str(error.value)
