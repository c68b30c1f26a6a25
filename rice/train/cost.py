"""What a step costs by arithmetic: the matrix products of tower, region layers and classifier (facts of section 3.2).

Two FLOPs per multiply-add; a training step is three forwards.
"""

from collections.abc import Mapping

from rice.model.region import cheaper_form
from rice.train.config import TrainConfig


def forward_gflops(config: TrainConfig) -> float:
    """1e9 FLOPs of the forward of one image: the products of the tower and the region layers (facts of section 3.2)."""
    vit, regions = config.vit, config.stream.regions
    patches, width = vit.tokens - 1, vit.width
    block = 8 * vit.tokens * width**2 + 4 * vit.tokens * width * vit.mlp_width + 4 * vit.tokens**2 * width
    total = vit.depth * block + 2 * patches * 3 * vit.patch**2 * width
    if config.target == "regions":
        heads = config.region.heads or vit.heads
        if cheaper_form(regions, patches, width, heads) == "absorbed":
            layer = 24 * regions * width**2 + 4 * heads * regions * patches * width
        else:
            layer = 4 * patches * width**2 + 20 * regions * width**2 + 4 * regions * patches * width
        total += config.region.layers * layer
    return total / 1e9


def classifier_gflops(config: TrainConfig, classes: Mapping[str, int]) -> float:
    """1e9 FLOPs of one image's products with the centres that its regions sample, in the forward."""
    rho = {"ocr": config.ocr_rho}
    regions = config.stream.regions if config.target == "regions" else 1
    return sum(2 * regions * rho.get(name, config.rho) * k * config.vit.width for name, k in classes.items()) / 1e9
