"""Draws as examples: their lengths are known beforehand and kept, their texts are the right picture's."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from tiny_training import QUIET, built, training

from mllm.lisa.data import SegmentExamples, _alternatives
from mllm.lisa.mixture import Draw
from mllm.lisa.pictures import Picture, Target
from rice.errors import RiceError

TEMPLATES = (
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)


def drawn(examples: SegmentExamples) -> list[Draw]:
    """All draws of pictures to segment."""
    draws = [examples._mixture.draw(i) for i in range(len(examples))]
    return [draw for draw in draws if draw.kind != "vqa"]


def texts(picture: Picture) -> set[str]:
    return {text.lower() for target in picture.targets for text in target.texts}


def asks(question: str, text: str) -> bool:
    """Whether a question is about this text, not about a longer one that holds it."""
    return any(question == template.format(text) for template in TEMPLATES)


def test_lengths_and_pictures_are_those_of_the_examples(root: Path, tmp_path: Path) -> None:
    _, examples = built(root, tmp_path, steps=4)
    found = [examples[i] for i in range(len(examples))]
    assert examples.lengths.tolist() == [len(one["input_ids"]) for one in found]
    assert examples.images.tolist() == [int("pixel_values" in one) for one in found]
    assert examples.drawn == {
        kind: sum(examples._mixture.draw(i).kind == kind for i in range(len(examples))) for kind in ("refer", "vqa")
    }


def test_tokens_are_counted_once_and_again_when_the_draws_are_others(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = built(root, tmp_path)
    other, more = ({"expressions": 1}, {"steps": 3})
    with monkeypatch.context() as patched:
        patched.setattr(SegmentExamples, "_length", lambda *_: pytest.fail("counted"))
        _, second = built(root, tmp_path)
    assert (first.drawn, first.lengths.tolist()) == (second.drawn, second.lengths.tolist())
    assert np.array_equal(first.images, second.images)
    for changes in (other, more):
        _, fresh = built(root, tmp_path / "fresh", **changes)
        _, found = built(root, tmp_path, **changes)
        assert found.lengths.tolist() == fresh.lengths.tolist()


def test_a_damaged_file_of_lengths_is_told(root: Path, tmp_path: Path) -> None:
    built(root, tmp_path)
    path = tmp_path / "segment" / "lengths.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RiceError, match="lengths.npz.*remove it"):
        built(root, tmp_path)


def test_counting_reads_a_row_of_pictures_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    run = training(root, tmp_path, steps=20)
    run._sets = run._read_sets(QUIET)
    lisa, llava, _ = run._build(root / "llava")
    kind = type(run._sets["refer"][0])
    once = kind.__getitem__
    monkeypatch.setattr(kind, "__getitem__", lambda self, i: read.append((self.folder, i)) or once(self, i))
    examples = run._examples(lisa, llava, QUIET)
    assert len(read) == len(set(read)) == len({(draw.set, draw.row) for draw in drawn(examples)})


def test_shuffled_expressions_are_those_of_other_pictures_and_the_masks_stay(root: Path, tmp_path: Path) -> None:
    (_, plain), (_, shuffled) = (built(root, tmp_path, shuffled=value, steps=20) for value in (False, True))
    asked, others_own = 0, 0
    for draw in drawn(plain):
        pictures = plain._sets[draw.kind][draw.set]
        others = {text for row, picture in enumerate(pictures) if row != draw.row for text in texts(picture)}
        for one, other in zip(plain.questions(draw), shuffled.questions(draw), strict=True):
            assert one.target == other.target
            assert any(asks(one.question, text.lower()) for text in one.target.texts)
            assert any(asks(other.question, text) for text in others), other.question
            asked += 1
            others_own += any(asks(other.question, text.lower()) for text in one.target.texts)
    assert asked > 50
    assert others_own < asked / 4, "two pictures may have a text in common, most have not"


def test_another_text_never_comes_from_the_picture_itself(root: Path, tmp_path: Path) -> None:
    _, examples = built(root, tmp_path, shuffled=True)
    pictures = [Picture(str(i), "x", "x", 1, 1, None, (Target(str(i), (f"text {i}",)),)) for i in range(2)]
    examples._sets = {"refer": [pictures]}
    found = {(row, examples._other(Draw("refer", 0, row, 0), Random(k))) for row in (0, 1) for k in range(20)}
    assert found == {(0, "text 1"), (1, "text 0")}


def test_every_question_of_reasoning_is_a_choice_and_one_name_of_a_class() -> None:
    target = Target("a", ("x", "y", "z"), value=1)
    assert _alternatives("reason", target, Random(0)) == target.texts == _alternatives("refer", target, Random(0))
    assert len(_alternatives("semantic", target, Random(0))) == 1


def test_a_picture_that_does_not_fit_is_told_with_what_to_do(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="raise --max-length"):
        built(root, tmp_path, max_length=64)
