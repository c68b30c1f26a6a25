"""The class loss of the box heads: softmax on COCO; sigmoid and federated on LVIS, where most categories were not
searched for in most images.

Shapes: R regions, K categories (K itself is the background).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ClassLoss(nn.Module):
    """How scores (R, K + 1) are taught and read. Without parameters. `image_counts`: what a federated loss is given."""

    image_counts: tuple[int, ...] | None = None

    def forward(self, scores_RK: Tensor, labels_R: Tensor) -> Tensor:
        """Mean cross entropy over the regions."""
        return nn.functional.cross_entropy(scores_RK, labels_R) if len(labels_R) else scores_RK.sum()

    def probabilities(self, scores_RK: Tensor) -> Tensor:
        """(R, K + 1); the last column is the background's."""
        return scores_RK.softmax(-1)


class FederatedLoss(ClassLoss):
    """Binary cross entropy over the step's categories and some others, drawn by image_count^power (Federated loss of
    CenterNet2, as detectron2 has it): a category that is neither is not taught to be absent.

    The background, where it occurs, counts as one of the `classes`, as it does there.
    """

    weights: Tensor

    def __init__(self, image_counts: Sequence[int], classes: int, power: float) -> None:
        super().__init__()
        self.classes, self.image_counts = classes, tuple(image_counts)
        counts = torch.tensor([*image_counts, 0], dtype=torch.float32)
        self.register_buffer("weights", counts**power, persistent=False)

    def forward(self, scores_RK: Tensor, labels_R: Tensor) -> Tensor:
        """Sum over the chosen categories, mean over the regions."""
        if not len(labels_R):
            return scores_RK.sum()
        target_RK = nn.functional.one_hot(labels_R, scores_RK.shape[1]).to(scores_RK.dtype)[:, :-1]
        losses_RK = nn.functional.binary_cross_entropy_with_logits(scores_RK[:, :-1], target_RK, reduction="none")
        chosen_K = self._choose(labels_R)
        return (losses_RK * chosen_K).sum() / len(labels_R)

    def probabilities(self, scores_RK: Tensor) -> Tensor:
        """Independent of each other."""
        return scores_RK.sigmoid()

    def _choose(self, labels_R: Tensor) -> Tensor:
        """1 for the categories that count in this step, (K,)."""
        chosen = torch.zeros_like(self.weights)
        present = torch.unique(labels_R)
        chosen[present] = 1
        chance = self.weights * (1 - chosen)
        chance[-1] = 0
        drawn = min(self.classes - len(present), int((chance > 0).sum()))
        if drawn > 0:
            chosen[torch.multinomial(chance, drawn)] = 1
        return chosen[:-1]
