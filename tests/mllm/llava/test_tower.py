"""An encoder inside a Llava model is the encoder that was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_encoders import KINDS, tiny_encoder
from transformers import AutoModel, CLIPVisionModel, SiglipVisionModel

import rice
from mllm.llava.tower import vision_tower
from rice.errors import RiceError


def pixels(edge: int) -> torch.Tensor:
    return torch.randn(2, 3, edge, edge, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_the_hidden_state_that_the_model_reads_is_the_encoders_own(kind: str, layer: int, tmp_path: Path) -> None:
    if kind == "own" and layer != -1:
        pytest.skip("an own encoder has its last map only")
    encoder = tiny_encoder(kind, tmp_path)
    tower = vision_tower(encoder, layer)
    with torch.no_grad():
        states = tower.module(pixels(32), output_hidden_states=True).hidden_states
        expected = encoder.features(pixels(32), layer).patches.flatten(2).transpose(1, 2)
    torch.testing.assert_close(states[tower.layer][:, tower.class_tokens :], expected, rtol=1e-4, atol=1e-5)
    assert (tower.module.config.image_size, tower.side) == (32, 4)


@pytest.mark.parametrize(("kind", "expected"), [("clip", "CLIPVisionModel"), ("siglip", "SiglipVisionModel"),
    ("dinov2", "Dinov2Model"), ("rice", "MLCDVisionModel")])  # fmt: skip
def test_towers_that_transformers_reads_right_keep_its_class(kind: str, expected: str, tmp_path: Path) -> None:
    assert type(vision_tower(tiny_encoder(kind, tmp_path), -2).module).__name__ == expected


def test_a_class_token_is_dropped_by_the_model_and_none_is_dropped_where_there_is_none(tmp_path: Path) -> None:
    strategies = {
        kind: vision_tower(tiny_encoder(kind, tmp_path), -2 if kind != "own" else -1).strategy for kind in KINDS
    }
    assert strategies == dict.fromkeys(KINDS, "default") | dict.fromkeys(
        ("siglip", "own", "dinov2_with_registers"), "full"
    )


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_resampled_positions_are_those_of_transformers_own_interpolation(kind: str, tmp_path: Path) -> None:
    tiny_encoder(kind, tmp_path)
    source = {"clip": CLIPVisionModel, "siglip": SiglipVisionModel}[kind].from_pretrained(tmp_path / kind).eval()
    tower = vision_tower(rice.load_encoder(f"hf:{tmp_path / kind}@48"), -2)
    with torch.no_grad():
        expected = source(pixels(48), interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-2]
        found = tower.module(pixels(48), output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(found, expected)
    assert tower.module.config.image_size == 48


def test_dinov2_at_another_size_gives_the_features_of_its_own_forward(tmp_path: Path) -> None:
    encoder = tiny_encoder("dinov2", tmp_path)
    larger = rice.load_encoder(f"hf:{tmp_path / 'dinov2'}@48")
    tower = vision_tower(larger, -2)
    with torch.no_grad():
        expected = encoder.module(pixels(48), output_hidden_states=True).hidden_states[-2]
        found = tower.module(pixels(48), output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["own", "dinov2_with_registers"])
def test_a_wrapped_tower_is_saved_whole_with_its_buffers(kind: str, tmp_path: Path) -> None:
    encoder = tiny_encoder(kind, tmp_path)
    tower = vision_tower(encoder, -1).module
    for parameter in tower.parameters():
        parameter.data += 0.1
    tower.save_pretrained(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved").eval()
    assert type(again).__name__ == "RiceEncoderModel"
    with torch.no_grad():
        torch.testing.assert_close(
            again(pixels(32)).hidden_states[-1], tower(pixels(32)).hidden_states[-1], rtol=0, atol=0
        )


def test_a_layer_that_the_tower_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match=r"hidden states -5 to 4, got layer=-6"):
        vision_tower(tiny_encoder("clip", tmp_path), -6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "order", ["import rice, transformers", "import transformers; transformers.AutoModel; import rice"]
)
def test_the_auto_classes_know_wrapped_towers_after_import_rice(order: str, tmp_path: Path) -> None:
    tower = vision_tower(tiny_encoder("dinov2_with_registers", tmp_path), -2).module
    tower.save_pretrained(tmp_path / "saved")
    code = f"{order}; print(type(transformers.AutoModel.from_pretrained({str(tmp_path / 'saved')!r})).__name__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.stdout.split() == ["RiceEncoderModel"], said.stderr


def test_import_rice_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, rice; print([n for n in ('torch', 'transformers') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_an_own_encoders_model_loads_in_another_process_without_the_import_of_its_module(tmp_path: Path) -> None:
    vision_tower(tiny_encoder("own", tmp_path), -1).module.save_pretrained(tmp_path / "saved")
    code = (
        f"import rice, transformers; transformers.AutoModel.from_pretrained({str(tmp_path / 'saved')!r}); print('read')"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=here)
    assert said.stdout == "read\n", said.stderr


def test_who_only_asks_where_the_auto_classes_are_does_not_use_up_the_registration() -> None:
    code = (
        "import importlib.util, rice; importlib.util.find_spec('transformers.models.auto.modeling_auto'); "
        "import transformers; transformers.AutoModel; print(transformers.AutoConfig.for_model('rice_encoder').layer)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "-1\n"
