"""The same probe in detectron2, for paper parity: the frozen encoder as its `Backbone`, the recipe as its LazyConfig.

detectron2 is not on the package index. Its own line installs it from source (torch first, setuptools below 81):

    pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'

Run with its commit 02b5c4e (June 2026), torch 2.15, Python 3.11, on a CPU. A config file for its
`tools/lazyconfig_train_net.py` is two lines:

    from probes.detection.detectron2 import lazy_config
    globals().update(lazy_config("rice-b16-512", classes=80))

detectron2 pools only from strides that are powers of two. So its pictures lie on a canvas of 16 pixels a patch,
whatever the encoder's patch, and the backbone resamples that canvas to the encoder's own pixels: 592 to 518 for patch
14. Our heads count in strides, so both see the same anchors and levels.

Shapes: B images, D width of the encoder, S the canvas, h w the patch grid.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from probes.detection.config import DetectionConfig, HeadsConfig
from probes.detection.model import COCO_LIMITS, LVIS_LIMITS, Detector, Target
from probes.detection.pyramid import SCALES, Pyramid, normalise_tokens
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.errors import MissingExtraError

INSTALL = "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"

_STRIDE = 16
_NAMES = tuple(f"p{level}" for level in range(2, 2 + len(SCALES)))


def _need(name: str) -> Any:
    """A module of detectron2. Errors: MissingExtraError with its install line."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed; detectron2 is added with: {INSTALL}") from error


