"""Published forms, both ways. The mappings below are written out by hand from the published files' names."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, MLCDVisionConfig, MLCDVisionModel

from rice.errors import RiceError
from rice.model import checkpoint
from rice.model.config import L14, TINY16, ViTConfig, from_json, to_json
from rice.model.names import LLAVA_ONEVISION, MLCD, config_of, detect
from rice.model.vit import ViT

Reference = Callable[..., Any]
Tensors = dict[str, torch.Tensor]


def read(tensors: Tensors, config: ViTConfig) -> ViT:
    scheme, prefix = detect(tensors, "test")
    inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return checkpoint.build(config, checkpoint.from_published(inner, scheme, config, origin="test"))


def config_like(model: Any) -> ViTConfig:
    return from_json(model.config.to_dict(), origin="test")


def assert_same(ours: ViT, theirs: Any, *, pooled: bool = True) -> None:
    images = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        output, expected = ours(images), theirs(images)
    assert (output.hidden - expected.last_hidden_state).abs().max() <= 1e-5
    if pooled:
        assert (output.pooled - expected.pooler_output).abs().max() <= 1e-5


def llava_names(mlcd: Tensors, prefix: str, depth: int) -> Tensors:
    """LLaVA-OneVision-1.5's tensors of the same tower."""
    tensors = {
        f"{prefix}class_embedding": mlcd["embeddings.class_embedding"],
        f"{prefix}class_pos_emb": mlcd["class_pos_emb"],
        f"{prefix}patch_embed.proj.weight": mlcd["embeddings.patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        tensors[f"{prefix}pre_layernorm.{kind}"] = mlcd[f"pre_layrnorm.{kind}"]
        for n in range(depth):
            theirs, block = f"encoder.layers.{n}", f"{prefix}blocks.{n}"
            qkv = [mlcd[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in ("q", "k", "v")]
            tensors[f"{block}.attn.qkv.{kind}"] = torch.cat(qkv)
            tensors[f"{block}.attn.proj.{kind}"] = mlcd[f"{theirs}.self_attn.out_proj.{kind}"]
            tensors[f"{block}.norm1.{kind}"] = mlcd[f"{theirs}.layer_norm1.{kind}"]
            tensors[f"{block}.norm2.{kind}"] = mlcd[f"{theirs}.layer_norm2.{kind}"]
            tensors[f"{block}.mlp.fc1.{kind}"] = mlcd[f"{theirs}.mlp.fc1.{kind}"]
            tensors[f"{block}.mlp.fc2.{kind}"] = mlcd[f"{theirs}.mlp.fc2.{kind}"]
    return tensors


@pytest.mark.parametrize("prefix", ["", "vision_model.", "module.vision_model."])
def test_mlcd_names_are_read_whatever_stands_before_them(reference: Reference, prefix: str) -> None:
    theirs = reference()
    tensors = {prefix + name: value for name, value in theirs.state_dict().items()}
    assert_same(read(tensors, config_like(theirs)), theirs)


def test_transformers_loads_what_is_saved(reference: Reference, tmp_path: Path) -> None:
    theirs = reference(intermediate_size=100, layer_norm_eps=1e-3)
    ours = read(theirs.state_dict(), config_like(theirs))
    checkpoint.save(ours, tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == theirs.state_dict().keys()
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is MLCDVisionModel
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.config.image_size == 56
    assert_same(ours, loaded.eval())
    assert_same(ours, theirs)


def test_l14_is_written_as_the_391_published_tensors() -> None:
    with torch.device("meta"):
        ours = checkpoint.to_published(ViT(L14))
        config = MLCDVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=560
        )
        theirs = MLCDVisionModel(config).state_dict()
    assert len(ours) == 391
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


@pytest.mark.parametrize("prefix", ["", "visual.", "model.visual."])
@pytest.mark.parametrize("filters", ["(D, 3, P, P)", "(D, 3, 1, P, P)", "(D, 3*P*P)"])
def test_llava_onevision_names_are_read(reference: Reference, prefix: str, filters: str) -> None:
    theirs = reference()
    tensors = llava_names(theirs.state_dict(), prefix, depth=3)
    name = f"{prefix}patch_embed.proj.weight"
    shapes = {"(D, 3, P, P)": (48, 3, 14, 14), "(D, 3, 1, P, P)": (48, 3, 1, 14, 14), "(D, 3*P*P)": (48, 588)}
    tensors[name] = tensors[name].reshape(shapes[filters])
    tensors[f"{prefix}merger.ln_q.weight"] = torch.ones(48)
    if prefix:
        tensors["lm_head.weight"] = torch.ones(3, 3)
    assert_same(read(tensors, config_like(theirs)), theirs, pooled=False)


def test_llava_onevision_has_no_post_norm_and_gets_a_neutral_one(reference: Reference) -> None:
    theirs = reference()
    ours = read(llava_names(theirs.state_dict(), "", depth=3), config_like(theirs))
    with torch.no_grad():
        output = ours(torch.randn(2, 3, 28, 28))
    expected = torch.nn.functional.layer_norm(output.hidden[:, 0], (48,), eps=theirs.config.layer_norm_eps)
    torch.testing.assert_close(output.pooled, expected)


def test_llava_onevision_names_are_written(reference: Reference) -> None:
    theirs = reference()
    expected = llava_names(theirs.state_dict(), "", depth=3)
    ours = read(theirs.state_dict(), config_like(theirs))
    written = checkpoint.to_published(ours, LLAVA_ONEVISION)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)


def test_shapes_state_the_configuration(reference: Reference) -> None:
    """Heads too: the class token's angles are half a head wide."""
    mlcd = reference(num_attention_heads=2, patch_size=7).state_dict()
    forms = (mlcd, llava_names(mlcd, "", depth=3))
    expected = ViTConfig(width=48, depth=3, heads=2, patch=7, image_size=16 * 7, mlp_width=80)
    for tensors in forms:
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        assert config_of(shapes, detect(shapes, "test")[0], origin="test") == expected


def test_configuration_survives_writing_and_reading() -> None:
    config = ViTConfig(width=96, depth=2, heads=2, patch=8, image_size=72, mlp_width=200, eps=1e-4, theta=500.0)
    assert from_json(to_json(config, "float32"), origin="test") == config


def test_llava_onevision_configuration_is_read() -> None:
    tower = {
        "model_type": "rice_vit",
        "depth": 24,
        "embed_dim": 1024,
        "hidden_size": 1024,
        "hidden_act": "gelu",
        "intermediate_size": 4096,
        "num_heads": 16,
        "in_channels": 3,
        "patch_size": 14,
        "layer_norm_eps": 1e-05,
    }
    config = from_json({"model_type": "llavaonevision1_5", "vision_config": tower}, origin="test")
    assert config == ViTConfig(width=1024, depth=24, heads=16, patch=14, image_size=224)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "clip_vision_model"},
        {"hidden_act": "quick_gelu"},
        {"num_channels": 4},
        {"num_key_value_groups": 2},
        {"hidden_size": None},
        {"hidden_size": "64"},
        {"num_hidden_layers": 1.5},
        {"num_attention_heads": -1},
        {"patch_size": [14, 16]},
        {"patch_size": [[14], [14]]},
        {"num_hidden_layers": 2**31},
        {"hidden_size": 10**400},
        {"layer_norm_eps": float("inf")},
        {"model_type": ["mlcd_vision_model"]},
        {"rope_parameters": ["axial"]},
    ],
    ids=str,
)
def test_other_configurations_are_refused_in_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(RiceError) as caught:
        from_json({**to_json(TINY16, "float32"), **change}, origin="some/config.json")
    assert "some/config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def broken(tensors: Tensors, damage: str) -> Tensors:
    name = "encoder.layers.1.self_attn.k_proj.weight"
    if damage == "missing":
        return {key: value for key, value in tensors.items() if key != name}
    if damage == "unexpected":
        return tensors | {"encoder.layers.7.layer_norm1.bias": torch.zeros(48)}
    return tensors | {name: torch.zeros(48, 40)}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("missing", r"1 missing: encoder\.layers\.1\.self_attn\.k_proj\.weight"),
        ("unexpected", r"1 unexpected: encoder\.layers\.7\.layer_norm1\.bias"),
        ("mis-shaped", r"1 mis-shaped: encoder\.layers\.1\.self_attn\.k_proj\.weight \(48, 40\) instead of \(48, 48\)"),
    ],
)
def test_broken_checkpoints_are_named_in_one_line(reference: Reference, damage: str, says: str) -> None:
    theirs = reference()
    with pytest.raises(RiceError) as caught:
        read(broken(theirs.state_dict(), damage), config_like(theirs))
    assert re.search(says, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "no tensors"),
        (["weight", "bias"], "got bias, weight"),
        (["class_pos_emb"], "patch embedding"),
        (["embeddings.position_embedding.weight", "embeddings.patch_embedding.weight"], "hf:PATH"),
    ],
    ids=["none", "foreign", "half", "clip"],
)
def test_foreign_names_are_refused(names: list[str], says: str) -> None:
    with pytest.raises(RiceError, match=says):
        detect(names, "test")


def test_the_pieces_of_q_k_and_v_stay_apart(reference: Reference) -> None:
    """Reading and writing again gives the same bytes under the same names."""
    tensors = reference().state_dict()
    written = checkpoint.to_published(read(tensors, config_like(reference())), MLCD)
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)
