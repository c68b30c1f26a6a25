"""Towers whose published files or inputs transformers does not take as they are: AIMv2, UNIT, Qwen2.5-ViT, NaFlex,
and vision towers inside larger models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as QwenTower

from rice.encoders import hf
from rice.encoders.base import Encoder
from rice.encoders.spec import EncoderSpec
from rice.encoders.weights import Source

Randomise = Callable[[nn.Module], nn.Module]
TOLERANCE = 1e-5


def encoder_of(architecture: dict[str, Any], weights: Path, **facts: Any) -> Encoder:
    """An encoder of a bare architecture, as the zoo builds one."""
    spec = EncoderSpec(name="test", source="test", patch=14, size_multiple=14, **facts)
    loaded = hf.load_architecture(architecture, spec, Source("local", str(weights)))
    return Encoder(*loaded, weights="default")


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE * max(1, theirs.abs().max())


# --- AIMv2 in Apple's names: timm reads them too, by code of its own ---

APPLE = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 336,
    "patch_size": 14,
}


def apple_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a small AIMv2 under the names of apple/aimv2-large-patch14-336."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=generator) + (len(shape) == 1)

    tensors = {
        "preprocessor.patchifier.proj.weight": draw(64, 3, 14, 14),
        "preprocessor.patchifier.proj.bias": draw(64),
        "preprocessor.patchifier.norm.weight": draw(64),
        "preprocessor.pos_embed": draw(1, 576, 64),
        "trunk.post_trunk_norm.weight": draw(64),
    }
    for block in ("trunk.blocks.0", "trunk.blocks.1"):
        tensors |= {
            f"{block}.norm_1.weight": draw(64),
            f"{block}.norm_2.weight": draw(64),
            f"{block}.attn.qkv.weight": draw(192, 64),
            f"{block}.attn.proj.weight": draw(64, 64),
            f"{block}.mlp.fc1.weight": draw(176, 64),
            f"{block}.mlp.fc2.weight": draw(64, 176),
            f"{block}.mlp.fc3.weight": draw(176, 64),
        }
    save_file(tensors, path)
    return tensors


def timm_aimv2(tensors: dict[str, Tensor], size: int) -> nn.Module:
    model = timm.create_model("aimv2_large_patch14_336", embed_dim=64, depth=2, num_heads=2, num_classes=0)
    from timm.models.vision_transformer import checkpoint_filter_fn

    model.load_state_dict(checkpoint_filter_fn(dict(tensors), model))
    model.set_input_size(img_size=(size, size))
    return model.eval()


def test_apple_names_give_what_timm_gives(tmp_path: Path) -> None:
    tensors = apple_checkpoint(tmp_path / "model.safetensors")
    facts = {"width": 64, "native_size": 336}
    encoder = encoder_of({"model_type": "aimv2_vision_model", **APPLE}, tmp_path, **facts)
    pixels = torch.rand(2, 3, 336, 336)
    with torch.no_grad():
        theirs = timm_aimv2(tensors, 336).forward_features(encoder.normalise(pixels))
    close(encoder(pixels).patches, theirs.transpose(1, 2).reshape(2, 64, 24, 24))


def test_aimv2_takes_other_sizes_with_bicubic_positions(tmp_path: Path) -> None:
    tensors = apple_checkpoint(tmp_path / "model.safetensors")
    table = tensors["preprocessor.pos_embed"].reshape(1, 24, 24, 64).permute(0, 3, 1, 2)
    resized = functional.interpolate(table, (16, 16), mode="bicubic", align_corners=False)
    tensors["preprocessor.pos_embed"] = resized.permute(0, 2, 3, 1).reshape(1, 256, 64)
    save_file(tensors, tmp_path / "small.safetensors")
    big = encoder_of(
        {"model_type": "aimv2_vision_model", **APPLE}, tmp_path / "model.safetensors", width=64, native_size=336
    )
    small = encoder_of(
        {"model_type": "aimv2_vision_model", **APPLE | {"image_size": 224}},
        tmp_path / "small.safetensors",
        width=64,
        native_size=224,
    )
    pixels = torch.rand(1, 3, 224, 224)
    close(big(pixels).patches, small(pixels).patches)


# --- UNIT: RADIO of transformers, with the two things that UNIT's own code does otherwise ---

UNIT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "table_size": 73}


def unit_checkpoint(path: Path, registers: int) -> dict[str, Tensor]:
    """Tensors of a small UNIT under the names that its own code gives them."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=generator)

    tensors = {
        "patch_generator.embedder.weight": draw(48, 588),
        "patch_generator.pos_embed": draw(1, 73 * 73, 48),
        "patch_generator.cls_token.token": draw(1 + registers, 48),
        "norm.weight": 1 + draw(48),
        "norm.bias": draw(48),
    }
    for block in ("blocks.0", "blocks.1"):
        for layer, rows, columns in (
            ("attn.qkv", 144, 48),
            ("attn.proj", 48, 48),
            ("mlp.fc1", 192, 48),
            ("mlp.fc2", 48, 192),
        ):
            tensors |= {f"{block}.{layer}.weight": draw(rows, columns), f"{block}.{layer}.bias": draw(rows)}
        for norm in ("norm1", "norm2"):
            tensors |= {f"{block}.{norm}.weight": 1 + draw(48), f"{block}.{norm}.bias": draw(48)}
    published = {f"unit_model.model.{name}": value for name, value in tensors.items()}
    save_file(published | {"unit_model.input_conditioner.norm_mean": torch.zeros(3, 1, 1)}, path)
    return tensors


