"""What is exported, as transformers' own Auto classes load it, against the encoder that it came from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModel

from rice.encoders import hf, rice
from rice.encoders import open_clip as open_clip_models
from rice.encoders import timm as timm_models
from rice.encoders.base import Encoder
from rice.encoders.export import export
from rice.encoders.spec import EncoderSpec, Preprocessing
from rice.errors import RiceError
from rice.model.config import ViTConfig

Randomise = Callable[[nn.Module], nn.Module]
SMALL = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def own(randomise: Randomise) -> Encoder:
    config = ViTConfig(width=48, depth=3, heads=4, patch=14, image_size=56, mlp_width=80)
    spec = EncoderSpec(
        name="own", source="test", patch=14, size_multiple=14, width=48, native_size=56, mean=(0.4, 0.5, 0.6)
    )
    return Encoder(randomise(rice.build(config)), spec, rice.extract, weights="test")


def wrapped(model: nn.Module, spec: EncoderSpec) -> Encoder:
    return Encoder(model.eval(), spec, hf.extract, weights="test")


def assert_readable_alike(folder: Path) -> None:
    """Whoever may read the folder's configuration may read its weights."""
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1


def test_our_tower_is_loaded_by_automodel_and_sees_the_same(own: Encoder, picture: Image.Image, tmp_path: Path) -> None:
    export(own, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert_readable_alike(tmp_path / "out")
    model, report = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model) is transformers.MLCDVisionModel
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = model.eval()(**processor(picture, return_tensors="pt"))
    features = own(own.preprocess(picture)[None])
    assert features.cls is not None
    assert (features.cls - expected.pooler_output).abs().max() <= 1e-5
    patches = expected.last_hidden_state[:, 1:].transpose(1, 2).reshape(features.patches.shape)
    assert (features.patches - patches).abs().max() <= 1e-5


def test_our_tower_at_another_size_says_so(own: Encoder, tmp_path: Path) -> None:
    own.spec = replace(own.spec, native_size=84)
    export(own, tmp_path / "out")
    assert AutoModel.from_pretrained(tmp_path / "out").config.image_size == 84
    assert AutoImageProcessor.from_pretrained(tmp_path / "out").crop_size["height"] == 84


def test_exporting_what_was_exported_changes_no_byte(own: Encoder, tmp_path: Path) -> None:
    export(own, tmp_path / "first")
    spec, module, extract = _again(tmp_path / "first")
    export(Encoder(module, spec, extract, weights="test"), tmp_path / "second")
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def _again(folder: Path) -> tuple[EncoderSpec, nn.Module, Any]:
    loaded = rice.load(str(folder))
    return loaded.spec, loaded.module, loaded.extract


TRANSFORMERS: dict[str, tuple[Any, Any, Preprocessing]] = {
    "clip": (
        transformers.CLIPVisionModel,
        transformers.CLIPVisionConfig(**SMALL, image_size=70, patch_size=14),
        Preprocessing(),
    ),
    "siglip": (
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig(**SMALL, image_size=70, patch_size=14),
        Preprocessing(resize="squash"),
    ),
    "dinov2": (
        transformers.Dinov2Model,
        transformers.Dinov2Config(
            hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=70, patch_size=14
        ),
        Preprocessing(crop_fraction=70 / 80),
    ),
    "dinov3": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**SMALL, image_size=70, patch_size=14),
        Preprocessing(resize="squash", interpolation="bilinear", backend="torchvision-float"),
    ),
}


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_towers_of_transformers_stay_what_they_are(
    family: str, randomise: Randomise, picture: Image.Image, tmp_path: Path
) -> None:
    cls, config, preprocessing = TRANSFORMERS[family]
    spec = EncoderSpec(
        name=family,
        source="test",
        patch=14,
        size_multiple=14,
        width=48,
        native_size=70,
        mean=(0.4, 0.5, 0.6),
        preprocessing=preprocessing,
    )
    model = randomise(cls(config))
    encoder = wrapped(model, spec)
    export(encoder, tmp_path / "out")
    assert_readable_alike(tmp_path / "out")
    loaded = AutoModel.from_pretrained(tmp_path / "out")
    assert type(loaded) is cls
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "out")(picture, return_tensors="pt")["pixel_values"]
    ours = encoder.normalise(encoder.preprocess(picture)[None])
    assert (pixels - ours).abs().max() <= 1e-5
    with torch.no_grad():
        expected, output = model(pixels), loaded.eval()(pixels)
    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)


