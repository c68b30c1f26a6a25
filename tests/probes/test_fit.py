"""The training loop: schedule, order, clipping, resuming."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from probes import fit as module
from probes.fit import FitConfig, fit, seeded_batches, split_batches
from rice.errors import RiceError
from rice.progress import SilentProgress
from rice.train.world import World

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = X.pow(2).sum(1, keepdim=True)


def make_head() -> nn.Module:
    """The same small network every time, with dropout, so that random numbers matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.2), nn.Linear(8, 1))


def batches(start: int) -> Iterator[tuple[Tensor, Tensor]]:
    for chosen in seeded_batches(64, 16, 0, start):
        yield X[chosen], Y[chosen]


def squared_error(head: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (head(batch[0]) - batch[1]).square().mean()


def run(head: nn.Module, config: FitConfig, checkpoint: Path | None = None, seed: int = 0) -> list[Tensor]:
    fit(head, batches, squared_error, config, seed=seed, progress=SilentProgress(), checkpoint=checkpoint)
    return [p.detach() for p in head.parameters()]


def test_the_loop_is_adamw_with_a_cosine() -> None:
    config = FitConfig(updates=20, learning_rate=0.01, weight_decay=0.1, clip=None)
    head, reference = nn.Linear(5, 1), nn.Linear(5, 1)
    reference.load_state_dict(head.state_dict())
    optimiser = torch.optim.AdamW(reference.parameters(), lr=0.01, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=20)
    for batch in itertools.islice(batches(0), 20):
        optimiser.zero_grad()
        squared_error(reference, batch).backward()
        optimiser.step()
        schedule.step()
    torch.testing.assert_close(run(head, config), [p.detach() for p in reference.parameters()])


def test_the_rate_warms_up_linearly_and_ends_near_zero() -> None:
    config = FitConfig(updates=110, warmup=10)
    assert [config.factor(k) for k in (0, 4, 9, 10, 60)] == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5])
    assert config.factor(109) < 0.001


