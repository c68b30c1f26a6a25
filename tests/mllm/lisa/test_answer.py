"""Answers from one prefix for all are those of each question alone: of transformers' `generate`, and of a plain pass.

Random models of three kinds; the tokens that stand for [SEG] and for the end are picked among what they say.
"""

from collections import Counter
from typing import Any

import pytest
import torch
from tiny_llava import FEATURES, IMAGE, VOCABULARY, llava
from tiny_parts import language_model
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig

from mllm.lisa.answer import Answerer, Asking
from mllm.llava.conversation import Writer
from mllm.llava.prompts import TEMPLATES, Chat
from mllm.llava.rows import MARK
from rice.errors import RiceError

PAD, MOST, CLOSE = 0, 12, {"rtol": 1e-4, "atol": 1e-5}
KINDS = [("llava", "llama"), ("llava_next", "qwen2"), ("llava_onevision", "qwen2")]


def picture(kind: str, seed: int = 1) -> dict[str, Tensor]:
    """Of 8 x 8 pixels, in five tiles where the model cuts."""
    pixels = torch.randn(1, 5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return {"pixel_values": pixels[0, :1]} if kind == "llava" else {"pixel_values": pixels, "image_sizes": SIZE}


SIZE = torch.tensor([[8, 8]])


def asking(kind: str, lengths: tuple[int, ...] = (3, 9, 1, 6, 14), given: tuple[int, ...] = (5, 7, 7)) -> Asking:
    """Questions of random tokens behind three of text and a picture."""
    generator = torch.Generator().manual_seed(3)
    draw = [torch.randint(1, IMAGE, (n,), generator=generator).tolist() for n in (3, *lengths)]
    return Asking(prefix=[*draw[0], *[IMAGE] * FEATURES[kind]], questions=draw[1:], given=list(given))


def generated(
    model: Any, asked: Asking, number: int, seen: dict[str, Tensor], **options: Any
) -> tuple[list[int], Tensor]:
    """Of one question alone, by transformers: new ids (T,) and the last hidden state that predicts each (T, C)."""
    ids = torch.tensor([asked.prefix + asked.questions[number]])
    found = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **seen, do_sample=False, max_new_tokens=MOST,
        pad_token_id=PAD, return_dict_in_generate=True, output_hidden_states=True, **options,
    )  # fmt: skip
    return found.sequences[0, ids.shape[1] :].tolist(), torch.cat([step[-1][0, -1:] for step in found.hidden_states])


@pytest.mark.parametrize(("kind", "text"), KINDS)
@pytest.mark.parametrize("together", [1, 3, 8])
def test_ids_and_states_are_those_of_generate(kind: str, text: str, together: int) -> None:
    model, asked, seen = llava(kind, text).eval(), asking(kind), picture(kind)
    alone = [generated(model, asked, n, seen, eos_token_id=[]) for n in range(5)]
    (seg, _), (end, _) = Counter(token for ids, _ in alone for token in dict.fromkeys(ids[1:])).most_common(2)
    answerer = Answerer(model, seg_id=seg, ends=[end], pad_id=PAD, most=MOST, together=together)
    found = answerer.answer(asked, seen)
    assert len({len(one.ids) for one in found}) > 1, "the sample must have answers that end at different times"
    assert any(len(one.said) for one in found)
    for n, one in enumerate(found):
        ids, states_TC = generated(model, asked, n, seen, eos_token_id=[end])
        said = ids[: ids.index(end)] if end in ids else ids
        assert list(one.ids) == said
        torch.testing.assert_close(one.said, states_TC[[t for t, token in enumerate(said) if token == seg]], **CLOSE)


@pytest.mark.parametrize(("kind", "text"), KINDS)
@pytest.mark.parametrize("given", [(7,), (5, 7), (7, 5, 9, 7)])
def test_given_states_are_those_of_a_plain_pass(kind: str, text: str, given: tuple[int, ...]) -> None:
    model, asked, seen = llava(kind, text).eval(), asking(kind, given=given), picture(kind)
    found = Answerer(model, seg_id=7, ends=[], pad_id=PAD, most=2, together=3).answer(asked, seen)
    for one, question in zip(found, asked.questions, strict=True):
        ids = torch.tensor([[*asked.prefix, *question, *given]])
        with torch.no_grad():
            states_TC = model(input_ids=ids, **seen, output_hidden_states=True).hidden_states[-1][0]
        start = ids.shape[1] - len(given)
        places = [start + t - 1 for t, token in enumerate(given) if token == 7]
        torch.testing.assert_close(one.given, states_TC[places], **CLOSE)


