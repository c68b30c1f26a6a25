"""What a step costs by arithmetic: the matrix products of tower, region layers and classifier (facts of section 3.2).

Two FLOPs per multiply-add; a training step is three forwards.
"""

from collections.abc import Mapping

from rice.encoders.cost import cost
from rice.encoders.spec import vit_spec
from rice.model.region import cheaper_form
from rice.train.config import TrainConfig


def forward_gflops(config: TrainConfig) -> float:
    """1e9 FLOPs of the forward of one image: the products of the tower and the region layers, or of the text tower."""
    vit, regions = config.vit, config.stream.regions
    tower = cost(vit_spec(vit, name=config.tower, source="rice"), config.size).gflops or 0.0
    if config.target == "image":
        return tower
    if config.target == "captions":
        text, tokens = config.text, config.text.context
        block = 24 * tokens * text.width**2 + 4 * tokens**2 * text.width
        return tower + (text.layers * block + 2 * text.width * (text.width + vit.width)) / 1e9
    patches, width, heads = vit.tokens - 1, vit.width, config.region.heads or vit.heads
    if cheaper_form(regions, patches, width, heads) == "absorbed":
        layer = 24 * regions * width**2 + 4 * heads * regions * patches * width
    else:
        layer = 4 * patches * width**2 + 20 * regions * width**2 + 4 * regions * patches * width
    return tower + config.region.layers * layer / 1e9


def classifier_gflops(config: TrainConfig, classes: Mapping[str, int]) -> float:
    """1e9 FLOPs of one image's products with the centres that its regions sample, in the forward."""
    regions = config.stream.regions if config.target == "regions" else 1
    return sum(2 * regions * config.rho_of(bank) * k * config.vit.width for bank, k in classes.items()) / 1e9
