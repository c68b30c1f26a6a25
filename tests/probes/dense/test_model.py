"""Tokens and pixels: where the grid lies over the picture."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from probes.dense import model
from probes.dense.model import TokenGrid, extract_tokens, possible_winners, predict_pixels


@given(tokens=st.integers(1, 40), pixels=st.integers(1, 300))
def test_cells_are_nearest_upsampling(tokens: int, pixels: int) -> None:
    assume((((2 * np.arange(pixels) + 1) * tokens) % (2 * pixels) != 0).all())  # on a border torch rounds either way
    index = torch.arange(tokens, dtype=torch.float64)[None, None]
    expected = nn.functional.interpolate(index, pixels, mode="nearest-exact")[0, 0]
    assert TokenGrid(tokens * 14, 14, tokens).cells(pixels).tolist() == expected.long().tolist()


def test_pixels_of_a_dropped_remainder_belong_to_the_last_cell() -> None:
    cells = TokenGrid(384, 14, 27).cells(384)  # SigLIP: 378 of 384 pixels are seen
    assert np.array_equal(cells[:378], np.arange(378) // 14)
    assert (cells[378:] == 26).all()


@pytest.mark.parametrize(("tokens", "height", "width"), [(8, 37, 53), (5, 5, 5), (7, 3, 90), (1, 4, 6)])
def test_prediction_is_the_argmax_of_bilinear_upsampling(tokens: int, height: int, width: int) -> None:
    logits = torch.randn(6, tokens, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    up = nn.functional.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)[0]
    got = predict_pixels(logits, TokenGrid(tokens * 4, 4, tokens), height, width)
    assert torch.equal(got, up.argmax(0))


def test_a_dropped_remainder_does_not_shift_the_picture() -> None:
    grid = TokenGrid(384, 14, 27)
    ramp = torch.arange(27.0).expand(2, 27, 27).clone()  # class 1 wins right of column 10
    ramp[0] = 10.0
    classes = predict_pixels(ramp, grid, 384, 384)
    assert classes[0].nonzero()[0].item() == 10 * 14 + 7  # the centre of cell 10, where both are equal


def test_classes_taken_in_parts_give_the_same_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(50, 6, 6, generator=torch.Generator().manual_seed(0))
    grid = TokenGrid(96, 16, 6)
    whole = predict_pixels(logits, grid, 40, 30)
    monkeypatch.setattr(model, "_MAX_ELEMENTS", 40 * 30 * 7)
    assert torch.equal(predict_pixels(logits, grid, 40, 30), whole)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.1, 1.0, 5.0]))
def test_no_winner_is_ruled_out(seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, 5, 5, generator=generator) + spread * torch.randn(20, 1, 1, generator=generator)
    up = nn.functional.interpolate(logits[None], (33, 41), mode="bilinear", align_corners=False)[0]
    assert set(up.argmax(0).unique().tolist()) <= set(possible_winners(logits).tolist())


def test_a_class_below_another_everywhere_is_not_upsampled() -> None:
    logits = torch.stack([torch.zeros(4, 4), torch.full((4, 4), 2.0), torch.ones(4, 4)])
    assert possible_winners(logits).tolist() == [1]


def test_tokens_are_normed_row_after_row(make_encoder) -> None:  # type: ignore[no-untyped-def]
    encoder = make_encoder(patch=4, size=16)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = extract_tokens(encoder, images)
    patches = encoder(images).patches
    assert tokens.shape == (2, 16, 16)
    for row, column in ((0, 0), (1, 2), (3, 3)):
        raw = patches[1, :, row, column].double().numpy()
        expected = (raw - raw.mean()) / np.sqrt(raw.var() + 1e-5)
        np.testing.assert_allclose(tokens[1, row * 4 + column].numpy(), expected, atol=1e-5)
