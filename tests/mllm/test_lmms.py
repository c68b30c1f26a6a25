"""The plug-in answers as the model alone does, batch by batch, and every error ends the evaluation."""

import copy
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import IMAGE, installed, picture, save_model

from mllm.generation import Conversation, Decoding, Speaker
from mllm.llava.model_id import is_blind
from mllm.llava.talk import Talk
from rice.errors import RiceError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def speaker(folder: Path) -> Speaker:
    return Speaker(str(folder), device="cpu")


def asked(text: str, *seeds: int) -> Conversation:
    """A question after its pictures, of other sizes each."""
    content = [{"type": "image"} for _ in seeds] + [{"type": "text", "text": text}]
    images = tuple(picture(seed, 20 + 13 * (seed % 5), 24 + 29 * (seed % 3)) for seed in seeds)
    return Conversation(messages=({"role": "user", "content": content},), images=images)


MANY = [
    asked("what"),
    asked("count the letters of this picture", 1),
    asked("how many", 2),
    asked("yes or no", 3, 4),
    asked("what is the colour of this square picture . " * 3, 5),
    asked("a b c . " * 9),
]


def test_answers_do_not_depend_on_the_batch_they_are_in(speaker: Speaker) -> None:
    for decoding in (Decoding(max_new_tokens=12), Decoding(max_new_tokens=6, num_beams=2)):
        alone = [speaker.answer([one], decoding)[0] for one in MANY]
        assert speaker.answer(MANY, decoding) == alone
        assert len({answer.text for answer in alone}) > 1


def test_an_answer_is_the_argmax_of_the_model_s_own_logits_without_a_cache(folder: Path, speaker: Speaker) -> None:
    """The reference: transformers' forward alone, one question, no padding, a step at a time."""
    from transformers import AutoProcessor, LlavaNextForConditionalGeneration

    model = LlavaNextForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    checked = 0
    for seed in range(4):
        one = asked("count the letters", seed)
        text = f"<|start|>user\n{IMAGE}count the letters<|end|>\n<|start|>assistant\n"
        inputs = processor(images=[list(one.images)], text=[text], return_tensors="pt")
        width = inputs["input_ids"].shape[1]
        for _ in range(8):
            with torch.no_grad():
                token_11 = model(**inputs).logits[:, -1:].argmax(-1)
            if token_11.item() in (model.config.image_token_id, processor.tokenizer.eos_token_id):
                break  # this forward would look for another picture
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token_11], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        count = inputs["input_ids"].shape[1] - width
        words = processor.tokenizer.decode(inputs["input_ids"][0, width:], skip_special_tokens=True)
        words = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", words)
        if count:
            assert speaker.answer([one, asked("what", 1)], Decoding(max_new_tokens=count))[0].text == words
        checked += count
    assert checked > 8


def test_the_picture_is_seen(speaker: Speaker) -> None:
    answers = {speaker.answer([asked("what", seed)], Decoding(max_new_tokens=8))[0].text for seed in range(6)}
    assert len(answers) > 1


def test_a_question_that_quotes_the_image_mark_gets_no_picture(speaker: Speaker) -> None:
    assert speaker.answer([asked(f"{IMAGE} {IMAGE}", 1)], Decoding(max_new_tokens=3))[0].tokens > 0
    assert speaker.answer([asked(IMAGE)], Decoding(max_new_tokens=3))[0].tokens > 0


