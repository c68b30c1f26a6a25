"""A tower that is wrong in any way is told before a training."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_encoders import KINDS, tiny_encoder
from tiny_parts import llava_around

from mllm.llava.check import check_packing, preflight, random_sizes
from mllm.llava.model import LANGUAGE, PROJECTOR, TOWER, Llava, set_learning
from mllm.llava.tiling import Tiling
from rice.encoders.base import Encoder
from rice.errors import RiceError

ALL = {TOWER: 2e-6, PROJECTOR: 1e-5, LANGUAGE: 1e-5}


def made(
    tmp_path: Path, kind: str = "clip", tiling: Tiling = "2x2+1", rates: dict[str, float] = ALL
) -> tuple[Llava, Encoder]:
    encoder = tiny_encoder(kind, tmp_path)
    llava = llava_around(encoder, tiling)
    set_learning(llava.model, rates)
    return llava, encoder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tiling", ["one", "2x2+1", "anyres5", "anyres9"])
def test_a_right_tower_passes(kind: str, tiling: Tiling, tmp_path: Path) -> None:
    llava, encoder = made(tmp_path, kind, tiling)
    findings = preflight(llava, encoder, ALL)
    assert findings.sizes == 1000
    assert findings.pixels < 1e-4
    assert findings.features < 1e-4
    assert (findings.untouched > 0) == (kind != "own")  # the last block and the final norm


def test_stage_one_checks_the_projector_alone(tmp_path: Path) -> None:
    rates = {TOWER: 0.0, PROJECTOR: 1e-3, LANGUAGE: 0.0}
    llava, encoder = made(tmp_path, tiling="one", rates=rates)
    assert preflight(llava, encoder, rates).untouched == 0


@pytest.mark.parametrize("field", ["image_mean", "image_std", "rescale_factor"])
def test_pixels_that_are_normalised_otherwise_are_told(field: str, tmp_path: Path) -> None:
    llava, encoder = made(tmp_path)
    wrong: Any = 1 / 127.5 if field == "rescale_factor" else [0.3, 0.3, 0.3]
    setattr(llava.processor.image_processor, field, wrong)
    with pytest.raises(RiceError, match=r"pixels differ from the tower's .* mean .* std"):
        preflight(llava, encoder, ALL)


def test_a_tower_that_normalises_a_second_time_is_told(tmp_path: Path) -> None:
    llava, encoder = made(tmp_path)
    inside = llava.model.model.vision_tower.embeddings.patch_embedding
    inside.register_forward_pre_hook(lambda _, inputs: ((inputs[0] - 0.5) / 0.5,))
    with pytest.raises(RiceError, match=r"not hidden state -2"):
        preflight(llava, encoder, ALL)


def test_another_layer_than_the_asked_one_is_told(tmp_path: Path) -> None:
    llava, encoder = made(tmp_path)
    wrong = dataclasses.replace(llava, tower=dataclasses.replace(llava.tower, layer=-3))
    with pytest.raises(RiceError, match=r"is not hidden state -2 of .* they differ by"):
        preflight(wrong, encoder, ALL)


def test_a_class_token_that_is_kept_is_told(tmp_path: Path) -> None:
    llava, encoder = made(tmp_path)
    wrong = dataclasses.replace(llava, tower=dataclasses.replace(llava.tower, strategy="full"))
    with pytest.raises((RiceError, RuntimeError)):
        preflight(wrong, encoder, ALL)


def test_a_processor_that_counts_other_tokens_is_told(tmp_path: Path) -> None:
    llava, encoder = made(tmp_path)
    llava.processor.num_additional_image_tokens = 0
    with pytest.raises(RiceError, match=r"makes \d+ tokens in the model, \d+ in its processor and \d+ by 2x2\+1"):
        preflight(llava, encoder, ALL)


def test_other_grids_than_the_models_are_told(tmp_path: Path) -> None:
    llava, encoder = made(tmp_path, tiling="anyres5")
    llava.processor.image_processor.image_grid_pinpoints = [[64, 64]]
    with pytest.raises(RiceError, match=r"tokens in the model"):
        preflight(llava, encoder, ALL)


@pytest.mark.parametrize(("part", "word"), [("model.vision_tower", "does not learn"), ("lm_head", "does not learn")])
def test_a_part_that_should_learn_and_does_not_is_told(part: str, word: str, tmp_path: Path) -> None:
    llava, encoder = made(tmp_path)
    for name, parameter in llava.model.named_parameters():
        if name.startswith(part):
            parameter.requires_grad_(False)
    with pytest.raises(RiceError, match=word):
        preflight(llava, encoder, ALL)


def test_a_tower_cut_off_from_the_gradient_is_told(tmp_path: Path) -> None:
    llava, encoder = made(tmp_path)
    block = llava.model.model.vision_tower.encoder.layers[1]
    block.register_forward_hook(lambda _, __, output: output.detach())
    with pytest.raises(RiceError, match=r"gradient"):
        preflight(llava, encoder, ALL)


def test_a_gradient_that_is_not_finite_is_told(tmp_path: Path) -> None:
    llava, encoder = made(tmp_path)
    llava.model.model.multi_modal_projector.linear_2.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(RiceError, match=r"not finite"):
        preflight(llava, encoder, ALL)


def test_the_sizes_are_a_thousand_different_ones_of_any_shape() -> None:
    sizes = random_sizes(1000)
    assert len(set(sizes)) > 950
    assert max(h / w for h, w in sizes) > 5
    assert max(w / h for h, w in sizes) > 5


def test_samples_of_a_packed_row_are_seen_as_alone(tmp_path: Path) -> None:
    llava, _ = made(tmp_path)
    check_packing(llava)


def test_a_language_model_in_which_samples_see_each_other_is_told(tmp_path: Path) -> None:
    llava, _ = made(tmp_path)
    block = llava.model.model.language_model.layers[0]
    block.register_forward_hook(lambda _, __, output: output + output.cumsum(1))  # a state that runs on
    with pytest.raises(RiceError, match="packed row are not seen as they are alone by qwen2"):
        check_packing(llava)
