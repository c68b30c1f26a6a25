import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rice.model.rope import patch_angles, rotate, turns

HEAD_DIM, THETA = 16, 1e4
GRID = (7, 9)


def test_angles_are_row_then_column_times_falling_frequencies() -> None:
    angles = patch_angles((3, 5), HEAD_DIM, THETA)
    quarter = HEAD_DIM // 4
    for row in range(3):
        for column in range(5):
            frequencies = [THETA ** (-i / quarter) for i in range(quarter)]
            expected = [row * f for f in frequencies] + [column * f for f in frequencies]
            assert angles[row * 5 + column].tolist() == pytest.approx(expected, rel=1e-6)


def rotated(vector: torch.Tensor, class_angles: torch.Tensor | None = None) -> torch.Tensor:
    """The vector (K,) turned at every token: (1 + h*w, K)."""
    learned = torch.zeros(1, HEAD_DIM // 2) if class_angles is None else class_angles
    cos, sin = turns(GRID, learned, THETA)
    everywhere = vector.expand(1, 1 + GRID[0] * GRID[1], 1, HEAD_DIM)
    return rotate(everywhere, cos, sin)[0, :, 0]


vectors = st.lists(st.floats(-3, 3, width=32), min_size=HEAD_DIM, max_size=HEAD_DIM).map(torch.tensor)
rows, columns = st.integers(0, GRID[0] - 1), st.integers(0, GRID[1] - 1)


@settings(deadline=None, max_examples=60)
@given(q=vectors, k=vectors, data=st.data())
def test_scores_depend_on_the_offset_alone(q: torch.Tensor, k: torch.Tensor, data: st.DataObject) -> None:
    here = [(data.draw(rows), data.draw(columns)) for _ in range(2)]
    spare = [GRID[axis] - 1 - max(here[0][axis], here[1][axis]) for axis in range(2)]
    shift = [data.draw(st.integers(0, room)) for room in spare]
    q_tokens, k_tokens = rotated(q)[1:].view(*GRID, -1), rotated(k)[1:].view(*GRID, -1)
    there = [(row + shift[0], column + shift[1]) for row, column in here]
    score = q_tokens[here[0]] @ k_tokens[here[1]]
    assert score.item() == pytest.approx((q_tokens[there[0]] @ k_tokens[there[1]]).item(), abs=2e-4)


def test_scores_tell_rows_from_columns() -> None:
    vector = torch.linspace(-1, 1, HEAD_DIM)
    tokens = rotated(vector)[1:].view(*GRID, -1)
    assert abs(tokens[0, 0] @ tokens[0, 2] - tokens[0, 0] @ tokens[2, 0]) > 1e-2


@settings(deadline=None, max_examples=30)
@given(vector=vectors)
def test_turning_keeps_length_and_leaves_the_first_patch(vector: torch.Tensor) -> None:
    tokens = rotated(vector)
    torch.testing.assert_close(tokens.norm(dim=1), vector.norm().expand(len(tokens)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tokens[1], vector)


def test_class_token_turns_by_its_learned_angles_with_its_partner_channel() -> None:
    vector = torch.zeros(HEAD_DIM)
    vector[3] = 1.0
    angles = torch.zeros(1, HEAD_DIM // 2)
    angles[0, 3] = 0.7
    turned = rotated(vector, angles)[0]
    assert turned[3].item() == pytest.approx(math.cos(0.7))
    assert turned[3 + HEAD_DIM // 2].item() == pytest.approx(math.sin(0.7))


def test_turns_computed_under_inference_mode_serve_training_afterwards() -> None:
    learned = torch.zeros(1, HEAD_DIM // 2, requires_grad=True)
    with torch.inference_mode():
        turns((11, 3), learned, THETA)
    cos, sin = turns((11, 3), learned, THETA)
    x = torch.randn(2, 34, 1, HEAD_DIM, requires_grad=True)
    rotate(x, cos, sin).square().sum().backward()
    assert x.grad is not None


def test_half_precision_is_turned_in_fp32() -> None:
    x = torch.randn(1, 64, 2, HEAD_DIM, dtype=torch.bfloat16)
    cos, sin = turns(GRID, torch.zeros(1, HEAD_DIM // 2, dtype=torch.bfloat16), THETA)
    assert cos.dtype == torch.float32
    turned = rotate(x, cos, sin)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned, rotate(x.float(), cos, sin).bfloat16(), rtol=0, atol=0)
