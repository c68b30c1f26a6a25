"""timm's models: the same picture through its own transform and forward, and through ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from rice.encoders import timm as ours_timm
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.errors import RiceError

Randomise = Callable[[nn.Module], nn.Module]
TOLERANCE = 1e-5


def encoder_of(name: str, randomise: Randomise) -> tuple[Encoder, Any]:
    """Ours and timm's, with the same random values."""
    encoder = load_encoder(f"timm:{name}", weights=None)
    randomise(encoder.module)
    model = timm.create_model(name, num_classes=0).eval()
    model.load_state_dict(encoder.module.state_dict())
    return encoder, model


# Class token, register tokens, neither; crops of 0.9 and 1; rotary positions; a hierarchy; a CNN.
NAMES = [
    "vit_tiny_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_siglip_224",
    "vit_small_patch16_dinov3",
    "swin_tiny_patch4_window7_224",
    "resnet18",
]


@pytest.mark.parametrize("name", NAMES)
def test_picture_gives_what_the_source_gives(name: str, picture: Image.Image, randomise: Randomise) -> None:
    encoder, model = encoder_of(name, randomise)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        theirs = model.forward_features(transform(picture)[None])
    ours = encoder(encoder.preprocess(picture)[None])
    if theirs.ndim == 3:
        assert (ours.cls is None) == ("siglip" in name)
        assert ours.cls is None or torch.equal(ours.cls, theirs[:, 0])
        theirs = theirs[:, model.num_prefix_tokens :].transpose(1, 2)
    elif name.startswith("swin"):
        theirs = theirs.permute(0, 3, 1, 2)
    difference = (ours.patches.flatten(2) - theirs.flatten(2)).abs().max()
    assert difference <= TOLERANCE * max(1, theirs.abs().max())


def test_other_sizes_are_as_timm_resamples_positions(randomise: Randomise) -> None:
    encoder, model = encoder_of("vit_tiny_patch16_224", randomise)
    model.set_input_size(img_size=(288, 288))
    pixels = torch.rand(1, 3, 288, 288)
    with torch.no_grad():
        theirs = model.forward_features(encoder.normalise(pixels))[:, 1:].transpose(1, 2)
    ours = encoder(pixels).patches.flatten(2)
    assert (ours - theirs).abs().max() <= TOLERANCE * max(1, theirs.abs().max())


@pytest.mark.parametrize(("layer", "block"), [(1, 0), (12, 11), (-2, 10), (-12, 0)])
def test_layer_is_the_output_of_a_block(layer: int, block: int, randomise: Randomise) -> None:
    encoder, model = encoder_of("vit_tiny_patch16_224", randomise)
    seen: list[torch.Tensor] = []
    model.blocks[block].register_forward_hook(lambda _m, _i, output: seen.append(output))
    pixels = encoder.normalise(torch.rand(1, 3, 224, 224))
    with torch.no_grad():
        model.forward_features(pixels)
        ours = encoder.features(pixels, layer)
    assert torch.allclose(ours.patches.flatten(2).transpose(1, 2), seen[0][:, 1:], atol=TOLERANCE, rtol=0)
    assert ours.cls is not None
    assert torch.allclose(ours.cls, seen[0][:, 0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("layer", [0, 13, -13])
def test_layer_outside_the_tower_is_refused(layer: int) -> None:
    encoder = load_encoder("timm:vit_tiny_patch16_224", weights=None)
    with pytest.raises(RiceError, match="between 1 and 12"):
        encoder.features(torch.zeros(1, 3, 224, 224), layer)


def test_remainder_of_the_native_size_is_dropped() -> None:
    """timm asserts on 384 pixels by patches of 14 where its convolution would drop six."""
    spec = ours_timm.describe("vit_so400m_patch14_siglip_384.webli")
    with torch.device("meta"):
        module = ours_timm.build("vit_so400m_patch14_siglip_384.webli")
        features = ours_timm.extract(module, torch.zeros(1, 3, 384, 384), -1)
    assert spec.check_size(384, 384) == features.patches.shape[-2:] == (27, 27)


def test_one_size_models_say_so() -> None:
    spec = ours_timm.describe("beit_base_patch16_224")
    with pytest.raises(RiceError, match="native size 224"):
        spec.check_size(256, 256)


def test_local_weights_are_read_and_gaps_refused(tmp_path: Path, randomise: Randomise) -> None:
    model = randomise(timm.create_model("vit_tiny_patch16_224", num_classes=10))
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    encoder = load_encoder("timm:vit_tiny_patch16_224", weights=str(tmp_path))
    assert encoder.trained
    assert all(torch.equal(value, tensors[name]) for name, value in encoder.module.state_dict().items())
    del tensors["blocks.3.norm1.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(RiceError, match="it has no blocks.3.norm1.weight"):
        load_encoder("timm:vit_tiny_patch16_224", weights=str(tmp_path))


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(RiceError, match="no model 'vit_tiny_patch16_225'.*vit_tiny_patch16_224"):
        load_encoder("timm:vit_tiny_patch16_225", weights=None)
