"""The tiny language model loads as any other, and its tokenizer gives back every text."""

import functools
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from mllm.llava.mini import MiniConfig, train_tokenizer, write_mini_lm
from rice.errors import RiceError

TEXTS = ["<image>\nWhat shape is the largest object?", "square", "2 objects: a dotted star, the word panda."] * 20
SMALL = MiniConfig(vocabulary=300, width=32, layers=2, heads=2, hidden=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini_lm(tmp_path_factory.mktemp("mini") / "lm", TEXTS, seed=5, config=SMALL)


@given(text=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_every_text_comes_back_from_its_tokens(text: str) -> None:
    tokenizer = _shared()
    assert tokenizer.decode(tokenizer(text).input_ids) == unicodedata.normalize("NFC", text)


@functools.cache
def _shared() -> Any:
    return train_tokenizer(TEXTS, 300)


def test_special_tokens_are_single_ids_within_the_models_table(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    table = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    marks = ("<image>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
    ids = [tokenizer(f"a{mark}b").input_ids for mark in marks]
    assert all(len(three) == 3 for three in ids)
    assert len({three[1] for three in ids}) == len(marks)
    assert {three[1] for three in ids} <= set(tokenizer.all_special_ids)
    assert len(table) == len(tokenizer) == 304
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_what_is_loaded_encodes_as_what_was_trained(folder: Path) -> None:
    loaded, trained = AutoTokenizer.from_pretrained(folder), train_tokenizer(TEXTS, 300)
    for text in (*TEXTS[:3], "thistle 2049", "<|im_start|>user\nWhat?<|im_end|>\n"):
        assert loaded(text).input_ids == trained(text).input_ids


def test_frequent_words_are_one_token_and_digits_stand_alone(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer(" object").input_ids) == 1
    assert len(tokenizer("user").input_ids) == 1
    assert len(tokenizer("2049").input_ids) == 4


def test_conversations_are_written_as_qwen2_writes_them(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "Is there a star?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nIs there a star?<|im_end|>\n<|im_start|>assistant\n"


def test_the_same_seed_is_the_same_bytes_and_another_one_is_not(folder: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    again = write_mini_lm(tmp_path / "again", TEXTS, seed=5, config=SMALL)
    other = write_mini_lm(tmp_path / "other", TEXTS, seed=6, config=SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert (other / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()
    assert (other / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_the_model_is_a_plain_qwen2_that_generates(folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is Qwen2ForCausalLM
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    out = model.generate(**tokenizer("What", return_tensors="pt"), max_new_tokens=3, do_sample=False)
    assert 1 < out.shape[1] <= 1 + 3 + len(tokenizer("What").input_ids)


def test_a_folder_is_not_written_over(folder: Path) -> None:
    with pytest.raises(RiceError, match="exists; name another folder or delete it"):
        write_mini_lm(folder, TEXTS, seed=5, config=SMALL)


@pytest.mark.parametrize(("field", "value"), [("vocabulary", 255), ("heads", 3)])
def test_sizes_that_cannot_be_are_refused(field: str, value: int) -> None:
    with pytest.raises(RiceError, match="expected a"):
        MiniConfig(**{field: value})