def test_the_picture_goes_through_the_model_once() -> None:
    model, asked = llava("llava_next").eval(), asking("llava_next")
    lengths: list[int] = []
    model.model.language_model.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    tiles: list[int] = []
    model.model.vision_tower.register_forward_pre_hook(lambda _, given: tiles.append(len(given[0])))
    Answerer(model, seg_id=7, ends=[], pad_id=PAD, most=4, together=8).answer(asked, picture("llava_next"))
    assert tiles == [5]
    assert sorted(lengths, reverse=True)[:2] == [len(asked.prefix), 14]  # then the longest question
    assert sum(length == len(asked.prefix) for length in lengths) == 1


def test_a_language_model_with_a_sliding_window_answers_as_by_generate() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    text = MistralConfig(num_attention_heads=4, num_key_value_heads=2, sliding_window=8, **sizes)
    torch.manual_seed(0)
    config = llava("llava").config
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=config.vision_config, text_config=text, image_token_index=IMAGE)
    ).eval()
    asked, seen = asking("llava", lengths=(4, 4)), picture("llava")
    found = Answerer(model, seg_id=7, ends=[], pad_id=PAD, most=MOST).answer(asked, seen)
    assert [list(one.ids) for one in found] == [generated(model, asked, n, seen, eos_token_id=[])[0] for n in (0, 1)]


def test_logits_that_are_not_finite_stop_with_one_line() -> None:
    model = llava("llava", "llama").eval()
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    with pytest.raises(RiceError, match="not finite"):
        Answerer(model, seg_id=7, ends=[], pad_id=PAD, most=2).answer(asking("llava"), picture("llava"))


def writer(prompt: Chat) -> tuple[Writer, int]:
    """With [SEG] as a token of its own."""
    tokenizer = language_model(prompt).tokenizer
    tokenizer.add_tokens(["[SEG]"])
    image, seg = tokenizer.convert_tokens_to_ids([MARK, "[SEG]"])
    return Writer(tokenizer=tokenizer, image_id=image, prompt=prompt), seg


@pytest.mark.parametrize("prompt", ["qwen_1_5", "vicuna_v1"])
def test_the_parts_of_a_question_make_the_whole_text(prompt: Chat) -> None:
    own, seg = writer(prompt)
    texts = ["What is the red box?", "Where?"]
    asked = Asking.of(own, texts, given="It is [SEG].", seg_id=seg, image_tokens=5)
    assert asked.prefix[-5:] == [own.image_id] * 5
    assert own.image_id not in asked.prefix[:-5]
    for text, question in zip(texts, asked.questions, strict=True):
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        whole = own.tokenizer.apply_chat_template(
            messages, chat_template=TEMPLATES[prompt], tokenize=False, add_generation_prompt=True
        )
        ids = asked.prefix[:-4] + question
        assert ids == own.tokenizer.encode(whole, add_special_tokens=False)
    space = own.tokenizer.encode(" ")
    expected = [*(space if prompt == "vicuna_v1" else []), *own.tokenizer.encode("It is "), seg]
    assert asked.given == expected


def test_a_question_that_quotes_the_image_mark_has_one_picture() -> None:
    own, seg = writer("qwen_1_5")
    asked = Asking.of(own, ["the sign that says <image>"], given="[SEG].", seg_id=seg, image_tokens=5)
    assert own.image_id not in asked.questions[0]


@pytest.mark.parametrize("prompt", ["qwen_1_5", "vicuna_v1"])
def test_special_tokens_that_a_question_quotes_are_words(prompt: Chat) -> None:
    own, seg = writer(prompt)
    special = {own.tokenizer.convert_tokens_to_ids(token): token for token in own.tokenizer.all_special_tokens}
    special |= {seg: "[SEG]", own.image_id: MARK}
    texts = ["the cat", *(f"the cat{token}\n{token}{token}, a dog" for token in special.values())]
    asked = Asking.of(own, texts, given="[SEG].", seg_id=seg, image_tokens=5)
    counts = [{one: question.count(one) for one in special} for question in asked.questions]
    assert len(counts) > 3
    assert all(count == counts[0] for count in counts)
    assert len({len(question) for question in asked.questions}) > 1  # and they are all there


def test_answers_of_less_than_a_token_end() -> None:
    model, asked = llava("llava", "llama").eval(), asking("llava", lengths=(2,))
    (found,) = Answerer(model, seg_id=7, ends=[], pad_id=PAD, most=0).answer(asked, picture("llava"))
    assert len(found.ids) <= 1


def test_empty_texts_and_answers_without_a_mask_are_refused() -> None:
    own, seg = writer("qwen_1_5")
    with pytest.raises(RiceError, match="empty"):
        Asking.of(own, ["what", " "], given="[SEG].", seg_id=seg, image_tokens=5)
    with pytest.raises(ValueError, match="SEG"):
        Asking.of(own, ["what"], given="No.", seg_id=seg, image_tokens=5)
