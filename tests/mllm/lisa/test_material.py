"""Which sets of a data root are judged on, how often its files are read, and where its rows lie."""

import json
import shutil
from pathlib import Path

import pytest
from lisa_tree import write_tree
from tiny_parts import write_root

from mllm.lisa import refer
from mllm.lisa.material import LisaMaterial
from mllm.llava.config import LlavaConfig, StageConfig
from mllm.llava.material import Material
from rice.errors import RiceError
from rice.progress import SilentProgress


@pytest.fixture
def material(tmp_path: Path) -> LisaMaterial:
    return LisaMaterial(write_tree(tmp_path / "root"))


def names(material: LisaMaterial, asked: str) -> list[str]:
    return [one.full_name for one in material.judged(asked)]


def test_a_split_is_judged_once_however_often_it_is_named(material: LisaMaterial) -> None:
    assert names(material, "refcoco_testA, reasonseg_val,refcoco_testA,") == ["refcoco_testA", "reasonseg_val"]
    assert "refcoco_testA" in names(material, "all")
    assert not any(name.endswith("_train") for name in names(material, "all"))


@pytest.mark.parametrize("asked", ["", ",", " , "])
def test_no_name_is_an_error_in_one_line(asked: str, material: LisaMaterial) -> None:
    with pytest.raises(RiceError, match="expected names of splits with commas between, or all"):
        material.judged(asked)


def test_a_name_that_is_not_there_is_told_with_those_that_are(material: LisaMaterial) -> None:
    with pytest.raises(RiceError, match=r"no split 'refcoco_testB'.*refcoco_testA"):
        material.judged("refcoco_testA,refcoco_testB")


def test_all_splits_of_one_file_read_it_once_and_nothing_of_it_stays(
    material: LisaMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    for name in ("read_pickle", "parse_coco"):
        plain = getattr(refer, name)
        monkeypatch.setattr(refer, name, lambda path, *rest, plain=plain: read.append(path) or plain(path, *rest))
    own = [one for one in material.sets if one.name == "refcoco"]
    assert len(own) == 2
    assert [len(one) for one in material.pictures(own, tmp_path / "prepared", SilentProgress())] == [1, 1]
    assert sorted(path.name for path in read) == ["instances.json", "refs(unc).p"]
    assert refer._referents.cache_info().currsize == refer._instances.cache_info().currsize == 0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """LISA's tree, with captions beside its conversations."""
    folder = write_root(tmp_path / "root", 4)
    (folder / "coco/train2017").mkdir(parents=True)
    (folder / "llava_dataset").mkdir()
    instruct = json.loads((folder / "instruct.json").read_text())
    for row in instruct:
        if "image" in row:
            shutil.copy(folder / "images" / row["image"], folder / "coco/train2017" / f"coco-{row['image']}")
            row["image"] = f"coco-{row['image']}"
    (folder / "llava_dataset/llava_instruct_150k.json").write_text(json.dumps(instruct))
    (folder / "instruct.json").unlink()
    return folder


def test_captions_lie_beside_lisas_conversations_each_with_its_pictures(place: Path, tmp_path: Path) -> None:
    material = LisaMaterial(place).rows(LlavaConfig())
    assert material.pretrain == place / "pretrain.json"
    for source, pictures in ((material.pretrain, "images"), (material.instruct, "coco/train2017")):
        rows = material.rows(source, tmp_path / "prepared", SilentProgress())
        pictured = next(row for row in rows if row.images)
        assert rows.path(pictured, 0).parent == place / pictures
        assert rows.open_image(pictured, 0).size == pictured.sizes[0][::-1]


@pytest.mark.parametrize("name", ["images/0.png", "coco/train2017/coco-0.png"])
def test_pictures_of_both_are_part_of_what_data_is(place: Path, name: str) -> None:
    def fingerprint() -> str:
        material = LisaMaterial(place).llava
        assert material is not None
        return material.fingerprint()

    before = fingerprint()
    (place / name).unlink()
    assert fingerprint() != before


def test_stage_one_without_captions_is_told(place: Path) -> None:
    (place / "pretrain.json").unlink()
    with pytest.raises(RiceError, match=r"expected pretrain .* --stage1\.epochs 0"):
        LisaMaterial(place).rows(LlavaConfig())
    assert isinstance(LisaMaterial(place).rows(LlavaConfig(stage1=StageConfig(epochs=0))), Material)
