"""`rice:PATH` on folders as transformers writes them, and on what users bring besides."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, MLCDVisionConfig, MLCDVisionModel

from rice.encoders.load import load_encoder
from rice.encoders.rice import describe
from rice.encoders.spec import CLIP_MEAN
from rice.errors import RiceError

SIZE = 56


@pytest.fixture
def tower(randomise: Callable[[nn.Module], nn.Module]) -> Any:
    config = MLCDVisionConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=14,
    )
    return randomise(MLCDVisionModel(config))


@pytest.fixture
def folder(tower: Any, tmp_path: Path) -> Path:
    path = tmp_path / "tower"
    tower.save_pretrained(path)
    CLIPImageProcessor(size={"shortest_edge": 70}, crop_size=SIZE, image_mean=[0.4, 0.5, 0.6]).save_pretrained(path)
    return path


def difference(a: torch.Tensor | None, b: torch.Tensor) -> float:
    assert a is not None
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def test_a_picture_goes_through_as_through_the_source(tower: Any, folder: Path, picture: Image.Image) -> None:
    encoder = load_encoder(f"rice:{folder}")
    pixels = CLIPImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = tower(pixels, output_hidden_states=True)
    images = encoder.preprocess(picture)[None]
    assert images.shape == (1, 3, SIZE, SIZE)
    features = encoder(images)
    as_map = expected.last_hidden_state[:, 1:].transpose(1, 2).reshape(1, 48, 4, 4)
    assert difference(features.patches, as_map) <= 1e-5
    assert difference(features.cls, expected.pooler_output) <= 1e-5
    earlier = load_encoder(f"rice:{folder},layer=-2")(images)
    state = expected.hidden_states[-2]
    assert difference(earlier.patches, state[:, 1:].transpose(1, 2).reshape(1, 48, 4, 4)) <= 1e-5
    assert difference(earlier.cls, state[:, 0]) <= 1e-5


def test_wide_pictures_keep_rows_and_columns(tower: Any, folder: Path) -> None:
    images = torch.rand(2, 3, 28, 84)
    encoder = load_encoder(f"rice:{folder}")
    with torch.no_grad():
        expected = tower(encoder.normalise(images)).last_hidden_state
    assert difference(encoder(images).patches, expected[:, 1:].transpose(1, 2).reshape(2, 48, 2, 6)) <= 1e-5


def test_the_processor_file_is_honoured(folder: Path) -> None:
    spec = describe(str(folder))
    assert spec.mean == (0.4, 0.5, 0.6)
    assert spec.native_size == SIZE
    assert spec.preprocessing.crop_fraction == pytest.approx(SIZE / 70)
    assert spec.note is None


def test_without_a_processor_file_clips_values_are_taken_and_said(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    spec = describe(str(folder))
    assert spec.mean == CLIP_MEAN
    assert spec.native_size == SIZE
    assert spec.note is not None
    assert "preprocessor_config.json" in spec.note


def test_a_bare_weights_file_is_enough(tower: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({f"vision_model.{name}": value for name, value in tower.state_dict().items()}, file)
    spec = describe(str(file))
    assert (spec.patch, spec.width, spec.depth, spec.mlp_width, spec.native_size) == (14, 48, 3, 80, 224)
    assert spec.note is not None
    assert "224 is assumed" in spec.note
    encoder, images = load_encoder(f"rice:{file}"), torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        expected = tower(encoder.normalise(images)).pooler_output
    assert difference(encoder(images).cls, expected) <= 1e-5


def test_sharded_checkpoints_are_read(tower: Any, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tower.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    config = (folder / "config.json").read_text()
    encoder, images = load_encoder(f"rice:{folder}"), torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        assert difference(encoder(images).cls, tower(encoder.normalise(images)).pooler_output) <= 1e-5
    (folder / "config.json").unlink()
    (folder / "preprocessor_config.json").unlink()
    assert describe(str(folder)).depth == json.loads(config)["num_hidden_layers"]


def test_random_weights_need_no_file_and_are_the_same_every_time(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    state = torch.random.get_rng_state()
    first, second = (load_encoder(f"rice:{folder}", weights=None) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.trained
    for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_pickles_are_refused_until_allowed_and_then_only_hold_tensors(tower: Any, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tower.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(RiceError, match="--allow-pickle"):
        load_encoder(f"rice:{folder}")
    encoder, images = load_encoder(f"rice:{folder}", allow_pickle=True), torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        assert difference(encoder(images).cls, tower(encoder.normalise(images)).pooler_output) <= 1e-5


class Payload:
    """What a hostile pickle would carry."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


def test_a_hostile_pickle_is_not_executed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"class_pos_emb": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(RiceError, match="plain tensors"):
        load_encoder(f"rice:{folder}", allow_pickle=True)


def test_half_precision_files_are_loaded_in_fp32(tower: Any, folder: Path) -> None:
    tower.bfloat16().save_pretrained(folder)
    encoder = load_encoder(f"rice:{folder}")
    assert encoder.dtype == torch.float32
    assert (
        load_encoder(f"rice:{folder}", dtype=torch.bfloat16)(torch.rand(1, 3, 28, 28)).patches.dtype == torch.bfloat16
    )


def test_another_architecture_is_named_with_the_way_to_load_it(tmp_path: Path) -> None:
    config = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    CLIPVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(RiceError, match="hf:PATH"):
        load_encoder(f"rice:{tmp_path}")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("config", "not valid JSON"),
        ("config is a list", "JSON object"),
        ("weights", "safetensors"),
        ("no weights", "no weights"),
        ("other depth", "4 blocks of 48"),
        ("other width", "mis-shaped"),
    ],
)
def test_broken_folders_give_one_line(folder: Path, damage: str, says: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "config is a list":
        (folder / "config.json").write_text("[]")
    elif damage == "weights":
        (folder / "model.safetensors").write_bytes(np.arange(99, dtype=np.uint8).tobytes())
    elif damage == "no weights":
        (folder / "model.safetensors").unlink()
    else:
        change = {"num_hidden_layers": 4} if damage == "other depth" else {"intermediate_size": 96}
        (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(RiceError) as caught:
        load_encoder(f"rice:{folder}")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="existing path"):
        load_encoder(f"rice:{tmp_path / 'nothing'}")


def test_describing_imports_no_torch(folder: Path) -> None:
    (folder / "config.json").unlink()  # so that the header of the weights is read
    code = (
        f"import sys; from rice.encoders.rice import describe; describe({str(folder)!r}); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
