"""Which lines of text are kept, and as what. Everything that is dropped is counted by its reason.

Shapes: R lines that are kept.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rice.curate.text.config import TextConfig
from rice.curate.text.reader import Line
from rice.data.shards import MAX_EDGE
from rice.errors import RiceError

CONFIDENCE, NO_TEXT, NO_BOX = "confidence", "no text", "outside or empty"
"""Why a line is dropped; the first that holds is counted."""


class Selection(NamedTuple):
    """Lines of one picture. boxes: (R, 4) xyxy, whole pixels, inside the picture, not empty. scores: (R,), 0 to 1.

    texts: see `clean`. dropped: by reason; with R, as many as there were lines.
    """

    boxes: NDArray[np.uint16]
    texts: list[str]
    scores: NDArray[np.float32]
    dropped: Counter[str]


def select(lines: Iterable[Line], width: int, height: int, config: TextConfig) -> Selection:
    """Lines above `config.confidence` that say something inside the picture, in their order.

    A box is that of its quad's corners, rounded outwards, clipped. Errors: RiceError for a picture that boxes of
    16 bits do not reach across.
    """
    if max(width, height) > MAX_EDGE:
        raise RiceError(
            f"expected a picture of at most {MAX_EDGE:,} pixels an edge, got {width}x{height}; leave it out"
        )
    boxes: list[tuple[int, ...]] = []
    texts: list[str] = []
    scores: list[np.float32] = []
    dropped: Counter[str] = Counter()
    for quad, text, confidence in lines:
        score, text, box = np.float32(confidence), clean(text), _bounds(quad, width, height)
        if not float(score) > config.confidence:  # as it is stored; NaN is not above
            dropped[CONFIDENCE] += 1
        elif not text:
            dropped[NO_TEXT] += 1
        elif box is None:
            dropped[NO_BOX] += 1
        else:
            boxes.append(box)
            texts.append(text)
            scores.append(score)
    return Selection(
        np.array(boxes, dtype=np.uint16).reshape(-1, 4), texts, np.array(scores, dtype=np.float32), dropped
    )


def clean(text: str) -> str:
    """NFC, without white space at its ends; every script is kept.

    A tab or line end becomes a space; other control characters, and halves of surrogate pairs, go. A text of nothing
    but white space and invisible characters is empty.
    """
    spaced = "".join(" " if character.isspace() and _kind(character) in _CONTROLS else character for character in text)
    kept = "".join(character for character in spaced if _kind(character) not in _CONTROLS)
    composed = unicodedata.normalize("NFC", kept).strip()
    return composed if any(_kind(character) not in _INVISIBLE for character in composed) else ""


_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_INVISIBLE = _CONTROLS | {"Cf", "Zs"}
_kind = unicodedata.category


def _bounds(quad: NDArray[np.float64], width: int, height: int) -> tuple[int, ...] | None:
    """xyxy, or None where nothing of the quad is in the picture."""
    if not np.isfinite(quad).all():
        return None
    left, top = np.floor(quad.min(axis=0)).clip(0, (width, height)).astype(int)
    right, bottom = np.ceil(quad.max(axis=0)).clip(0, (width, height)).astype(int)
    return (int(left), int(top), int(right), int(bottom)) if left < right and top < bottom else None
