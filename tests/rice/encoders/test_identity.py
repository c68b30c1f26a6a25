"""A fingerprint changes with what an encoder computes, and with nothing else."""

import os
from pathlib import Path

import pytest
import torch
import transformers

from rice.encoders.identity import fingerprint
from rice.encoders.spec import EncoderReference
from rice.encoders.zoo import ZOO
from rice.errors import RiceError


def of(text: str, weights: str | None = "default") -> str:
    return fingerprint(EncoderReference.parse(text), weights)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    torch.manual_seed(0)
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "tower")
    transformers.CLIPImageProcessor().save_pretrained(tmp_path / "tower")
    return tmp_path / "tower"


def flip_a_byte(path: Path) -> None:
    """The last byte; the file's time may stay the same, as on a coarse clock."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_changes_when_a_file_that_counts_changes(folder: Path, file: str) -> None:
    before = of(f"hf:{folder}")
    path = folder / file
    if path.suffix == ".json":
        path.write_text(path.read_text() + " ")
    else:
        flip_a_byte(path)
    assert of(f"hf:{folder}") != before


def test_stays_when_unrelated_files_change_or_the_folder_moves(folder: Path) -> None:
    before = of(f"hf:{folder}")
    (folder / "README.md").write_text("notes")
    (folder / "tokenizer.json").write_text("{}")
    assert of(f"hf:{folder}") == before
    moved = folder.rename(folder.parent / "elsewhere")
    assert of(f"hf:{moved}") == before


def test_hashes_weights_given_beside_the_architecture(folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes((folder / "model.safetensors").read_bytes())
    before = of("clip-l14-336", str(weights))
    flip_a_byte(weights)
    assert of("clip-l14-336", str(weights)) != before


def test_every_zoo_name_is_told_apart_by_what_it_computes() -> None:
    random = {name: of(name, None) for name in ZOO}
    assert random["siglip2-so400m-16-560"] == random["siglip2-so400m-16-512"]  # one checkpoint at two sizes
    assert len(set(random.values())) == len(ZOO) - 1
    assert all(of(name, "none") == value for name, value in random.items())
    assert of("clip-l14-336") != random["clip-l14-336"]


def test_depends_on_the_layer_but_not_on_the_input_size() -> None:
    assert of("clip-l14-336,layer=-2") != of("clip-l14-336")
    assert of("clip-l14-336,layer=-1") == of("clip-l14-336")
    assert of("clip-l14-336@672") == of("clip-l14-336")


def test_own_code_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_for_identity.py").write_text("raise RuntimeError('fingerprinting must not run me')\n")
    before = of("mine_for_identity:tower", None)
    assert of("mine_for_identity:tower") != before
    (tmp_path / "mine_for_identity.py").write_text("x = 1\n")
    assert of("mine_for_identity:tower", None) != before


def test_missing_places_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="does not exist"):
        of("clip-l14-336", str(tmp_path / "nowhere"))
    with pytest.raises(RiceError, match="found no weights"):
        of("clip-l14-336", str(tmp_path))
    with pytest.raises(RiceError, match="no module 'nowhere_at_all'"):
        of("nowhere_at_all:x")
    with pytest.raises(RiceError, match="no published weights"):
        of("rice-l14-224")
