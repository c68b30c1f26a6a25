"""Train the recogniser on frozen tokens. The loop is `probes.fit`; here are its material, its batches and its loss.

Shapes: B words, T tokens of a word, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, tee
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from probes.cache import FrozenFeatures, open_features
from probes.fit import seeded_batches
from probes.text.data import WordItem, WordSet, steps_needed
from probes.text.model import Recogniser, ctc_loss, even_loss, token_source
from probes.watch import Run, fit_watched
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.text.config import TextConfig


class WordBatch(NamedTuple):
    """Tokens (B, T, D), as stored, what they spell, and the weight of the evenly spread letters at this step."""

    tokens: Tensor
    words: list[str]
    guide: float


_MOST_WARMUP = 0.1


@dataclass(frozen=True, kw_only=True)
class Material:
    """What all seeds of one encoder, dataset and config share: words with their frozen tokens. `grid`: (h, w)."""

    train_words: tuple[WordItem, ...]
    test_words: tuple[WordItem, ...]
    train: FrozenFeatures
    test: FrozenFeatures
    grid: tuple[int, int]
    width: int
    device: torch.device
    folder: Path


def trainable(words: Sequence[WordItem], steps: int) -> tuple[WordItem, ...]:
    """Those that `steps` steps can spell; no loss is defined on others."""
    return tuple(word for word in words if steps_needed(word.letters) <= steps)


def prepare(
    encoder: Encoder, words: WordSet, size: int, config: "TextConfig", key: str, folder: Path, progress: Progress
) -> Material:
    """Features from `folder` where an earlier seed or an interrupted run left them.

    `key` identifies encoder, data and configuration. Errors: RiceError where no training word fits into the steps.
    """
    train_words = trainable(words.train, config.steps)
    if not train_words:
        raise RiceError(f"all {len(words.train)} training words are too long for {config.steps} steps; set steps")
    budget, features = config.cache_gb * 1e9, []
    for name, part in (("train", train_words), ("test", words.test)):
        source = token_source(encoder, key, part, size)
        label = f"{name}: {len(part)} words"
        features.append(open_features(source, folder / name, budget_bytes=budget, progress=progress, label=label))
        budget -= source.nbytes if source.nbytes <= budget else 0
    return Material(
        train_words=train_words,
        test_words=words.test,
        train=features[0],
        test=features[1],
        grid=encoder.spec.check_size(size, size),
        width=encoder.spec.width,
        device=encoder.device,
        folder=folder,
    )


def recogniser_for(material: Material, config: "TextConfig", seed: int) -> Recogniser:
    """A fresh recogniser for this encoder, on its device."""
    return Recogniser(config, width=material.width, grid=material.grid, seed=seed).to(material.device)


def updates(config: "TextConfig", words: int) -> int:
    """Steps of the training; a batch is never larger than the set."""
    return config.epochs * max(1, words // min(config.batch, words))


def train_recogniser(material: Material, head: Recogniser, config: "TextConfig", run: Run) -> None:
    """Train in place; errors: see `fit_watched`."""
    total = updates(config, len(material.train_words))
    warmup = min(config.warmup, int(_MOST_WARMUP * total))
    fit_watched(
        head,
        lambda start: batches(material, config, run.seed, start),
        _losses,
        config.schedule(total, warmup=warmup, milestones=()),
        run,
        batch=config.batch,
    )


def batches(material: Material, config: "TextConfig", seed: int, start: int) -> Iterator[WordBatch]:
    """From step `start` on, on the device."""
    words = material.train_words
    guided = config.guided * updates(config, len(words))
    order, again = tee(seeded_batches(len(words), config.batch, seed, start))
    stream = zip(material.train.stream(order), again, count(start), strict=False)  # `again` may be one ahead
    for tokens_BTD, items, step in stream:
        guide = max(0.0, 1 - step / guided) if guided else 0.0
        yield WordBatch(tokens_BTD.to(material.device), [words[item].letters for item in items], guide)


def _losses(head: nn.Module, batch: WordBatch) -> dict[str, Tensor]:
    logits_BNC = head(batch.tokens)
    parts = {"ctc": ctc_loss(logits_BNC, batch.words)}
    return parts | {"even": batch.guide * even_loss(logits_BNC, batch.words)} if batch.guide else parts
