"""Captions come back as they were written, are drawn by the sample alone, and change nothing else that it shows."""

import itertools
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_samples import painted, write_dataset_of

from rice.data.captions import END, VOCABULARY, has_text, tokenise
from rice.data.regions import Draws, draw_caption
from rice.data.shard_reader import Record, Shard, read_dataset
from rice.data.shards import SCHEMA, Sample
from rice.data.stream import Batch, RegionStream, StreamConfig
from rice.errors import RiceError

CONTEXT = 12
CONFIG = StreamConfig(size=48, regions=4, positives=3, window=2, context=CONTEXT)
TEXTS = [
    ["one red box"],
    [],
    ["a", "b", "c"],
    ["a picture of more things than a context of twelve has room for"],
]
SAMPLES = [replace(painted(n, 1 + n), captions=texts) for n, texts in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    write_dataset_of(path, [SAMPLES[:2], SAMPLES[2:]])
    return path


def records(folder: Path, *, captions: bool) -> list[Record]:
    location, info = read_dataset(folder)
    shards = [Shard(location, s, info.object_classes, info.ocr_classes, captions=captions) for s in info.shards]
    return [shard.sidecar.record(row) for shard in shards for row in range(shard.info.samples)]


def steps(folder: Path, config: StreamConfig, count: int, **options: Any) -> list[Batch]:
    return list(itertools.islice(RegionStream.open(folder, config, seed=5).batches(**options), count))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text(max_size=20), max_size=3), min_size=1, max_size=4))
def test_any_text_comes_back(texts: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_dataset_of(Path(name), [[replace(painted(i, 1), captions=own) for i, own in enumerate(texts)]])
        assert [record.captions for record in records(Path(name), captions=True)] == [tuple(own) for own in texts]


def test_captions_that_nobody_asks_for_are_not_read(folder: Path) -> None:
    assert all(record.captions == () for record in records(folder, captions=False))


def test_a_sidecar_without_captions_is_that_of_before_and_reads_as_before(tmp_path: Path) -> None:
    write_dataset_of(tmp_path, [[painted(0, 2), painted(1, 0)]])
    table = pq.read_table(tmp_path / "toy-000000.parquet")
    assert table.column_names == SCHEMA.names
    assert [record.captions for record in records(tmp_path, captions=True)] == [(), ()]
    (batch,) = steps(tmp_path, CONFIG, 1, batch=2)
    assert not has_text(batch.captions).any()
    assert not RegionStream.open(tmp_path, CONFIG).captioned()


def test_one_shard_with_captions_makes_a_captioned_stream(tmp_path: Path, folder: Path) -> None:
    write_dataset_of(tmp_path, [[painted(0, 1)], [SAMPLES[0]]])
    assert RegionStream.open(tmp_path, CONFIG).captioned()
    assert not RegionStream.open(tmp_path, replace(CONFIG, context=0)).captioned()


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (pa.array([["a"], None], pa.list_(pa.string())), "column 'captions' has none"),
        (pa.array([["a"], [None]], pa.list_(pa.string())), "column 'captions' has none"),
        (pa.array([1.5, 2.5]), "is not a shard's sidecar"),
    ],
)
def test_a_damaged_column_is_named_in_one_line(tmp_path: Path, captions: pa.Array, said: str) -> None:
    write_dataset_of(tmp_path, [SAMPLES[:2]])
    path = tmp_path / "toy-000000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index("captions"), "captions", captions), path)
    with pytest.raises(RiceError, match=said) as caught:
        records(tmp_path, captions=True)
    assert "\n" not in str(caught.value)
    records(tmp_path, captions=False)


@pytest.mark.parametrize("wrong", [["\ud83d"], [b"bytes"], [None]])
def test_what_is_no_text_is_refused(tmp_path: Path, wrong: list[Any]) -> None:
    with pytest.raises(RiceError, match="sample '00000': bad captions"):
        write_dataset_of(tmp_path, [[replace(SAMPLES[0], captions=wrong)]])


