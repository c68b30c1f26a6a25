"""Rows become examples whose lengths are told beforehand and whose tiles are the processor's."""

from pathlib import Path

import pytest
import torch
from tiny_encoders import tiny_encoder
from tiny_parts import llava_around, noise, write_root

from mllm.llava.conversation import IGNORED
from mllm.llava.data import Examples, Reading, without_pictures
from mllm.llava.material import Material
from mllm.llava.rows import Row, Rows, Turn
from mllm.llava.tiling import Tiling
from rice.errors import RiceError
from rice.progress import SilentProgress

QUIET = SilentProgress()


def rows_of(tmp_path: Path) -> Rows:
    material = Material.at(write_root(tmp_path / "root"))
    return material.rows(material.instruct, tmp_path / "prepared", QUIET)


def reading(
    tmp_path: Path, tiling: Tiling = "2x2+1", *, max_length: int = 2000, blind: bool = False, most: int | None = None
) -> Reading:
    llava = llava_around(tiny_encoder("clip", tmp_path), tiling)
    return Reading.of(llava, "qwen_1_5", max_length=max_length, blind=blind, most=most)


@pytest.mark.parametrize("tiling", ["one", "2x2+1", "anyres5", "anyres9"])
def test_an_example_is_as_long_as_was_told_and_has_its_tiles_tokens(tiling: Tiling, tmp_path: Path) -> None:
    how = reading(tmp_path, tiling)
    examples = Examples(rows_of(tmp_path), how, QUIET)
    for index in range(len(examples)):
        example, row = examples[index], examples.row(index)
        assert len(example["input_ids"]) == len(example["labels"]) == examples.lengths[index]
        image_tokens = int((example["input_ids"] == how.writer.image_id).sum())
        assert image_tokens == how.tiles.total(row.sizes)
        assert ("pixel_values" in example) == (examples.images[index] > 0)
        if row.sizes:
            assert example["pixel_values"].shape[0] == how.tiles.count(row.sizes[0])
            assert example["image_sizes"].tolist() == [list(size) for size in row.sizes]
        assert (example["labels"] != IGNORED).any()


def test_tiles_are_the_processors_own_without_the_ones_that_fill_a_batch(tmp_path: Path) -> None:
    how = reading(tmp_path, "anyres5")
    examples = Examples(rows_of(tmp_path), how, QUIET)
    example = examples[0]
    alone = how.image_processor(noise(40, 90, 0), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(example["pixel_values"], alone, rtol=0, atol=0)


def test_a_row_that_is_too_long_is_cut_at_its_end_or_left_out_and_named(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    whole = Examples(rows, reading(tmp_path), QUIET)
    longest = max(whole.lengths)
    cut = Examples(rows, reading(tmp_path, max_length=longest - 3), QUIET)
    assert (len(cut), max(cut.lengths)) == (len(whole), longest - 3)
    answers = [int((cut[i]["labels"] != IGNORED).sum()) for i in range(len(cut))]
    assert min(answers) >= 1
    short = Examples(rows, reading(tmp_path, max_length=100), QUIET)  # a text fits, a picture of 5 tiles does not
    assert {len(row.images) for row in map(short.row, range(len(short)))} == {0}
    assert (short.left_out, set(short.too_long)) == (9, {str(n) for n in range(12) if n % 4 != 3})
    with pytest.raises(RiceError, match=r"none of the 12 rows .* fits into 40 tokens"):
        Examples(rows, reading(tmp_path, max_length=40), QUIET)


def test_a_blind_model_reads_the_same_conversations_without_pictures(tmp_path: Path) -> None:
    how = reading(tmp_path, blind=True)
    examples = Examples(rows_of(tmp_path), how, QUIET)
    assert not any("pixel_values" in examples[i] for i in range(len(examples)))
    assert how.writer.image_id not in examples[0]["input_ids"].tolist()
    row = Row(
        id="0", turns=(Turn("user", "<image>\nWhat?"), Turn("assistant", "A cat.")), images=("a",), sizes=((9, 9),)
    )
    assert without_pictures(row) == Row(id="0", turns=(Turn("user", "What?"), Turn("assistant", "A cat.")))


def test_fewer_rows_are_the_same_ones_each_time_and_part_of_more(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    chosen = {
        n: {e.row(i).id for i in range(n)} for n in (3, 6) for e in [Examples(rows, reading(tmp_path, most=n), QUIET)]
    }
    assert [len(chosen[n]) for n in (3, 6)] == [3, 6]
    assert chosen[3] < chosen[6]
