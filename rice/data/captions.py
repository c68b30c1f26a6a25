"""Captions as the ids of CLIP's byte pair encoding, by open_clip's tokeniser, whose table comes with it.

Shapes: B captions, L tokens of context.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

VOCABULARY = 49_408
"""Ids; the last two are a text's begin and end."""
END = VOCABULARY - 1
LEAST_CONTEXT = 3
"""Begin, one token, end."""


def tokenise(captions: Sequence[str], context: int) -> Tensor:
    """int64 (B, context): begin, the text as far as it fits, end, and zeros. (B, 0) for a context of 0."""
    if not context:
        return torch.zeros(len(captions), 0, dtype=torch.int64)
    from open_clip.tokenizer import tokenize  # takes seconds to import, and only captions need it

    ids_BL: Tensor = tokenize(list(captions), context_length=context)
    return ids_BL


def has_text(captions_BL: Tensor) -> Tensor:
    """bool (B,): whether anything stands between begin and end."""
    return captions_BL[:, 1] != END
