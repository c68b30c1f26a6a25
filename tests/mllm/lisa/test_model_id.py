"""Two models are told apart by all that makes masks, and compared where they learnt by the same training."""

import dataclasses
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_lisa import write_lisa

from mllm.lisa.facts import LisaFacts
from mllm.lisa.model_id import LisaId


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_lisa(tmp_path / "model")


@pytest.mark.parametrize("file", ["model.safetensors", "projection.safetensors", "segmenter/model.safetensors"])
def test_every_part_of_the_model_is_in_its_digest(folder: Path, file: str) -> None:
    before = LisaId.of(folder).digest
    values = load_file(folder / file)
    name = next(iter(values))
    save_file(values | {name: values[name] + 1}, folder / file, {"format": "pt"})
    assert LisaId.of(folder).digest != before


def test_what_learnt_shuffled_expressions_says_so_and_has_the_same_protocol(folder: Path) -> None:
    facts = LisaFacts.read(folder)
    dataclasses.replace(facts, config=facts.config | {"shuffled": False}).write(folder)
    true = LisaId.of(folder)
    dataclasses.replace(facts, shuffled=True, config=facts.config | {"shuffled": True}).write(folder)
    shuffled = LisaId.of(folder)
    assert (true.whose(None).label, shuffled.whose(None).label) == ("tiny", "tiny, shuffled")
    assert true.training() == shuffled.training()
    assert true.digest == shuffled.digest  # what the facts say makes no mask


def test_where_the_weights_lay_is_not_part_of_the_protocol(folder: Path, tmp_path: Path) -> None:
    facts = LisaFacts.read(folder)
    found = []
    for place in ("here", "there"):
        where = str(tmp_path / place / "sam")
        dataclasses.replace(facts, segmenter=where, config=facts.config | {"segmenter": where}).write(folder)
        found.append(LisaId.of(folder))
    assert found[0].training() == found[1].training()
    assert found[0].training()["segmenter"] == found[0].training()["training"]["segmenter"] == "sam"
    assert (found[0].digest, found[0].llava.digest) == (found[1].digest, found[1].llava.digest)
