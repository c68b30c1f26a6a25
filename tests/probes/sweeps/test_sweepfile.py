from pathlib import Path
from typing import Any

import pytest
import yaml

from probes.sweeps.sweepfile import BUILT_IN, DatasetEntry, EncoderEntry, read_sweep
from reports.miniature.settings import MiniatureConfig
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError

WHOLE: dict[str, Any] = {
    "name": "corner",
    "encoders": ["vit"],
    "datasets": {"one": {"path": "one"}},
    "probes": [{"probe": "dense", "data": ["one"]}],
}


def write(folder: Path, document: dict[str, Any] | str) -> str:
    (folder / "one").mkdir(exist_ok=True)
    path = folder / "sweep.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    return str(path)


def test_encoders_are_names_or_mappings(tmp_path: Path) -> None:
    long = {"encoder": "rice:w.pt", "name": "R", "weights": None, "size": 448, "layer": -2, "allow_pickle": True}
    document = WHOLE | {"encoders": ["vit@224,layer=-2", long, {"encoder": "vit", "weights": "none"}]}
    first, second, third = read_sweep(write(tmp_path, document)).encoders
    assert first == EncoderEntry(reference=EncoderReference("vit", 224, -2), label="vit@224,layer=-2")
    assert second == EncoderEntry(
        reference=EncoderReference("rice:w.pt", 448, -2), label="R", weights=None, allow_pickle=True
    )
    assert third == EncoderEntry(reference=EncoderReference("vit"), label="vit", weights=None)


@pytest.mark.parametrize(("seeds", "expected"), [(3, (0, 1, 2)), ([7, 5], (7, 5))])
def test_seeds_are_a_count_or_a_list(tmp_path: Path, seeds: Any, expected: tuple[int, ...]) -> None:
    assert read_sweep(write(tmp_path, WHOLE | {"seeds": seeds})).seeds == expected


def test_one_seed_is_the_default(tmp_path: Path) -> None:
    assert read_sweep(write(tmp_path, WHOLE)).seeds == (0,)


def test_dataset_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert read_sweep(write(tmp_path, WHOLE)).datasets == (DatasetEntry(name="one", path=tmp_path / "one"),)


def test_other_keys_of_a_probe_are_overrides(tmp_path: Path) -> None:
    document = WHOLE | {"probes": [{"probe": "dense", "data": ["one"], "fit.epochs": 3, "grid": "matched"}]}
    assert read_sweep(write(tmp_path, document)).probes[0].overrides == {"fit.epochs": 3, "grid": "matched"}


@pytest.mark.parametrize("named", [True, False])
def test_data_on_the_command_line_replaces_a_path(tmp_path: Path, named: bool) -> None:
    file = write(tmp_path, WHOLE | {"datasets": {"one": {"path": None}}})
    with pytest.raises(RiceError, match="--data one=PATH"):
        read_sweep(file)
    word = f"{'one=' if named else ''}{tmp_path}"
    assert read_sweep(file, [word]).datasets == (DatasetEntry(name="one", path=tmp_path),)


def test_the_resolved_sweep_is_json(tmp_path: Path) -> None:
    resolved = read_sweep(write(tmp_path, WHOLE)).as_json()
    assert resolved["encoders"][0]["reference"] == "vit"
    assert resolved["datasets"][0]["path"] == str(tmp_path / "one")


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in WHOLE.items() if name != key}


