"""The frozen encoder as a backbone of mmdetection, and a config of its Cascade Mask R-CNN over it.

Importing this module registers the backbone `FrozenEncoder`, so a config of one's own needs no more than

    custom_imports = dict(imports=["probes.detection.mmdet"], allow_failed_imports=False)
    model = dict(backbone=dict(_delete_=True, type="FrozenEncoder", encoder="rice-b16-512"), neck=None, ...)

mmdetection 3.3.0 asks for mmcv below 2.2, which is built from source and needs an older torch: run with mmdet 3.3.0,
mmcv 2.1.0, mmengine 0.10.7, torch 2.13.0, torchvision 0.28.0, Python 3.11, on a CPU, in an environment of its own:

    pip install torch==2.13.0 torchvision==0.28.0 'setuptools<81' wheel ninja
    pip install rice-suite
    MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps mmcv==2.1.0
    pip install mmdet==3.3.0 mmengine==0.10.7

(torch 2.14 and later want C++20: with -std=c++17 replaced in mmcv's setup.py it runs on 2.15, too.)

Known differences from our own engine and detectron2's recipe: the heads are mmdetection's (two fully connected layers,
no LayerNorm, masks from all three stages), and so are its losses and sampling. Fractional strides, as patch 14 has
them, are taken as they are. mmengine's checkpoints hold the encoder, too, and are read with pickle: read only your own.

Shapes: B images, S edge of the square input, h w the patch grid.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.detection.pyramid import Pyramid, levels, normalise_tokens
from rice.encoders.load import describe, load_encoder
from rice.encoders.spec import EncoderReference
from rice.errors import MissingExtraError

INSTALL = "MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps mmcv==2.1.0; pip install mmdet==3.3.0 mmengine"

_BASE = ".mim/configs/_base_/models/cascade-mask-rcnn_r50_fpn.py"


def _need(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed; with torch 2.13 or older: {INSTALL}") from error


_models, _base_module = _need("mmdet.registry").MODELS, _need("mmengine.model").BaseModule


@_models.register_module()
class FrozenEncoder(_base_module):  # type: ignore[misc, valid-type]
    """The encoder with its pyramid: five levels of `channels` channels; only the pyramid has gradients.

    `encoder`, `weights`: as in `rice.load_encoder`. Its input (B, 3, S, S) is normalised by mmdetection's preprocessor
    with the encoder's own mean and std (`model_config` sets them).
    """

    def __init__(
        self, encoder: str, weights: str | None = "default", channels: int = 256, init_cfg: Any = None
    ) -> None:
        super().__init__(init_cfg)
        self.encoder = load_encoder(encoder, weights=weights).requires_grad_(False)
        self.pyramid = Pyramid(self.encoder.spec.width, channels)

    def train(self, mode: bool = True) -> Any:
        """Never the encoder: a frozen tower has no training mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images_B3SS: Tensor) -> tuple[Tensor, ...]:
        """Maps from fine to coarse."""
        with torch.no_grad():
            tokens = normalise_tokens(self.encoder.features(images_B3SS).patches)
        return tuple(self.pyramid(tokens))


def model_config(encoder: str, *, classes: int, weights: str | None = "default", channels: int = 256) -> Any:
    """mmdetection's Cascade Mask R-CNN over the frozen encoder: an mmengine `Config` with `model` and `custom_imports`.

    Pictures must be scaled into and padded to squares of the encoder's size: `Resize(scale=(S, S), keep_ratio=True)`;
    the preprocessor pads.
    """
    spec = describe(EncoderReference.parse(encoder), weights)
    strides = [level.stride for level in levels(spec.patch)]
    config = _need("mmengine.config").Config.fromfile(Path(_need("mmdet").__file__).parent / _BASE)
    model = config.model
    model.backbone = {"type": "FrozenEncoder", "encoder": encoder, "weights": weights, "channels": channels}
    model.neck = None
    model.data_preprocessor.update(
        mean=[255 * value for value in spec.mean],
        std=[255 * value for value in spec.std],
        bgr_to_rgb=True,
        pad_size_divisor=spec.native_size,
    )
    model.rpn_head.in_channels = model.rpn_head.feat_channels = channels
    model.rpn_head.anchor_generator.strides = strides
    for name in ("bbox_roi_extractor", "mask_roi_extractor"):
        model.roi_head[name].update(featmap_strides=strides[:-1], out_channels=channels)
    for head in model.roi_head.bbox_head:
        head.update(num_classes=classes, in_channels=channels)
    model.roi_head.mask_head.update(num_classes=classes, in_channels=channels)
    config.custom_imports = {"imports": [__name__], "allow_failed_imports": False}
    return config
