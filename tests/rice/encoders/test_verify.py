"""The check of an encoder against its source passes for what is right, and fails for what is wrong."""

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.requirements import Requirement
from PIL import Image

from rice.encoders import doctor as doctor_module
from rice.encoders import load as load_module
from rice.encoders import verify as verify_module
from rice.encoders.base import Encoder
from rice.encoders.doctor import doctor, extras
from rice.encoders.load import load_encoder
from rice.encoders.spec import EncoderReference
from rice.encoders.verify import verify
from rice.encoders.zoo import ZOO, Entry
from rice.errors import RiceError

NARROW = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
FAMILIES = {
    "rice-b16-224": {"width": 48, "depth": 2, "heads": 4, "mlp_width": 96},
    "clip-l14-336": NARROW,
    "siglip-so400m-14-384": NARROW,
    "siglip2-so400m-16-560": NARROW,
    "aimv2-l14-336": NARROW,
    "dinov2-b14-518": {k: v for k, v in NARROW.items() if k != "intermediate_size"},
    "qwen2.5-vit-560": {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 2,
        "fullatt_block_indexes": [1],
    },
    "dfn5b-h14-378": {"vision": {"width": 64, "layers": 2, "head_width": 16}},
}


def shrink(name: str, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """Put a narrow copy of an entry in the zoo."""
    entry = ZOO[name]
    width = 64 if name in ("qwen2.5-vit-560", "dfn5b-h14-378") else 48
    spec = replace(entry.spec, width=width, depth=2)
    small = replace(entry, architecture=dict(entry.architecture) | FAMILIES[name], spec=spec)
    for module in (load_module, verify_module):
        monkeypatch.setitem(module.ZOO, name, small)
    return small


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_the_zoo_passes(name: str, monkeypatch: pytest.MonkeyPatch, picture: Image.Image) -> None:
    shrink(name, monkeypatch)
    checks = verify(load_encoder(name, weights=None), EncoderReference.parse(name), picture)
    assert [check.what for check in checks][:2] == ["pixels", "patches"]
    assert all(check.passed for check in checks), checks


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:vit_tiny_patch16_224@192", "timm:resnet18"])
def test_timm_passes(name: str, picture: Image.Image) -> None:
    assert all(c.passed for c in verify(load_encoder(name, weights=None), EncoderReference.parse(name), picture))


def test_local_folder_is_checked_with_its_own_processor(tmp_path: Path, picture: Image.Image) -> None:
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(**NARROW, image_size=64, patch_size=16)
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=[0.1, 0.2, 0.3]
    ).save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    encoder = load_encoder(name)
    assert all(check.passed for check in verify(encoder, EncoderReference.parse(name), picture))
    encoder.mean += 0.1
    failed = [check.what for check in verify(encoder, EncoderReference.parse(name), picture) if not check.passed]
    assert "pixels" in failed
    assert "patches" in failed


def test_wrong_features_fail(monkeypatch: pytest.MonkeyPatch, picture: Image.Image) -> None:
    shrink("clip-l14-336", monkeypatch)
    right = load_encoder("clip-l14-336", weights=None)

    def swapped(module: Any, pixels: Any, layer: int) -> Any:
        features = right._extract(module, pixels, layer)
        return features._replace(patches=features.patches.transpose(2, 3))

    wrong = Encoder(right.module, right.spec, swapped, weights="random")
    checks = {c.what: c.passed for c in verify(wrong, EncoderReference.parse("clip-l14-336"), picture)}
    assert checks == {"pixels": True, "patches": False, "class token": True}


def test_nan_fails() -> None:
    nan = torch.full((1, 2, 3, 3), float("nan"))
    assert not verify_module._check("patches", nan, nan).passed
    assert not verify_module._check("patches", nan[:, :1], nan).passed


def test_nothing_to_compare_with_is_said(picture: Image.Image) -> None:
    encoder = load_encoder("timm:resnet18", weights=None)
    with pytest.raises(RiceError, match="leave out ,layer=-2"):
        verify(encoder, EncoderReference.parse("timm:resnet18,layer=-2"), picture)
    with pytest.raises(RiceError, match="code of its own"):
        verify(encoder, EncoderReference.parse("mine:tower"), picture)


def test_doctor_of_an_encoder_exits_by_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, picture: Image.Image
) -> None:
    shrink("clip-l14-336", monkeypatch)
    picture.save(tmp_path / "picture.png")
    assert doctor("clip-l14-336", weights="none", image=tmp_path / "picture.png") == 0
    assert capsys.readouterr().out.count("PASS") == 3
    monkeypatch.setattr(verify_module, "TOLERANCE", 0.0)
    assert doctor("clip-l14-336", weights="none") == 1
    assert "FAIL" in capsys.readouterr().out


def test_doctor_refuses_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    for name in ("broken.png", "absent.png"):
        with pytest.raises(RiceError, match="expected a picture"):
            doctor("clip-l14-336", weights="none", image=tmp_path / name)


def test_doctor_says_what_is_installed_and_how_to_add_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = doctor_module._is_installed
    monkeypatch.setattr(doctor_module, "_is_installed", lambda name: name != "submitit" and real(name))
    assert doctor() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["torch", torch.__version__.partition("+")[0]] for line in lines)
    assert any(
        line.startswith("[slurm]") and "lacks submitit: pip install 'rice-suite[slurm]'" in line for line in lines
    )
    assert any(line.startswith("device") for line in lines)


def test_extras_are_read_as_packaging_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "_is_installed", lambda name: False)
    requirements = [Requirement(text) for text in metadata.requires("rice-suite") or []]
    names = {name.lower() for name in metadata.metadata("rice-suite").get_all("Provides-Extra") or []}
    found = {extra.name: extra for extra in extras()}
    assert found.keys() == names
    for name, extra in found.items():
        of_extra = [r for r in requirements if r.marker and f'"{name}"' in str(r.marker).replace("'", '"')]
        assert sorted(extra.missing) == sorted(r.name for r in of_extra if r.name != "rice-suite")
        assert extra.pip_line == f"pip install 'rice-suite[{name}]'"