def frozen_backbone(encoder: str | Encoder, weights: str | None = "default", channels: int = 256) -> Any:
    """The encoder with its pyramid as a detectron2 `Backbone` with levels p2 to p6; only the pyramid has gradients.

    Its input is normalised already (`pixel_mean` and `pixel_std` of `lazy_config` are the encoder's).
    """
    modeling, layers = _need("detectron2.modeling"), _need("detectron2.layers")
    found = load_encoder(encoder, weights=weights) if isinstance(encoder, str) else encoder

    class FrozenBackbone(modeling.Backbone):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = found.requires_grad_(False)
            self.pyramid = Pyramid(found.spec.width, channels)
            edge = canvas_edge(found)
            self.padding_constraints_ = {"square_size": edge, "size_divisibility": edge}

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self.encoder.eval()  # a frozen tower has no training mode
            return self

        @property
        def padding_constraints(self) -> dict[str, int]:
            return self.padding_constraints_

        @property
        def size_divisibility(self) -> int:
            return int(self.padding_constraints_["size_divisibility"])

        def output_shape(self) -> dict[str, Any]:
            return {
                name: layers.ShapeSpec(channels=channels, stride=int(_STRIDE / scale))
                for name, scale in zip(_NAMES, SCALES, strict=True)
            }

        def forward(self, canvas_B3SS: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                tokens = normalise_tokens(self.encoder.features(to_encoder(canvas_B3SS, self.encoder)).patches)
            return dict(zip(_NAMES, self.pyramid(tokens), strict=True))

    return FrozenBackbone()


def canvas_edge(encoder: Encoder) -> int:
    """Edge of detectron2's square: 16 pixels a patch of the encoder's native grid."""
    return encoder.spec.native_size // encoder.spec.patch * _STRIDE


def to_encoder(canvas_B3SS: Tensor, encoder: Encoder) -> Tensor:
    """The canvas at the encoder's own size; what a native size has beyond whole patches is padding."""
    spec = encoder.spec
    covered = canvas_B3SS.shape[-1] // _STRIDE * spec.patch
    if covered != canvas_B3SS.shape[-1]:
        canvas_B3SS = nn.functional.interpolate(
            canvas_B3SS, (covered, covered), mode="bilinear", align_corners=False, antialias=True
        )
    rest = spec.native_size - covered
    padded: Tensor = nn.functional.pad(canvas_B3SS, (0, rest, 0, rest)) if 0 < rest < spec.patch else canvas_B3SS
    return padded.to(encoder.dtype)


def lazy_model(
    encoder: str | Encoder,
    heads: HeadsConfig,
    *,
    classes: int,
    weights: str | None = "default",
    image_counts: Sequence[int] | None = None,
    masks: bool = True,
) -> Any:
    """detectron2's Cascade Mask R-CNN over the frozen encoder, as a LazyConfig of the model.

    `image_counts`: as in `build_detector`: on how many images each category occurs; None for COCO's softmax.
    """
    lazy = _need("detectron2.config").LazyCall
    arch, rpn = _need("detectron2.modeling.meta_arch"), _need("detectron2.modeling.proposal_generator")
    anchors, matcher = _need("detectron2.modeling.anchor_generator"), _need("detectron2.modeling.matcher")
    coder, shape = _need("detectron2.modeling.box_regression"), _need("detectron2.layers").ShapeSpec
    found = load_encoder(encoder, weights=weights) if isinstance(encoder, str) else encoder
    strides, width = [int(_STRIDE / scale) for scale in SCALES], heads.channels
    return lazy(arch.GeneralizedRCNN)(
        backbone=lazy(frozen_backbone)(encoder=encoder, weights=weights, channels=width),
        proposal_generator=lazy(rpn.RPN)(
            in_features=list(_NAMES),
            head=lazy(rpn.StandardRPNHead)(
                in_channels=width, num_anchors=len(heads.anchor_ratios), conv_dims=[-1] * heads.rpn_convs
            ),
            anchor_generator=lazy(anchors.DefaultAnchorGenerator)(
                sizes=[[heads.anchor_scale * stride] for stride in strides],
                aspect_ratios=list(heads.anchor_ratios),
                strides=strides,
                offset=0.0,
            ),
            anchor_matcher=lazy(matcher.Matcher)(
                thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
            ),
            box2box_transform=lazy(coder.Box2BoxTransform)(weights=[1.0] * 4),
            batch_size_per_image=heads.rpn_samples,
            positive_fraction=0.5,
            pre_nms_topk=tuple(heads.rpn_top),
            post_nms_topk=(heads.proposals, heads.proposals),
            nms_thresh=heads.rpn_nms,
        ),
        roi_heads=_roi_heads(lazy, shape, heads, strides[:-1], classes, image_counts, masks),
        pixel_mean=[255 * value for value in found.spec.mean],
        pixel_std=[255 * value for value in found.spec.std],
        input_format="RGB",
    )


def _roi_heads(
    lazy: Any,
    shape: Any,
    heads: HeadsConfig,
    strides: Sequence[int],
    classes: int,
    image_counts: Sequence[int] | None,
    masks: bool,
) -> Any:
    roi, pool = _need("detectron2.modeling.roi_heads"), _need("detectron2.modeling.poolers").ROIPooler
    coder, matcher = _need("detectron2.modeling.box_regression"), _need("detectron2.modeling.matcher")
    width, names = heads.channels, list(_NAMES[:-1])

    def pooler(size: int) -> Any:
        scales = tuple(1 / stride for stride in strides)
        return lazy(pool)(output_size=size, scales=scales, sampling_ratio=0, pooler_type="ROIAlignV2")

    mask = {
        "mask_in_features": names,
        "mask_pooler": pooler(14),
        "mask_head": lazy(roi.MaskRCNNConvUpsampleHead)(
            input_shape=shape(channels=width, width=14, height=14),
            num_classes=classes,
            conv_dims=[width] * (heads.mask_convs + 1),
            conv_norm="LN",
        ),
    }
    return lazy(roi.CascadeROIHeads)(
        num_classes=classes,
        batch_size_per_image=heads.roi_samples,
        positive_fraction=heads.roi_positives,
        box_in_features=names,
        box_pooler=pooler(7),
        box_heads=[
            lazy(roi.FastRCNNConvFCHead)(
                input_shape=shape(channels=width, height=7, width=7),
                conv_dims=[width] * heads.box_convs,
                fc_dims=[heads.hidden],
                conv_norm="LN",
            )
            for _ in heads.cascade_ious
        ],
        box_predictors=[
            lazy(roi.FastRCNNOutputLayers)(
                input_shape=shape(channels=heads.hidden),
                box2box_transform=lazy(coder.Box2BoxTransform)(weights=(centre, centre, size, size)),
                cls_agnostic_bbox_reg=True,
                num_classes=classes,
                test_nms_thresh=heads.nms,
                **_class_options(heads, image_counts),
            )
            for centre, size in heads.cascade_weights
        ],
        proposal_matchers=[
            lazy(matcher.Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False)
            for iou in heads.cascade_ious
        ],
        **(mask if masks else {}),
    )


def _class_options(heads: HeadsConfig, image_counts: Sequence[int] | None) -> dict[str, Any]:
    """COCO's softmax, or LVIS' sigmoid with the federated loss."""
    usual = COCO_LIMITS if image_counts is None else LVIS_LIMITS
    options: dict[str, Any] = {
        "test_score_thresh": usual.threshold if heads.score_threshold is None else heads.score_threshold,
        "test_topk_per_image": usual.detections if heads.detections is None else heads.detections,
    }
    if image_counts is not None:
        counts, power = list(image_counts), heads.federated_power
        options |= {
            "use_sigmoid_ce": True,
            "use_fed_loss": True,
            "fed_loss_num_classes": heads.federated_classes,
            "get_fed_loss_cls_weights": lambda: torch.tensor(counts, dtype=torch.float32) ** power,
        }
    return options


def lazy_config(
    encoder: str,
    *,
    classes: int,
    train: str = "coco_2017_train",
    test: str = "coco_2017_val",
    weights: str | None = "default",
    config: DetectionConfig | None = None,
    image_counts: Sequence[int] | None = None,
    images: int = 118_000,
) -> dict[str, Any]:
    """Everything that detectron2's `tools/lazyconfig_train_net.py` asks of a config file: model, dataloader, optimizer,
    lr_multiplier, train.

    `train`, `test`: names of registered datasets. `images`: of the training set, which give epochs their length.
    """
    lazy, config = _need("detectron2.config").LazyCall, config or DetectionConfig()
    zoo, transforms = _need("detectron2.model_zoo"), _need("detectron2.data.transforms")
    edge = canvas_edge(load_encoder(encoder, weights=weights))
    loader = zoo.get_config("common/data/coco.py").dataloader
    loader.train.dataset.names, loader.test.dataset.names = train, test
    loader.train.total_batch_size = config.batch
    loader.train.mapper.image_format = loader.test.mapper.image_format = "RGB"
    loader.train.mapper.recompute_boxes = tuple(config.jitter) != (1.0, 1.0)
    loader.train.mapper.augmentations = [
        lazy(transforms.RandomFlip)(horizontal=True, prob=config.flip),
        lazy(transforms.ResizeScale)(
            min_scale=config.jitter[0], max_scale=config.jitter[1], target_height=edge, target_width=edge
        ),
        lazy(transforms.FixedSizeCrop)(crop_size=(edge, edge), pad=False),
    ]
    loader.test.mapper.augmentations = [
        lazy(transforms.ResizeShortestEdge)(short_edge_length=edge, max_size=edge),
    ]
    optimizer = zoo.get_config("common/optim.py").AdamW
    optimizer.lr, optimizer.weight_decay = config.learning_rate, config.weight_decay
    settings = zoo.get_config("common/train.py").train
    settings.amp.enabled, settings.init_checkpoint = config.amp, ""
    settings.max_iter = max(1, round(config.epochs * images / config.batch))
    return {
        "model": lazy_model(encoder, config.heads, classes=classes, weights=weights, image_counts=image_counts),
        "dataloader": loader,
        "optimizer": optimizer,
        "lr_multiplier": _schedule(lazy, config, settings.max_iter),
        "train": settings,
    }


def _schedule(lazy: Any, config: DetectionConfig, updates: int) -> Any:
    schedulers, solver = _need("fvcore.common.param_scheduler"), _need("detectron2.solver")
    steps = [round(share * updates) for share in config.milestones]
    values = [0.1**k for k in range(len(steps) + 1)]
    return lazy(solver.WarmupParamScheduler)(
        scheduler=lazy(schedulers.MultiStepParamScheduler)(values=values, milestones=steps, num_updates=updates)
        if steps
        else lazy(schedulers.CosineParamScheduler)(start_value=1.0, end_value=0.0),
        warmup_length=min(config.warmup / updates, 0.1),
        warmup_factor=0.001,
    )


def as_instances(targets: Sequence[Target]) -> list[Any]:
    """What our heads learn from as detectron2's `Instances`, whose network takes them beside each picture."""
    structures = _need("detectron2.structures")
    found = []
    for target in targets:
        instances = structures.Instances(target.size)
        instances.gt_boxes, instances.gt_classes = structures.Boxes(target.boxes), target.labels
        if target.masks is not None:
            instances.gt_masks = structures.BitMasks(target.masks)
        found.append(instances)
    return found


def to_detectron2(detector: Detector) -> dict[str, Tensor]:
    """Our weights under the names of `lazy_model`'s network, without the encoder's."""
    return {_their_name(name): value for name, value in detector.state_dict().items()}


def from_detectron2(state: dict[str, Tensor], detector: Detector) -> None:
    """Load a network that detectron2 trained, e.g. its `model_final.pth` read with `weights_only=True`.

    Errors: KeyError or RuntimeError where it has other heads.
    """
    detector.load_state_dict({name: state[_their_name(name)] for name in detector.state_dict()})


def _their_name(name: str) -> str:
    part, *rest = name.split(".")
    if part == "pyramid":
        return f"backbone.{name}"
    if part == "proposals":
        return f"proposal_generator.rpn_head.{_rpn_name(rest)}"
    if part == "cascade":
        return f"roi_heads.{_box_name(rest)}"
    return f"roi_heads.mask_head.{_mask_name(rest)}"


def _rpn_name(rest: list[str]) -> str:
    if rest[0] == "convs":
        return f"conv.conv{rest[1]}.{rest[2]}"
    return f"{'objectness_logits' if rest[0] == 'objectness' else 'anchor_deltas'}.{rest[1]}"


def _box_name(rest: list[str]) -> str:
    _, stage, kind, *last = rest
    if kind in ("convs", "norms"):
        return f"box_head.{stage}.conv{int(last[0]) + 1}.{'norm.' if kind == 'norms' else ''}{last[1]}"
    if kind == "hidden":
        return f"box_head.{stage}.fc1.{last[0]}"
    return f"box_predictor.{stage}.{'cls_score' if kind == 'scores' else 'bbox_pred'}.{last[0]}"


def _mask_name(rest: list[str]) -> str:
    if rest[0] in ("convs", "norms"):
        return f"mask_fcn{int(rest[1]) + 1}.{'norm.' if rest[0] == 'norms' else ''}{rest[2]}"
    return f"{'deconv' if rest[0] == 'upsample' else 'predictor'}.{rest[1]}"
