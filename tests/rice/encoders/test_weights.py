"""Weights come as safetensors; pickles are refused, and when allowed only their tensors are read."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rice.encoders.weights import Source, open_checkpoint, pick, place, weight_files
from rice.errors import RiceError

TENSORS = {"tower.a": torch.arange(4.0), "tower.b": torch.ones(2, 3), "text.a": torch.zeros(1)}


def local(path: Path) -> Source:
    return Source("local", str(path))


def test_prefix_of_the_tower_is_found_and_only_its_part_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(local(tmp_path), allow_pickle=False)
    assert checkpoint.prefix(["nothing", "b"]) == "tower."
    read = checkpoint.read("tower.")
    assert read.keys() == {"a", "b"}
    assert torch.equal(read["a"], TENSORS["tower.a"])
    with pytest.raises(RiceError, match="none of its tensors is called c"):
        checkpoint.prefix(["c"])


def test_shards_without_the_tower_are_not_even_opened(tmp_path: Path) -> None:
    save_file({"tower.a": TENSORS["tower.a"]}, tmp_path / "1.safetensors")
    weight_map = {"tower.a": "1.safetensors", "text.a": "absent.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    read = open_checkpoint(local(tmp_path), allow_pickle=False).read("tower.")
    assert torch.equal(read["a"], TENSORS["tower.a"])


def test_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    index = {"weight_map": {"tower.a": "../1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RiceError, match="expected a file name inside"):
        open_checkpoint(local(tmp_path), allow_pickle=False).read()


@pytest.mark.parametrize("as_file", [True, False])
def test_pickle_is_refused_unless_allowed(tmp_path: Path, as_file: bool) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"state_dict": {f"module.{name}": value for name, value in TENSORS.items()}}, file)
    source = local(file if as_file else tmp_path)
    with pytest.raises(RiceError, match=r"pickled weights \(pytorch_model.bin\), which are refused.*--allow-pickle"):
        open_checkpoint(source, allow_pickle=False)
    read = open_checkpoint(source, allow_pickle=True).read("tower.")
    assert torch.equal(read["b"], TENSORS["tower.b"])


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def test_allowed_pickle_still_executes_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    with (tmp_path / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"a": Bomb(trap)}, file, protocol=2)
    torch.save({"a": Bomb(trap)}, tmp_path / "zipped.pt")
    for name in ("pytorch_model.bin", "zipped.pt"):
        with pytest.raises(RiceError, match="not a pickle of plain tensors"):
            open_checkpoint(local(tmp_path / name), allow_pickle=True).read()
    assert not trap.exists()


def test_safetensors_are_preferred_to_a_pickle_beside_them(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x20\0\0\0\0\0\0\0{}"])
def test_corrupt_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(RiceError, match="not a readable safetensors file"):
        open_checkpoint(local(tmp_path), allow_pickle=False)


def test_ambiguous_folder_asks_for_the_file(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "one.safetensors")
    assert weight_files(tmp_path) == [tmp_path / "one.safetensors"]
    save_file(TENSORS, tmp_path / "two.safetensors")
    with pytest.raises(RiceError, match="found one.safetensors, two.safetensors; pass the file itself"):
        weight_files(tmp_path)


def test_weights_argument_means_one_of_three_things(tmp_path: Path) -> None:
    published = Source("hub", "owner/name")
    assert pick("default", published, "x") == published
    assert pick(None, published, "x") == pick("none", published, "x") == Source("random")
    assert pick(str(tmp_path), published, "x") == local(tmp_path)
    with pytest.raises(RiceError, match="no published weights"):
        pick("default", None, "x")
    with pytest.raises(RiceError, match="does not exist"):
        pick("nowhere", published, "x")


def test_place_is_a_path_or_a_repository(tmp_path: Path) -> None:
    assert place(str(tmp_path)) == local(tmp_path)
    assert place("owner/name") == Source("hub", "owner/name")
    for bad in ("/no/such/place", "name", "a/b/c", "../x/y"):
        with pytest.raises(RiceError, match="existing path or a hub repository"):
            place(bad)


def test_hub_out_of_reach_is_one_line_that_names_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rice.encoders import hub

    monkeypatch.setattr(hub, "_reachable", lambda: False)
    with pytest.raises(RiceError) as caught:
        open_checkpoint(Source("hub", "nobody/no-such-tower"), allow_pickle=False)
    assert "cannot reach nobody/no-such-tower" in str(caught.value)
    assert "weights=PATH" in str(caught.value)
    assert "\n" not in str(caught.value)
