"""Every line is kept or counted, and what is kept can be stored."""

import math
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rice.curate.text.config import TextConfig
from rice.curate.text.reader import Line
from rice.curate.text.select import clean, select
from rice.errors import RiceError


def line(text: str = "word", confidence: float = 0.9, quad: object = ((1, 2), (9, 2), (9, 6), (1, 6))) -> Line:
    return Line(np.array(quad, dtype=np.float64), text, confidence)


numbers = st.floats(-50, 150) | st.sampled_from([math.nan, math.inf, -math.inf])
quads = st.lists(st.tuples(numbers, numbers), min_size=4, max_size=4)
lines = st.lists(st.builds(line, st.text(max_size=8), st.floats(0, 1) | st.just(math.nan), quads), max_size=8)


@given(lines, st.integers(1, 100), st.integers(1, 100), st.floats(0, 1))
def test_every_line_is_kept_or_counted_and_boxes_fit_the_shards(
    found: list[Line], width: int, height: int, confidence: float
) -> None:
    boxes, texts, scores, dropped = select(found, width, height, TextConfig(confidence=confidence))
    assert len(boxes) == len(texts) == len(scores) == len(found) - dropped.total()
    assert dropped.keys() <= {"confidence", "outside or empty", "no text"}
    assert boxes.dtype == np.uint16
    assert boxes.shape[1:] == (4,)
    assert scores.dtype == np.float32
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes[:, 2:] <= (width, height)).all()
    assert all(float(score) > confidence for score in scores)
    assert all(text == unicodedata.normalize("NFC", text).strip() and text for text in texts)
    assert all(text.encode("utf-8") for text in texts)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=4, max_size=4))
def test_a_box_is_the_smallest_of_whole_pixels_around_its_quad(quad: list[tuple[float, float]]) -> None:
    boxes = select([line(quad=quad)], 100, 100, TextConfig()).boxes
    xs, ys = [x for x, _ in quad], [y for _, y in quad]
    expected = (math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys)))
    assert [tuple(box) for box in boxes] == (
        [expected] if expected[0] < expected[2] and expected[1] < expected[3] else []
    )


def test_confidence_must_be_above_the_threshold() -> None:
    """The paper, section 3.1: above 0.7."""
    found = [line("at", 0.7), line("above", 0.70001), line("nan", math.nan)]
    kept = select(found, 20, 20, TextConfig())
    assert kept.texts == ["above"]
    assert kept.dropped == Counter(confidence=2)


def test_each_reason_is_counted_once() -> None:
    outside = ((30, 30), (40, 30), (40, 35), (30, 35))
    found = [
        line("", 0.1, outside),
        line(" \u200b\t", 0.9, outside),
        line("far", 0.9, outside),
        line("flat", 0.9, ((3, 3), (9, 3), (9, 3), (3, 3))),
        line("nowhere", 0.9, ((math.nan, 3), (9, 3), (9, 5), (3, 5))),
        line("kept", 0.9, ((-3.5, -2), (25, 4), (25, 9), (-3, 9))),
    ]
    kept = select(found, 20, 20, TextConfig())
    assert kept.dropped == Counter({"confidence": 1, "no text": 1, "outside or empty": 3})
    assert kept.texts == ["kept"]
    assert kept.boxes.tolist() == [[0, 0, 20, 9]]


def test_no_lines_are_an_empty_selection() -> None:
    boxes, texts, scores, dropped = select([], 20, 20, TextConfig())
    assert (boxes.shape, texts, scores.shape, dropped) == ((0, 4), [], (0,), Counter())


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("cafe\u0301 ", "café"),
        ("Große Straße ñandú", "Große Straße ñandú"),
        ("中文 合计", "中文 合计"),
        ("\ufb01", "\ufb01"),  # NFC, not NFKC: a ligature stays
        ("\u212b", "\u00c5"),  # Angstrom sign: composed to the letter
        ("नमस्ते", "नमस्ते"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # a joiner within a word stays
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("a\tb\r\nc", "a b  c"),
        ("e\x00\u0301", "é"),
        ("a\x1bb\x7f", "ab"),
        ("a\u2028b", "a b"),
        ("\ud800x", "x"),
        ("\u3000日本\u3000", "日本"),
        ("\u200b\ufeff \u00a0", ""),
    ],
)
def test_text_is_composed_and_every_script_kept(given_text: str, expected: str) -> None:
    assert clean(given_text) == expected


@given(st.text())
def test_cleaning_again_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in once)


def test_a_picture_that_boxes_cannot_reach_across_is_refused() -> None:
    with pytest.raises(RiceError, match=r"at most 65,535 pixels an edge, got 70000x20"):
        select([line()], 70_000, 20, TextConfig())


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": 1.1},
        {"confidence": math.nan},
        {"read_longest": 8, "read_shortest": 8},
        {"read_shortest": 2001},
        {"tokenizer": ""},
        {"reader": "tesseract"},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(RiceError, match=rf"{next(iter(wrong))}=.* is out of range; see rice curate ocr --help"):
        TextConfig(**wrong)  # type: ignore[arg-type]
