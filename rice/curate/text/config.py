"""What may be set of reading text. Imports no engine, for the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rice.errors import check_ranges

SHIPPED = "rice"
"""The tokenizer that the package carries."""

_VERB = "rice curate ocr"
_Optional = Annotated[Path | None, tyro.conf.DisallowNone, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How text is read, which lines are kept, and how they become tokens.

    Args:
        reader: rapidocr, whose package carries its models; paddle, which loads them; none reads nothing.
        confidence: Lines of text at or below it are dropped (the paper: above 0.7 is kept).
        tokenizer: Of text: rice, which is shipped; or a tokenizer.json, a folder with one, or a name on the hub.
        read_longest: Pixels. A picture with a longer edge is read smaller, for its text alone.
        read_shortest: Pixels. A picture with a shorter edge is enlarged for it. Time goes with its square.
        reader_models: For paddle: folder with exported models in det/ and rec/; without it they come from its host.
    """

    reader: Literal["rapidocr", "paddle", "none"] = "rapidocr"
    confidence: float = 0.7
    tokenizer: str = SHIPPED
    read_longest: int = 2000
    read_shortest: int = 480
    reader_models: _Optional = None

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {
            "reader": self.reader in ("rapidocr", "paddle", "none"),
            "confidence": 0 <= self.confidence <= 1,
            "tokenizer": bool(self.tokenizer),
            "read_longest": self.read_longest >= 32,
            "read_shortest": 32 <= self.read_shortest <= self.read_longest,
            "reader_models": self.reader_models is None or self.reader == "paddle",
        }
        check_ranges(self, holds, _VERB)
