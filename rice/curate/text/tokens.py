"""Text to token ids: the classes that regions of text learn (paper, section 3.1: "text is tokenised").

The shipped tokenizer is byte-level: any text comes back from its tokens. A word has the same tokens at the start of a
line as within it, as a space is set before each line.
"""

import json
from pathlib import Path
from typing import Any, Protocol

from rice.curate.text.config import SHIPPED
from rice.encoders.hub import pinned
from rice.errors import RiceError
from rice.files import sha256_file, sha256_json

SHIPPED_FILE = Path(__file__).with_name("tokenizer.json")
"""Written by benchmarks/train_tokenizer.py."""


class TextTokenizer(Protocol):
    """Text to ids below `size`, without special tokens, however long it is."""

    @property
    def identity(self) -> str:
        """Name and hash of its content. The same text: the same ids."""
        ...

    @property
    def size(self) -> int:
        """Number of classes: one more than the largest id."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids, in the text's order."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of ids; for the shipped one, the text that was encoded, in NFC."""
        ...


def load_tokenizer(name: str) -> TextTokenizer:
    """`rice`, a tokenizer.json, a folder with one, or a name on the Hugging Face hub.

    Code of a repository is never run. Errors: RiceError for what is none of these.
    """
    path = SHIPPED_FILE if name == SHIPPED else Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return _from_file(file, SHIPPED if name == SHIPPED else path.name)
    return _from_hub(name)


class _FastTokenizer:
    """Of the library `tokenizers`."""

    def __init__(self, tokenizer: Any, identity: str) -> None:
        self.identity = identity
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "<s>" in a picture is text
        self._tokenizer = tokenizer
        self.size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


class _SlowTokenizer:
    """Of the library `transformers`, where a repository has no tokenizer.json."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        self.size = 1 + max(vocabulary.values())
        self.identity = f"{name} {sha256_json([type(tokenizer).__name__, vocabulary])[:16]}"

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def _from_file(file: Path, name: str) -> TextTokenizer:
    from tokenizers import Tokenizer

    try:
        return _FastTokenizer(Tokenizer.from_file(str(file)), f"{name} {sha256_file(file)[:16]}")
    except Exception as error:  # the library raises nothing narrower
        raise RiceError(f"{file} is no tokenizer.json: {error}; save it with tokenizers or transformers") from error


def _from_hub(name: str) -> TextTokenizer:
    expected = f"expected {SHIPPED}, a tokenizer.json, a folder with one or a name on the hub, got '{name}'"
    if name.endswith(".json"):
        raise RiceError(f"{expected}: no such file")
    from transformers import AutoTokenizer

    try:
        with pinned(name) as options:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise RiceError(f"{expected}: {reason}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    label = Path(name).name if Path(name).exists() else name
    if backend is None:
        return _SlowTokenizer(tokenizer, label)
    return _FastTokenizer(backend, f"{label} {sha256_json(json.loads(backend.to_str()))[:16]}")
