"""What may be set of proposals. Imports no torch, for the command line."""

from dataclasses import dataclass
from typing import Literal

from rice.errors import check_ranges


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """Where regions come from, and which are taken.

    Args:
        method: segments: graph segmentation, without weights. sam: mask generation of a SAM, SAM 2 or SAM-HQ (the
            paper). boxes: the annotations that come with the pictures.
        min_region: Pixels that both edges of a region must have (the paper: 128).
        duplicate_iou: A region that overlaps one of a higher score by more is a duplicate; 1: none is.
        most_regions: Of one picture; those of the highest scores are taken. The paper has about five a picture.
        checkpoint: Of sam: a folder, or a repository of the model hub.
        points_per_side: Of sam: it is asked for masks at a grid of so many points by as many.
        predicted_iou: Of sam: masks are taken above this, by its own estimate of their IoU; 0: all.
        stability: Of sam: masks are taken above this IoU of their insides at a higher and at a lower threshold; 0: all.
        pictures_per_batch: Of sam: pictures that are embedded at once.
        points_per_batch: Of sam: points that are asked at once.
    """

    method: Literal["segments", "sam", "boxes"] = "segments"
    min_region: int = 128
    duplicate_iou: float = 0.7
    most_regions: int = 32
    checkpoint: str = "facebook/sam-vit-huge"
    points_per_side: int = 32
    predicted_iou: float = 0.88
    stability: float = 0.95
    pictures_per_batch: int = 4
    points_per_batch: int = 64

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {
            "method": self.method in ("segments", "sam", "boxes"),
            "min_region": self.min_region >= 1,
            "duplicate_iou": 0 <= self.duplicate_iou <= 1,
            "most_regions": self.most_regions >= 1,
            "points_per_side": self.points_per_side >= 1,
            "predicted_iou": 0 <= self.predicted_iou <= 1,
            "stability": 0 <= self.stability <= 1,
            "pictures_per_batch": self.pictures_per_batch >= 1,
            "points_per_batch": self.points_per_batch >= 1,
        }
        check_ranges(self, holds, "rice curate propose")
