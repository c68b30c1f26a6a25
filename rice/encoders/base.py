"""The one interface of every encoder.

Shapes: B images, D width, H W input pixels, h w patch grid.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError

if TYPE_CHECKING:
    from PIL.Image import Image


class Features(NamedTuple):
    """Frozen features of a batch: `patches` (B, D, h, w), and `cls` (B, D) where the tower has such a token."""

    patches: Tensor
    cls: Tensor | None


Extract = Callable[[nn.Module, Tensor, int], Features]


class Encoder(nn.Module):
    """A frozen vision tower with its facts.

    `module` is the raw network (for those who train it); `spec` its facts; `weights` says what it holds: "default"
    (the published ones), "random", or a path; `trained` is False for random weights, so that tables can say so.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, spec: EncoderSpec, extract: Extract, *, weights: str) -> None:
        """`extract(module, normalised_B3HW, layer)` returns the features of one hidden state of the source."""
        super().__init__()
        self.module = module
        self.spec = spec
        self.weights = weights
        self._extract = extract
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self.eval()

    @property
    def trained(self) -> bool:
        """Whether the weights were ever trained."""
        return self.weights != "random"

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype of the network's parameters."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """The device of the network's parameters."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def forward(self, images_B3HW: Tensor) -> Features:
        """Features of float RGB images in [0, 1]; normalises once by itself; keeps no graph.

        Errors: RiceError for another shape or dtype, or a size that the encoder cannot take.
        """
        if images_B3HW.ndim != 4 or images_B3HW.shape[1] != 3 or not images_B3HW.is_floating_point():
            raise RiceError(
                f"expected float images (B, 3, H, W) in [0, 1], got {tuple(images_B3HW.shape)} {images_B3HW.dtype}"
            )
        with torch.no_grad():
            return self.features(self.normalise(images_B3HW))

    def normalise(self, images_B3HW: Tensor) -> Tensor:
        """(x - mean) / std in fp32, on the encoder's device, then in the encoder's dtype."""
        images = images_B3HW.to(self.device, torch.float32)
        return ((images - self.mean) / self.std).to(self.dtype)

    def features(self, normalised_B3HW: Tensor, layer: int | None = None) -> Features:
        """The differentiable form, for images already normalised. `layer`: a hidden state; default: the spec's."""
        grid = self.spec.check_size(normalised_B3HW.shape[-2], normalised_B3HW.shape[-1])
        features = self._extract(self.module, normalised_B3HW, self.spec.layer if layer is None else layer)
        expected = (normalised_B3HW.shape[0], self.spec.width, *grid)
        if tuple(features.patches.shape) != expected:
            raise RiceError(f"{self.spec.name} gave patches {tuple(features.patches.shape)}, its spec says {expected}")
        return features

    def preprocess(self, image: "Image", size: int | None = None) -> Tensor:
        """One PIL picture as the source's own processor would cut it: (3, S, S) float RGB in [0, 1]."""
        from rice.encoders.preprocess import preprocess

        return preprocess(image, self.spec.preprocessing, self.spec.native_size if size is None else size)
