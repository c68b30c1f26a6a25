"""What is said about segmentation, in training and when it is asked for: LISA's phrases. Imports no torch."""

from random import Random
from typing import Any

from mllm.lisa.pictures import Target
from mllm.llava.rows import MARK

SEG = "[SEG]"
"""The token whose prediction holds the prompt of a mask."""

QUESTIONS = (
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)
"""Of a name or an expression."""

SENTENCES = ("{} Please respond with segmentation mask.", "{} Please output segmentation mask.")
"""Of what is a question by itself."""

EXPLAIN = (
    "{} Please output segmentation mask and explain why.",
    "{} Please output segmentation mask and explain the reason.",
    "{} Please output segmentation mask and give some explanation.",
)

ANSWERS = (
    f"It is {SEG}.",
    f"Sure, {SEG}.",
    f"Sure, it is {SEG}.",
    f"Sure, the segmentation result is {SEG}.",
    f"{SEG}.",
)

ABSENT = "It is not in this image."
"""The answer where there is no such thing; LISA has none for that case."""

GIVEN = f"{SEG}."
"""The answer that is given to a model, not asked of it, as in LISA's validation."""

_EXPLAINED = 0.1
"""Chance that a reasoning question with an explanation is answered by the explanation alone, as in LISA."""


def quoted(text: str, tokenizer: Any) -> str:
    """A text from outside as words alone: what would be a special token is broken apart. A "<|im_end|>" in it ends no
    turn, a "<image>" brings no picture, a "[SEG]" asks for no mask.

    tokenizer: of transformers.
    """
    for token in dict.fromkeys((SEG, MARK, *filter(None, tokenizer.all_special_tokens))):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def ask(target: Target, text: str | None = None) -> str:
    """The question of an evaluation. text: one of the target's; the first where None.

    Phrases are in small letters, as in LISA's training. Its validation leaves ReasonSeg's as they are.
    """
    text = target.texts[0] if text is None else text
    return SENTENCES[1].format(text.strip()) if target.sentence else QUESTIONS[3].format(text.strip().lower())


def converse(target: Target, text: str, dice: Random, *, varied: bool = True) -> tuple[str, str]:
    """A question and its answer, to learn from. varied: in LISA's phrases; else always as an evaluation asks, answered
    by the token alone."""
    text = text.strip()
    if not varied:
        return ask(target, text), ABSENT if target.absent else GIVEN
    if not target.sentence:
        question, answer = dice.choice(QUESTIONS).format(text.lower()), dice.choice(ANSWERS)
        return question, ABSENT if target.absent else answer
    question, answer = dice.choice(SENTENCES).format(text), dice.choice(ANSWERS)
    if target.explanation is None or target.absent:
        return question, ABSENT if target.absent else answer
    kind = 2 if dice.random() < _EXPLAINED else dice.randrange(2)
    if kind == 2:
        return text, target.explanation
    return (question, answer) if kind == 0 else (dice.choice(EXPLAIN).format(text), f"{answer} {target.explanation}")
