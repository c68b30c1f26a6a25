"""Every set of LISA's tree is found, read with its masks, and prepared once."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from lisa_tree import HEIGHT, TRAIN2014, WIDTH, annotation, referent, save_picture, write_json, write_refer, write_tree

from mllm.lisa import sets
from mllm.lisa.leaks import coco_numbers, without
from mllm.lisa.pictures import ABOUT, TABLE
from mllm.lisa.sets import DataSet, find_sets, prepare
from rice.errors import RiceError
from rice.progress import SilentProgress

FOUND = [
    ("grefcoco_train", "refer", ("both",)),
    ("grefcoco_val", "refer", ("the cat",)),
    ("refcoco_train", "refer", ("the square", "left one")),
    ("refcoco_testA", "refer", ("a square",)),
    ("refcocog_google_val", "refer", ("the square", "left one")),
    ("ade20k_train", "semantic", ("building",)),
    ("cocostuff_train", "semantic", ("person",)),
    ("mapillary_train", "semantic", ("bird",)),
    ("pascal_part_train", "semantic", ("dog left eye", "the left eye of the dog")),
    ("paco_train", "semantic", ("trash can lid", "the lid of the trash can")),
    ("reasonseg_train", "reason", ("what could bite?",)),
    ("reasonseg_val", "reason", ("what could bite?",)),
    ("expressions_val", "refer", ("a box",)),
]


def named(root: Path, name: str) -> DataSet:
    return next(one for one in find_sets(root) if one.full_name == name)


def test_every_set_is_found_and_its_masks_and_pictures_open(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    seen = []
    for one in find_sets(root):
        pictures = prepare(one, tmp_path / "prepared" / one.full_name, SilentProgress())
        first = pictures[0].targets[0]
        seen.append((one.full_name, one.kind, first.texts))
        assert pictures.about["refused"] == {}, one.full_name
        for picture in pictures:
            assert picture.source == one.name
            assert pictures.open_image(picture).size == (WIDTH, HEIGHT)
            for target in picture.targets:
                assert pictures.mask(picture, target).any() != target.absent
    assert seen == FOUND


def test_all_folders_of_pictures_may_be_links(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    for number, name in enumerate((TRAIN2014, "coco", "ade20k/images/training", "cocostuff/train2017", "vlpart")):
        moved = tmp_path / f"disk{number}"
        shutil.move(root / name, moved)
        (root / name).symlink_to(moved)
    for one in find_sets(root):
        pictures = prepare(one, tmp_path / "prepared" / one.full_name, SilentProgress())
        picture = pictures[0]
        assert pictures.open_image(picture).size == (WIDTH, HEIGHT)
        pictures.mask(picture, picture.targets[0])


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    assert find_sets(tmp_path) == []
    assert find_sets(tmp_path / "absent") == []


def test_a_set_is_prepared_once_and_again_when_a_source_changes(tmp_path: Path) -> None:
    root, folder = write_tree(tmp_path / "root"), tmp_path / "prepared"

    def state() -> tuple[int, str]:
        pictures = prepare(named(root, "refcoco_train"), folder, SilentProgress())
        return (folder / TABLE).stat().st_mtime_ns, pictures.fingerprint()

    first = state()
    assert state() == first
    refs = [referent(1, 1, 10, "train", "something else"), referent(2, 1, 11, "testA", "x")]
    found = [annotation(10, 1, [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]]), annotation(11, 1, [])]
    write_refer(root, "refcoco", "refs(unc).p", refs, found)
    second = state()
    assert second[1] != first[1]
    assert state() == second
    (root / TRAIN2014 / "COCO_train2014_000000000001.jpg").unlink()
    with pytest.raises(RiceError, match=r"refcoco \(train\) has no picture.*missing picture file: 1 \(1\)"):
        state()
    assert not (folder / ABOUT).exists()


def test_a_folder_of_another_set_is_not_taken_for_it(tmp_path: Path) -> None:
    root, folder = write_tree(tmp_path / "root"), tmp_path / "prepared"
    prepare(named(root, "refcoco_train"), folder, SilentProgress())
    pictures = prepare(named(root, "refcoco_testA"), folder, SilentProgress())
    assert pictures.about["split"] == "testA"


def test_a_moved_root_needs_no_second_reading(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    folder = tmp_path / "prepared"
    prepare(named(root, "ade20k_train"), folder, SilentProgress())
    written = (folder / TABLE).stat().st_mtime_ns
    root.rename(tmp_path / "elsewhere")
    pictures = prepare(named(tmp_path / "elsewhere", "ade20k_train"), folder, SilentProgress())
    assert (folder / TABLE).stat().st_mtime_ns == written
    assert pictures.open_image(pictures[0]).size == (WIDTH, HEIGHT)


def test_the_fingerprint_follows_what_files_hold_and_which_pictures_there_are(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    before = {one.full_name: one.fingerprint() for one in find_sets(root)}
    with (root / "ade20k/annotations/training/ADE_train_1.png").open("ab") as file:
        file.write(b"0")
    words = root / "reason_seg/ReasonSeg/train/7_1.json"
    words.write_text(words.read_text().replace("bite", "bark"))
    save_picture(root / "reason_seg/ReasonSeg/val/8_1.jpg")
    after = {one.full_name: one.fingerprint() for one in find_sets(root)}
    changed = {"ade20k_train", "reasonseg_train", "reasonseg_val"}
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_copy_has_the_same_fingerprint_whenever_and_however_it_was_put_there(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    before = {one.full_name: one.fingerprint() for one in find_sets(root)}
    sources = named(root, "ade20k_train").sources()
    shutil.copytree(root, tmp_path / "copy")
    for file in (path for path in (tmp_path / "copy").rglob("*") if path.is_file()):
        os.utime(file, (1, 1))
    linked = tmp_path / "copy" / TRAIN2014 / "COCO_train2014_000000000001.jpg"
    linked.unlink()
    linked.symlink_to(root / TRAIN2014 / linked.name)
    assert {one.full_name: one.fingerprint() for one in find_sets(tmp_path / "copy")} == before
    assert named(tmp_path / "copy", "ade20k_train").sources() != sources  # a file of another time is read again


def test_a_folder_is_listed_once_for_all_sets_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "root")
    listed: list[Path] = []
    plain = sets.scan
    monkeypatch.setattr(sets, "scan", lambda folder: listed.append(folder) or plain(folder))
    for one in find_sets(root):
        one.sources()
        one.fingerprint()
    assert listed.count(root / TRAIN2014) == 1
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("name", "file", "rest"), [("refcoco", "refs(unc).p", "grefs(unc).json"), ("mine", "refs(x).p", "grefs(x).json")]
)
def test_two_sets_of_one_name_are_an_error_that_names_both_files(
    name: str, file: str, rest: str, tmp_path: Path
) -> None:
    found = [annotation(10, 1, [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]])]
    for one in (file, rest):
        write_refer(tmp_path, name, one, [referent(1, 1, 10, "val", "x")], found)
    with pytest.raises(RiceError, match="expected one set called") as caught:
        find_sets(tmp_path)
    assert file in str(caught.value)
    assert rest in str(caught.value)


def test_expressions_of_two_years_of_one_split_are_an_error_that_names_both_files(tmp_path: Path) -> None:
    items = [
        {"file_name": f"val{year}/1.jpg", "expression": "x", "empty": True, "box_xyxy": None, "annotation_id": None}
        for year in (2014, 2017)
    ]
    write_json(tmp_path / "expressions.json", items)
    (tmp_path / "coco/annotations").mkdir(parents=True)
    with pytest.raises(RiceError, match=r"expressions_val.*instances_val2014\.json.*instances_val2017\.json"):
        find_sets(tmp_path)


def test_label_maps_without_names_are_an_error_of_who_reads_them_that_says_where_to_find_them(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    (root / "mapillary/config_v2.0.json").unlink()
    assert len(prepare(named(root, "refcoco_testA"), tmp_path / "a", SilentProgress())) == 1
    with pytest.raises(RiceError, match=r"expected the names of classes at .*config_v2\.0\.json.*archive"):
        prepare(named(root, "mapillary_train"), tmp_path / "b", SilentProgress())


def test_ade20ks_classes_have_names_without_the_table_of_its_archive(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    before = list(prepare(named(root, "ade20k_train"), tmp_path / "a", SilentProgress()))
    (root / "ade20k/objectInfo150.txt").unlink()
    assert list(prepare(named(root, "ade20k_train"), tmp_path / "b", SilentProgress())) == before


def test_published_files_are_named_by_how_they_are_split(tmp_path: Path) -> None:
    found = [annotation(10, 1, [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]])]
    own: Any = {"refcoco": ["google", "unc"], "refcocog": ["google", "umd"], "refcoco+": ["unc"], "mine": ["x"]}
    for name, splits in own.items():
        for by in splits:
            write_refer(tmp_path, name, f"refs({by}).p", [referent(1, 1, 10, "val", "x")], found)
    assert [one.full_name for one in find_sets(tmp_path)] == [
        "mine_x_val",
        "refcoco_google_val",
        "refcoco_val",
        "refcoco+_val",
        "refcocog_google_val",
        "refcocog_val",
    ]


@pytest.mark.parametrize(("name", "usual", "other"), [("refcoco", "unc", "google"), ("refcocog", "umd", "google")])
def test_the_other_way_to_split_the_same_referents_is_judged_on_but_not_trained_on(
    name: str, usual: str, other: str, tmp_path: Path
) -> None:
    found = [annotation(10, 1, [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]])]
    for by, split in ((usual, "val"), (other, "train")):
        refs = [referent(1, 1, 10, split, "x"), referent(2, 1, 10, "val" if split == "train" else "train", "y")]
        write_refer(tmp_path, name, f"refs({by}).p", refs, found)
    assert sorted(one.full_name for one in find_sets(tmp_path)) == [
        f"{name}_{other}_val",
        f"{name}_train",
        f"{name}_val",
    ]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, "json"])
def test_the_splits_of_a_published_file_are_those_that_its_referents_have(protocol: Any, tmp_path: Path) -> None:
    found = [annotation(10, 1, [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]])]
    texts = ("oval valley interval", "a traint test_a 3val", "contest")
    for splits in (["train"], ["val", "testA"], ["train", "val", "testB"], ["testA"]):
        refs = [referent(k, 1, 10, split, *texts) for k, split in enumerate(splits)]
        folder = write_refer(tmp_path / splits[0], "refcoco", "grefs(unc).json", refs, found)
        if protocol != "json":
            (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol))
            (folder / "grefs(unc).json").unlink()
        assert [one.split for one in find_sets(tmp_path / splits[0])] == splits


def test_pictures_that_are_open_stay_readable_while_their_set_is_prepared_anew(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    one = named(root, "refcoco_train")
    first = prepare(one, tmp_path / "prepared", SilentProgress())
    (tmp_path / "prepared" / ABOUT).unlink()
    assert list(prepare(one, tmp_path / "prepared", SilentProgress())) == list(first)


def test_pictures_that_are_judged_are_left_out_of_sets_of_the_same_photographs(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root")
    judged = prepare(named(root, "refcoco_testA"), tmp_path / "judged", SilentProgress())
    numbers = coco_numbers([judged])
    assert numbers == {2}
    for name in ("cocostuff_train", "ade20k_train"):
        one, whole = named(root, name), tmp_path / name
        assert len(prepare(without(one, numbers), whole, SilentProgress())) == 1
    with pytest.raises(RiceError, match="picture of a split that is judged: 1 \\(000000000009\\)"):
        prepare(without(named(root, "cocostuff_train"), frozenset({9})), tmp_path / "a", SilentProgress())
    assert len(prepare(without(named(root, "ade20k_train"), frozenset({1})), tmp_path / "b", SilentProgress())) == 1
    again = prepare(named(root, "grefcoco_train"), tmp_path / "c", SilentProgress())
    with pytest.raises(RiceError, match="is judged: 1"):
        prepare(without(named(root, "grefcoco_train"), frozenset({1})), tmp_path / "c", SilentProgress())
    assert len(again) == 1
