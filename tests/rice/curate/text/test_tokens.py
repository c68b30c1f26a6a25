"""Text survives its tokens, and any Hugging Face tokenizer serves."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from benchmarks import train_tokenizer
from rice.curate.text.tokens import SHIPPED_FILE, load_tokenizer
from rice.errors import RiceError

SHIPPED = load_tokenizer("rice")
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn"))
"""Later versions of Unicode compose what is not assigned in Python's."""


@given(st.text(ASSIGNED))
def test_any_text_comes_back_composed(text: str) -> None:
    ids = SHIPPED.encode(text)
    assert SHIPPED.decode(ids) == unicodedata.normalize("NFC", text)
    assert all(0 <= token < SHIPPED.size for token in ids)


@pytest.mark.parametrize(
    "text",
    [
        *("TOTAL RM 33.90", "25/12/2018 10:45 AM", "Crème brûlée", "Größe", "ñandú", "ΕΛΛΑΔΑ", "привет мир"),
        *(
            "中文 出口",
            "ありがとう",
            "감사합니다",
            "مرحبا",
            "नमस्ते",
            "👩‍🔬🏽",
            " lead and trail ",
            "a  b\tc\n",
            "\x00\x7f",
            "ﬁ",
        ),
    ],
)
def test_scripts_and_spaces_come_back(text: str) -> None:
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


def test_a_word_is_the_same_class_wherever_it_stands() -> None:
    first, second = SHIPPED.encode("EXIT EXIT")
    assert [first] == [second] == SHIPPED.encode("EXIT")
    assert SHIPPED.encode("cafe\u0301") == SHIPPED.encode("café")


def test_frequent_words_are_single_tokens_and_letters_are_whole() -> None:
    for word in ("TOTAL", "Total", "EXIT", "invoice", "café", "出口"):
        assert len(SHIPPED.encode(word)) == 1, word
    for letter in "éüñßøłřяжλ":
        assert len(SHIPPED.encode(f"x{letter}")) == 2, letter


def test_training_again_gives_the_shipped_file(tmp_path: Path) -> None:
    train_tokenizer.main(out=tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text("utf-8")) == json.loads(SHIPPED_FILE.read_text("utf-8"))


def test_the_shipped_file_is_small_and_plain() -> None:
    content = json.loads(SHIPPED_FILE.read_text("utf-8"))
    assert SHIPPED_FILE.stat().st_size < 500_000
    assert not content["added_tokens"]
    assert content["post_processor"] is None
    assert sorted(content["model"]["vocab"].values()) == list(range(SHIPPED.size))


@pytest.fixture
def foreign() -> Tokenizer:
    """Byte-level BPE with all that may be in a tokenizer.json: special tokens, a template, truncation, padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: number for number, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $0 </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return tokenizer


def test_a_file_and_a_folder_are_the_same_tokenizer(tmp_path: Path, foreign: Tokenizer) -> None:
    foreign.save(str(tmp_path / "tokenizer.json"))
    of_file, of_folder = load_tokenizer(str(tmp_path / "tokenizer.json")), load_tokenizer(str(tmp_path))
    assert of_file.encode("word") == of_folder.encode("word")
    assert of_file.identity.split()[-1] == of_folder.identity.split()[-1] != SHIPPED.identity.split()[-1]
    assert str(tmp_path) not in of_file.identity + of_folder.identity


def test_no_special_tokens_no_truncation_no_padding(tmp_path: Path, foreign: Tokenizer) -> None:
    foreign.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.size == 258
    for text in ("a", "longer than four", "<s> printed </s>"):
        ids = tokenizer.encode(text)
        assert len(ids) == len(text)
        assert max(ids) < 256
        assert tokenizer.decode(ids) == text


def test_a_folder_that_transformers_saved_is_read(tmp_path: Path) -> None:
    """Without tokenizer.json: WordPiece by its vocabulary."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "open", "ex", "##it"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}), encoding="utf-8")
    tokenizer = load_tokenizer(str(tmp_path))
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("Open exit") == reference("Open exit", add_special_tokens=False).input_ids == [5, 6, 7]
    assert tokenizer.size == len(words)
    assert tokenizer.identity == load_tokenizer(str(tmp_path)).identity


@pytest.mark.parametrize("name", ["no/such/folder/here", "missing.json"])
def test_what_is_no_tokenizer_is_one_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        RiceError, match=f"expected rice, a tokenizer.json, a folder with one or a name .* got '{name}'"
    ):
        load_tokenizer(name)


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(RiceError, match=r"tokenizer.json is no tokenizer.json"):
        load_tokenizer(str(tmp_path))


def test_code_of_a_repository_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}), encoding="utf-8"
    )
    (tmp_path / "evil.py").write_text("import sys\nsys.evil = True\nclass Evil: ...\n", encoding="utf-8")
    with pytest.raises(RiceError):
        load_tokenizer(str(tmp_path))
    assert not hasattr(sys, "evil")


@pytest.mark.hub
def test_a_name_on_the_hub_is_read() -> None:
    tokenizer = load_tokenizer("Qwen/Qwen2.5-0.5B")
    assert tokenizer.decode(tokenizer.encode("Straße 中文 <|endoftext|>")) == "Straße 中文 <|endoftext|>"
    assert tokenizer.size > 150_000
