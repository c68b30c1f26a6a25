"""Region layers on disk: what was trained comes back, and what does not fit is told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from rice import load_encoder
from rice.cli import main
from rice.encoders.region_checkpoint import load_rice, load_vit, save_rice
from rice.encoders.spec import vit_spec
from rice.errors import RiceError
from rice.model.config import ViTConfig
from rice.model.region import Query, RegionConfig, RiceModel
from rice.model.vit import ViT

SMALL = ViTConfig(width=24, depth=1, heads=2, patch=8, image_size=32)
FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}


def trained(query: Query = "cls", **fields: int) -> RiceModel:
    """No parameter is at its initial value, so that none can be lost unseen."""
    model = RiceModel(SMALL, RegionConfig(query=query, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def seen(model: RiceModel) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    with torch.no_grad():
        return model(torch.randn(2, 3, 32, 40), torch.tensor([[[0, 0, 9, 9]], [[8, 8, 30, 30]]]))


@pytest.mark.parametrize("query", get_args(Query))
def test_what_was_saved_computes_the_same_values(query: Query, tmp_path: Path) -> None:
    model = trained(query, layers=3, heads=4)
    save_rice(model, tmp_path)
    loaded = load_rice(tmp_path)
    assert loaded.region_config == model.region_config
    assert not loaded.training
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(seen(loaded), seen(model), strict=True))


def test_the_folder_is_an_encoder_of_the_stated_size(tmp_path: Path) -> None:
    model = trained()
    save_rice(model, tmp_path, vit_spec(replace(SMALL, image_size=48), name="rice", source="rice"))
    assert {file.name for file in tmp_path.iterdir()} == FILES | {"region.safetensors"}
    encoder = load_encoder(f"rice:{tmp_path}")
    assert encoder.spec.native_size == 48
    assert encoder.spec.note is None
    picture = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        expected = model.vit(encoder.normalise(picture)).pooled
    assert torch.equal(encoder(picture).cls, expected)


@pytest.mark.parametrize("model", [trained().vit, ViT(SMALL)], ids=["dropped", "image-level"])
def test_a_folder_without_region_layers_says_so(model: ViT, tmp_path: Path) -> None:
    save_rice(model, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == FILES
    assert load_vit(tmp_path).config == SMALL
    with pytest.raises(RiceError, match="no trained region layers"):
        load_rice(tmp_path)


def test_export_keeps_region_layers_only_where_it_is_asked(tmp_path: Path) -> None:
    model = trained()
    save_rice(model, tmp_path / "rice")
    main(["export", f"rice:{tmp_path / 'rice'}", "--out", str(tmp_path / "plain")])
    assert {file.name for file in (tmp_path / "plain").iterdir()} == FILES
    main(["export", f"rice:{tmp_path / 'rice'}", "--out", str(tmp_path / "kept"), "--keep-region"])
    kept = seen(load_rice(tmp_path / "kept"))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(kept, seen(model), strict=True))


@pytest.mark.parametrize("arguments", [["rice:{plain}"], ["mini-s8-128"], ["rice:{rice}", "--weights", "{plain}"]])
def test_export_refuses_to_keep_what_is_not_there(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_rice(trained(), tmp_path / "rice")
    save_rice(trained().vit, tmp_path / "plain")
    words = [word.format(plain=tmp_path / "plain", rice=tmp_path / "rice") for word in arguments]
    with pytest.raises(SystemExit) as caught:
        main(["export", *words, "--out", str(tmp_path / "out"), "--keep-region"])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.count("\n") == 1
    assert "region layers" in error
    assert not (tmp_path / "out").exists()


def test_damaged_or_foreign_region_layers_are_refused(tmp_path: Path) -> None:
    save_rice(trained(), tmp_path)
    file = tmp_path / "region.safetensors"
    tensors = load_file(file)
    good = json.dumps({"layers": 2, "heads": 0, "query": "cls"})

    def refuse(pattern: str, changed: dict[str, torch.Tensor], config: str | None) -> None:
        save_file(changed, file, metadata=None if config is None else {"region_config": config})
        with pytest.raises(RiceError, match=rf"region\.safetensors.*{pattern}") as caught:
            load_rice(tmp_path)
        assert "\n" not in str(caught.value)

    some = next(iter(tensors))
    refuse("1 tensors missing", {name: value for name, value in tensors.items() if name != some}, good)
    refuse("1 tensors missing, unexpected", tensors | {"more": torch.zeros(1)}, good)
    refuse("mis-shaped", tensors | {some: torch.zeros(5)}, good)
    refuse("expected layers, heads, query", tensors, None)
    refuse("expected layers, heads, query", tensors, json.dumps({"layers": "2", "heads": 0, "query": "cls"}))
    refuse("expected layers, heads, query", tensors, "{")
    refuse("damaged", tensors, json.dumps({"layers": 10**9, "heads": 0, "query": "cls"}))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RiceError, match="not a readable safetensors file"):
        load_rice(tmp_path)
