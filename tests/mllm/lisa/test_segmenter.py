"""The segmenter against transformers' own forward pass and processors, with tiny SAM and SAM 2 of random weights."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_sam import KINDS, SIDE, tiny_processor, tiny_sam
from torch import Tensor

from mllm.lisa.segmenter import FrameMaker, Segmenter, enlarge
from rice.errors import RiceError


def _segmenter(kind: str) -> Segmenter:
    return Segmenter(tiny_sam(kind), tiny_processor(kind))


def _picture(height: int, width: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _pixels(segmenter: Segmenter, count: int) -> Tensor:
    return torch.stack([segmenter.frame(_picture(48, 80, seed)).pixels for seed in range(count)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_point_as_prompt_gives_the_masks_of_the_model_itself(kind: str) -> None:
    segmenter = _segmenter(kind)
    model, pixels = segmenter.model, _pixels(segmenter, 2)
    points_B212 = torch.tensor([[[[9.0, 20.0]], [[40.0, 31.0]]], [[[55.0, 8.0]], [[3.0, 60.0]]]])
    labels_B21 = torch.ones(2, 2, 1, dtype=torch.int64)
    # One embedding a prompt: the points without the padding point.
    sparse = model.prompt_encoder._embed_points(points_B212, labels_B21, pad=False)
    boxless = {"input_points": points_B212, "input_labels": labels_B21, "multimask_output": False}
    encoder = model.prompt_encoder
    encoder._embed_points = lambda points, labels, pad: type(encoder)._embed_points(encoder, points, labels, False)
    with torch.no_grad():
        expected = model(pixel_values=pixels, **boxless).pred_masks.flatten(0, 2)
        owners = torch.tensor([1, 0, 1, 0])
        prompts = torch.stack([sparse[1, 1, 0], sparse[0, 0, 0], sparse[1, 0, 0], sparse[0, 1, 0]])
        ours = segmenter.decode(segmenter.encode(pixels), owners, prompts)
    assert expected.std() > 0.01
    torch.testing.assert_close(ours, expected[torch.tensor([3, 0, 2, 1])], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours[0], ours[2], atol=1e-3)  # a prompt matters


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_prompts_and_all_that_is_trained_and_nothing_else(kind: str) -> None:
    segmenter = _segmenter(kind).train()
    prompts = torch.randn(2, segmenter.width, requires_grad=True)
    logits = segmenter.decode(segmenter.encode(_pixels(segmenter, 1)), torch.tensor([0, 0]), prompts)
    logits.square().sum().backward()
    assert prompts.grad is not None
    assert (prompts.grad != 0).any(dim=1).all()
    reached = {name for name, v in segmenter.named_parameters() if v.grad is not None}
    trained = {name for name, v in segmenter.named_parameters() if v.requires_grad}
    assert reached == trained
    assert all(name.startswith("model.mask_decoder.") for name in trained)
    for name, value in segmenter.named_parameters():
        # A bias that adds the same to every key changes no attention.
        if name in trained and not name.endswith("k_proj.bias"):
            assert (value.grad != 0).any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_of_the_training_does_not_change_the_mask(kind: str) -> None:
    segmenter = _segmenter(kind)
    prompts, owners = torch.randn(2, segmenter.width), torch.tensor([0, 0])
    with torch.no_grad():
        features = segmenter.encode(_pixels(segmenter, 1))
        before = segmenter.decode(features, owners, prompts)
        for value in segmenter.model.mask_decoder.parameters():
            if not value.requires_grad:
                value.normal_()
        torch.testing.assert_close(segmenter.decode(features, owners, prompts), before)


@pytest.mark.parametrize("kind", KINDS)
def test_two_prompts_learn_two_masks_of_one_picture_that_is_encoded_once(kind: str) -> None:
    torch.manual_seed(0)
    segmenter = _segmenter(kind).train()
    features = segmenter.encode(_pixels(segmenter, 1))
    with torch.no_grad():
        h, w = segmenter.decode(features, torch.tensor([0]), torch.zeros(1, segmenter.width)).shape[-2:]
    masks = torch.zeros(2, h, w)
    masks[0, : h // 2, : w // 2] = 1
    masks[1, h // 4 :, w // 2 :] = 1
    prompts = torch.nn.Parameter(torch.randn(2, segmenter.width) * 0.1)
    optimizer = torch.optim.Adam([prompts, *segmenter.decoder_parameters()], lr=3e-3)
    for _ in range(300):
        logits = segmenter.decode(features, torch.tensor([0, 0]), prompts)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = logits > 0
    iou = (found & (masks > 0)).sum((1, 2)) / (found | (masks > 0)).sum((1, 2))
    assert iou.min() > 0.9
    assert segmenter.encoded == 1


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation_give_the_same_mask(kind: str) -> None:
    """SAM 2 of its own takes another output's mask in evaluation, where the single one is unsteady."""
    segmenter = _segmenter(kind)
    prompts, owners = torch.randn(3, segmenter.width), torch.tensor([0, 0, 0])
    with torch.no_grad():
        features = segmenter.encode(_pixels(segmenter, 1))
        trained = segmenter.train().decode(features, owners, prompts)
        torch.testing.assert_close(segmenter.eval().decode(features, owners, prompts), trained)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_go_through_the_encoder_a_few_at_a_time_with_the_same_features(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = _segmenter(kind)
    pixels = _pixels(segmenter, 6)
    whole = segmenter.model.get_image_embeddings(pixels)
    seen: list[int] = []
    embed = segmenter.model.get_image_embeddings

    def counted(values: Tensor) -> Any:
        seen.append(len(values))
        return embed(values)

    monkeypatch.setattr(segmenter.model, "get_image_embeddings", counted)
    features = segmenter.encode(pixels)
    assert seen == [4, 2]
    for level, expected in zip(features.levels, [whole] if isinstance(whole, Tensor) else whole, strict=True):
        torch.testing.assert_close(level, expected, rtol=1e-5, atol=1e-5)
    seen.clear()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert len(segmenter.encode(pixels)) == 6
    assert seen == [6], "sharded ranks must run the encoder equally often"


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompt_gives_no_mask_of_the_same_size(kind: str) -> None:
    segmenter = _segmenter(kind)
    features = segmenter.encode(_pixels(segmenter, 1))
    none = segmenter.decode(features, torch.zeros(0, dtype=torch.int64), torch.zeros(0, segmenter.width))
    one = segmenter.decode(features, torch.tensor([0]), torch.zeros(1, segmenter.width))
    assert none.shape == (0, *one.shape[1:])
    assert enlarge(none, (48, 64), (31, 17), SIDE).shape == (0, 31, 17)


def _of_processor(kind: str, logits: Tensor, seen: Any, size: tuple[int, int]) -> Tensor:
    own = {} if kind == "sam2" else {"reshaped_input_sizes": [list(seen)]}
    (expected,) = tiny_processor(kind).post_process_masks([logits[:, None]], [list(size)], binarize=False, **own)
    return expected[:, 0]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), seed=st.integers(0, 9))
