"""Micro-batches: every sample once, rows of nearly equal length, an image for every rank."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import example, lengths_of

from mllm.llava.packing import StepBins, WithoutLoss, pack, share_out
from rice.errors import RiceError

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 20), st.integers(1, 30), st.integers(0, 2**40))
def test_an_epoch_has_every_sample_once_however_many_bins(lengths: list[int], batch: int, bins: int, seed: int) -> None:
    sampler = StepBins(lengths, batch=batch, bins=bins, seed=seed)
    found = list(sampler)
    assert len(found) == len(sampler) == sampler.steps * bins
    real = [[sample for sample in bin_ if sample >= 0] for bin_ in found]
    assert sorted(sample for bin_ in real for sample in bin_) == list(range(len(lengths)))
    for own, bin_ in zip(real, found, strict=True):
        assert [lengths[~sample] for sample in bin_ if sample < 0] == [min(lengths)] * (not own)
    for step in range(sampler.steps):
        own = sorted(sample for bin_ in real[step * bins : (step + 1) * bins] for sample in bin_)
        assert own
        assert own == sorted(sampler.samples(0, step).tolist())
        assert sampler.tokens(0, step) == sum(lengths[sample] for sample in own)
        assert sum(map(bool, real[step * bins : (step + 1) * bins])) == min(bins, len(own))
    assert len(sampler.samples(0, 0)) == min(batch, len(lengths))


@given(LENGTHS, st.integers(1, 20), st.integers(0, 2**20))
def test_rows_differ_by_one_sample_at_most(lengths: list[int], bins: int, seed: int) -> None:
    sizes = np.asarray(lengths)
    dealt = share_out(sizes, bins)
    assert sorted(place for places in dealt for place in places) == list(range(len(lengths)))
    totals = [int(sizes[places].sum()) for places in dealt]
    assert max(totals) - min(totals) <= max(lengths)  # the last one went where least was


def test_the_order_is_of_seed_and_epoch_alone() -> None:
    lengths = list(range(1, 41))
    one, other = (StepBins(lengths, batch=8, bins=4, seed=3) for _ in range(2))
    other.epoch = 1
    second = list(other)
    assert second != list(one)
    one.epoch = 1
    assert list(one) == second
    assert one.step(1, 3) == second[12:16]
    assert StepBins(lengths, batch=8, bins=2, seed=3).samples(1, 3).tolist() == one.samples(1, 3).tolist()
    assert StepBins(lengths, batch=8, bins=4, seed=4).samples(1, 3).tolist() != one.samples(1, 3).tolist()


@pytest.mark.parametrize(("samples", "steps"), [(16, 2), (17, 3), (20, 3), (4, 1), (1, 1)])
def test_what_is_left_over_makes_a_smaller_last_step(samples: int, steps: int) -> None:
    assert StepBins([5] * samples, batch=8, bins=4, seed=0).steps == steps


@pytest.mark.parametrize(("batch", "bins", "samples"), [(0, 5, 10), (8, 4, 0), (8, 0, 10)])
def test_steps_without_samples_are_refused(batch: int, bins: int, samples: int) -> None:
    with pytest.raises(RiceError, match="micro-batches"):
        StepBins([5] * samples, batch=batch, bins=bins, seed=0)


@given(st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
def test_every_bin_has_an_image_or_the_blank_one(rows: list[tuple[int, bool]], bins: int) -> None:
    lengths, images = [length for length, _ in rows], [int(has) for _, has in rows]
    sampler = StepBins(lengths, batch=len(rows), bins=bins, seed=1, images=images)
    found = sampler.step(0, 0)
    real = [[sample for sample in bin_ if sample >= 0] for bin_ in found]
    assert sorted(sample for bin_ in real for sample in bin_) == list(range(len(rows)))
    shortest = min((length for length, has in rows if has), default=min(lengths))
    own = [any(images[sample] for sample in bin_) for bin_ in real]
    assert sum(own) == min(bins, sum(images))
    for has, bin_ in zip(own, found, strict=True):
        blank = [~sample for sample in bin_ if sample < 0]
        assert len(blank) == (not has if any(images) else len(bin_) == len(blank))
        assert all(images[sample] or not any(images) for sample in blank)
        assert all(lengths[sample] == shortest for sample in blank)
    assert all(found)


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 6), st.integers(1, 8))
def test_without_spreading_only_a_step_without_image_gets_the_blank_one(has: list[bool], batch: int, bins: int) -> None:
    images = [int(one) for one in has]
    sampler = StepBins([5] * len(has), batch=batch, bins=bins, seed=1, images=images, spread=False)
    for step in range(sampler.steps):
        found = sampler.step(0, step)
        seen = any(images[sample] for sample in sampler.samples(0, step))
        assert any(images[max(sample, ~sample)] for bin_ in found for sample in bin_) == any(has)
        filled = [bin_ for bin_ in found if max(bin_) >= 0]
        assert sum(sample < 0 for bin_ in filled for sample in bin_) == (any(has) and not seen)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_accelerate_gives_each_rank_its_share_of_every_step(ranks: int) -> None:
    data_loader = pytest.importorskip("accelerate.data_loader")
    sampler = StepBins(list(range(1, 38)), batch=8, bins=4, seed=0)
    shares = [list(data_loader.BatchSamplerShard(sampler, ranks, rank)) for rank in range(ranks)]
    assert len(shares[0]) == sampler.steps * 4 // ranks
    mine = 4 // ranks
    for step in range(sampler.steps):
        together = [bin_ for share in shares for bin_ in share[step * mine : (step + 1) * mine]]
        assert sorted(together) == sorted(sampler.step(0, step))


def test_a_row_holds_its_samples_end_to_end() -> None:
    rows = [example(1), example(2, images=0), example(3, images=2)]
    for one in rows:
        one["labels"][0] = 5  # what nothing predicts
    row = pack(rows)
    assert row["input_ids"].shape == row["labels"].shape == row["position_ids"].shape == (1, sum(lengths_of(rows)))
    assert row["max_length_q"] == row["max_length_k"] == max(lengths_of(rows))
    assert row["cu_seq_lens_q"].dtype == torch.int32
    ends = row["cu_seq_lens_q"].tolist()
    kept = set(row["logits_to_keep"].tolist())
    for one, (begin, end) in zip(rows, pairwise(ends), strict=True):
        assert torch.equal(row["input_ids"][0, begin:end], one["input_ids"])
        assert row["position_ids"][0, begin:end].tolist() == list(range(end - begin))
        assert row["labels"][0, begin] == -100
        assert torch.equal(row["labels"][0, begin + 1 : end], one["labels"][1:])
        before = {begin + at for at in range(end - begin - 1) if one["labels"][at + 1] >= 0}
        assert kept & set(range(begin, end)) == before
    assert torch.equal(row["pixel_values"], torch.cat([rows[0]["pixel_values"], rows[2]["pixel_values"]]))
    assert len(row["image_sizes"]) == 3
    assert row["images_per_sample"].tolist() == [1, 2]
    assert "pixel_values" not in pack(rows[1:2])


def test_an_empty_example_is_refused() -> None:
    empty = {"input_ids": torch.zeros(0, dtype=torch.long), "labels": torch.zeros(0, dtype=torch.long)}
    with pytest.raises(RiceError, match="at least one token"):
        pack([example(0), empty])


def test_a_sample_without_loss_is_the_sample_but_for_its_labels() -> None:
    rows = [example(0), example(1)]
    blank = WithoutLoss(rows)[~1]
    assert torch.equal(blank["pixel_values"], rows[1]["pixel_values"])
    assert blank["labels"].unique().tolist() == [-100]
    assert (rows[1]["labels"] >= 0).any()
    assert len(pack([blank])["logits_to_keep"]) == 0
