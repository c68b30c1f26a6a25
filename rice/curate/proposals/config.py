"""What may be set of proposals. Imports no torch, for the command line."""

from dataclasses import dataclass
from typing import Literal

from rice.errors import check_ranges


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """Where regions come from, and which are taken.

    Args:
        proposals: segments: graph segmentation, without weights. sam: mask generation of a SAM, SAM 2 or SAM-HQ (the
            paper). boxes: the annotations that come with the pictures.
        min_region: Pixels that both edges of a region must have (the paper: 128).
        duplicate_iou: A region that overlaps one of a higher score by more is a duplicate; 1: none is.
        most_regions: Of one picture; those of the highest scores are taken. The paper has about five a picture.
        sam_checkpoint: A folder, or a repository of the model hub.
        points_per_side: Of sam: it is asked for masks at a grid of so many points by as many.
        sam_iou: Masks are taken above this, by its own estimate of their IoU; 0: all.
        sam_stability: Masks are taken above this IoU of their insides at a higher and at a lower threshold; 0: all.
        pictures_per_batch: Of sam: pictures that are embedded at once.
        points_per_batch: Of sam: points that are asked at once.
    """

    proposals: Literal["segments", "sam", "boxes"] = "segments"
    min_region: int = 128
    duplicate_iou: float = 0.7
    most_regions: int = 16
    sam_checkpoint: str = "facebook/sam-vit-huge"
    points_per_side: int = 32
    sam_iou: float = 0.88
    sam_stability: float = 0.95
    pictures_per_batch: int = 4
    points_per_batch: int = 64

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {
            "proposals": self.proposals in ("segments", "sam", "boxes"),
            "min_region": self.min_region >= 1,
            "duplicate_iou": 0 <= self.duplicate_iou <= 1,
            "most_regions": self.most_regions >= 1,
            "points_per_side": self.points_per_side >= 1,
            "sam_iou": 0 <= self.sam_iou <= 1,
            "sam_stability": 0 <= self.sam_stability <= 1,
            "pictures_per_batch": self.pictures_per_batch >= 1,
            "points_per_batch": self.points_per_batch >= 1,
        }
        check_ranges(self, holds, "rice curate propose")
