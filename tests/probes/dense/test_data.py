"""Parts and targets of the dense probe."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from probes.dense.data import CellTargets, cell_histogram, cell_targets, divide, subsample
from probes.dense.model import TokenGrid
from probes.linear import soft_cross_entropy
from rice.data.coco import IGNORE, open_split
from rice.progress import SilentProgress

CLASSES = 4


def random_map(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Classes 0..3 and ignored pixels."""
    drawn = np.random.default_rng(seed).integers(0, CLASSES + 1, (height, width)).astype(np.uint16)
    return np.where(drawn == CLASSES, IGNORE, drawn).astype(np.uint16)


def targets_of(maps: list[np.ndarray], grid: TokenGrid) -> CellTargets:
    """As `cell_targets` makes them of a split."""
    histograms = [cell_histogram(m, grid, CLASSES) for m in maps]
    entries = [np.nonzero(h)[0] for h in histograms]
    return CellTargets(
        grid.tokens**2,
        CLASSES,
        np.cumsum([0, *map(len, entries)]),
        np.concatenate(entries),
        np.concatenate([h[e] for h, e in zip(histograms, entries, strict=True)]),
        np.array([m.size for m in maps]),
    )


def _ties(tokens: int, pixels: int) -> bool:
    """A pixel's centre lies on the border of two cells: either is right, and torch's rounding picks one."""
    return bool(((2 * np.arange(pixels) + 1) * tokens % (2 * pixels) == 0).any())


@settings(max_examples=25, deadline=None)
@given(height=st.integers(5, 60), width=st.integers(5, 60), tokens=st.integers(1, 9), seed=st.integers(0, 999))
def test_soft_targets_have_the_gradient_of_cross_entropy_per_pixel(
    height: int, width: int, tokens: int, seed: int
) -> None:
    assume(not _ties(tokens, height) and not _ties(tokens, width))
    classes_HW = random_map(height, width, seed)
    logits = torch.randn(1, CLASSES, tokens, tokens, dtype=torch.float64, requires_grad=True)
    up = nn.functional.interpolate(logits, (height, width), mode="nearest-exact")
    truth = torch.from_numpy(classes_HW.astype(np.int64))[None]
    per_pixel = nn.functional.cross_entropy(up, truth, ignore_index=IGNORE)
    (expected,) = torch.autograd.grad(per_pixel, logits)

    grid = TokenGrid(tokens * 14, 14, tokens)
    histogram = torch.from_numpy(cell_histogram(classes_HW, grid, CLASSES)).double().view(-1, CLASSES)
    loss = soft_cross_entropy(logits[0].flatten(1).T[:, None, :], histogram)
    (got,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, per_pixel, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)


def test_sparse_targets_are_the_histograms() -> None:
    grid = TokenGrid(64, 16, 4)
    maps = [random_map(30, 20, seed) for seed in range(3)]
    targets = targets_of(maps, grid)
    for item, classes_HW in enumerate(maps):
        counts = targets.counts([item])[0].numpy()
        for y in range(4):
            for x in range(4):
                cell = classes_HW[grid.cells(30) == y][:, grid.cells(20) == x]
                expected = [(cell == k).sum() for k in range(CLASSES)]
                assert counts[y * 4 + x].tolist() == expected
    assert torch.equal(targets.counts([2, 0])[0], targets.counts([2])[0])


def test_pictures_weigh_the_same_whatever_their_size() -> None:
    targets = targets_of([np.zeros((10, 10), np.uint16), np.ones((300, 200), np.uint16)], TokenGrid(64, 16, 4))
    assert targets.weights([0, 1]).sum((1, 2)).tolist() == pytest.approx([1, 1])
    assert targets.shares(np.array([0, 1])).tolist() == pytest.approx([0.5, 0.5, 0, 0])


def test_targets_are_kept_between_seeds(make_root, murky, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    split = open_split(make_root(murky), "train")
    grid = TokenGrid(8, 2, 4)
    path = tmp_path / "targets.npz"
    first = cell_targets(split, [3, 1], grid, path, SilentProgress())
    written = path.stat().st_mtime_ns
    again = cell_targets(split, [3, 1], grid, path, SilentProgress())
    assert path.stat().st_mtime_ns == written
    assert torch.equal(first.counts([0, 1]), again.counts([0, 1]))
    expected = cell_histogram(split.semantic_map(3), grid, 4)
    assert first.counts([0]).flatten().tolist() == expected.tolist()


def test_the_validation_part_depends_on_ids_and_not_on_order_or_limit(make_root, murky) -> None:  # type: ignore[no-untyped-def]
    split = open_split(make_root(murky), "train")
    whole = divide(split, limit=None, validation_fraction=0.25)
    ids = [split.images[i].id for i in whole.pool]
    small = divide(split, limit=8, validation_fraction=0.25)
    assert [split.images[i].id for i in small.pool] == ids[:8]
    assert len(whole.validation) == 5
    assert len(small.validation) == 2
    assert sorted([*whole.validation, *whole.fit]) == list(range(20))


@given(count=st.integers(1, 50), fraction=st.floats(0.01, 1), seed=st.integers(0, 100))
def test_a_seed_draws_its_share_without_repeats(count: int, fraction: float, seed: int) -> None:
    fit = np.arange(7, 7 + count)
    chosen = subsample(fit, fraction, seed)
    assert len(chosen) == max(1, round(fraction * count))
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(chosen.tolist()) <= set(fit.tolist())


def test_seeds_draw_different_images() -> None:
    fit = np.arange(100)
    assert subsample(fit, 0.9, 0).tolist() == subsample(fit, 0.9, 0).tolist()
    assert subsample(fit, 0.9, 0).tolist() != subsample(fit, 0.9, 1).tolist()