def radio_as_unit(tensors: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """RADIO converted and run by transformers. UNIT stretches its table with aligned corners, and norms at the end."""
    edge = max(pixels.shape[-2:]) // 14
    table = tensors["patch_generator.pos_embed"].reshape(1, 73, 73, 48).permute(0, 3, 1, 2)
    table = functional.interpolate(table, (edge, edge), mode="bilinear", align_corners=True)
    named = {f"radio_model.model.{name}": value for name, value in tensors.items() if not name.startswith("norm")}
    named["radio_model.model.patch_generator.pos_embed"] = table.flatten(2).transpose(1, 2)
    config = transformers.RadioConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        patch_size=14,
        max_img_size=14 * edge,
        num_cls_tokens=1,
        num_registers=len(tensors["patch_generator.cls_token.token"]) - 1,
        summary_idxs=[0],
        norm_mean=[0.0] * 3,
        norm_std=[1.0] * 3,
    )
    model = transformers.RadioModel.from_pretrained(None, config=config, state_dict=named).eval()
    with torch.no_grad():
        states = model(pixels).last_hidden_state
    return functional.layer_norm(states, (48,), tensors["norm.weight"], tensors["norm.bias"], 1e-6)


@pytest.mark.parametrize(("size", "registers"), [((378, 378), 0), ((224, 336), 0), ((1022, 1022), 0), ((378, 378), 3)])
def test_unit_gives_what_its_own_code_gives(tmp_path: Path, size: tuple[int, int], registers: int) -> None:
    tensors = unit_checkpoint(tmp_path / "model.safetensors", registers)
    encoder = encoder_of({"model_type": "unit", **UNIT}, tmp_path, width=48, native_size=378, norm="post")
    pixels = torch.rand(1, 3, *size)
    theirs = radio_as_unit(tensors, encoder.normalise(pixels))
    ours = encoder(pixels)
    grid = (size[0] // 14, size[1] // 14)
    close(ours.patches, theirs[:, 1 + registers :].transpose(1, 2).reshape(1, 48, *grid))
    assert ours.cls is not None
    close(ours.cls, theirs[:, 0])


@pytest.mark.parametrize(("layer", "block"), [(1, 0), (2, 1), (-2, 0)])
def test_layer_of_unit_is_the_output_of_a_block(tmp_path: Path, layer: int, block: int) -> None:
    unit_checkpoint(tmp_path / "model.safetensors", 0)
    encoder = encoder_of({"model_type": "unit", **UNIT}, tmp_path, width=48, native_size=378, norm="post")
    blocks: Any = encoder.module.blocks
    seen: list[Tensor] = []
    blocks[block].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        features = encoder.features(torch.rand(1, 3, 56, 56), layer)
    assert torch.equal(features.patches.flatten(2).transpose(1, 2), seen[0][:, 1:])


# --- Qwen2.5-ViT: windows undone, before the merge, out of a whole multimodal model ---

QWEN = {"depth": 3, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": 32}
QWEN |= {"fullatt_block_indexes": [1], "window_size": 112, "patch_size": 14}


class Unmerged(nn.Module):
    """In the place of the merger: the source's own forward then gives unmixed tokens, its windows undone by itself."""

    def forward(self, states: Tensor) -> Tensor:
        return states.reshape(len(states) // 4, -1)


def qwen_reference(model: Any, patches: Tensor, grids: Tensor) -> Tensor:
    model.merger = Unmerged()
    _, h, w = grids[0].tolist()
    with torch.no_grad():
        units = model(patches, grid_thw=grids).pooler_output
    cells = units.view(len(grids), h // 2, w // 2, 2, 2, -1)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(grids), -1, h, w)


@pytest.mark.parametrize("size", [560, 392, 252])
def test_qwen_picture_gives_what_the_source_gives(
    size: int, tmp_path: Path, picture: Image.Image, randomise: Randomise
) -> None:
    model: Any = randomise(QwenTower(transformers.AutoConfig.for_model("qwen2_5_vl_vision", **QWEN)))
    model.save_pretrained(tmp_path)
    encoder = Encoder(*hf.load(f"{tmp_path}", "default"), weights="default")
    assert encoder.spec.native_size == 560
    assert encoder.spec.size_multiple == 28
    square = picture.crop((0, 0, 333, 333))
    processor = transformers.Qwen2VLImageProcessor(size={"shortest_edge": size**2 - 1, "longest_edge": size**2 + size})
    cut = processor([square, square.rotate(90)], return_tensors="pt")
    assert cut.image_grid_thw.tolist() == [[1, size // 14, size // 14]] * 2
    ours = encoder(torch.stack([encoder.preprocess(p, size) for p in (square, square.rotate(90))]))
    close(ours.patches, qwen_reference(model, cut.pixel_values, cut.image_grid_thw))


@pytest.mark.parametrize("layer", [0, 1, -2])
def test_qwen_hidden_states_are_put_back_in_order_too(tmp_path: Path, randomise: Randomise, layer: int) -> None:
    """The position of a cell: a hidden state of a picture that differs in one cell differs most there."""
    model: Any = randomise(QwenTower(transformers.AutoConfig.for_model("qwen2_5_vl_vision", **QWEN)))
    model.save_pretrained(tmp_path)
    encoder = Encoder(*hf.load(f"{tmp_path}", "default"), weights="default")
    base = torch.rand(1, 3, 252, 224)
    for row, column in [(0, 0), (5, 14), (17, 3), (9, 9)]:
        changed = base.clone()
        changed[..., 14 * row : 14 * row + 14, 14 * column : 14 * column + 14] += 1
        with torch.no_grad():
            difference = encoder.features(changed, layer).patches - encoder.features(base, layer).patches
        where = difference.norm(dim=1)[0].flatten().argmax().item()
        assert divmod(where, 16) == (row, column)


def test_qwen_tower_is_found_in_the_whole_model(tmp_path: Path, randomise: Randomise) -> None:
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 2, "vocab_size": 100}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=QWEN)
    model = randomise(transformers.Qwen2_5_VLForConditionalGeneration(config))
    model.save_pretrained(tmp_path)
    encoder = Encoder(*hf.load(str(tmp_path), "default"), weights="default")
    theirs = model.model.visual.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in encoder.module.state_dict().items())


# --- vision towers inside two-tower models ---

SMALL = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = SMALL | {"vocab_size": 50, "projection_dim": 16}


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (
            transformers.CLIPConfig(text_config=TEXT, vision_config=SMALL | {"image_size": 64}, projection_dim=16),
            transformers.CLIPModel,
        ),
        (
            transformers.SiglipConfig(text_config=TEXT, vision_config=SMALL | {"image_size": 64}),
            transformers.SiglipModel,
        ),
    ],
    ids=["clip", "siglip"],
)
def test_tower_is_found_beside_a_text_tower(config: Any, model: Any, tmp_path: Path, randomise: Randomise) -> None:
    whole = randomise(model(config))
    whole.save_pretrained(tmp_path)
    encoder = Encoder(*hf.load(str(tmp_path), "default"), weights="default")
    theirs = whole.vision_model.state_dict()
    assert encoder.module.state_dict().keys() <= theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in encoder.module.state_dict().items())


def test_naflex_gives_what_the_source_gives(tmp_path: Path, picture: Image.Image, randomise: Randomise) -> None:
    config = transformers.Siglip2VisionConfig(**SMALL, num_patches=256, patch_size=16)
    model = randomise(transformers.Siglip2VisionModel(config))
    model.save_pretrained(tmp_path)
    processor = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=256, resample=2)
    processor.save_pretrained(tmp_path)
    encoder = Encoder(*hf.load(str(tmp_path), "default"), weights="default")
    square = picture.crop((0, 0, 333, 333))
    inputs = processor(square, return_tensors="pt")
    assert inputs["spatial_shapes"].tolist() == [[16, 16]]
    with torch.no_grad():
        theirs = model(**inputs).last_hidden_state
    close(encoder(encoder.preprocess(square)[None]).patches, theirs.transpose(1, 2).reshape(1, 48, 16, 16))
