"""What the recogniser reads of the test words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from probes.fit import split_batches
from probes.text.data import WordItem
from probes.text.model import Recogniser, decode
from probes.text.scores import edit_distance
from probes.text.train import Material
from rice.files import atomic_write
from rice.progress import Progress

_BATCH = 64


@torch.no_grad()
def read_words(head: Recogniser, material: Material, progress: Progress) -> list[str]:
    """What the recogniser reads of each test word, greedily. It is left in evaluation mode."""
    head.eval()
    batches = split_batches(np.arange(len(material.test_words)), _BATCH)
    read: list[str] = []
    for tokens_BTD in progress.track(material.test.stream(batches), "read the test words", len(batches)):
        read += map(decode, head(tokens_BTD.to(material.device)).argmax(-1).tolist())
    return read


def write_items(path: Path, words: Sequence[WordItem], read: Sequence[str]) -> None:
    """One row per word: its name, transcription, letters to be read, what was read, whether that is right, and the edit
    distance. Enough to compute both metrics on any set of words."""
    import pandas as pd

    pairs = list(zip(read, (word.letters for word in words), strict=True))
    frame = pd.DataFrame(
        {
            "word": [word.name for word in words],
            "text": [word.source.text for word in words],
            "letters": [truth for _, truth in pairs],
            "read": [found for found, _ in pairs],
            "correct": [found == truth for found, truth in pairs],
            "distance": [edit_distance(found, truth) for found, truth in pairs],
        }
    )
    with atomic_write(path, "wb") as file:
        frame.to_parquet(file, index=False)
