"""Every transformers family: the same picture through its own processor and model, and through ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rice.encoders import hf
from rice.encoders.base import Encoder
from rice.encoders.hf_families import FAMILIES
from rice.errors import RiceError

TOLERANCE = 1e-5
Randomise = Callable[[nn.Module], nn.Module]

SMALL = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
NO_MLP_WIDTH = {k: v for k, v in SMALL.items() if k != "intermediate_size"}

# Published geometry and processors, written out from the repositories' own files; only width and depth are small.
CLIP_336 = transformers.CLIPImageProcessor(
    size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, resample=3
)
SIGLIP_384 = transformers.SiglipImageProcessor(size={"height": 384, "width": 384}, resample=3)
SIGLIP2_512 = transformers.SiglipImageProcessor(size={"height": 512, "width": 512}, resample=2)
DINOV2 = transformers.BitImageProcessor(
    size={"shortest_edge": 256},
    crop_size={"height": 224, "width": 224},
    resample=3,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
)
DINOV3 = transformers.DINOv3ViTImageProcessor(size={"height": 224, "width": 224}, resample=2)
VIT = transformers.ViTImageProcessor(size={"height": 224, "width": 224}, resample=2)

# name: (model class, configuration, processor, class and register tokens)
CASES: dict[str, tuple[Any, Any, Any, int]] = {
    "clip": (
        transformers.CLIPVisionModel,
        transformers.CLIPVisionConfig(**SMALL, image_size=336, patch_size=14, hidden_act="quick_gelu"),
        CLIP_336,
        1,
    ),
    "mlcd": (transformers.MLCDVisionModel, transformers.MLCDVisionConfig(**SMALL, image_size=336), CLIP_336, 1),
    "siglip": (
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig(**SMALL, image_size=384, patch_size=14),
        SIGLIP_384,
        0,
    ),
    "siglip2": (
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig(**SMALL, image_size=512, patch_size=16),
        SIGLIP2_512,
        0,
    ),
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**NO_MLP_WIDTH, image_size=224), DINOV2, 1),
    "dinov2-giant": (
        transformers.Dinov2Model,
        transformers.Dinov2Config(**NO_MLP_WIDTH, image_size=224, use_swiglu_ffn=True),
        DINOV2,
        1,
    ),
    "dinov2-registers": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(**NO_MLP_WIDTH, image_size=224, patch_size=14),
        DINOV2,
        5,
    ),
    "dinov3": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**SMALL, image_size=224, num_register_tokens=4),
        DINOV3,
        5,
    ),
    "aimv2": (
        transformers.Aimv2VisionModel,
        transformers.Aimv2VisionConfig(**SMALL, image_size=336, patch_size=14, use_head=False),
        CLIP_336,
        0,
    ),
    "vit": (transformers.ViTModel, transformers.ViTConfig(**SMALL, image_size=224), VIT, 1),
}


def save(name: str, folder: Path, randomise: Randomise) -> nn.Module:
    """The source's own model with random values, in a folder as its library writes it."""
    cls, config, processor, _ = CASES[name]
    model = randomise(cls(config))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def encoder_at(folder: Path, weights: str | None = "default") -> Encoder:
    return Encoder(*hf.load(str(folder), weights), weights="default")


def tokens(model: nn.Module, pixels: Tensor, **options: Any) -> Any:
    with torch.no_grad():
        return model(pixel_values=pixels, **options)


def as_map(tokens_BTD: Tensor, prefix: int) -> Tensor:
    grid = int((tokens_BTD.shape[1] - prefix) ** 0.5)
    return tokens_BTD[:, prefix:].reshape(-1, grid, grid, tokens_BTD.shape[-1]).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", CASES)
def test_picture_gives_what_the_source_gives(
    name: str, tmp_path: Path, picture: Image.Image, randomise: Randomise
) -> None:
    model = save(name, tmp_path, randomise)
    encoder = encoder_at(tmp_path)
    source = tokens(model, CASES[name][2](picture, return_tensors="pt").pixel_values)
    ours = encoder(encoder.preprocess(picture)[None])
    expected = as_map(source.last_hidden_state, CASES[name][3])
    assert ours.patches.shape == expected.shape
    assert (ours.patches - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max())
    if ours.cls is not None:
        cls = source.last_hidden_state[:, 0] if name == "vit" else source.pooler_output
        assert (ours.cls - cls).abs().max() <= TOLERANCE * max(1, cls.abs().max())
    assert (ours.cls is None) == (CASES[name][3] == 0)


