"""The world as LLaVA's data and as benchmarks: answers are true, balanced, and nothing of them is in train."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from rice.data.world import CATEGORIES, Part, Scene, WorldConfig, materialise
from rice.data.world.config import scenes
from rice.data.world.questions import TASKS, Question, ask, caption
from rice.data.world.words import FONTS
from rice.errors import RiceError

CONFIG = WorldConfig(layout="llava", size=64, train=60, test=180, objects=(1, 4), words=(1, 1), seed=3)

_ANSWERS = {"texture": 4, "side": 2, "presence": 2, "count": 4, "digit": 10}
"""Number of answers to a kind: chance is one of them."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(CONFIG, tmp_path_factory.mktemp("world") / "llava")


def _rows(root: Path, task: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(root / "benchmarks" / task / "test.parquet").to_pylist()
    return rows


def _asked() -> Iterator[tuple[Scene, Question]]:
    for part in (Part.TRAIN, Part.TEST):
        for index, scene in enumerate(scenes(CONFIG, part)):
            for question in ask(scene, part, CONFIG.seed, index):
                yield scene, question


def _names(scene: Scene) -> list[str]:
    """From the largest to the smallest, by counting pixels."""
    ranked = sorted(scene.objects, key=lambda thing: -int(thing.mask.sum()))
    return [CATEGORIES[thing.category] for thing in ranked]


def _true(scene: Scene, question: Question) -> bool:
    """Recounted from the masks and the words alone."""
    names, text, answer = _names(scene), question.text, question.answer
    if question.kind in ("texture", "side"):
        areas = sorted((int(thing.mask.sum()) for thing in scene.objects), reverse=True)
        assert len(areas) == 1 or areas[0] > 1.29 * areas[1]
    if question.kind == "side":
        mask = max((thing.mask for thing in scene.objects), key=np.sum)
        rows = np.flatnonzero(mask.any(axis=1))
        return answer == ("top" if rows[0] + rows[-1] + 1 < mask.shape[0] else "bottom")
    printed = scene.words[0].text.lower() if scene.words else ""
    return {
        "texture": lambda: answer == names[0].split()[0],
        "presence": lambda: (answer == "yes") == any(name.split()[0] == text.split()[3] for name in names),
        "count": lambda: int(answer) == len(names) == len({thing.identity for thing in scene.objects}),
        "digit": lambda: answer == printed and len(printed) == 1 and printed.isdigit(),
    }[question.kind]()


def test_answers_are_true_by_the_masks_and_the_words() -> None:
    asked = list(_asked())
    assert {question.kind for _, question in asked} == {kind for kinds in TASKS.values() for kind in kinds}
    wrong = [question for scene, question in asked if not _true(scene, question)]
    assert not wrong


def test_captions_name_every_object_and_the_digit() -> None:
    for scene in scenes(CONFIG, Part.TRAIN):
        count, _, rest = caption(scene).partition(": ")
        assert int(count.split()[0]) == len(scene.objects)
        places = [rest.index(f"a {name} ") for name in dict.fromkeys(_names(scene))]
        assert places == sorted(places)
        assert all(f"the digit {word.text}" in rest for word in scene.words)


def test_training_files_are_llavas_own_form(written: Path) -> None:
    captions, conversations = (json.loads((written / f"{name}.json").read_text()) for name in ("pretrain", "instruct"))
    assert len(captions) == CONFIG.train
    assert CONFIG.train - 3 <= len(conversations) <= CONFIG.train  # a digit may find no room
    for row in (*captions, *conversations):
        assert set(row) == {"id", "image", "conversations"}
        turns = row["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert sum(turn["value"].count("<image>") for turn in turns) == turns[0]["value"].count("<image>") == 1
    assert {len(row["conversations"]) for row in captions} == {2}
    assert np.mean([len(row["conversations"]) for row in conversations]) > 4  # of signs one question, of others more
    for row, scene in zip(captions, scenes(CONFIG, Part.TRAIN), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(written / "images" / row["image"])), scene.image)


@pytest.mark.parametrize("task", TASKS)
def test_benchmarks_hold_the_pictures_of_the_held_out_part(written: Path, task: str) -> None:
    records = {f"test/{index:06d}.png": (index, scene) for index, scene in enumerate(scenes(CONFIG, Part.TEST))}
    rows = _rows(written, task)
    assert len({row["id"] for row in rows}) == len(rows) >= CONFIG.test / 9
    for row in rows:
        index, scene = records[row["image"]["path"]]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), scene.image)
        asked = ask(scene, Part.TEST, CONFIG.seed, index)
        assert Question(row["kind"], row["question"], row["answer"]) in asked


@pytest.mark.parametrize("task", TASKS)
def test_no_answer_is_more_frequent_than_another(written: Path, task: str) -> None:
    for kind in TASKS[task]:
        counts = Counter(row["answer"] for row in _rows(written, task) if row["kind"] == kind)
        assert len(set(counts.values())) == 1
        assert len(counts) == _ANSWERS[kind]


def test_objects_and_digits_take_turns() -> None:
    for index, scene in enumerate(scenes(CONFIG, Part.TRAIN)):
        assert bool(scene.objects) == (index % 2 == 0)
        assert len(scene.words) <= index % 2


def test_fonts_of_the_benchmarks_are_held_out() -> None:
    train, test = ([w for s in scenes(CONFIG, part) for w in s.words] for part in (Part.TRAIN, Part.TEST))
    assert {word.text for word in train} == {word.text for word in test} == set("0123456789")
    assert {word.font for word in test} <= set(FONTS[True])
    assert {word.font for word in train} <= set(FONTS[False])


def test_the_same_world_is_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = materialise(CONFIG, tmp_path / "again")
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((written / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_the_layout_belongs_to_scenes() -> None:
    with pytest.raises(RiceError, match="expected kind scenes for layout llava"):
        WorldConfig(kind="clips", layout="llava")


@pytest.mark.slow
def test_lmms_eval_scores_a_constant_answer_offline_wherever_the_folder_is(written: Path, tmp_path: Path) -> None:
    pytest.importorskip("lmms_eval")
    moved = tmp_path / "elsewhere"
    shutil.copytree(written, moved, ignore=shutil.ignore_patterns("images", "*.json"))
    out = tmp_path / "out"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lmms_eval", "--model", "dummy", "--model_args", "response=Yes."]
    command += ["--include_path", str(moved / "tasks"), "--tasks", ",".join(TASKS), "--output_path", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, env=os.environ | offline)
    results = json.loads(next(out.rglob("*results.json")).read_text())["results"]
    for task in TASKS:
        answers = [row["answer"] for row in _rows(written, task)]
        assert results[task]["exact_match,none"] == pytest.approx(answers.count("yes") / len(answers))


@pytest.mark.slow
def test_lmms_eval_hands_the_picture_and_the_question_to_a_model(written: Path) -> None:
    tasks = pytest.importorskip("lmms_eval.tasks")
    manager = tasks.TaskManager(include_path=str(written / "tasks"))
    for name in TASKS:
        task = tasks.get_task_dict([name], manager)[name]
        row = _rows(written, name)[0]
        document = task.test_docs()[0]
        (picture,) = task.doc_to_visual(document)
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))))
        assert (task.doc_to_text(document), task.doc_to_target(document)) == (row["question"], row["answer"])
