"""Own encoders: a decorated factory is an encoder like any other, and its name is its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rice
from rice.encoders import registry
from rice.encoders.base import Encoder, Features
from rice.encoders.load import describe
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError

TEN_LINES = """
import rice, safetensors.torch, torch

@rice.register_encoder("mine", patch=8, width=5, native_size=64)
def mine(weights):
    network = torch.nn.Conv2d(3, 5, 8, stride=8)
    if weights:
        network.load_state_dict(safetensors.torch.load_file(weights))
    return network
"""


@pytest.fixture(autouse=True)
def nothing_stays_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Write a module into the working directory, under a name that no other test imports."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        name = f"own_{abs(hash(request.node.nodeid))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


class Form(nn.Module):
    """A patch embedding whose output takes one of the forms that are understood."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.conv = form, nn.Conv2d(3, 5, 8, stride=8)

    def forward(self, pixels: Tensor) -> Any:
        patches = self.conv(pixels)
        cls = patches.mean((2, 3))
        tokens = patches.flatten(2).transpose(1, 2)
        return {
            "map": patches,
            "tokens": tokens,
            "pair": (tokens, cls),
            "features": Features(patches, cls),
            "flat": cls,
            "with cls": torch.cat([cls[:, None], tokens], dim=1),
        }[self.form]


@pytest.mark.parametrize("form", ["map", "tokens", "pair", "features"])
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (24, 56)])
def test_every_form_of_output_is_the_same_map(form: str, size: tuple[int, int]) -> None:
    rice.register_encoder("form", patch=8, width=5, native_size=64, mean=(0, 0, 0), std=(1, 1, 1))(lambda _: Form(form))
    encoder = rice.load_encoder("form", weights=None)
    pixels = torch.rand(2, 3, *size)
    features = encoder(pixels)
    conv: Any = encoder.module.conv
    expected = conv(pixels)
    assert torch.allclose(features.patches, expected, atol=1e-6)
    assert (features.cls is not None) == (form in ("pair", "features"))


@pytest.mark.parametrize(("form", "message"), [("flat", "expected a map"), ("with cls", "leave out class tokens")])
def test_other_outputs_are_refused(form: str, message: str) -> None:
    rice.register_encoder("form", patch=8, width=5, native_size=64)(lambda _: Form(form))
    with pytest.raises(RiceError, match=message):
        rice.load_encoder("form", weights=None)(torch.rand(1, 3, 64, 64))


def test_ten_lines_are_an_encoder(module: Callable[[str], str], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    assert len(TEN_LINES.strip().splitlines()) <= 10
    name = module(TEN_LINES)
    encoder = rice.load_encoder(f"{name}:mine@128", weights=None)
    assert encoder.spec.name == "mine"
    assert encoder(torch.rand(1, 3, 128, 128)).patches.shape == (1, 5, 16, 16)
    assert describe(EncoderReference.parse(f"{name}:mine@128"), None) == encoder.spec
    network = nn.Conv2d(3, 5, 8, stride=8)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    trained = rice.load_encoder("mine", weights=str(tmp_path / "w.safetensors"))
    assert trained.trained
    assert torch.equal(trained.module.state_dict()["weight"], network.weight)


def test_random_values_of_own_encoders_are_the_same_every_time() -> None:
    rice.register_encoder("form", patch=8, width=5, native_size=64)(lambda _: Form("map"))
    state = torch.get_rng_state()
    first, second = (rice.load_encoder("form", weights=None).module.state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["clip-l14-336", "twice"])
def test_taken_name_is_refused(name: str) -> None:
    rice.register_encoder("twice", patch=8, width=5, native_size=64)(lambda _: Form("map"))
    with pytest.raises(RiceError, match=f"the name '{name}' is taken"):
        rice.register_encoder(name, patch=8, width=5, native_size=64)


@pytest.mark.parametrize("name", ["", "a:b", "a@64", "a,layer=1", "a b"])
def test_name_that_could_not_be_written_is_refused(name: str) -> None:
    with pytest.raises(RiceError, match="expected an encoder name"):
        rice.register_encoder(name, patch=8, width=5, native_size=64)


def test_factory_of_an_encoder_and_an_encoder_are_taken(module: Callable[[str], str]) -> None:
    name = module(
        TEN_LINES + "\ndef factory(weights):\n    return rice.load_encoder('mine', weights=weights)\n"
        "tower = factory(None)\nnothing = 3\n"
    )
    for attribute in ("factory", "tower"):
        encoder = rice.load_encoder(f"{name}:{attribute}@32", weights=None)
        assert isinstance(encoder, Encoder)
        assert encoder.weights == "random"
        assert encoder(torch.rand(1, 3, 32, 32)).patches.shape == (1, 5, 4, 4)
    with pytest.raises(RiceError, match="got int"):
        rice.load_encoder(f"{name}:nothing", weights=None)
    with pytest.raises(RiceError, match="has no 'absent'"):
        rice.load_encoder(f"{name}:absent", weights=None)


def test_layer_of_an_own_encoder_is_refused() -> None:
    rice.register_encoder("form", patch=8, width=5, native_size=64)(lambda _: Form("map"))
    encoder = rice.load_encoder("form,layer=-2", weights=None)
    with pytest.raises(RiceError, match="leave out ,layer="):
        encoder(torch.rand(1, 3, 64, 64))


def test_wrong_width_is_refused() -> None:
    rice.register_encoder("form", patch=8, width=6, native_size=64)(lambda _: Form("map"))
    with pytest.raises(RiceError, match=r"gave patches \(1, 5, 8, 8\), its spec says \(1, 6, 8, 8\)"):
        rice.load_encoder("form", weights=None)(torch.rand(1, 3, 64, 64))


class Point:
    """An installed package's entry point."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


def test_entry_point_is_found_by_name(module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(TEN_LINES)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point("mine", f"{name}:mine")])
    assert registry.names() == ["mine"]
    assert rice.load_encoder("mine", weights=None).spec.width == 5


def test_entry_point_with_a_name_of_the_zoo_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point("clip-l14-336", "a:b")])
    with pytest.raises(RiceError, match="takes the zoo's name 'clip-l14-336'"):
        registry.names()
