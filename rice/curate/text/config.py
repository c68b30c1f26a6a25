"""What may be set of reading text. Imports no engine, for the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rice.errors import check_ranges

SHIPPED = "rice"
"""The tokenizer that the package carries."""

_VERB = "rice curate ocr"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How text is read, which lines are kept, and how they become tokens.

    Args:
        engine: rapidocr, whose package carries its models; paddle, which loads them; none reads nothing.
        confidence: Lines at or below it are dropped (the paper: above 0.7 is kept).
        tokenizer: rice, which is shipped; or a tokenizer.json, a folder with one, or a name on the Hugging Face hub.
        longest: Pixels. A picture with a longer edge is read smaller.
        shortest: Pixels. A picture with a shorter edge is enlarged. Time goes with its square.
        models: For paddle: folder with exported models in det/ and rec/; without it they come from its host.
    """

    engine: Literal["rapidocr", "paddle", "none"] = "rapidocr"
    confidence: float = 0.7
    tokenizer: str = SHIPPED
    longest: int = 2000
    shortest: int = 480
    models: Path | None = None

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {
            "engine": self.engine in ("rapidocr", "paddle", "none"),
            "confidence": 0 <= self.confidence <= 1,
            "tokenizer": bool(self.tokenizer),
            "longest": self.longest >= 32,
            "shortest": 32 <= self.shortest <= self.longest,
            "models": self.models is None or self.engine == "paddle",
        }
        check_ranges(self, holds, _VERB)
