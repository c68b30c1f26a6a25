"""Rows of every layout become one form, or are refused for a reason with a name."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.llava.parse import SHORT_ANSWER, Change, Draft, Picture, Reason, RefusedRowError, parse_row
from mllm.llava.rows import MARK, Turn

ASK, ANSWER = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}


def llava(*turns: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"id": "a", "image": "a.jpg", "conversations": list(turns or (ASK, ANSWER))} | other


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


EXPECTED = (Turn("user", "<image>\nWhat is it?"), Turn("assistant", "A cat."))


@pytest.mark.parametrize(
    "row",
    [
        llava(),
        llava(image=["a.jpg"]),
        llava(image={"bytes": None, "path": "a.jpg"}),
        llava(image=None, images=["a.jpg"]),
        llava(image=None, images=[{"path": "a.jpg"}], video=None, videos=[]),
        {"id": "a", "image": "a.jpg", "messages": [
            {"role": "user", "content": "<image>\nWhat is it?"}, {"role": "assistant", "content": "A cat."}]},
        {"id": "a", "images": ["a.jpg"], "conversation": [
            {"role": "user", "content": "<image>\nWhat is it?"}, {"role": "assistant", "content": "A cat."}]},
        llava({"role": "user", "content": "<image>\nWhat is it?"}, ANSWER),
        llava({"from": None, "role": "user", "value": None, "content": "<image>\nWhat is it?"}, ANSWER, question=None),
        llava(id=None, questionId="a", messages=None),
    ],
)  # fmt: skip
def test_every_layout_says_the_same(row: dict[str, Any]) -> None:
    assert parse_row(row) == Draft("a", EXPECTED, (Picture("a.jpg"),), ())


def test_docvqa_asks_as_lmms_eval_does_and_its_first_answer_is_the_one_to_learn() -> None:
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or spec.origin is None:
        pytest.skip("needs lmms-eval")
    task = (Path(spec.origin).parent / "tasks" / "docvqa" / "_default_template_docvqa_yaml").read_text()
    assert f'default:\n    pre_prompt: ""\n    post_prompt: {json.dumps(SHORT_ANSWER)}\n' in task
    row = {"questionId": 337, "question": "Whose page?", "image": "documents/a.png", "answers": ["ITC", "itc"]}
    draft = parse_row(row)
    assert draft.id == "337"
    assert draft.turns == (Turn("user", f"<image>\nWhose page?{SHORT_ANSWER}"), Turn("assistant", "ITC"))
    assert draft.pictures == (Picture("documents/a.png"),)


def test_a_row_may_have_a_system_turn_several_pictures_and_none() -> None:
    system = {"from": "system", "value": "Be brief."}
    draft = parse_row(llava(system, human("<image> or <image>?"), gpt("The first."), image=["b.jpg", "a.jpg"]))
    assert [turn.role for turn in draft.turns] == ["system", "user", "assistant"]
    assert [picture.path for picture in draft.pictures] == ["b.jpg", "a.jpg"]
    assert parse_row({"conversations": [human("Hello"), gpt("Hi")]}).pictures == ()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, Reason.NO_OBJECT),
        ([1], Reason.NO_OBJECT),
        ({"id": "a", "caption": "A cat."}, Reason.NO_OBJECT),
        (llava(conversations=[]), Reason.NO_TURNS),
        (llava(conversations={"from": "human"}), Reason.NO_TURNS),
        (llava("What?", ANSWER), Reason.BAD_TURN),
        (llava({"from": "human"}, ANSWER), Reason.BAD_TURN),
        (llava({"from": "human", "value": None}, ANSWER), Reason.BAD_TURN),
        (llava({"role": "user", "content": [{"type": "text", "text": "a"}]}, ANSWER), Reason.BAD_TURN),
        (llava(human("<image> \ud800"), ANSWER), Reason.BAD_TEXT),
        (llava({"from": "function_call", "value": "f()"}, ANSWER), Reason.ROLE),
        (llava({"from": "Human", "value": "<image>"}, ANSWER), Reason.ROLE),
        (llava(ASK, ASK, ANSWER), Reason.ORDER),
        (llava(ASK, ANSWER, ANSWER), Reason.ORDER),
        (llava(ASK, ANSWER, {"from": "system", "value": "a"}, ANSWER), Reason.ORDER),
        (llava(ANSWER, ANSWER, ASK, ANSWER), Reason.ORDER),
        (llava(ASK), Reason.NO_ANSWER),
        (llava({"from": "system", "value": "a"}), Reason.NO_ANSWER),
        (llava(ANSWER), Reason.NO_ANSWER),
        (llava(ANSWER, ASK), Reason.NO_ANSWER),
        ({"question": "Who?", "image": "a.png"}, Reason.NO_ANSWER),
        ({"question": "Who?", "image": "a.png", "answers": []}, Reason.NO_ANSWER),
        ({"question": "Who?", "image": "a.png", "answers": [""]}, Reason.EMPTY_ANSWER),
        ({"question": 5, "image": "a.png", "answers": ["a"]}, Reason.BAD_TURN),
        (llava(ASK, gpt(" \n")), Reason.EMPTY_ANSWER),
        (llava(ASK, gpt("Yes."), human("Why?"), gpt("")), Reason.EMPTY_ANSWER),
        (llava(video="a.mp4"), Reason.VIDEO),
        (llava(videos=["a.mp4"]), Reason.VIDEO),
        (llava(audios=["a.wav"]), Reason.AUDIO),
        (llava(image=5), Reason.BAD_IMAGE),
        (llava(image=""), Reason.BAD_IMAGE),
        (llava(image=[["a.jpg"]]), Reason.BAD_IMAGE),
        (llava(image={"url": "a.jpg"}), Reason.BAD_IMAGE),
        (llava(images=["a.jpg"]), Reason.BAD_IMAGE),
        (llava(image=None), Reason.MARKS),
        (llava(image=["a.jpg", "b.jpg"]), Reason.MARKS),
        (llava(human("<image><image>"), ANSWER), Reason.MARKS),
        (llava(human("What?"), ANSWER, image=["a.jpg", "b.jpg"]), Reason.MARKS),
        (llava(human("Draw it."), gpt("<image>")), Reason.MARK_PLACE),
        (llava(ASK, ANSWER, human("<image> and this?"), image=["a.jpg", "b.jpg"]), Reason.MARKS),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_for_that_reason(row: Any, reason: Reason) -> None:
    with pytest.raises(RefusedRowError) as error:
        parse_row(row)
    assert error.value.reason is reason


@pytest.mark.parametrize(
    ("row", "texts", "changes"),
    [
        (llava(human("What is it?"), ANSWER), ["<image>\nWhat is it?", "A cat."], [Change.MARK_ADDED]),
        (llava(human("What is it?\n<image>"), ANSWER), ["<image>\nWhat is it?", "A cat."], [Change.MARK_MOVED]),
        (llava(human(" <image> What is it?"), ANSWER), ["<image>\nWhat is it?", "A cat."], [Change.MARK_MOVED]),
        (llava(human("<image>What is it?"), ANSWER), ["<image>What is it?", "A cat."], []),
        (llava(gpt("Hello."), ASK, ANSWER), ["<image>\nWhat is it?", "A cat."], [Change.ANSWER_DROPPED]),
        (llava(ASK, ANSWER, human("Why?")), ["<image>\nWhat is it?", "A cat."], [Change.QUESTION_DROPPED]),
        (
            llava(human("This <image> or that <image>?"), ANSWER, image=["a", "b"]),
            ["This <image> or that <image>?", "A cat."],
            [],
        ),
    ],
)
def test_what_is_done_to_a_row_is_said(row: Any, texts: list[str], changes: list[Change]) -> None:
    draft = parse_row(row)
    assert [turn.text for turn in draft.turns] == texts
    assert list(draft.changes) == changes


def preprocess_multimodal(value: str) -> str:
    """LLaVA-NeXT's llava/train/train.py (Apache-2.0) on one turn, without start and end tokens."""
    if value.count("<image>") == 1 and not value.startswith("<image>"):
        value = value.replace("<image>", "").strip()
        value = "<image>\n" + value
        value = value.strip()
    return value


