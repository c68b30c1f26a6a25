"""Predictions for the test pictures, and their scores.

Shapes: N test pictures, M pictures in the bank, D width, C classes.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from probes.knn.data import ImageFolder
from probes.knn.model import Vectors
from rice.files import atomic_write

_CHUNK = 1024


@torch.no_grad()
def nearest_neighbours(bank: Vectors, queries_ND: Tensor, *, classes: int, k: int, temperature: float) -> Tensor:
    """Class of each query by weighted vote, (N,): the k nearest by cosine, each with weight exp(cosine / temperature).

    DINO's protocol (Caron et al. 2021, after Wu et al. 2018). A smaller bank votes whole; of equal votes the class with
    the smaller index wins.
    """
    bank_MD = nn.functional.normalize(bank.features, dim=-1)
    predicted = []
    for first in range(0, len(queries_ND), _CHUNK):
        part_ND = nn.functional.normalize(queries_ND[first : first + _CHUNK], dim=-1)
        cosine_Nk, index_Nk = (part_ND @ bank_MD.T).topk(min(k, len(bank_MD)), dim=-1)
        votes_NC = torch.zeros(len(part_ND), classes, device=part_ND.device)
        votes_NC.scatter_add_(1, bank.labels[index_Nk], (cosine_Nk / temperature).exp())
        predicted.append(votes_NC.argmax(-1))
    return torch.cat(predicted)


def accuracy(correct: Sequence[bool]) -> tuple[float, float]:
    """Share of the true ones, and its binomial standard error."""
    share = sum(correct) / len(correct)
    return share, math.sqrt(share * (1 - share) / len(correct))


def write_items(path: Path, folder: ImageFolder, knn: list[int], linear: list[int], learning_rate: float) -> None:
    """One row per test picture: its name, class, both predictions, and whether they are right."""
    import pandas as pd

    labels = [picture.label for picture in folder.test]
    frame = pd.DataFrame(
        {
            "image": [picture.name for picture in folder.test],
            "class": [folder.classes[label] for label in labels],
            "knn": [folder.classes[label] for label in knn],
            "linear": [folder.classes[label] for label in linear],
            "knn_correct": [a == b for a, b in zip(knn, labels, strict=True)],
            "linear_correct": [a == b for a, b in zip(linear, labels, strict=True)],
            "learning_rate": learning_rate,
        }
    )
    with atomic_write(path, "wb") as file:
        frame.to_parquet(file, index=False)