def test_a_model_s_own_sampling_does_not_leak_into_greedy_answers(
    folder: Path, speaker: Speaker, tmp_path: Path
) -> None:
    """Qwen2.5's own settings sample, with a repetition penalty: transformers would fill them in."""
    import shutil

    other = tmp_path / "sampling"
    shutil.copytree(folder, other)
    (other / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "top_k": 3, "repetition_penalty": 9.0, "eos_token_id": 0}'
    )
    decoding = Decoding(max_new_tokens=12)
    assert Speaker(str(other), device="cpu").answer(MANY[:3], decoding) == speaker.answer(MANY[:3], decoding)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"max_new_tokens": 1024, "do_sample": False, "num_beams": 1}),
        (
            {"temperature": 0, "do_sample": False, "top_p": 1.0},
            {"max_new_tokens": 1024, "do_sample": False, "num_beams": 1},
        ),
        ({"temperature": 0.7, "do_sample": False}, {"max_new_tokens": 1024, "do_sample": False, "num_beams": 1}),
        (
            {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 3, "until": ["x"]},
            {"max_new_tokens": 3, "do_sample": True, "num_beams": 1, "temperature": 0.7, "top_p": 0.9, "top_k": 0},
        ),
        (
            {"do_sample": True, "num_beams": 4, "top_k": 5},
            {"max_new_tokens": 1024, "do_sample": True, "num_beams": 4, "temperature": 1.0, "top_p": 1.0, "top_k": 5},
        ),
    ],
)
def test_a_task_s_settings_are_those_of_generate(arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    assert Decoding.of(arguments).as_arguments() == expected


def test_an_answer_ends_before_the_first_stop() -> None:
    decoding = Decoding.of({"until": ["###", ". "]})
    assert decoding.cut("one. two###three") == "one"
    assert decoding.cut("one###two. three") == "one"
    assert decoding.cut("whole") == "whole"
    assert Decoding.of({"until": "b"}).cut("abc") == "a"
    assert Decoding.unread({"until": "b", "image_aspect_ratio": "original"}) == ["image_aspect_ratio"]


def test_lmms_eval_s_delimiter_of_few_shot_examples_ends_no_answer() -> None:
    """It is what every task has as `until` that sets none."""
    from lmms_eval.api.task import TaskConfig

    config = TaskConfig(output_type="generate_until")
    assert config.generation_kwargs["until"] == [config.fewshot_delimiter]
    assert Decoding.of(config.generation_kwargs).cut("\n\nParis") == "\n\nParis"
    assert Decoding.of({"until": ["\n\n", "\n"]}).cut("Paris\nRome") == "Paris"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_is_an_error(speaker: Speaker, value: float) -> None:
    head = speaker.model.lm_head
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight[5] = value
    try:
        with pytest.raises(RiceError, match="not finite"):
            speaker.answer(MANY[:2], Decoding(max_new_tokens=2))
    finally:
        with torch.no_grad():
            head.weight.copy_(before)


def test_a_conversation_with_the_verb_gives_the_answers_of_an_evaluation(speaker: Speaker) -> None:
    """Turn by turn, and where a question quotes the image mark."""
    said: list[str] = []
    talk = Talk(speaker, [picture(3)], most=5)
    first = talk.ask(f"what does {IMAGE} mean", said.append)
    one = Conversation(messages=tuple(talk.turns[:1]), images=(picture(3),))
    assert first == speaker.answer([one], Decoding(max_new_tokens=5))[0].text.strip()
    assert re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", "".join(said)).strip() == first
    second = talk.ask("how many", said.append)
    both = Conversation(messages=tuple(talk.turns[:3]), images=(picture(3),))
    assert second == speaker.answer([both], Decoding(max_new_tokens=5))[0].text.strip()
    plain = Talk(speaker, [], most=2)
    plain.ask(f"what does {IMAGE} mean", said.append)


def test_a_model_that_was_trained_blind_is_shown_no_picture(tmp_path: Path) -> None:
    (tmp_path / "rice_llava.json").write_text(
        json.dumps({"encoder": "x", "fingerprint": "f", "lm": "x", "seed": 0, "blind": True})
    )
    with pytest.raises(RiceError, match="trained blind and takes no pictures"):
        Talk.load(str(tmp_path), [tmp_path / "a.png"], device="cpu", most=2)


def test_loading_a_model_writes_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Speaker(str(folder), device="cpu")
    assert capfd.readouterr().err == ""


def test_out_of_memory_says_what_to_lower(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(speaker.model, "generate", full)
    with pytest.raises(RiceError, match=r"out of memory.*3 questions.*lower --batch-size"):
        speaker.answer([MANY[1]] * 3, Decoding())


def test_a_processor_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="no chat template"):
        Speaker(str(save_model(tmp_path, template=None)), device="cpu")


def test_weights_that_are_missing_are_refused_instead_of_drawn(folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    other = tmp_path / "cut"
    shutil.copytree(folder, other)
    (path,) = other.glob("*.safetensors")
    tensors = load_file(path)
    name = next(name for name in tensors if "multi_modal_projector" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(RiceError, match="lacks weights"):
        Speaker(str(other), device="cpu")
    save_file(tensors | {"model.another.weight": tensors[name].clone()}, path, metadata={"format": "pt"})
    with pytest.raises(RiceError, match=r"no place for.*another"):
        Speaker(str(other), device="cpu")
    with pytest.raises(RiceError, match=r"config\.json"):
        Speaker(str(tmp_path), device="cpu")


class Instances:
    """Requests as lmms-eval's ConfigurableMessagesTask makes them."""

    def __init__(self, plugin: Any, count: int) -> None:
        plugin.task_dict["t"] = {"test": list(range(count))}
        self.made: list[Any] = []

    def add(self, document: int, messages: Callable[[int], Any], **settings: Any) -> None:
        from lmms_eval.api.instance import Instance

        arguments = (f"context {document}", messages, settings, document, "t", "test")
        metadata = {"task": "t", "doc_id": document, "repeats": 1}
        self.made.append(Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=metadata))


def user(document: int) -> list[dict[str, Any]]:
    content = [{"type": "image", "url": picture(document).convert("RGBA")}] if document % 3 else []
    return [{"role": "user", "content": [*content, {"type": "text", "text": f"what {'a ' * document}"}]}]


@pytest.fixture(scope="module")
def plugin(folder: Path) -> Any:
    from lmms_eval.models import MODEL_REGISTRY_V2

    from mllm.lmms import MANIFEST

    registry = copy.deepcopy(MODEL_REGISTRY_V2)
    registry.register_manifest(MANIFEST, overwrite=True)
    kind = registry.get_model_class("rice_llava")
    return kind.create_from_arg_string(
        f"pretrained={folder}", {"batch_size": "4", "device": "cpu", "max_batch_size": None}
    )


def test_requests_come_back_in_their_order_and_by_their_settings(plugin: Any, speaker: Speaker) -> None:
    requests = Instances(plugin, 9)
    for document in range(9):
        requests.add(document, user, max_new_tokens=6 if document % 2 else 3, temperature=0)
    found = [result.text for result in plugin.generate_until(requests.made)]
    expected = []
    for document in range(9):
        images = (picture(document),) if document % 3 else ()
        content = [{"type": "image"}] * len(images) + [{"type": "text", "text": f"what {'a ' * document}"}]
        one = Conversation(messages=({"role": "user", "content": content},), images=images)
        expected.append(speaker.answer([one], Decoding(max_new_tokens=6 if document % 2 else 3))[0].text)
    assert found == expected
    assert len(set(expected)) > 2


def test_a_model_that_was_trained_blind_gets_no_pictures(
    plugin: Any, folder: Path, speaker: Speaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"encoder": "x", "fingerprint": "f", "lm": "x", "seed": 0, "blind": True}
    (tmp_path / "rice_llava.json").write_text(json.dumps(told))
    assert is_blind(str(tmp_path))
    assert not is_blind(str(folder))
    assert not plugin.blind
    monkeypatch.setattr(plugin, "blind", True)
    requests = Instances(plugin, 2)
    requests.add(1, user, max_new_tokens=6)
    text = [{"type": "text", "text": "what a "}]
    plain = Conversation(messages=({"role": "user", "content": text},), images=())
    assert plugin.generate_until(requests.made)[0].text == speaker.answer([plain], Decoding(max_new_tokens=6))[0].text


def test_what_a_task_or_the_model_raises_ends_the_evaluation(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(document: int) -> Any:
        raise KeyError("no such column")

    def film(document: int) -> Any:
        return [{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}]

    for messages, error, said in ((broken, KeyError, "no such column"), (film, RiceError, "video")):
        requests = Instances(plugin, 2)
        requests.add(0, user, max_new_tokens=2)
        requests.add(1, messages, max_new_tokens=2)
        with pytest.raises(error, match=said):
            plugin.generate_until(requests.made)
    monkeypatch.setattr(plugin.speaker.model, "generate", lambda **_: 1 / 0)
    requests = Instances(plugin, 1)
    requests.add(0, user, max_new_tokens=2)
    with pytest.raises(ZeroDivisionError):
        plugin.generate_until(requests.made)
    for method in (plugin.loglikelihood, plugin.generate_until_multi_round):
        with pytest.raises(RiceError, match="rice_llava"):
            method([])
    with pytest.raises(RiceError, match="batch size"):
        type(plugin)(pretrained="x", batch_size="auto")


def test_an_honestly_empty_answer_is_allowed_and_counted(plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from loguru import logger

    end = min(plugin.speaker.ends)
    monkeypatch.setattr(
        plugin.speaker.model, "generate", lambda input_ids, **_: torch.cat([input_ids, input_ids[:, :1] * 0 + end], 1)
    )
    said: list[str] = []
    handler = logger.add(said.append)
    requests = Instances(plugin, 3)
    for document in range(3):
        requests.add(document, user, max_new_tokens=2)
    assert [result.text for result in plugin.generate_until(requests.made)] == ["", "", ""]
    logger.remove(handler)
    assert any("3 answers, 3 of them empty" in str(line) for line in said)


def test_the_manifest_needs_neither_torch_nor_a_model(tmp_path: Path) -> None:
    code = "import sys, mllm.lmms; assert not {'torch', 'transformers', 'lmms_eval'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ) | {"PYTHONPATH": str(REPOSITORY)})


@pytest.mark.slow
def test_lmms_eval_finds_the_plug_in_by_its_entry_point_where_it_is_imported_after_us(tmp_path: Path) -> None:
    """Imported first, it finds it in the test of its own command."""
    first = "import mllm.lmms; mllm.lmms.MANIFEST"
    code = f"{first}\nfrom lmms_eval.models import get_model\nprint(get_model('rice_llava').__name__)"
    environment = dict(os.environ) | {"PYTHONPATH": installed(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1:] == ["RiceLlava"], done.stderr
    assert importlib.metadata.version("lmms-eval")
