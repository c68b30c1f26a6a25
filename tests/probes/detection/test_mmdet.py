"""The frozen encoder in mmdetection: it trains the pyramid and the heads, and finds boxes in the picture."""

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet", reason="mmdet is not installed (its mmcv is built from source, on an older torch)")

from probes.detection.mmdet import model_config
from rice.encoders.load import load_encoder


def sample(size: int, seed: int) -> tuple[torch.Tensor, Any]:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    dice = np.random.default_rng(seed)
    corner, extent = dice.uniform(0, size * 0.5, (3, 2)), dice.uniform(16, size * 0.4, (3, 2))
    boxes = np.concatenate([corner, corner + extent], 1).astype(np.float32)
    masks = np.zeros((3, size, size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    whole = (size, size)
    about = {"img_id": seed, "img_shape": whole, "ori_shape": whole, "pad_shape": whole, "scale_factor": (1.0, 1.0)}
    found = DetDataSample(metainfo=about)
    labels = torch.from_numpy(dice.integers(0, 5, 3))
    found.gt_instances = InstanceData(
        bboxes=torch.from_numpy(boxes), labels=labels, masks=BitmapMasks(masks, size, size)
    )
    return torch.from_numpy(dice.integers(0, 255, (3, size, size), dtype=np.uint8)), found


@pytest.mark.parametrize("name", ["mini-s8-128", "timm:vit_small_patch14_dinov2@126"])
def test_a_step_moves_all_but_the_encoder_and_a_prediction_lies_in_the_picture(name: str) -> None:
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.optim import OptimWrapper

    register_all_modules(init_default_scope=True)
    weights = None if name.startswith("timm") else "default"
    config = model_config(name, classes=5, weights=weights, channels=32)
    for stage in config.model.train_cfg.rcnn:
        stage.sampler.num = 32
    model = MODELS.build(config.model).train()
    size = load_encoder(name, weights=weights).spec.native_size
    assert not model.backbone.encoder.training
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = OptimWrapper(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3))
    images, found = zip(*(sample(size, seed) for seed in (1, 2)), strict=True)
    losses = model.train_step({"inputs": list(images), "data_samples": list(found)}, optimiser)
    assert torch.isfinite(losses["loss"])
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith("backbone.encoder.") for key in moved)
    weights_of = [key for key in before if key.startswith("backbone.pyramid.") and key.endswith(".weight")]
    assert all(key in moved for key in weights_of)
    model.eval()
    with torch.no_grad():
        (result,) = model.test_step({"inputs": [images[0]], "data_samples": [found[0]]})
    boxes = result.pred_instances.bboxes
    assert ((boxes >= 0) & (boxes <= size)).all()