def test_naflex_pictures_are_cut_as_the_encoder_cuts_them(picture: Image.Image, tmp_path: Path) -> None:
    config = transformers.Siglip2VisionConfig(**SMALL, num_patches=25, patch_size=14, vision_use_head=False)
    spec = EncoderSpec(
        name="naflex",
        source="test",
        patch=14,
        size_multiple=14,
        width=48,
        native_size=70,
        preprocessing=Preprocessing(resize="squash", interpolation="bilinear"),
        norm="post",
    )
    encoder = wrapped(transformers.Siglip2VisionModel(config), spec)
    export(encoder, tmp_path / "out")
    square = picture.resize((333, 333))
    inputs = AutoImageProcessor.from_pretrained(tmp_path / "out")(square, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(tmp_path / "out").eval()(**inputs).last_hidden_state
    patches = encoder(encoder.preprocess(square)[None]).patches
    assert (patches.flatten(2).transpose(1, 2) - expected).abs().max() <= 1e-4


def test_qwen_pictures_are_cut_as_the_encoder_cuts_them(picture: Image.Image, tmp_path: Path) -> None:
    from rice.encoders.hf_extract import qwen_patches

    config = transformers.models.qwen2_5_vl.configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig(
        depth=2, hidden_size=48, intermediate_size=64, num_heads=4, out_hidden_size=32, fullatt_block_indexes=[1]
    )
    model = transformers.models.qwen2_5_vl.modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel(config)
    spec = EncoderSpec(
        name="qwen",
        source="test",
        patch=14,
        size_multiple=28,
        width=48,
        native_size=84,
        preprocessing=Preprocessing(resize="squash"),
    )
    encoder = wrapped(model, spec)
    export(encoder, tmp_path / "out")
    square = picture.resize((333, 333))
    inputs = AutoImageProcessor.from_pretrained(tmp_path / "out")(square, return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]]
    ours = qwen_patches(encoder.normalise(encoder.preprocess(square)[None]), config)
    assert (inputs["pixel_values"] - ours).abs().max() <= 1e-5


def clip_of_open_clip(**changes: Any) -> VisionTransformer:
    fields = {"image_size": 70, "patch_size": 14, "width": 48, "layers": 3, "heads": 4, "mlp_ratio": 2.0}
    return VisionTransformer(**{**fields, "output_dim": 32, **changes})


def open_clip_encoder(tower: nn.Module) -> Encoder:
    spec = EncoderSpec(name="open", source="test", patch=14, size_multiple=14, width=48, native_size=70, norm="post")
    return Encoder(tower.eval(), spec, open_clip_models.extract, weights="test")


@pytest.mark.parametrize("activation", [nn.GELU, open_clip.transformer.QuickGELU], ids=["gelu", "quick_gelu"])
def test_open_clip_towers_become_clips(activation: type[nn.Module], randomise: Randomise, tmp_path: Path) -> None:
    encoder = open_clip_encoder(randomise(clip_of_open_clip(act_layer=activation)))
    export(encoder, tmp_path / "out")
    model, report = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model) is transformers.CLIPVisionModel
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pixels = torch.randn(2, 3, 70, 70)
    with torch.no_grad():
        output = model.eval()(pixels, output_hidden_states=True)
        features = encoder.features(pixels)
        patches = model.post_layernorm(output.last_hidden_state)[:, 1:]
        earlier = encoder.features(pixels, layer=1).patches
    assert features.cls is not None
    assert (features.cls - output.pooler_output).abs().max() <= 1e-5
    assert (features.patches.flatten(2).transpose(1, 2) - patches).abs().max() <= 1e-5
    assert (earlier.flatten(2).transpose(1, 2) - output.hidden_states[1][:, 1:]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "changes",
    [{"attentional_pool": True}, {"ls_init_value": 1e-4}, {"no_ln_pre": True}, {"act_layer": nn.ReLU}],
    ids=lambda changes: next(iter(changes)),
)
def test_open_clip_towers_that_are_no_clips_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="cannot be exported"):
        export(open_clip_encoder(clip_of_open_clip(**changes)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_other_sources_are_refused_with_what_can_be_exported(tmp_path: Path) -> None:
    spec = EncoderSpec(name="timm:tiny", source="test", patch=16, size_multiple=16, width=192, native_size=32)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0)
    with pytest.raises(RiceError, match=r"timm:tiny cannot be exported .*our own ViT"):
        export(Encoder(model, spec, timm_models.extract, weights="test"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_towers_that_automodel_does_not_know_are_refused(tmp_path: Path) -> None:
    config = transformers.CLIPVisionConfig(**SMALL, image_size=70, patch_size=14)
    model = transformers.CLIPVisionModel(config)
    model.config.model_type = "unit"
    spec = EncoderSpec(name="unit", source="test", patch=14, size_multiple=14, width=48, native_size=70)
    with pytest.raises(RiceError, match="unit cannot be exported"):
        export(wrapped(model, spec), tmp_path / "out")


@pytest.mark.parametrize("content", ["folder with a file", "file"])
def test_what_exists_is_not_overwritten(own: Encoder, content: str, tmp_path: Path) -> None:
    to = tmp_path / "out"
    if content == "file":
        to.write_text("mine")
    else:
        to.mkdir()
        (to / "mine.txt").write_text("mine")
    with pytest.raises(RiceError, match="--out"):
        export(own, to)
    assert (to if content == "file" else to / "mine.txt").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [to]


def test_an_empty_folder_is_taken(own: Encoder, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(own, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_failed_export_leaves_nothing(own: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("rice.encoders.region_checkpoint.write_json", full)
    with pytest.raises(OSError, match="no space"):
        export(own, tmp_path / "out")
    assert not list(tmp_path.iterdir())
