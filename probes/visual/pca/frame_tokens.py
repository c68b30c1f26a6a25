"""Tokens of each selected frame of a video, in order, computed once where the disk allows it.

Shapes: B frames, T tokens of a frame, D width, H W pixels of the encoder's input, h w patch grid.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from probes.visual.pca.records import TokenRecords
from probes.visual.pca.source import Source
from probes.visual.towers import refused_size
from rice.data.video import Frame
from rice.encoders.base import Encoder, Features

Float32 = NDArray[np.float32]

_TOKENS_PER_BATCH = 4096


class FrameTokens:
    """The tokens (T, D) of a source's selected frames, as often as they are asked for.

    With a store each frame goes through the encoder once, ever; what comes out is always what the store gives back
    (fp16 rounding included), so that a resumed run equals an uninterrupted one. Without a store (too large for the
    disk) each reading computes again. Memory holds one batch of frames.
    """

    def __init__(
        self,
        encoder: Encoder,
        source: Source,
        input_hw: tuple[int, int],
        *,
        batch: int | None = None,
        store: TokenRecords | None = None,
    ) -> None:
        """`batch`: frames at once; by default as many as make 4,096 tokens."""
        self.encoder, self.source, self.input_hw, self.store = encoder, source, input_hw, store
        self.grid = encoder.spec.check_size(*input_hw)
        tokens = self.grid[0] * self.grid[1]
        self.shape = tokens, encoder.spec.width
        self.batch = batch or max(_TOKENS_PER_BATCH // tokens, 1)

    def __len__(self) -> int:
        return self.source.count

    def read(self, start: int = 0) -> Iterator[Float32]:
        """Tokens of frames start, start + 1, ... of the source."""
        if self.store is None:
            yield from self._encode(start)
            return
        stored = self.store.count
        for index in range(start, stored):
            yield self.store.read(index)
        for index, tokens in enumerate(self._encode(stored), start=stored):
            self.store.append(tokens)
            if index >= start:
                yield self.store.read(index)

    def _encode(self, start: int) -> Iterator[Float32]:
        if start >= self.source.count:
            return
        frames = itertools.islice(self.source.frames(), start, None)
        while batch := list(itertools.islice(frames, self.batch)):
            images_B3HW = torch.stack([self._resized(frame) for frame in batch])
            patches_BDhw = self._features(images_B3HW)
            yield from patches_BDhw.flatten(2).transpose(1, 2).float().cpu().numpy()

    def _resized(self, frame: Frame) -> torch.Tensor:
        height, width = self.input_hw
        picture = Image.fromarray(frame.image).resize((width, height), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

    def _features(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        height, width = self.input_hw
        remedy = "choose another --size" if height == width else "if it takes square input only, add --square"
        with refused_size(self.encoder, self.encoder.spec.name, images_B3HW, remedy):
            features: Features = self.encoder(images_B3HW)
        return features.patches
