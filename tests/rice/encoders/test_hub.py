"""Published weights: what is asked of the hub, and what is made of it. The hub here is a folder."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

import rice
from rice.encoders import hf_config, hub, weights
from rice.errors import RiceError
from rice.files import sha256_json

REPO = "owner/tower"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Randomise = Callable[[nn.Module], nn.Module]


class FakeHub:
    """Serves a folder and remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, [""]

    def find(self, repo: str, name: str) -> Path | None:
        assert repo == REPO
        self.asked.append(name)
        path = self.folder / name
        return path if path.is_file() else None


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    served = FakeHub(tmp_path)
    for module in (hub, hf_config):
        monkeypatch.setattr(module, "find", served.find)
    monkeypatch.setattr(hub, "cached_revision", lambda repo: COMMIT)
    return served


def clip(folder: Path, randomise: Randomise) -> nn.Module:
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    model = randomise(transformers.CLIPVisionModel(config))
    model.save_pretrained(folder)
    return model


def test_repository_is_loaded_and_its_commit_recorded(fake: FakeHub, randomise: Randomise) -> None:
    model = clip(fake.folder, randomise)
    encoder = rice.load_encoder(f"hf:{REPO}")
    assert encoder.spec.revision == COMMIT
    file = hashlib.sha256((fake.folder / "model.safetensors").read_bytes()).hexdigest()
    assert encoder.spec.digest == sha256_json([file])
    assert encoder.weights == "default"
    assert encoder.trained
    theirs = model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in encoder.module.state_dict().items())


def test_random_values_need_no_weights_file(fake: FakeHub, randomise: Randomise) -> None:
    clip(fake.folder, randomise)
    (fake.folder / "model.safetensors").unlink()
    encoder = rice.load_encoder(f"hf:{REPO}", weights=None)
    assert encoder.spec.revision is None
    assert encoder.spec.digest is None
    assert "model.safetensors" not in fake.asked


def test_only_the_shards_of_the_tower_are_fetched(fake: FakeHub, randomise: Randomise) -> None:
    model = clip(fake.folder, randomise)
    (fake.folder / "model.safetensors").unlink()
    tower = {f"vision_model.{name}": value for name, value in model.state_dict().items()}
    save_file(tower, fake.folder / "vision.safetensors")
    weight_map = dict.fromkeys(tower, "vision.safetensors") | {"text_model.x": "gigabytes-of-text.safetensors"}
    (fake.folder / weights.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    rice.load_encoder(f"hf:{REPO}")
    assert "vision.safetensors" in fake.asked
    assert "gigabytes-of-text.safetensors" not in fake.asked


def test_published_pickle_is_not_even_fetched_unless_allowed(fake: FakeHub, randomise: Randomise) -> None:
    model = clip(fake.folder, randomise)
    (fake.folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), fake.folder / "pytorch_model.bin")
    with pytest.raises(RiceError, match=f"no safetensors weights of {REPO}.*--allow-pickle"):
        rice.load_encoder(f"hf:{REPO}")
    assert "pytorch_model.bin" not in fake.asked
    assert rice.load_encoder(f"hf:{REPO}", allow_pickle=True).trained


def test_code_of_a_repository_is_never_run(fake: FakeHub, randomise: Randomise) -> None:
    clip(fake.folder, randomise)
    config = json.loads((fake.folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Tower", "AutoConfig": "evil.Config"}
    (fake.folder / "config.json").write_text(json.dumps(config))
    (fake.folder / "evil.py").write_text("raise SystemExit('executed')\n")
    assert rice.load_encoder(f"hf:{REPO}").spec.width == 16
    assert "evil.py" not in fake.asked
