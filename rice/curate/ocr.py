"""Stage `ocr`: lines of text of every picture, with their tokens (paper, section 3.1).

OUT/ocr/SHARD.parquet has a row for every kept picture: key, boxes (R, 4) uint16 xyxy in pixels of the upright picture,
scores, texts and tokens (R,).
"""

import functools
from collections import Counter
from collections.abc import Generator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from rice.curate.decode import DecodeStage
from rice.curate.pictures import decoded, kept
from rice.curate.stage import Done, Stage, Work
from rice.curate.tables import write_rows
from rice.curate.text.config import TextConfig
from rice.curate.text.reader import TextReader, build_reader
from rice.curate.text.select import select
from rice.curate.text.tokens import TextTokenizer, load_tokenizer
from rice.errors import missing, require
from rice.files import sha256_file

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("boxes", pa.list_(pa.list_(pa.uint16(), 4))),
        ("scores", pa.list_(pa.float32())),
        ("texts", pa.list_(pa.string())),
        ("tokens", pa.list_(pa.list_(pa.int32()))),
    ]
)


@dataclass(frozen=True)
class OcrStage(Stage):
    """Text of pictures."""

    out: Path
    config: TextConfig

    name: ClassVar[str] = "ocr"

    def on_gpu(self) -> bool:
        """Where the engine can use one."""
        if self.config.reader == "rapidocr":
            return "CUDAExecutionProvider" in require("onnxruntime", "curate").get_available_providers()
        return self.config.reader == "paddle"

    @functools.cached_property
    def tokenizer(self) -> TextTokenizer:
        """What turns text into classes."""
        return load_tokenizer(self.config.tokenizer)

    def __getstate__(self) -> dict[str, Any]:
        """Without what workers load by themselves."""
        return {name: value for name, value in vars(self).items() if name != "tokenizer"}

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        models = self.config.reader_models
        files = sorted(path for path in models.rglob("*") if path.is_file()) if models else []
        facts = asdict(self.config) | {"reader_models": [sha256_file(path) for path in files]}
        facts |= {"reader": reader_identity(self.config), "tokenizer": self.tokenizer.identity}
        return facts | {"classes": 0 if self.config.reader == "none" else self.tokenizer.size}

    def settings(self) -> dict[str, Any]:
        """How text is read and cut into tokens."""
        return self._settings

    def inputs(self, shard: str) -> list[str]:
        """The pictures."""
        return [self.before(DecodeStage.name, shard).digest]

    def open(self, device: str) -> Work:
        """Load the engine and the tokenizer."""
        return functools.partial(self._read, reader=build_reader(self.config, device, threads=1))

    def _read(self, shard: str, reader: TextReader) -> Generator[None, None, Done]:
        rows: list[dict[str, Any]] = []
        counts, drops = Counter[str](), Counter[str]()
        pictures = kept(self.out, shard)
        pixels = decoded(self.out, shard, pictures)
        for picture, image_HW3 in zip(pictures, pixels, strict=True):
            (lines,) = reader([image_HW3])
            chosen = select(lines, picture["width"], picture["height"], self.config)
            counts["read"] += len(lines)
            counts["regions"] += len(chosen.boxes)
            drops.update(chosen.dropped)
            tokens = [self.tokenizer.encode(text) for text in chosen.texts]
            counts["tokens"] += sum(map(len, tokens))
            found = {"boxes": chosen.boxes.tolist(), "scores": chosen.scores.tolist(), "texts": chosen.texts}
            rows.append({"key": picture["key"], "tokens": tokens} | found)
            yield
        path = self.folder / f"{shard}.parquet"
        write_rows(path, rows, SCHEMA)
        return Done(products=(path,), counts=counts, drops=drops)


def reader_identity(config: TextConfig) -> str:
    """Name and version of the package that reads, whose models come with it. Errors: MissingExtraError."""
    packages = {"rapidocr": ("rapidocr", "curate"), "paddle": ("paddleocr", "paddle")}
    if config.reader not in packages:
        return config.reader
    package, extra = packages[config.reader]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError as error:
        raise missing(package, extra) from error
