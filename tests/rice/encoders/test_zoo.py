"""The zoo: every entry is the encoder that its publishers describe, and builds offline."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from rice.encoders.base import Encoder
from rice.encoders.load import describe, load_encoder, load_entry
from rice.encoders.spec import EncoderReference
from rice.encoders.zoo import ZOO, Entry, entries
from rice.errors import RiceError

Randomise = Callable[[nn.Module], nn.Module]
TOLERANCE = 1e-5

# The processors that are published beside the weights, written out from their preprocessor_config.json. DINOv2's makes
# 224 of 256; at the 518 of its training and of the paper the same fraction is kept. UNIT's was not at hand.


def clip_processor(size: int) -> Any:
    return transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def siglip_processor(size: int, resample: int) -> Any:
    return transformers.SiglipImageProcessor(size={"height": size, "width": size}, resample=resample)


PROCESSORS: dict[str, Any] = {
    "rice-l14-224": clip_processor(224),
    "rice-l14-336": clip_processor(336),
    "rice-l14-378": clip_processor(378),
    "rice-l14-560": clip_processor(560),
    "rice-b16-224": clip_processor(224),
    "rice-b16-512": clip_processor(512),
    "mlcd-b16-512": clip_processor(512),
    "clip-l14-336": clip_processor(336),
    "mlcd-l14-336": clip_processor(336),
    "aimv2-l14-336": clip_processor(336),
    "mini-s8-128": clip_processor(128),
    "rice-mini": clip_processor(64),
    "mlcd-mini": clip_processor(64),
    "unicom-mini": clip_processor(64),
    "clip-mini": clip_processor(64),
    "siglip-so400m-14-384": siglip_processor(384, resample=3),
    "siglip-b16-512": siglip_processor(512, resample=3),
    "siglip2-so400m-14-384": siglip_processor(384, resample=2),
    "siglip2-so400m-16-512": siglip_processor(512, resample=2),
    "siglip2-so400m-16-560": siglip_processor(560, resample=2),
    "dinov2-b14-518": transformers.BitImageProcessor(
        size={"shortest_edge": 592},
        crop_size={"height": 518, "width": 518},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ),
}
SHIPPED = [name for name, entry in ZOO.items() if entry.shipped]
ELSEWHERE = {"dfn5b-h14-378", "unit-h14-378", "qwen2.5-vit-560"}  # test_open_clip.py, test_hf_towers.py

# Grid of patches at native size, from the paper's and the publishers' own words.
GRIDS = {"rice-l14-560": 40, "siglip-so400m-14-384": 27, "siglip2-so400m-16-560": 35, "qwen2.5-vit-560": 40}
GRIDS |= {"dinov2-b14-518": 37, "unit-h14-378": 27, "rice-b16-512": 32, "aimv2-l14-336": 24}


def shrunk(entry: Entry) -> Entry:
    """The entry with two narrow layers; its patches, sizes and processor stay."""
    narrow = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    if entry.loader == "rice":
        narrow = {"width": 48, "depth": 2, "heads": 4, "mlp_width": 96}
    if "intermediate_size" in entry.architecture:
        narrow["intermediate_size"] = 96
    spec = replace(entry.spec, width=48, depth=2, mlp_width=96)
    return replace(entry, architecture=dict(entry.architecture) | narrow, spec=spec)


def source_of(encoder: Encoder) -> Any:
    """transformers' own model with the encoder's values."""
    module: Any = encoder.module
    if encoder.spec.source.startswith("rice:"):
        from rice.model.checkpoint import to_published

        config = module.config
        fields = {"hidden_size": config.width, "num_hidden_layers": config.depth, "num_attention_heads": config.heads}
        fields |= {"intermediate_size": config.mlp_width, "patch_size": config.patch}
        model = transformers.MLCDVisionModel(transformers.MLCDVisionConfig(**fields))
        model.load_state_dict(to_published(module))
        return model.eval()
    names = {"aimv2_vision_model": transformers.Aimv2VisionModel}
    cls = names.get(module.config.model_type, type(module))
    model = cls(module.config)
    model.load_state_dict(module.state_dict())
    return model.eval()


@pytest.mark.parametrize("name", PROCESSORS)
def test_picture_gives_what_the_source_gives(name: str, picture: Image.Image, randomise: Randomise) -> None:
    entry = shrunk(ZOO[name])
    encoder = Encoder(*load_entry(entry, None), weights="random")
    randomise(encoder.module)
    source = source_of(encoder)
    interpolates = source.config.model_type in ("clip_vision_model", "siglip_vision_model")
    pixels = PROCESSORS[name](picture, return_tensors="pt").pixel_values
    with torch.no_grad():
        output = source(pixel_values=pixels, **({"interpolate_pos_encoding": True} if interpolates else {}))
    ours = encoder(encoder.preprocess(picture)[None])
    theirs = output.last_hidden_state[:, ours.cls is not None :].transpose(1, 2)
    assert math.isqrt(theirs.shape[-1]) == ours.patches.shape[-1] == ours.patches.shape[-2]
    assert (ours.patches.flatten(2) - theirs).abs().max() <= TOLERANCE * max(1, theirs.abs().max())
    if ours.cls is not None:
        assert (ours.cls - output.pooler_output).abs().max() <= TOLERANCE * max(1, output.pooler_output.abs().max())


def test_every_entry_is_held_to_its_source() -> None:
    assert PROCESSORS.keys() | ELSEWHERE == ZOO.keys()


@pytest.mark.parametrize("name", ZOO)
def test_entry_builds_in_full_with_the_parameters_that_it_states(name: str) -> None:
    from rice.encoders import hf, open_clip
    from rice.model.vit import ViT, ViTConfig

    entry = ZOO[name]
    with torch.device("meta"):
        if entry.loader == "rice":
            module: nn.Module = ViT(ViTConfig(**entry.architecture))
        else:
            module = (hf if entry.loader == "hf" else open_clip).build(entry.architecture)
    assert sum(p.numel() for p in module.parameters()) == entry.parameters


@pytest.mark.parametrize("name", [name for name in ZOO if name != "qwen2.5-vit-560"])
def test_full_tower_gives_the_grid_and_width_that_its_spec_says(name: str) -> None:
    """On the meta device: shapes only. Qwen's windows need real grids; its small form is tested on them."""
    from rice.encoders import hf, hf_extract, open_clip
    from rice.encoders import rice as own
    from rice.model.vit import ViT, ViTConfig

    entry = ZOO[name]
    spec = entry.spec
    pixels = torch.zeros(1, 3, spec.native_size, spec.native_size, device="meta")
    with torch.device("meta"), torch.no_grad():
        if entry.loader == "rice":
            features = own.extract(ViT(ViTConfig(**entry.architecture)), pixels, -1)
        elif entry.loader == "hf":
            features = hf_extract.extract(hf.build(entry.architecture).eval(), pixels, -1)
        else:
            features = open_clip.extract(open_clip.build(entry.architecture), pixels, -1)
    grid = spec.check_size(spec.native_size, spec.native_size)
    assert features.patches.shape == (1, spec.width, *grid)
    assert (features.cls is None) == (spec.prefix_tokens == 0)
    assert GRIDS.get(name, grid[0]) == grid[0]


