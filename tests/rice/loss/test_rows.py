"""Row gradients, and AdamW on rows against torch's."""

import pytest
import torch
from torch import Tensor

from rice.loss import rows as module
from rice.loss.rows import AdamW, RowGradients, RowState

CONSTANTS = AdamW(0.9, 0.98, 1e-8, 0.2)
ROWS, WIDTH, STEPS = 12, 5, 9


def _touched(step: int) -> Tensor:
    """Row 0 at every step, row 11 never, row r > 0 at about every r-th."""
    return torch.tensor([row for row in range(ROWS - 1) if row == 0 or step % row == 0])


def _gradient(step: int, rows: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)[rows]


def _start() -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> RowState:
    monkeypatch.setattr(module, "_NUMBERS", 3 * WIDTH)  # several chunks in an update
    weight = _start()
    state = RowState(weight, torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros(ROWS, dtype=torch.int32))
    gradients = RowGradients(weight)
    for step in range(STEPS):
        rows = _touched(step)
        gradients.claim(rows)
        gradients.add(rows, _gradient(step, rows))
        state.update(gradients, CONSTANTS, 0.01 * (1 + step), torch.tensor(0.5, dtype=torch.float64))
        gradients.clear()
    return state


@pytest.mark.parametrize("row", range(ROWS - 1))
def test_a_row_moves_as_torchs_adamw_would_move_it_at_the_steps_it_takes_part_in(row: int, trained: RowState) -> None:
    parameter = torch.nn.Parameter(_start()[row].clone())
    beta1, beta2, eps, decay = CONSTANTS
    optimiser = torch.optim.AdamW([parameter], lr=1.0, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    steps = [step for step in range(STEPS) if row in _touched(step)]
    for step in steps:
        parameter.grad = 0.5 * _gradient(step, torch.tensor([row]))[0]
        optimiser.param_groups[0]["lr"] = 0.01 * (1 + step)
        optimiser.step()
    expected = optimiser.state[parameter]
    for found, wanted in (
        (trained.weight, parameter.detach()),
        (trained.exp_avg, expected["exp_avg"]),
        (trained.exp_avg_sq, expected["exp_avg_sq"]),
    ):
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-12)
    assert trained.steps[row] == len(steps)


def test_a_row_that_never_takes_part_keeps_every_bit(trained: RowState) -> None:
    assert torch.equal(trained.weight[-1], _start()[-1])
    assert not trained.exp_avg[-1].any()
    assert not trained.exp_avg_sq[-1].any()
    assert trained.steps[-1] == 0


def test_later_rows_join_the_earlier_and_copies_add_up() -> None:
    gradients = RowGradients(torch.zeros(10, 2))
    gradients.claim(torch.tensor([7, 2]), torch.tensor([2]))
    gradients.add(torch.tensor([2, 7, 2]), torch.tensor([[1.0, 0], [2, 0], [3, 5]]))
    gradients.claim(torch.tensor([0, 7, 9]))
    gradients.add(torch.tensor([9, 7]), torch.ones(2, 2))
    assert gradients.rows.tolist() == [0, 2, 7, 9]
    assert gradients.values.tolist() == [[0, 0], [4, 5], [3, 1], [1, 1]]
    assert gradients.square_norm() == 16 + 25 + 9 + 1 + 2
    gradients.clear()
    assert gradients.square_norm() == 0
    assert (gradients.rows.shape, gradients.values.shape) == ((0,), (0, 2))
