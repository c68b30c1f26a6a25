"""What the detection probe computes. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from probes.protocol import run_only
from probes.training_config import TrainingConfig
from rice.errors import RiceError, check_ranges

Choice = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """Cascade Mask R-CNN over a frozen pyramid; the defaults are detectron2's ViTDet-B cascade recipe.

    Lengths are in strides of the level that they belong to, so that every patch size has the same heads: with patch 16
    the anchors are 32 to 512 pixels and a box of 224 pixels belongs to the encoder's own resolution.

    Args:
        channels: width of pyramid, RPN and convolutions of the heads.
        hidden: width of the box heads' fully connected layer.
        rpn_convs: 3 x 3 convolutions of the RPN.
        box_convs: 3 x 3 convolutions of each box head.
        mask_convs: 3 x 3 convolutions of the mask head, before its transposed convolution.
        anchor_scale: edge of a square anchor, in strides.
        anchor_ratios: height over width.
        rpn_samples: anchors per image in the RPN's loss, at most half of them positive.
        rpn_top: proposals per level before suppression, in training and in testing.
        proposals: proposals per image after it.
        rpn_nms: IoU above which the RPN suppresses.
        roi_samples: proposals per image that train the heads.
        roi_positives: largest share of positive ones.
        cascade_ious: IoU from which a stage calls a proposal positive.
        cascade_weights: of centre and size offsets, for each stage.
        score_threshold: least score of a detection; none: 0.05, and 0.02 on federated data.
        nms: IoU above which detections of a class suppress each other.
        detections: most detections per image; none: 100, and 300 on federated data.
        federated: sigmoid and federated loss; auto: where the annotations say which categories were searched for.
        federated_classes: classes in that loss.
        federated_power: of a class's image count, for the chance to be drawn as a negative.
        masks: whether to learn masks; auto: where the annotations have them.
    """

    channels: int = 256
    hidden: int = 1024
    rpn_convs: int = 2
    box_convs: int = 4
    mask_convs: int = 4
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_samples: int = 256
    rpn_top: tuple[int, int] = (2000, 1000)
    proposals: int = 1000
    rpn_nms: float = 0.7
    roi_samples: int = 512
    roi_positives: float = 0.25
    cascade_ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    cascade_weights: tuple[tuple[float, float], ...] = ((10.0, 5.0), (20.0, 10.0), (30.0, 15.0))
    score_threshold: float | None = None
    nms: float = 0.5
    detections: int | None = None
    federated: Choice = "auto"
    federated_classes: int = 50
    federated_power: float = 0.5
    masks: Choice = "auto"

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        holds = {name: getattr(self, name) >= 1 for name in ("channels", "hidden", "proposals", "federated_classes")}
        holds |= {name: getattr(self, name) >= 0 for name in ("rpn_convs", "box_convs", "mask_convs")}
        holds |= {name: 0 < getattr(self, name) <= 1 for name in ("rpn_nms", "roi_positives", "nms")}
        holds |= {
            "anchor_scale": self.anchor_scale > 0,
            "anchor_ratios": min(self.anchor_ratios, default=0) > 0,
            "rpn_samples": self.rpn_samples >= 2,  # half of them are positive
            "rpn_top": min(self.rpn_top) >= 1,
            "roi_samples": self.roi_samples * self.roi_positives >= 1,
            "cascade_ious": bool(self.cascade_ious) and all(0 < iou <= 1 for iou in self.cascade_ious),
            "cascade_weights": [min(pair) > 0 for pair in self.cascade_weights] == [True] * len(self.cascade_ious),
            "score_threshold": self.score_threshold is None or 0 <= self.score_threshold <= 1,
            "detections": self.detections is None or self.detections >= 1,
            "federated_power": self.federated_power >= 0,
        }
        check_ranges(self, holds, DetectionConfig.VERB)


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(TrainingConfig):
    """What the detection probe computes; the defaults are the paper's where it speaks, detectron2's where it does not.

    The paper (4.3, Table 3) says: frozen encoder, Cascade Mask R-CNN of detectron2, pyramid at 0.25x to 4x of the
    embeddings. It does not say how long, how pictures are scaled, or how a level is projected.

    Args:
        epochs: passes over the training pictures (12 is detectron2's 1x schedule).
        weight_decay: decoupled; normalisation layers have none.
        warmup: steps of linear warm-up, at most a tenth of all.
        milestones: shares of the training after which the rate falls to a tenth; empty: a cosine to zero.
        jitter: range of the random scale; 1 fits the picture into the square. 0.1 and 2 are large-scale jitter.
        flip: probability of mirroring.
        repeat_threshold: pictures of categories on a smaller share of all pictures are repeated (LVIS: 0.001).
        train_images: most pictures to learn from, the first in the order of a hash of their ids; none: all.
        test_images: most pictures to be judged on, likewise.
        train_split: name of the split to learn from, where `rice data check` would choose another.
        test_split: name of the split to be judged on, likewise.
        suite: roboflow100 or rf100-vl, where a folder of datasets could be either.
        cache_gb: disk in GB for frozen features that are computed once (2 x 1.5 MiB a picture for B/16 at 512 with
            mirroring; not with jitter); 0: computed anew in every epoch. The numbers are the same.
        heads: the detector.
    """

    VERB = "rice detect train"

    epochs: int = 12
    batch: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.1
    warmup: int = 250
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    jitter: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    repeat_threshold: float = 0.0
    train_images: int | None = None
    test_images: int | None = None
    train_split: str | None = None
    test_split: str | None = None
    suite: str | None = None
    cache_gb: float = run_only(0.0)
    heads: HeadsConfig = field(default_factory=HeadsConfig)

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        super().__post_init__()
        if self.cache_gb and self.jitter != (1.0, 1.0):
            raise RiceError("features of jittered pictures differ in every epoch; use --cache-gb 0 or --jitter 1 1")

    def ranges(self) -> dict[str, bool]:
        """See `TrainingConfig`."""
        return super().ranges() | {
            "milestones": list(self.milestones) == sorted(self.milestones) and all(0 < m < 1 for m in self.milestones),
            "jitter": 0 < self.jitter[0] <= self.jitter[1] <= 16,
            "flip": 0 <= self.flip <= 1,
            "repeat_threshold": 0 <= self.repeat_threshold < 1,
            "train_images": self.train_images is None or self.train_images >= 1,
            "test_images": self.test_images is None or self.test_images >= 1,
            "cache_gb": self.cache_gb >= 0,
        }