def test_smallest_entry_builds_with_random_values_offline() -> None:
    encoder = load_encoder("rice-b16-224@64,layer=-2", weights=None)
    assert not encoder.trained
    assert (encoder.spec.native_size, encoder.spec.layer) == (64, -2)
    assert encoder(torch.rand(2, 3, 64, 64)).patches.shape == (2, 768, 4, 4)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_encoder_is_what_transformers_reads(name: str, picture: Image.Image) -> None:
    entry = ZOO[name]
    encoder = load_encoder(name)
    source = transformers.AutoModel.from_pretrained(entry.shipped, dtype=torch.float32)
    pixels = PROCESSORS[name](picture, return_tensors="pt").pixel_values
    with torch.no_grad():
        theirs = source(pixel_values=pixels).last_hidden_state[:, 1:].transpose(1, 2)
    ours = encoder(encoder.preprocess(picture)[None]).patches.flatten(2)
    assert encoder.trained
    assert (ours - theirs).abs().max() <= TOLERANCE * max(1, theirs.abs().max())


def test_all_that_is_shipped_weighs_no_more_than_twelve_megabytes_and_says_what_it_is() -> None:
    folders = [entry.shipped for name in SHIPPED if (entry := ZOO[name]).shipped is not None]
    assert len(folders) == 5
    assert sum(path.stat().st_size for folder in folders for path in folder.rglob("*")) <= 12e6
    for folder in folders:
        assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.float16}
    for name in ("rice", "mlcd", "unicom", "clip"):
        card = (ZOO[f"{name}-mini"].shipped or Path()) / "README.md"
        assert "licence: Apache-2.0" in card.read_text()
        assert "rice reproduce mini" in card.read_text()


def test_the_papers_560_row_is_reachable_under_both_names() -> None:
    one = describe(EncoderReference.parse("siglip2-so400m-16-512@560"), None)
    two = describe(EncoderReference.parse("siglip2-so400m-16-560"), None)
    assert replace(one, name="", note=None) == replace(two, name="", note=None)
    assert ZOO["siglip2-so400m-16-512"].repo == ZOO["siglip2-so400m-16-560"].repo
    assert dict(ZOO["siglip2-so400m-16-560"].architecture)["image_size"] == 512


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if not entry.spec.public])
def test_unpublished_weights_ask_for_a_path(name: str) -> None:
    for ask in (load_encoder, lambda text: describe(EncoderReference.parse(text))):
        with pytest.raises(RiceError, match=f"{name} has no published weights.*weights=PATH"):
            ask(name)


def test_published_means_a_repository_is_known() -> None:
    assert all((entry.repo or entry.shipped) is not None for entry in ZOO.values() if entry.spec.public)
    assert all(entry.repo is None for entry in ZOO.values() if not entry.spec.public)
    assert all(entry.spec.revision is None for entry in ZOO.values())


def test_wildcards_list() -> None:
    assert [entry.spec.name for entry in entries("rice-b16-*")] == ["rice-b16-224", "rice-b16-512"]
    assert len(entries()) == len(ZOO) == 24
    with pytest.raises(RiceError, match="no encoder matches 'clip-l14-33'.*clip-l14-336"):
        entries("clip-l14-33")