def test_captions_change_nothing_else_that_a_batch_shows(tmp_path: Path, folder: Path) -> None:
    write_dataset_of(tmp_path, [[replace(s, captions=[]) for s in part] for part in (SAMPLES[:2], SAMPLES[2:])])
    without = replace(CONFIG, context=0)
    runs = [steps(*of, 8, batch=4) for of in ((tmp_path, without), (folder, without), (folder, CONFIG))]
    for plain, unread, read in zip(*runs, strict=True):
        assert plain.captions.shape == unread.captions.shape == (4, 0)
        assert read.captions.shape == (4, CONTEXT)
        for name in set(Batch._fields) - {"captions", "reasons"}:
            assert torch.equal(getattr(plain, name), getattr(unread, name)), name
            assert torch.equal(getattr(plain, name), getattr(read, name)), name


def test_each_sample_shows_one_of_its_captions_whatever_the_ranks(folder: Path) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=CONTEXT)
    shown: list[Counter[str]] = [Counter() for _ in TEXTS]
    whole = steps(folder, CONFIG, 20, batch=4)
    ranks = [steps(folder, replace(CONFIG, regions=9), 20, batch=4, rank=rank, world=2) for rank in (0, 1)]
    for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        assert torch.equal(batch.captions, torch.cat([part.captions for part in parts]))
        assert has_text(batch.captions).tolist() == (batch.samples != 1).tolist()
        for index, ids in zip(batch.samples.tolist(), batch.captions, strict=True):
            (text,) = [t for t in TEXTS[index] or [""] if torch.equal(tokenizer([t])[0], ids)]
            shown[index][text] += 1
    assert set(shown[2]) == set("abc")


def test_whole_pictures_show_the_first_caption(folder: Path) -> None:
    (batch,) = RegionStream.open(folder, CONFIG).all_regions(batch=4)
    assert torch.equal(batch.captions, tokenise([(texts or [""])[0] for texts in TEXTS], CONTEXT))


def test_a_damaged_picture_has_no_caption(tmp_path: Path) -> None:
    write_dataset_of(tmp_path, [[Sample(**{**SAMPLES[0].__dict__, "image": b"no picture"}), SAMPLES[3]]])
    (batch,) = steps(tmp_path, CONFIG, 1, batch=2)
    assert (batch.corrupt | has_text(batch.captions)).all()
    assert not (batch.corrupt & has_text(batch.captions)).any()


@given(st.text(max_size=60), st.integers(3, 80))
@settings(max_examples=100, deadline=None)
def test_any_text_begins_and_ends_within_the_context(text: str, context: int) -> None:
    (ids,) = tokenise([text], context).tolist()
    end = ids.index(END)
    assert len(ids) == context
    assert ids[0] == VOCABULARY - 2
    assert ids[end + 1 :] == [0] * (context - end - 1) or "end_of_text" in text
    assert has_text(torch.tensor([ids])).item() == (end > 1)


def test_a_draw_apart_is_repeatable_and_is_not_of_the_other_numbers() -> None:
    draws = Draws(1, 2, 3)
    apart = draws.apart().uniform(4).tolist()
    assert apart == draws.apart().uniform(4).tolist()
    assert draws.uniform(4).tolist() == Draws(1, 2, 3).uniform(4).tolist() != apart
    assert apart != Draws(1, 2, 4).apart().uniform(4).tolist()
    assert draw_caption((), draws) == ""


def test_each_caption_is_drawn_as_often() -> None:
    found = Counter(draw_caption("abc", Draws(5, epoch, sample)) for epoch in range(50) for sample in range(60))
    assert all(abs(found[letter] - 1000) < 4 * (3000 * 2 / 9) ** 0.5 for letter in "abc")  # four deviations


@pytest.mark.parametrize("context", [-1, 1, 2])
def test_a_context_without_room_for_a_token_is_refused(context: int) -> None:
    with pytest.raises(RiceError, match=f"context={context} is out of range"):
        StreamConfig(size=48, context=context)
