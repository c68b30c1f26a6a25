"""What finds regions in pictures.

Shapes: R regions of one picture, H, W its size.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rice.curate.proposals.config import ProposalConfig


class Proposals(NamedTuple):
    """Regions of one picture, before any is left out.

    boxes: (R, 4) xyxy, pixels of the upright picture; a box ends where its last pixel ends, not at that pixel.
    scores: (R,), which are taken first; 0 to 1 where the source is sound.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]


class Proposer(Protocol):
    """Finds regions."""

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Proposals]:
        """One result for each picture, RGB (H, W, 3), upright; (0, 4) boxes where nothing is found."""
        ...


def build_proposer(config: ProposalConfig, device: str) -> Proposer:
    """The proposer of `config.proposals`: segments or sam; annotations (boxes) need none.

    device: of sam, a name that torch knows. Errors: RiceError for a missing extra, or a checkpoint that cannot be read.
    """
    if config.proposals == "segments":
        from rice.curate.proposals.segments import SegmentProposer

        return SegmentProposer()
    if config.proposals == "sam":
        from rice.curate.proposals.sam import SamProposer, load_sam

        return SamProposer(*load_sam(config.sam_checkpoint, device), config)
    raise ValueError(f"no proposer finds {config.proposals}: they come with the pictures")