@given(st.lists(st.sampled_from(["<image>", " ", "\n", "What?", "<", "image>", "a"]), max_size=6).map("".join))
def test_marks_stand_where_llava_next_puts_them(text: str) -> None:
    pictures = ["a.jpg"] * text.count(MARK)
    draft = parse_row(llava(human(text), ANSWER, image=pictures))
    assert draft.turns[0].text == preprocess_multimodal(text)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["<image>", "a.jpg"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
TURN = st.fixed_dictionaries(
    {},
    optional={
        "from": st.sampled_from(["human", "gpt", "system"]) | VALUES,
        "value": st.sampled_from(["a", "<image>\nb", "<image><image>", "", "\ud800"]) | VALUES,
        "role": st.sampled_from(["user", "assistant", "tool"]) | VALUES,
        "content": st.text() | VALUES,
    },
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "image": VALUES | st.binary() | st.fixed_dictionaries({"bytes": st.binary(), "path": VALUES}),
        "images": VALUES | st.lists(st.just("a.jpg"), max_size=3),
        "conversations": st.lists(TURN | VALUES) | VALUES,
        "messages": st.lists(TURN),
        "conversation": st.lists(TURN),
        "question": VALUES,
        "answers": VALUES | st.lists(st.text()),
        "video": VALUES,
        "audios": VALUES,
    },
)


def parsed(value: Any) -> Draft | RefusedRowError:
    try:
        return parse_row(value)
    except RefusedRowError as error:
        return error


@given(ROW | VALUES)
def test_whatever_stands_in_a_files_place_becomes_a_sound_row_or_a_refusal_of_one_line(value: Any) -> None:
    draft = parsed(value)
    if isinstance(draft, RefusedRowError):
        assert isinstance(draft.reason, Reason)
        assert "\n" not in str(draft)
        str(draft).encode()
        return
    roles = [turn.role for turn in draft.turns]
    spoken = roles[1:] if roles[0] == "system" else roles
    assert spoken
    assert spoken == ["user", "assistant"] * (len(spoken) // 2)
    assert all(turn.text.strip() for turn in draft.turns if turn.role == "assistant")
    assert sum(turn.text.count(MARK) for turn in draft.turns if turn.role == "user") == len(draft.pictures)
    assert not any(MARK in turn.text for turn in draft.turns if turn.role != "user")
    "".join(turn.text for turn in draft.turns).encode()
    (draft.id or "").encode()
