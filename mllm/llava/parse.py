"""One row of a data set as conversation and pictures, or the reason why it is refused.

Layouts: LLaVA (`conversations` of from/value, `image` one or a list), ShareGPT as LLaMA-Factory writes it (`messages`
of role/content, `images`), Mantis (`conversation` of role/content, `images`) and DocVQA (`question`, `answers`,
`image`). Turns may be spelt either way in each. What LLaVA-NeXT's own code (`preprocess_multimodal`, `preprocess_qwen`
in llava/train/train.py) does to a row is done here, once, and counted; where it goes on in silence, the row is refused.
Imports nothing heavy.
"""

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from mllm.llava.rows import MARK, Role, Turn

TURNS = ("conversations", "messages", "conversation")
"""Keys of a row that hold its turns."""

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""What LLaVA's data and lmms-eval add to DocVQA's questions."""


class Reason(StrEnum):
    """Why a row is refused."""

    NO_OBJECT = "no object with turns"
    BAD_LINE = "line that is no JSON"
    NO_TURNS = "no turns"
    BAD_TURN = "turn without role and text"
    BAD_TEXT = "text that is no Unicode"
    ROLE = "unknown role"
    ORDER = "turns do not alternate"
    NO_ANSWER = "no answer"
    EMPTY_ANSWER = "empty answer"
    VIDEO = "video is not supported"
    AUDIO = "audio is not supported"
    BAD_IMAGE = "image that is no path"
    MARKS = "wrong number of <image> marks"
    MARK_PLACE = "<image> outside a question"
    OUTSIDE = "image outside the image root"
    MISSING = "missing image"
    UNREADABLE = "unreadable image"
    ASPECT = "aspect ratio beyond --max-aspect"
    EDGE = "edge beyond --max-edge"


class Change(StrEnum):
    """What is done to a row that is kept."""

    MARK_ADDED = "mark added to the first question"
    MARK_MOVED = "mark moved to the front of its turn"
    ANSWER_DROPPED = "answer before the first question dropped"
    QUESTION_DROPPED = "last question, without an answer, dropped"
    ID_MADE = "id made unique"


class RefusedRowError(Exception):
    """The row breaks a rule. detail: what was found, short."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason, self.detail = reason, detail


class Picture(NamedTuple):
    """A picture as a row names it: by a path below the image root, or by its bytes where `content` is not None."""

    path: str
    content: bytes | None = None


@dataclass(frozen=True)
class Draft:
    """A row whose text is sound and whose pictures have not been looked at. id: None where it has none."""

    id: str | None
    turns: tuple[Turn, ...]
    pictures: tuple[Picture, ...]
    changes: tuple[Change, ...]


def parse_row(value: Any) -> Draft:
    """The row, from whatever stands in its place in a file. Errors: RefusedRowError, and no other.

    Turns end as: perhaps a system turn, then question and answer, at least once. As in LLaVA-NeXT, an answer before the
    first question is dropped, and the only mark of a turn is moved to its front, "<image>\\n...". A last question
    without an answer is dropped: nothing is learnt from it. A picture without any mark gets one in front of the first
    question; LLaVA-NeXT would train on such a row without its picture.
    """
    if not isinstance(value, dict):
        raise RefusedRowError(Reason.NO_OBJECT, type(value).__name__)
    value = {key: found for key, found in value.items() if found is not None}  # in Parquet all rows have all columns
    _refuse_media(value)
    if "question" in value and not any(key in value for key in TURNS):
        value = _docvqa(value)
    changes: list[Change] = []
    turns = _alternating(_turns(value), changes)
    pictures = _pictures(value)
    return Draft(id_of(value), tuple(_marked(turns, len(pictures), changes)), pictures, tuple(changes))


def id_of(value: Any) -> str | None:
    """A row's own id as text; None where it has none that is a text or a whole number."""
    found = value.get("id") if isinstance(value, dict) else None
    if found is None and isinstance(value, dict):
        found = value.get("questionId")
    if isinstance(found, bool) or not isinstance(found, str | int):
        return None
    return str(found).encode("utf-8", "backslashreplace").decode() or None


def _docvqa(value: dict[str, Any]) -> dict[str, Any]:
    """DocVQA's own layout as LLaVA's. Errors: RefusedRowError; the test split has no answers."""
    answers = value.get("answers")
    question = value["question"]
    if not isinstance(question, str):
        raise RefusedRowError(Reason.BAD_TURN, _short(question))
    if not isinstance(answers, list) or not answers:
        raise RefusedRowError(Reason.NO_ANSWER)
    asked = {"role": "user", "content": f"{MARK}\n{question}{SHORT_ANSWER}"}
    return value | {"conversations": [asked, {"role": "assistant", "content": answers[0]}]}