def test_a_killed_fit_resumes_with_the_numbers_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHECKPOINT_EVERY_S", 0.0)
    config = FitConfig(updates=30, learning_rate=0.01, warmup=5)
    whole = run(make_head(), config)

    def killed(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from itertools.islice(batches(start), 13)
        raise KeyboardInterrupt

    path = tmp_path / "fit.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(make_head(), killed, squared_error, config, seed=0, progress=SilentProgress(), checkpoint=path)
    starts: list[int] = []
    head = make_head()

    def resumed(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        starts.append(start)
        return batches(start)

    fit(head, resumed, squared_error, config, seed=0, progress=SilentProgress(), checkpoint=path)
    assert starts == [13]
    for got, expected in zip(head.parameters(), whole, strict=True):
        assert torch.equal(got, expected)


def test_a_finished_fit_is_not_repeated(tmp_path: Path) -> None:
    config = FitConfig(updates=5)
    first = run(make_head(), config, tmp_path / "fit.pt")
    again = make_head()

    def forbidden(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("read data for nothing")

    fit(again, forbidden, squared_error, config, seed=0, progress=SilentProgress(), checkpoint=tmp_path / "fit.pt")
    for got, expected in zip(again.parameters(), first, strict=True):
        assert torch.equal(got, expected)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    run(make_head(), FitConfig(updates=5), tmp_path / "fit.pt")
    for config, seed in ((FitConfig(updates=6), 0), (FitConfig(updates=5), 1)):
        with pytest.raises(RiceError, match="another configuration; delete it"):
            run(make_head(), config, tmp_path / "fit.pt", seed=seed)


def test_the_random_state_outside_does_not_matter_and_is_left_alone() -> None:
    config = FitConfig(updates=5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run(make_head(), config)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for got, expected in zip(run(make_head(), config), first, strict=True):
        assert torch.equal(got, expected)


def test_parameter_groups_are_clipped_apart() -> None:
    """A group with enormous gradients must not freeze the other."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calm = nn.Parameter(torch.ones(1))
            self.wild = nn.Parameter(torch.ones(1))

    head = Two()

    def loss(head: nn.Module, batch: object) -> Tensor:
        return (0.5 * head.calm + 1e6 * head.wild).sum()  # type: ignore[operator]

    groups = [{"params": [head.calm]}, {"params": [head.wild]}]
    fit(
        head,
        lambda start: itertools.repeat(None),
        loss,
        FitConfig(updates=1, clip=1.0),
        seed=0,
        progress=SilentProgress(),
        groups=groups,
    )
    assert head.calm.grad is not None
    assert head.wild.grad is not None
    assert head.calm.grad.item() == pytest.approx(0.5)
    assert head.wild.grad.item() == pytest.approx(1.0, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_fit() -> None:
    with pytest.raises(RiceError, match="the loss is nan at update 0"):
        fit(
            nn.Linear(1, 1),
            lambda start: itertools.repeat(torch.full((1, 1), torch.nan)),
            lambda head, batch: head(batch).sum(),
            FitConfig(updates=3),
            seed=0,
            progress=SilentProgress(),
        )


def test_batches_that_run_out_stop_the_fit() -> None:
    with pytest.raises(RiceError, match="ran out before update 1"):
        fit(
            nn.Linear(5, 1),
            lambda start: [(X, Y)],
            squared_error,
            FitConfig(updates=3),
            seed=0,
            progress=SilentProgress(),
        )


@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 9), start=st.integers(0, 60))
def test_batch_k_does_not_depend_on_where_one_starts(count: int, batch: int, seed: int, start: int) -> None:
    from_zero = list(itertools.islice(seeded_batches(count, batch, seed), start + 3))
    from_there = list(itertools.islice(seeded_batches(count, batch, seed, start), 3))
    assert [b.tolist() for b in from_zero[start:]] == [b.tolist() for b in from_there]


@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 9))
def test_an_epoch_repeats_no_item(count: int, batch: int, seed: int) -> None:
    size = min(batch, count)
    epoch = np.concatenate(list(itertools.islice(seeded_batches(count, batch, seed), count // size)))
    assert len(set(epoch.tolist())) == len(epoch) == count // size * size
    assert set(epoch.tolist()) <= set(range(count))


def test_epochs_and_seeds_differ() -> None:
    first, second = (b.tolist() for b in itertools.islice(seeded_batches(50, 50, 0), 2))
    assert first != second
    assert first != next(seeded_batches(50, 50, 1)).tolist()


def test_split_batches_keeps_everything_in_order() -> None:
    parts = split_batches(np.arange(10), 4)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(("warmup", "milestones"), [(0, (0.5, 0.75)), (3, (0.5, 0.75)), (0, (0.55,))])
def test_milestones_are_torchs_steps_after_the_warm_up(warmup: int, milestones: tuple[float, ...]) -> None:
    config = FitConfig(updates=20, warmup=warmup, milestones=milestones)
    optimiser = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    at = [math.ceil(share * 20) for share in milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, at, gamma=0.1)
    for update in range(20):
        expected = (update + 1) / warmup if update < warmup else optimiser.param_groups[0]["lr"]
        assert config.factor(update) == pytest.approx(expected)
        optimiser.step()
        schedule.step()


def test_the_cosine_is_torchs_after_the_warm_up() -> None:
    config = FitConfig(updates=13, warmup=3)
    optimiser = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10)
    for update in range(3, 13):
        assert config.factor(update) == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert [FitConfig(updates=2, warmup=2).factor(k) for k in range(2)] == [0.5, 1.0]


class Recorded:
    """A watcher that writes down what it is told."""

    def __init__(self, head: nn.Module, every: int, checkpoint: Path | None = None) -> None:
        self.head, self.every, self.checkpoint = head, every, checkpoint
        self.said: list[Any] = []
        self.rates: list[float] = []

    def begin(self, start: int) -> None:
        self.said.append(f"begin {start}")

    def step(self, update: int, loss: Tensor, learning_rate: float) -> None:
        assert self.head.training
        assert not loss.requires_grad
        self.said.append(update)
        self.rates.append(learning_rate)

    def after(self, done: int) -> None:
        assert not self.head.training
        self.said.append(f"after {done}")


def watched(config: FitConfig, every: int, checkpoint: Path | None = None, **settings: Any) -> Recorded:
    head = make_head()
    watcher = Recorded(head, every)
    source = settings.pop("source", batches)
    fit(
        head, source, squared_error, config,
        seed=0, progress=SilentProgress(), checkpoint=checkpoint, watcher=watcher, **settings,
    )  # fmt: skip
    assert not head.training
    return watcher


def test_a_watcher_hears_of_every_update_and_is_asked_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    config = FitConfig(updates=5, learning_rate=0.5, warmup=2)
    watcher = watched(config, 2, tmp_path / "fit.pt")
    assert watcher.said == ["begin 0", 0, 1, "after 2", 2, 3, "after 4", 4, "after 5"]
    assert watcher.rates == pytest.approx([0.5 * config.factor(k) for k in range(5)])
    assert watched(config, 2, tmp_path / "fit.pt").said == ["begin 5"]
    assert watched(config, 5).said[-2:] == [4, "after 5"]


def test_a_checkpoint_follows_what_a_watcher_was_asked_for(tmp_path: Path) -> None:
    def killed(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from itertools.islice(batches(start), 5 - start)
        raise KeyboardInterrupt

    config = FitConfig(updates=9)
    for every, resumed in ((3, 3), (2, 4), (7, 0)):
        path = tmp_path / f"{every}.pt"
        with pytest.raises(KeyboardInterrupt):
            watched(config, every, path, source=killed)
        assert path.exists() == (resumed > 0)
        assert watched(config, every, path).said[0] == f"begin {resumed}"


def test_a_checkpoint_is_written_when_its_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.count(step=25.0)  # one at the start, one an update, one a checkpoint
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    saved: list[int] = []
    save = module._save
    monkeypatch.setattr(module, "_save", lambda *args: (saved.append(args[-1]), save(*args)))
    run(make_head(), FitConfig(updates=8), tmp_path / "fit.pt")
    assert saved == [3, 6, 8], "over 60 seconds after the one before, and at the end"


def test_ranks_draw_different_dropout_and_the_first_alone_writes(tmp_path: Path) -> None:
    drawn, written = [], []
    for rank in (0, 1):
        head = make_head()
        fit(
            head, batches, squared_error, FitConfig(updates=2), seed=0, progress=SilentProgress(),
            checkpoint=tmp_path / f"{rank}.pt", world=World(rank, 2, torch.device("cpu")),
        )  # fmt: skip
        drawn.append(torch.cat([p.detach().flatten() for p in head.parameters()]))
        written.append((tmp_path / f"{rank}.pt").exists())
    assert written == [True, False]
    assert not torch.equal(*drawn)
    assert torch.equal(drawn[0], torch.cat([p.flatten() for p in run(make_head(), FitConfig(updates=2))]))


def test_updates_draw_different_dropout_and_seeds_too() -> None:
    def masks(seed: int) -> list[list[bool]]:
        found: list[list[bool]] = []

        def loss(head: nn.Module, batch: object) -> Tensor:
            shown = nn.functional.dropout(torch.ones(64), 0.5)
            found.append((shown > 0).tolist())
            return (head(X) * 0).sum()

        fit(make_head(), lambda start: itertools.repeat(None), loss, FitConfig(updates=3), seed=seed,
            progress=SilentProgress())  # fmt: skip
        return found

    first, second = masks(0), masks(1)
    assert len({tuple(mask) for mask in first + second}) == 6
    assert masks(0) == first


@pytest.mark.parametrize(("bad", "found"), [(0, 0), (1, 50), (50, 50), (51, 59), (59, 59)])
def test_a_loss_that_is_not_finite_is_found_within_fifty_updates(bad: int, found: int) -> None:
    head = nn.Linear(1, 1)
    updates = itertools.count()

    def loss(head: nn.Module, batch: object) -> Tensor:
        value: Tensor = head(torch.ones(1, 1)).sum()
        return value * (math.inf if next(updates) >= bad else 1)

    with pytest.raises(RiceError, match=rf"my fit: the loss is \S+ at update {found}; lower"):
        fit(head, lambda start: itertools.repeat(None), loss, FitConfig(updates=60), seed=0,
            progress=SilentProgress(), label="my fit")  # fmt: skip


def test_a_group_keeps_its_own_peak_and_what_needs_no_gradient_is_left_alone() -> None:
    frozen, own, other = (nn.Parameter(torch.ones(1), requires_grad=k > 0) for k in range(3))
    head = nn.ParameterList([frozen, own, other])
    rates: list[list[float]] = []

    class Rates(Recorded):
        def step(self, update: int, loss: Tensor, learning_rate: float) -> None:
            rates.append([(1 - own).item(), (1 - other).item()])

    fit(
        head, lambda start: itertools.repeat(None), lambda head, batch: (own + other).sum(),
        FitConfig(updates=1, learning_rate=0.01), seed=0, progress=SilentProgress(), watcher=Rates(head, 1),
        groups=[{"params": [own], "lr": 0.1}, {"params": [other]}],
    )  # fmt: skip
    assert rates == [pytest.approx([0.1, 0.01], rel=1e-4)], "AdamW's first step is its rate"
    fit(
        head, lambda start: itertools.repeat(None), lambda head, batch: (frozen * own).sum(),
        FitConfig(updates=1, weight_decay=0.5), seed=0, progress=SilentProgress(),
    )  # fmt: skip
    assert frozen.item() == 1.0


@pytest.mark.gpu
def test_on_cuda_the_loss_sees_bf16_only_where_asked() -> None:
    seen: list[torch.dtype] = []

    def loss(head: nn.Module, batch: Tensor) -> Tensor:
        out: Tensor = head(batch)
        seen.append(out.dtype)
        return out.float().square().mean()

    for amp in (True, False):
        fit(
            nn.Linear(5, 1).cuda(),
            lambda start: itertools.repeat(X.cuda()),
            loss,
            FitConfig(updates=1, amp=amp),
            seed=0,
            progress=SilentProgress(),
        )
    assert seen == [torch.bfloat16, torch.float32]