ANY_SIZE = {"clip": 252, "mlcd": 252, "siglip": 252, "siglip2": 640, "dinov2": 350, "dinov2-registers": 350}
ANY_SIZE |= {"dinov3": 288, "vit": 320}


@pytest.mark.parametrize("name", ANY_SIZE)
def test_other_sizes_are_as_the_source_interpolates(name: str, tmp_path: Path, randomise: Randomise) -> None:
    model = save(name, tmp_path, randomise)
    encoder = encoder_at(tmp_path)
    pixels = torch.rand(1, 3, ANY_SIZE[name], ANY_SIZE[name])
    options = {"interpolate_pos_encoding": True} if name in ("clip", "siglip", "siglip2", "vit") else {}
    source = tokens(model, encoder.normalise(pixels), **options).last_hidden_state
    expected = as_map(source, CASES[name][3])
    assert (encoder(pixels).patches - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max())


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2-registers", "dinov3", "aimv2", "vit"])
@pytest.mark.parametrize("layer", [0, 2, 3, -2, -4])
def test_layer_is_the_hidden_state_of_the_source(name: str, layer: int, tmp_path: Path, randomise: Randomise) -> None:
    model = save(name, tmp_path, randomise)
    encoder = encoder_at(tmp_path)
    pixels = torch.rand(1, 3, encoder.spec.native_size, encoder.spec.native_size)
    normalised = encoder.normalise(pixels)
    state = tokens(model, normalised, output_hidden_states=True).hidden_states[layer]
    with torch.no_grad():
        ours = encoder.features(normalised, layer)
    assert torch.allclose(ours.patches, as_map(state, CASES[name][3]), rtol=0, atol=TOLERANCE)
    assert ours.cls is None or torch.allclose(ours.cls, state[:, 0], rtol=0, atol=TOLERANCE)


def test_layer_outside_the_tower_is_refused(tmp_path: Path, randomise: Randomise) -> None:
    save("clip", tmp_path, randomise)
    encoder = encoder_at(tmp_path)
    with pytest.raises(RiceError, match="between -4 and 3, got 4"):
        encoder.features(torch.zeros(1, 3, 336, 336), 4)


def test_picture_is_normalised_exactly_once(tmp_path: Path, randomise: Randomise) -> None:
    """The network sees (x - mean) / std of the picture, computed here in float64."""
    save("clip", tmp_path, randomise)
    encoder = encoder_at(tmp_path)
    seen: list[Tensor] = []
    embeddings: Any = encoder.module.embeddings
    embeddings.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    pixels = torch.rand(2, 3, 336, 336)
    encoder(pixels)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64).view(3, 1, 1)
    assert len(seen) == 1
    assert (seen[0] - (pixels.double() - mean) / std).abs().max() < 1e-6


def test_remainder_of_the_native_size_is_dropped(tmp_path: Path, randomise: Randomise) -> None:
    """384 pixels by patches of 14: what lies beyond the 27th patch changes nothing."""
    save("siglip", tmp_path, randomise)
    encoder = encoder_at(tmp_path)
    pixels = torch.rand(1, 3, 384, 384)
    changed = pixels.clone()
    changed[..., 378:, :] = 0
    changed[..., :, 378:] = 0
    assert encoder(pixels).patches.shape[-2:] == (27, 27)
    assert torch.equal(encoder(pixels).patches, encoder(changed).patches)
    with pytest.raises(RiceError, match="nearest: 378 and 392"):
        encoder(torch.rand(1, 3, 385, 385))