PROBE = WHOLE["probes"][0]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("", ["expected a mapping"]),
        ("- a", ["expected a mapping"]),
        ("name: [", ["line"]),
        ("name: a\nname: b\n", ["line 2", "'name'", "twice"]),
        ("encoders: {a: 1, a: 2}", ["'a'", "twice"]),
        ("name: !!python/object/apply:os.system ['true']", ["python/object"]),
        ("a: &a [*a]", ["unknown key 'a'"]),
        ("? [1]\n: 2", ["line"]),
        ("name: \x00", ["sweep.yaml"]),
        *((without(key), [repr(key), "missing"]) for key in WHOLE),
        (WHOLE | {"encoder": ["vit"]}, ["'encoder'", "encoders"]),
        (WHOLE | {"name": "a/b"}, ["a/b"]),
        (WHOLE | {"name": 3}, ["name", "3"]),
        (WHOLE | {"encoders": []}, ["encoders", "none"]),
        (WHOLE | {"encoders": "vit"}, ["encoders", "a list"]),
        (WHOLE | {"encoders": [3]}, ["encoders", "3"]),
        (WHOLE | {"encoders": ["vit", "vit"]}, ["'vit'", "twice"]),
        (WHOLE | {"encoders": ["vit@big@3"]}, ["vit@big@3", "NAME@SIZE"]),
        (WHOLE | {"encoders": [{"encoder": "vit@3", "size": 4}]}, ["already", "size"]),
        (WHOLE | {"encoders": [{"encoder": "vit", "size": "4"}]}, ["size", "integer"]),
        (WHOLE | {"encoders": [{"encoder": "vit", "size": -4}]}, ["-4"]),
        (WHOLE | {"encoders": [{"encoder": "vit", "weight": "x"}]}, ["'weight'", "weights"]),
        (WHOLE | {"encoders": [{"encoder": "vit", "weights": 3}]}, ["weights", "3"]),
        (WHOLE | {"encoders": [{"encoder": "vit", "allow_pickle": "yes"}]}, ["allow_pickle"]),
        (WHOLE | {"datasets": {}}, ["datasets", "none"]),
        (WHOLE | {"datasets": {"one": {}}}, ["one", "path", "world"]),
        (WHOLE | {"datasets": {"one": {"path": "one", "world": {}}}}, ["one", "either"]),
        (WHOLE | {"datasets": {"one": {"path": "gone"}}}, ["no folder", "gone"]),
        (WHOLE | {"datasets": {"one": {"root": "one"}}}, ["'root'"]),
        (WHOLE | {"datasets": {1: {"path": "one"}}}, ["datasets", "1"]),
        (WHOLE | {"probes": []}, ["probes", "none"]),
        (WHOLE | {"probes": ["dense"]}, ["probes", "dense"]),
        (WHOLE | {"probes": [{"probe": "dense"}]}, ["'data'"]),
        (WHOLE | {"probes": [PROBE | {"data": []}]}, ["data", "none"]),
        (WHOLE | {"probes": [PROBE | {"data": ["two"]}]}, ["'two'", "one"]),
        (WHOLE | {"probes": [PROBE | {"data": [["one"]]}]}, ["data", "text"]),
        (WHOLE | {"probes": [PROBE | {"data": ["one", "one"]}]}, ["'one'", "twice"]),
        (WHOLE | {"probes": [PROBE | {3: 4}]}, ["3"]),
        *(
            (WHOLE | {"seeds": seeds}, ["seeds", "a count", "a list", repr(seeds)])
            for seeds in (0, -1, [], [-1], [0.5], "3", True, [True])
        ),
        (WHOLE | {"seeds": [1, 1]}, ["seeds", "twice"]),
    ],
)
def test_a_wrong_file_is_one_line_that_says_what(tmp_path: Path, document: Any, words: list[str]) -> None:
    with pytest.raises(RiceError) as error:
        read_sweep(write(tmp_path, document))
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("data", [["two=/"], ["one="], ["/", "one=/nowhere"]])
def test_wrong_data_is_refused(tmp_path: Path, data: list[str]) -> None:
    with pytest.raises(RiceError):
        read_sweep(write(tmp_path, WHOLE), data)


def test_an_unknown_name_lists_the_built_in_ones() -> None:
    with pytest.raises(RiceError, match=r"quickstart.*Did you mean quickstart"):
        read_sweep("quickstrat")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RiceError, match=r"sweep\.yaml"):
        read_sweep(str(path))


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_built_in_sweep_is_named_as_its_file(path: Path, tmp_path: Path) -> None:
    for name in ("coco", "lvis", "roboflow100"):
        (tmp_path / name).mkdir()
    document = yaml.safe_load(path.read_text())
    open_ = [entry for entry in document["datasets"].values() if "path" in entry]
    labels = [e.get("name", e["encoder"]) for e in document["encoders"] if isinstance(e, dict) and "weights" in e]
    given = [f"{label}={tmp_path}" for label in labels if path.stem.startswith("table")]
    data = [str(tmp_path)] if open_ else []
    sweep = read_sweep(path.stem, data, given)
    assert sweep.name == path.stem
    assert not sweep.left_out
    assert len(sweep.encoders) == len(document["encoders"])


def test_a_root_gives_every_open_dataset_its_folder_by_name(tmp_path: Path) -> None:
    for name in ("coco", "lvis", "roboflow100"):
        (tmp_path / name).mkdir()
    sweep = read_sweep("table3", [str(tmp_path)])
    assert {d.name: d.path for d in sweep.datasets} == {n: tmp_path / n for n in ("coco", "lvis", "roboflow100")}
    (tmp_path / "lvis").rmdir()
    with pytest.raises(RiceError, match="lvis: there is no folder"):
        read_sweep("table3", [str(tmp_path)])


def test_encoders_without_published_weights_are_left_out_unless_they_are_given(tmp_path: Path) -> None:
    for name in ("coco", "lvis", "roboflow100"):
        (tmp_path / name).mkdir()
    sweep = read_sweep("table3", [str(tmp_path)], ["rice-b16-512=checkpoints/mine"])
    assert sweep.left_out == ("mlcd-b16-512",)
    assert [e.label for e in sweep.encoders] == ["dinov2-b14-518", "siglip-b16-512", "rice-b16-512"]
    assert sweep.encoders[-1].weights == "checkpoints/mine"
    with pytest.raises(RiceError, match="--weights takes LABEL=PATH with LABEL one of .*got 'nobody=x'"):
        read_sweep("table3", [str(tmp_path)], ["nobody=x"])
    with pytest.raises(RiceError, match='no encoder has weights; give some: --weights "N 1=PATH"'):
        read_sweep("table5a", [str(tmp_path)])


def test_the_quickstart_judges_as_the_miniature_does_but_for_the_epochs_of_detection() -> None:
    document, config = yaml.safe_load((BUILT_IN / "quickstart.yaml").read_text()), MiniatureConfig()
    assert document["datasets"] == {name: {"world": world} for name, world in config.worlds.items()}
    shorter = {"detection": {"epochs": 4}}
    expected = {probe["probe"]: dict(probe) | shorter.get(probe["probe"], {}) for probe in config.probes}
    assert {probe["probe"]: probe for probe in document["probes"]} == expected
    assert len(document["probes"]) == len(expected)
