"""The world in the layout of LLaVA's training data, and the held-out part as benchmarks for lmms-eval.

write_llava   images/{train,test}/; pretrain.json, instruct.json; benchmarks/{task}/test.parquet, tasks/{task}.yaml

LLaVA's JSON: a list of {"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}; `image` is relative
to images/, and the mark <image> is in the first turn. lmms-eval takes a relative path in a task's file from where that
file is, so that the folder can be moved: `lmms-eval --include_path FOLDER/tasks --tasks world_vqa`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rice.data.world.draws import Dice, Part
from rice.data.world.layouts import picture_suffix, save_picture
from rice.data.world.questions import CONVERSATIONS, DESCRIBE, TASKS, Question, Task, ask, caption
from rice.data.world.scene import Image_HW3, Scene
from rice.files import atomic_path, atomic_write, write_json

MARK = "<image>"
"""Where the picture is in a turn, as LLaVA writes it."""

_PROMPTS = 1
"""Added to the key of the questions' stream."""
_MAX_NEW_TOKENS = 8

_TEXT = {"dtype": "string", "_type": "Value"}
_COLUMNS: dict[str, dict[str, str]] = {
    "id": _TEXT,
    "image": {"_type": "Image"},
    "kind": _TEXT,
    "question": _TEXT,
    "answer": _TEXT,
}
"""As the library `datasets` writes them into a file, to know what to decode."""

_YAML = """\
task: {task}
dataset_path: parquet
dataset_kwargs:
  data_files:
    {split}: ../benchmarks/{task}/{split}.parquet
test_split: {split}
output_type: generate_until
doc_to_visual: image
doc_to_text: question
doc_to_target: answer
generation_kwargs:
  max_new_tokens: {tokens}
  temperature: 0
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: true
metadata:
  version: 1.0
  unit: fraction
"""


def write_llava(folder: Path, split: str, scenes: Iterable[Scene], seed: int) -> None:
    """Write scenes as `train`, to learn from, or as `test`, to be judged on. `seed` draws the questions.

    Each benchmark has at most as many questions as there are scenes, with as many of one kind as of another where
    there are enough; the answers to a kind are equally frequent.
    """
    if split == "train":
        _write_training(folder, scenes, seed)
    else:
        _write_benchmarks(folder, split, scenes, seed)


def _write_training(folder: Path, scenes: Iterable[Scene], seed: int) -> None:
    captions, conversations = [], []
    for index, scene in enumerate(scenes):
        name = _save(folder, "train", index, scene.image)
        captions.append(caption_row(name, scene, seed, index))
        conversations += conversation_rows(name, scene, seed, index)
    write_training_rows(folder, captions, conversations)


def write_training_rows(folder: Path, captions: list[dict[str, Any]], conversations: list[dict[str, Any]]) -> None:
    """The rows of both stages as pretrain.json and instruct.json."""
    write_json(folder / "pretrain.json", captions)
    write_json(folder / "instruct.json", conversations)


def caption_row(image: str, scene: Scene, seed: int, index: int, sides: bool = False) -> dict[str, Any]:
    """The caption of training scene number `index` as LLaVA's JSON has it; sides: see `caption`."""
    dice = Dice(CONVERSATIONS, Part.TRAIN, seed, index, _PROMPTS)
    prompt = dice.choice(DESCRIBE)
    first = f"{MARK}\n{prompt}" if dice.chance(0.5) else f"{prompt}\n{MARK}"
    return _row(index, image, [(first, caption(scene, sides))])


def conversation_rows(image: str, scene: Scene, seed: int, index: int) -> list[dict[str, Any]]:
    """One row with all questions about training scene number `index`, or none: a digit that found no room leaves
    nothing to ask."""
    turns = [(question.text, question.answer) for question in ask(scene, Part.TRAIN, seed, index)]
    if not turns:
        return []
    turns[0] = (f"{MARK}\n{turns[0][0]}", turns[0][1])
    return [_row(index, image, turns)]


def _row(index: int, image: str, turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    conversation = []
    for human, gpt in turns:
        conversation += [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]
    return {"id": f"{index:06d}", "image": image, "conversations": conversation}


def _save(folder: Path, split: str, index: int, image_HW3: Image_HW3) -> str:
    """The picture's name below images/."""
    name = f"{split}/{index:06d}{picture_suffix(image_HW3)}"
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(path, image_HW3)
    return name


def _write_benchmarks(folder: Path, split: str, scenes: Iterable[Scene], seed: int) -> None:
    asked: dict[str, list[tuple[str, Question]]] = defaultdict(list)
    count = 0
    for index, scene in enumerate(scenes):
        name = _save(folder, split, index, scene.image)
        count += 1
        for question in ask(scene, Part.TEST, seed, index):
            asked[question.kind].append((name, question))
    for task, kinds in TASKS.items():
        most = count // len(kinds)
        chosen = [item for kind in kinds for item in balanced(asked[kind], most)]
        chosen.sort(key=lambda item: item[0])  # by picture: a run of the first few questions has all kinds
        _write_task(folder, split, task, chosen)


def balanced(items: Sequence[tuple[str, Question]], most: int) -> list[tuple[str, Question]]:
    """The first of `items`, in order, at most `most` in all and equally many of each answer."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, (_, question) in enumerate(items):
        groups[question.answer].append(place)
    each = min([most // max(len(groups), 1), *(len(group) for group in groups.values())])
    return [items[place] for place in sorted(place for group in groups.values() for place in group[:each])]


def _write_task(folder: Path, split: str, task: Task, chosen: Sequence[tuple[str, Question]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {
            "id": f"{task}-{number:05d}",
            "image": {"bytes": (folder / "images" / name).read_bytes(), "path": name},
            "kind": question.kind,
            "question": question.text,
            "answer": question.answer,
        }
        for number, (name, question) in enumerate(chosen)
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [(name, image if name == "image" else pa.string()) for name in _COLUMNS]
    schema = pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": _COLUMNS}})})
    with atomic_path(folder / "benchmarks" / task / f"{split}.parquet") as path:
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    with atomic_write(folder / "tasks" / f"{task}.yaml") as file:
        file.write(_YAML.format(task=task, split=split, tokens=_MAX_NEW_TOKENS))
