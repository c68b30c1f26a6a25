"""What a training costs is what torch counts."""

import json
from pathlib import Path

import pytest
import torch
from tiny_parts import tiny_qwen
from torch.utils.flop_counter import FlopCounterMode

from mllm.llava.cost import Language, price
from mllm.llava.tiling import Tiles
from rice.encoders.zoo import ZOO


def test_a_step_of_the_language_model_takes_the_flops_that_torch_counts(tmp_path: Path) -> None:
    model = tiny_qwen()
    model.config._attn_implementation = "eager"  # whose products are counted one by one
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    language = Language.of(str(tmp_path))
    assert language is not None
    tokens = 40
    with FlopCounterMode(display=False) as counter:
        inputs = torch.randn(1, tokens, 32, requires_grad=True)  # as image tokens are: gradients flow into them
        model(inputs_embeds=inputs).logits.sum().backward()
    attention = 4 * language.width * tokens**2 * language.blocks
    expected = 3 * (2 * (language.body + language.head) * tokens + attention)
    assert counter.get_total_flops() == expected


def test_parts_of_the_papers_setting_are_near_those_that_were_measured_elsewhere() -> None:
    spec = ZOO["rice-l14-336"].spec
    language = Language.of("Qwen/Qwen2.5-7B-Instruct")
    assert language is not None
    tiles = Tiles(tiling="2x2+1", edge=336, side=24)
    whole = price(language, spec, tiles, (480, 640), text=300, answers=2640)
    assert whole.tokens == 2640
    shares = [part / whole.total for part in (whole.language, whole.head, whole.tower or 0)]
    assert shares == pytest.approx([0.89, 0.07, 0.04], abs=0.01)


def test_a_model_of_which_nothing_is_known_has_no_price(tmp_path: Path) -> None:
    assert Language.of("somebody/model") is None
    (tmp_path / "config.json").write_text("{}")
    assert Language.of(str(tmp_path)) is None