@example(height=3, width=3, seed=0)
@example(height=3, width=50, seed=0)
@example(height=64, width=64, seed=0)
def test_frames_and_enlarged_masks_are_those_of_the_processor(kind: str, height: int, width: int, seed: int) -> None:
    assume(max(height, width) <= 2 * SIDE * min(height, width))
    picture, processor = _picture(height, width, seed), tiny_processor(kind)
    frame = FrameMaker(processor)(picture)
    inputs = processor(images=np.array(picture), input_data_format="channels_last", return_tensors="pt")
    torch.testing.assert_close(frame.pixels, inputs["pixel_values"][0])
    assert frame.pixels.shape == (3, SIDE, SIDE)
    if kind == "sam":
        assert list(frame.seen or ()) == inputs["reshaped_input_sizes"][0].tolist()
        assert not frame.pixels[:, frame.seen[0] :].any()
    else:
        assert frame.seen is None
    logits = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(seed))
    expected = _of_processor(kind, logits, frame.seen, (height, width))
    torch.testing.assert_close(enlarge(logits, frame.seen, (height, width), SIDE), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_segmenter_loads_as_it_was_also_by_transformers(kind: str, tmp_path: Path) -> None:
    saved = _segmenter(kind)
    saved.save(tmp_path)
    loaded = Segmenter.load(str(tmp_path))
    plain = type(saved.model).from_pretrained(tmp_path).state_dict()
    for name, value in saved.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], value)
        torch.testing.assert_close(plain[name], value)
    assert (loaded.width, loaded.edge) == (saved.width, SIDE)
    torch.testing.assert_close(_pixels(loaded, 1), _pixels(saved, 1))


def test_a_picture_of_which_nothing_would_be_left_is_refused() -> None:
    assert FrameMaker(tiny_processor())(_picture(1, 128)).seen == (1, SIDE)
    with pytest.raises(RiceError, match="expected a picture that can be shrunk to 64 pixels, got 129 x 1"):
        FrameMaker(tiny_processor())(_picture(1, 129))
    assert FrameMaker(tiny_processor("sam2"))(_picture(1, 129)).seen is None


def test_a_worker_may_hold_what_makes_frames() -> None:
    maker = FrameMaker(tiny_processor())
    again = pickle.loads(pickle.dumps(maker))
    torch.testing.assert_close(again(_picture(48, 80)).pixels, maker(_picture(48, 80)).pixels)


def test_half_precision_weights_take_prompts_of_full_precision() -> None:
    segmenter = Segmenter(tiny_sam().bfloat16(), tiny_processor())
    logits = segmenter.decode(segmenter.encode(_pixels(segmenter, 1)), torch.tensor([0]), torch.randn(1, 16))
    assert logits.dtype == torch.bfloat16
    assert enlarge(logits, (38, 64), (48, 80), SIDE).dtype == torch.float32


def test_another_family_is_refused() -> None:
    with pytest.raises(RiceError, match="expected a SAM or SAM 2 as segmenter, got a SamHQModel"):
        Segmenter(tiny_sam("sam_hq"), tiny_processor())


def test_a_processor_of_another_edge_is_refused() -> None:
    processor = tiny_processor()
    processor.pad_size = {"height": 32, "width": 32}
    with pytest.raises(RiceError, match="expected an image processor for the segmenter's 64 x 64 pixels, got 32 x 32"):
        Segmenter(tiny_sam(), processor)
