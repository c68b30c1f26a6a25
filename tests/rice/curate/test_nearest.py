"""Labels and distances are those of float64, whatever the blocks; rounding to bf16 changes none."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rice.curate import nearest as module
from rice.curate.nearest import nearest


def drawn(count: int, clusters: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=dice), torch.randn(clusters, width, generator=dice)


def check(points_ND: Tensor, centres_KD: Tensor, labels_N: Tensor, distances_N: Tensor) -> None:
    """Against every distance in float64; of near-equal ones either may win."""
    all_NK = torch.cdist(points_ND.double(), centres_KD.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
    scale = float((points_ND.double() ** 2).sum(1).max() + (centres_KD.double() ** 2).sum(1).max())
    chosen_N = all_NK.gather(1, labels_N[:, None])[:, 0]
    assert float((chosen_N - all_NK.amin(1)).max()) <= 1e-6 * scale
    assert float((chosen_N - distances_N).abs().max()) <= 2e-6 * scale
    second_N = all_NK.kthvalue(min(2, len(centres_KD)), dim=1).values
    clear_N = second_N - all_NK.amin(1) > 1e-5 * scale
    assert bool((labels_N == all_NK.argmin(1))[clear_N].all())


@given(st.integers(0, 70), st.integers(1, 90), st.integers(1, 20), st.integers(0, 999), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_nearest_is_float64s_in_blocks_of_any_size(
    count: int, clusters: int, width: int, seed: int, bf16: bool
) -> None:
    points_ND, centres_KD = drawn(count, clusters, width, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CENTRES_AT_ONCE", 16)
        patch.setattr(module, "_CACHED_SCORES", 64 * 16)
        found = nearest(points_ND, centres_KD, bf16=bf16)
    assert found.labels.shape == found.distances.shape == (count,)
    if count:
        check(points_ND, centres_KD, *found)


@pytest.mark.parametrize("bf16", [False, True])
def test_of_equal_centres_the_first_is_taken(bf16: bool) -> None:
    points_ND, centres_KD = drawn(200, 6, 5, 0)
    copies_KD = centres_KD.repeat(20, 1)
    found = nearest(points_ND, copies_KD, bf16=bf16)
    assert int(found.labels.max()) < 6
    assert found.labels.equal(nearest(points_ND, centres_KD).labels)


def test_bf16_changes_no_label_where_its_rounding_hides_the_order() -> None:
    """More centres than candidates, nearer to each other than bf16 can tell."""
    points_ND, places_KD = drawn(300, 3, 24, 1)
    centres_KD = places_KD.repeat(100, 1) + 1e-4 * drawn(300, 1, 24, 2)[0]
    exact = nearest(points_ND, centres_KD)
    rough_NK = points_ND.bfloat16().float() @ centres_KD.bfloat16().float().T - centres_KD.pow(2).sum(1) / 2
    assert int((rough_NK.argmax(1) != exact.labels).sum()) > 100, "bf16 alone would change many"
    check(points_ND, centres_KD, *nearest(points_ND, centres_KD, bf16=True))
    assert nearest(points_ND, centres_KD, bf16=True).labels.eq(exact.labels).float().mean() > 0.98
