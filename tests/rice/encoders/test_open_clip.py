"""open_clip's towers: the same picture through its own transform and forward, and through ours."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from rice.encoders import open_clip as ours_open_clip
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.encoders.weights import Source
from rice.encoders.zoo import ZOO
from rice.errors import RiceError

Randomise = Callable[[nn.Module], nn.Module]
TOLERANCE = 1e-5
DFN5B = {"width": 64, "layers": 2, "head_width": 16}


def source_model(image_size: int | None = None) -> Any:
    """open_clip's own two-tower model: DFN5B's architecture, narrow and shallow."""
    config = open_clip.get_model_config("ViT-H-14-378-quickgelu")
    config["vision_cfg"] |= DFN5B | ({"image_size": image_size} if image_size else {})
    config["text_cfg"] |= {"width": 32, "layers": 1, "heads": 2, "vocab_size": 20}
    return open_clip.model.CLIP(**config).eval()


def encoder_of(weights: Path) -> Encoder:
    entry = ZOO["dfn5b-h14-378"]
    architecture = dict(entry.architecture) | {"vision": DFN5B}
    spec = replace(entry.spec, width=64, depth=2)
    loaded = ours_open_clip.load_architecture(architecture, spec, Source("local", str(weights)))
    return Encoder(*loaded, weights="default")


def tokens_of(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    model.visual.output_tokens = True
    with torch.no_grad():
        tokens: torch.Tensor = model.visual(pixels)[1]
    return tokens


def test_dfn5b_picture_gives_what_the_source_gives(tmp_path: Path, picture: Image.Image, randomise: Randomise) -> None:
    model = randomise(source_model())
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    encoder = encoder_of(tmp_path)
    published = open_clip.get_pretrained_cfg("ViT-H-14-378-quickgelu", "dfn5b")
    transform = image_transform(
        378,
        is_train=False,
        mean=published["mean"],
        std=published["std"],
        interpolation="bicubic",
        resize_mode="squash",
    )
    theirs = tokens_of(model, transform(picture)[None])
    ours = encoder(encoder.preprocess(picture)[None])
    expected = theirs.transpose(1, 2).reshape(1, 64, 27, 27)
    assert (ours.patches - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max())
    with torch.no_grad():
        pooled = model.visual(transform(picture)[None])[0]
    assert ours.cls is not None
    projected = ours.cls @ model.visual.proj
    assert (projected - pooled).abs().max() <= TOLERANCE * max(1, pooled.abs().max())


def test_other_sizes_are_as_open_clip_resizes_positions(tmp_path: Path, randomise: Randomise) -> None:
    big = randomise(source_model())
    file = tmp_path / "open_clip_model.safetensors"
    save_file({k: v.contiguous() for k, v in big.state_dict().items()}, file)
    small = source_model(image_size=252)
    open_clip.load_checkpoint(small, str(file))
    encoder = encoder_of(file)
    pixels = torch.rand(1, 3, 252, 252)
    expected = tokens_of(small, encoder.normalise(pixels)).transpose(1, 2).reshape(1, 64, 18, 18)
    assert (encoder(pixels).patches - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max())


@pytest.mark.parametrize(("layer", "block"), [(1, 0), (2, 1), (-2, 0)])
def test_layer_is_the_output_of_a_block(layer: int, block: int, tmp_path: Path, randomise: Randomise) -> None:
    model: Any = randomise(source_model())
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    encoder = encoder_of(tmp_path)
    seen: list[torch.Tensor] = []
    model.visual.transformer.resblocks[block].register_forward_hook(lambda _m, _i, output: seen.append(output))
    pixels = encoder.normalise(torch.rand(1, 3, 378, 378))
    tokens_of(model, pixels)
    with torch.no_grad():
        ours = encoder.features(pixels, layer)
    state = seen[0] if seen[0].shape[0] == 1 else seen[0].transpose(0, 1)
    assert torch.allclose(ours.patches.flatten(2).transpose(1, 2), state[:, 1:], atol=TOLERANCE, rtol=0)


def test_tower_around_a_timm_model_gives_its_features(picture: Image.Image) -> None:
    encoder = load_encoder("open_clip:ViT-B-16-SigLIP", weights=None)
    trunk: Any = encoder.module.trunk
    transform = image_transform(
        224, is_train=False, mean=encoder.spec.mean, std=encoder.spec.std, resize_mode="shortest"
    )
    pixels = transform(picture)[None]
    with torch.no_grad():
        expected = trunk.forward_features(pixels).transpose(1, 2).reshape(1, 768, 14, 14)
    ours = encoder(encoder.preprocess(picture)[None])
    assert ours.cls is None
    assert (ours.patches - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max())


def test_activation_that_the_weights_were_not_trained_with_is_refused() -> None:
    with pytest.raises(RiceError, match="ask for open_clip:ViT-L-14-quickgelu/openai"):
        ours_open_clip.describe("ViT-L-14/openai")


def test_unknown_names_give_the_nearest() -> None:
    with pytest.raises(RiceError, match="no architecture 'ViT-B-15'.*ViT-B-16"):
        ours_open_clip.describe("ViT-B-15")
    with pytest.raises(RiceError, match="no weights 'laion2b' for ViT-B-16.*laion2b_s34b_b88k"):
        ours_open_clip.describe("ViT-B-16/laion2b")
    with pytest.raises(RiceError, match="gives no patch tokens"):
        ours_open_clip.describe("RN50")


def test_zoo_spec_is_what_open_clip_says() -> None:
    entry = ZOO["dfn5b-h14-378"]
    theirs = ours_open_clip.describe("ViT-H-14-378-quickgelu/dfn5b")
    for field in ("patch", "width", "depth", "mlp_width", "native_size", "mean", "std", "norm", "preprocessing"):
        assert getattr(entry.spec, field) == getattr(theirs, field), field
    assert open_clip.get_pretrained_cfg("ViT-H-14-378-quickgelu", "dfn5b")["hf_hub"] == f"{entry.repo}/"
