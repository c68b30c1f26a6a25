"""The recogniser, and what it reads of the encoder.

Shapes: B words, S input edge in pixels, h w the token grid, T = h w tokens, D width, R rows, N steps, C letters and the
blank (0).
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from probes.cache import FeatureSource
from probes.images import squash
from probes.linear import layer_norm
from probes.text.data import ALPHABET, WordItem, cutter
from rice.encoders.base import Encoder
from rice.files import sha256_json

if TYPE_CHECKING:
    from probes.text.config import TextConfig

BLANK = 0
_KERNEL = 3


class Recogniser(nn.Module):
    """Frozen tokens of a word -> letters from left to right.

    Tokens are standardised per channel (batch normalisation without parameters), projected one by one, the grid is
    resampled to R x N; a column's R tokens together and one convolution along the word give a step's logits. So a step
    sees its neighbours and no more: it can spell, and cannot know words.
    """

    def __init__(self, config: "TextConfig", *, width: int, grid: tuple[int, int], seed: int = 0) -> None:
        super().__init__()
        self.grid, self.resampled = grid, (config.rows, config.steps)
        hidden = config.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.standardise = nn.BatchNorm1d(width, affine=False)
            self.project = nn.Linear(width, config.channels)
            self.along = nn.Sequential(
                nn.Conv1d(config.channels * config.rows, hidden, 1),
                nn.BatchNorm1d(hidden),
                nn.GELU(),
                nn.Conv1d(hidden, hidden, _KERNEL, padding=_KERNEL // 2),
                nn.BatchNorm1d(hidden),
                nn.GELU(),
            )
            self.letters = nn.Linear(hidden, len(ALPHABET) + 1)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Logits (B, N, C)."""
        tokens_XD = self.standardise(tokens_BTD.flatten(0, 1).float())
        kept_BThw = nn.functional.gelu(self.project(tokens_XD)).view(len(tokens_BTD), *self.grid, -1).movedim(-1, 1)
        kept_BTRN = nn.functional.interpolate(
            kept_BThw, self.resampled, mode="bilinear", align_corners=False, antialias=True
        )
        logits: Tensor = self.letters(self.along(kept_BTRN.flatten(1, 2)).mT)
        return logits


def parameters(head: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in head.parameters())


def ctc_loss(logits_BNC: Tensor, words: Sequence[str]) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006): mean over words of -log p(word) / letters.

    On the CPU: CUDA's backward pass is not deterministic, and this is little work.
    """
    log_p_NBC = logits_BNC.float().log_softmax(-1).cpu().transpose(0, 1)
    lengths = torch.tensor([len(word) for word in words])
    targets = torch.tensor([code for word in words for code in encode(word)])
    steps = torch.full((len(words),), len(log_p_NBC))
    return nn.functional.ctc_loss(log_p_NBC, targets, steps, lengths, blank=BLANK)


def even_loss(logits_BNC: Tensor, words: Sequence[str]) -> Tensor:
    """Cross entropy with the letters of each word evenly spread over the steps, mean over words and steps, on the CPU.

    A word is cut out around its letters, so that this is about where they are, and says so from the first step on.
    """
    steps = logits_BNC.shape[1]
    letters_BN = torch.tensor([spread(encode(word), steps) for word in words])
    return nn.functional.cross_entropy(logits_BNC.float().cpu().flatten(0, 1), letters_BN.flatten())


def spread(codes: Sequence[int], steps: int) -> list[int]:
    """The letter at the middle of each step."""
    return [codes[(2 * step + 1) * len(codes) // (2 * steps)] for step in range(steps)]


def encode(word: str) -> list[int]:
    """Classes of its letters."""
    return [ALPHABET.index(letter) + 1 for letter in word]


def decode(classes_N: Iterable[int]) -> str:
    """The word of the best class of each step: repeats are one, blanks part them and vanish."""
    word, before = "", BLANK
    for found in classes_N:
        if found not in (BLANK, before):
            word += ALPHABET[found - 1]
        before = found
    return word


def extract_tokens(encoder: Encoder, images_B3SS: Tensor) -> Tensor:
    """Patch tokens (B, T, D) after an affine-free LayerNorm in fp32, rows of the grid one after another."""
    return layer_norm(encoder(images_B3SS).patches.flatten(2).mT)


def token_source(encoder: Encoder, key: str, words: Sequence[WordItem], size: int) -> FeatureSource[int]:
    """The tokens of these words, squashed to the square; `key` identifies encoder, size and dataset."""
    height, width = encoder.spec.check_size(size, size)
    cut = cutter()
    return FeatureSource(
        load=lambda item: squash(cut(words[item].source), size),
        extract=partial(extract_tokens, encoder),
        count=len(words),
        shape=(height * width, encoder.spec.width),
        key=sha256_json([key, [word.name for word in words]]),
    )