def _refuse_media(value: dict[str, Any]) -> None:
    for reason, keys in ((Reason.VIDEO, ("video", "videos")), (Reason.AUDIO, ("audio", "audios"))):
        found = next((value[key] for key in keys if value.get(key)), None)
        if found is not None:
            raise RefusedRowError(reason, _short(found[0] if isinstance(found, list) else found))


def _turns(value: dict[str, Any]) -> list[Turn]:
    key = next((key for key in TURNS if key in value), None)
    if key is None:
        raise RefusedRowError(Reason.NO_OBJECT, f"no {', '.join(TURNS)}")
    if not isinstance(value[key], list) or not value[key]:
        raise RefusedRowError(Reason.NO_TURNS)
    return [_turn(turn) for turn in value[key]]


def _turn(value: Any) -> Turn:
    found = {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else {}
    role, text = found.get("from", found.get("role")), found.get("value", found.get("content"))
    if not isinstance(role, str) or not isinstance(text, str):
        raise RefusedRowError(Reason.BAD_TURN, _short(value))
    if role not in ROLES:
        raise RefusedRowError(Reason.ROLE, _short(role))
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise RefusedRowError(Reason.BAD_TEXT, f"{error.reason} at character {error.start}") from error
    return Turn(ROLES[role], text)


def _alternating(turns: Sequence[Turn], changes: list[Change]) -> list[Turn]:
    start = 1 if turns[0].role == "system" else 0
    system, rest = list(turns[:start]), list(turns[start:])
    if all(turn.role != "assistant" for turn in rest):
        raise RefusedRowError(Reason.NO_ANSWER)
    if rest[0].role == "assistant":
        rest = rest[1:]
        changes.append(Change.ANSWER_DROPPED)
    if rest and rest[-1].role == "user":
        rest = rest[:-1]
        changes.append(Change.QUESTION_DROPPED)
    if not rest:
        raise RefusedRowError(Reason.NO_ANSWER)
    roles = [turn.role for turn in rest]
    if len(rest) % 2 or roles != ["user", "assistant"] * (len(rest) // 2):
        raise RefusedRowError(Reason.ORDER, " ".join(roles[:8]))
    if any(not turn.text.strip() for turn in rest[1::2]):
        raise RefusedRowError(Reason.EMPTY_ANSWER)
    return system + rest


def _pictures(value: dict[str, Any]) -> tuple[Picture, ...]:
    named = [value[key] for key in ("image", "images") if value.get(key, []) != []]
    if len(named) > 1:
        raise RefusedRowError(Reason.BAD_IMAGE, "both image and images")
    return tuple(_picture(one) for found in named for one in (found if isinstance(found, list) else [found]))


def _picture(value: Any) -> Picture:
    """From a path, or what Hugging Face's data sets make of a picture: {bytes, path}, one of which may be None."""
    content = None
    if isinstance(value, dict):
        content, value = value.get("bytes"), value.get("path") or ""
    if isinstance(content, bytes) and isinstance(value, str):
        return Picture(value, content)
    if content is not None or not isinstance(value, str) or not value:
        raise RefusedRowError(Reason.BAD_IMAGE, _short(value))
    return Picture(value)


def _marked(turns: Sequence[Turn], pictures: int, changes: list[Change]) -> Iterable[Turn]:
    """The turns with a mark for every picture."""
    marks = [turn.text.count(MARK) for turn in turns]
    first = next(place for place, turn in enumerate(turns) if turn.role == "user")
    if pictures == 1 and not any(marks):
        changes.append(Change.MARK_ADDED)
        added = Turn("user", f"{MARK}\n{turns[first].text}")
        return [*turns[:first], added, *turns[first + 1 :]]
    if sum(marks) != pictures:
        raise RefusedRowError(Reason.MARKS, f"{sum(marks)} for {pictures} images")
    if any(count and turn.role != "user" for count, turn in zip(marks, turns, strict=True)):
        raise RefusedRowError(Reason.MARK_PLACE)
    moved = [_in_front(turn) if count == 1 else turn for count, turn in zip(marks, turns, strict=True)]
    if moved != list(turns):
        changes.append(Change.MARK_MOVED)
    return moved


def _in_front(turn: Turn) -> Turn:
    if turn.text.startswith(MARK):
        return turn
    return Turn(turn.role, f"{MARK}\n{turn.text.replace(MARK, '').strip()}".strip())


def _short(value: Any) -> str:
    """A value in a report: one line, at most 80 characters."""
    text = " ".join(value.split()) if isinstance(value, str) else reprlib.repr(value)
    return text[:80].encode("utf-8", "backslashreplace").decode()
