"""The analytic cost is what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rice.encoders.cost import cost
from rice.encoders.spec import EncoderSpec
from rice.encoders.zoo import ZOO
from rice.errors import RiceError


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, entry.spec.native_size) for name, entry in ZOO.items() if name != "qwen2.5-vit-560"]
    + [("clip-l14-336", 672), ("dinov2-b14-518", 112)],
)
def test_cost_is_what_torch_counts(name: str, size: int) -> None:
    from rice.encoders import hf, hf_extract, open_clip
    from rice.encoders import rice as own
    from rice.model.vit import ViT, ViTConfig

    entry = ZOO[name]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        pixels = torch.zeros(1, 3, size, size)
        if entry.loader == "rice":
            own.extract(ViT(ViTConfig(**entry.architecture)), pixels, -1)
        elif entry.loader == "hf":
            hf_extract.extract(hf.build(entry.architecture).eval(), pixels, -1)
        else:
            open_clip.extract(open_clip.build(entry.architecture), pixels, -1)
    ours = cost(entry.spec, size)
    assert ours.gflops == pytest.approx(counter.get_total_flops() / 1e9, rel=0.02)
    assert ours.tokens == (size // entry.spec.patch) ** 2


@pytest.mark.parametrize("size", [560, 252])
def test_cost_of_windows_is_what_torch_counts(size: int) -> None:
    """Qwen2.5-ViT, shallow, on real grids: 252 pixels leave windows of unequal size. Its merge is not counted."""
    from dataclasses import replace

    from rice.encoders import hf, hf_extract

    entry = ZOO["qwen2.5-vit-560"]
    narrow = {"depth": 4, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "fullatt_block_indexes": [3]}
    module = hf.build(dict(entry.architecture) | narrow).eval()
    module.merger = torch.nn.Identity()
    spec = replace(entry.spec, width=64, depth=4, mlp_width=96, full_attention_layers=1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hf_extract.extract(module, torch.zeros(1, 3, size, size), -1)
    # The temporal patch doubles the embedding's product: both frames are the same picture.
    embedding = 2 * (size // 14) ** 2 * 3 * 14**2 * 64 / 1e9
    assert cost(spec, size).gflops == pytest.approx(counter.get_total_flops() / 1e9 - embedding, rel=0.02)


def test_what_is_not_known_is_not_guessed() -> None:
    spec = EncoderSpec(name="x", source="own", patch=16, size_multiple=16, width=8, native_size=64)
    assert cost(spec, 64) == (16, None)


def test_size_that_the_encoder_cannot_take_is_refused() -> None:
    with pytest.raises(RiceError, match="nearest: 196 and 210"):
        cost(ZOO["clip-l14-336"].spec, 200)