def test_features_carry_gradients_and_forward_keeps_none(tmp_path: Path, randomise: Randomise) -> None:
    save("dinov2", tmp_path, randomise)
    encoder = encoder_at(tmp_path)
    pixels = torch.rand(1, 3, 224, 224)
    assert not encoder(pixels).patches.requires_grad
    encoder.features(encoder.normalise(pixels)).patches.sum().backward()
    assert all(p.grad is not None for name, p in encoder.module.named_parameters() if name != "embeddings.mask_token")


def test_random_weights_are_the_same_every_time(tmp_path: Path, randomise: Randomise) -> None:
    save("clip", tmp_path, randomise)
    state = torch.get_rng_state()
    first, second = (encoder_at(tmp_path, None).module.state_dict() for _ in range(2))
    trained = encoder_at(tmp_path).module.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    name = "encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(first[name], trained[name])


def test_without_a_processor_file_the_documented_defaults_are_used_and_said(
    tmp_path: Path, picture: Image.Image, randomise: Randomise
) -> None:
    model = save("dinov2", tmp_path, randomise)
    (tmp_path / "preprocessor_config.json").unlink()
    encoder = encoder_at(tmp_path)
    assert encoder.spec.note is not None
    assert "no preprocessor_config.json" in encoder.spec.note
    source = tokens(model, DINOV2(picture, return_tensors="pt").pixel_values).last_hidden_state
    ours = encoder(encoder.preprocess(picture)[None]).patches
    assert (ours - as_map(source, 1)).abs().max() <= TOLERANCE * max(1, source.abs().max())


def test_missing_tensor_is_refused_though_transformers_would_fill_it(tmp_path: Path, randomise: Randomise) -> None:
    save("clip", tmp_path, randomise)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "layers.1.mlp.fc2.weight" in name)
    del tensors[gone]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(RiceError, match=r"it has no encoder.layers.1.mlp.fc2.weight \(1 tensors\)"):
        encoder_at(tmp_path)


def test_tensor_of_another_shape_is_refused(tmp_path: Path, randomise: Randomise) -> None:
    save("clip", tmp_path, randomise)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_size": 224}))
    with pytest.raises(RiceError, match="other shapes of .*position_embedding"):
        encoder_at(tmp_path)


def test_weights_of_another_kind_are_refused(tmp_path: Path, randomise: Randomise) -> None:
    save("clip", tmp_path / "clip", randomise)
    save("dinov2", tmp_path / "dino", randomise)
    with pytest.raises(RiceError, match="does not hold this tower"):
        hf.load(str(tmp_path / "clip"), str(tmp_path / "dino"))


def test_foreign_architecture_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(RiceError, match=r"model_type 'resnet', expected one of clip_vision_model.*register_encoder"):
        hf.load(str(tmp_path), None)


@pytest.mark.parametrize("kind", [k for k in FAMILIES if k not in ("unit", "aimv2_vision_model")])
def test_defaults_are_those_of_transformers(kind: str) -> None:
    """config.json omits what is at its default; the torch-free reader must fill in the same."""
    config = transformers.AutoConfig.for_model(kind)
    for field, value in FAMILIES[kind].defaults.items():
        theirs = getattr(config, field)
        assert (tuple(theirs) if isinstance(theirs, (list, tuple)) else theirs) == value, field


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("hidden_size", 1 << 21, "at most 1,048,576"),
        ("num_hidden_layers", 10_000, "at most 1,000"),
        ("hidden_size", 1 << 18, "of at most 20,000,000,000 parameters"),
        ("hidden_size", 4096, "values of a tower whose configuration has"),
    ],
)
def test_a_configuration_far_beyond_its_weights_is_refused_before_anything_is_allocated(
    tmp_path: Path, randomise: Randomise, field: str, value: int, says: str
) -> None:
    save("clip", tmp_path, randomise)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(RiceError, match=says):
        encoder_at(tmp_path)


def test_counting_a_tower_first_leaves_its_random_values_as_they_are(
    tmp_path: Path, randomise: Randomise, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("clip", tmp_path, randomise)
    counted = encoder_at(tmp_path, None).module.state_dict()
    monkeypatch.setattr(hf, "_count", lambda *_: 0)
    plain = encoder_at(tmp_path, None).module.state_dict()
    assert all(torch.equal(value, counted[name]) for name, value in plain.items())
