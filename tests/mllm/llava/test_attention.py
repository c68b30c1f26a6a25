"""Attention within packed samples: nothing leaks, and each is as on its own."""

from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llava import IMAGE, example, language, llava
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from mllm.llava.attention import NAME, attend, packed_attention
from mllm.llava.packing import pack
from rice.errors import RiceError

KEYS = ("input_ids", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


def text_model(kind: str, seed: int = 0, **changes: int) -> nn.Module:
    torch.manual_seed(seed)
    config = language(kind)
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_config(config, attn_implementation=NAME).eval()


def packed(rows: list[Tensor]) -> dict[str, Tensor]:
    found = pack([{"input_ids": row, "labels": row} for row in rows])
    return {name: found[name] for name in KEYS}


def texts(lengths: list[int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, IMAGE, (length,), generator=generator) for length in lengths]


LENGTHS = st.lists(st.integers(1, 17), min_size=1, max_size=6)


@settings(max_examples=25)
@given(LENGTHS, st.sampled_from(["qwen2", "llama"]))
def test_each_sample_is_as_on_its_own(lengths: list[int], kind: str) -> None:
    model, rows = text_model(kind), texts(lengths)
    together = model(**packed(rows), use_cache=False).logits[0]
    model.set_attn_implementation("eager")
    alone = torch.cat([model(input_ids=row[None]).logits[0] for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("changed", [0, 1, 2])
def test_no_sample_changes_another_by_a_single_bit(kind: str, changed: int) -> None:
    model, rows = text_model(kind), texts([5, 9, 1])
    before = model(**packed(rows), use_cache=False).logits[0].split([5, 9, 1])
    rows[changed] = (rows[changed] + 7) % IMAGE
    after = model(**packed(rows), use_cache=False).logits[0].split([5, 9, 1])
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [
        place != changed for place in range(3)
    ]


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_no_gradient_reaches_another_sample(kind: str) -> None:
    model, rows = text_model(kind), texts([5, 9, 4])
    row = packed(rows)
    embedded = model.get_input_embeddings()(row.pop("input_ids")).detach().requires_grad_()
    model(inputs_embeds=embedded, **row, use_cache=False).logits[0, 5:14].sum().backward()
    reached = embedded.grad[0].abs().sum(1) > 0
    assert reached.tolist() == [False] * 5 + [True] * 9 + [False] * 4


@settings(max_examples=50)
@given(LENGTHS, st.sampled_from([(4, 4), (4, 2), (6, 1)]), st.one_of(st.none(), st.integers(1, 20)), st.booleans())
def test_it_equals_a_dense_mask_of_blocks(
    lengths: list[int], heads: tuple[int, int], window: int | None, scaled: bool
) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    total = sum(lengths)
    query, key, value = (
        torch.randn(1, total, count, 8, generator=generator, dtype=torch.float64).transpose(1, 2)
        for count in (heads[0], heads[1], heads[1])
    )
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    sample = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    place = torch.arange(total)
    mask = (sample[:, None] == sample) & (place[:, None] >= place)
    if window is not None:
        mask &= place[:, None] - place < window
    repeated = [x.repeat_interleave(heads[0] // heads[1], 1) for x in (key, value)]
    scale = 0.3 if scaled else None
    wanted = scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=scale).transpose(1, 2)
    got, none = attend(nn.Identity(), query, key, value, None, scaling=scale, sliding_window=window, cu_seq_lens_q=ends)
    assert none is None
    torch.testing.assert_close(got, wanted)


def test_a_window_shorter_than_a_sample_is_kept() -> None:
    model, rows = windowed(3), texts([12, 7])
    together = model(**packed(rows), use_cache=False).logits[0]
    one = model(input_ids=rows[0][None], use_cache=False).logits[0]
    model.set_attn_implementation("eager")
    alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one, alone[:12], rtol=1e-4, atol=1e-5)


def test_a_padded_batch_and_a_cache_are_as_with_sdpa() -> None:
    model = text_model("qwen2")
    ids = torch.stack(texts([9, 9]))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    ours = model(input_ids=ids, attention_mask=mask).logits
    said = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(ours, model(input_ids=ids, attention_mask=mask).logits)
    assert torch.equal(said, model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False))


def windowed(window: int) -> nn.Module:
    model = text_model("qwen2", sliding_window=window, use_sliding_window=True)
    model.config.layer_types = ["sliding_attention"] * 2
    for layer in model.model.layers:
        layer.self_attn.sliding_window = window
    model.model.has_sliding_layers = True
    return model


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("window", [None, 3])
def test_positions_that_begin_anew_are_as_with_eager(batch: int, window: int | None) -> None:
    model = text_model("qwen2") if window is None else windowed(window)
    ids = torch.stack(texts([16] * batch))
    lengths = [[5, 9, 2], [16]][:batch]
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths])
    ours = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    model.set_attn_implementation("eager")
    theirs = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [3, 30])
def test_generating_with_a_window_is_as_with_eager(window: int) -> None:
    model, row = windowed(window), texts([9])[0][None]
    ours, theirs = [], []
    for found, kind in ((ours, NAME), (theirs, "eager")):
        model.set_attn_implementation(kind)
        past = model(input_ids=row[:, :6], use_cache=True).past_key_values
        for place in range(6, 9):
            output = model(input_ids=row[:, place : place + 1], past_key_values=past, use_cache=True)
            found.append(output.logits)
    torch.testing.assert_close(torch.cat(ours), torch.cat(theirs), rtol=1e-4, atol=1e-5)


def test_the_tower_keeps_its_own_attention_and_a_llava_attends_within_samples() -> None:
    model = llava().eval()
    rows = [example(1), example(2, images=0), example(3)]
    with packed_attention(model):
        assert model.config.text_config._attn_implementation == NAME
        assert model.config.vision_config._attn_implementation == "sdpa"
        row = pack(rows)
        taken = {name: row[name] for name in (*KEYS, "pixel_values", "image_sizes")}
        together = model(**taken, use_cache=False).logits[0]
    assert model.config.text_config._attn_implementation == "sdpa"
    alone = [model(**_one(one)).logits[0] for one in rows]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def _one(row: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"input_ids": row["input_ids"][None]} | {k: row[k] for k in ("pixel_values", "image_sizes") if k in row}


def test_what_cannot_be_packed_is_refused() -> None:
    x = torch.ones(1, 2, 4, 8)
    ends = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(RiceError, match="without an attention mask"):
        attend(nn.Identity(), x, x, x, torch.ones(1, 1, 4, 4), cu_seq_lens_q=ends)
    with pytest.raises(RiceError, match="one row"):
        attend(nn.Identity(), *[x.expand(2, -1, -1, -1)] * 3, None, cu_seq_lens_q=ends)
    with pytest.raises(RiceError, match="softcapped"):
        attend(nn.Identity(), x, x, x, None, cu_seq_lens_q=ends, softcap=30.0)
    with pytest.raises(RiceError, match="sinks"):
        attend(nn.Identity(), x, x, x, None, cu_seq_lens_q=ends, s_aux=torch.zeros(2))


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 5])
def test_the_variable_length_call_equals_sample_by_sample(window: int | None) -> None:
    lengths = [5, 130, 1, 64]
    query, key, value = (
        torch.randn(1, sum(lengths), heads, 64, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        for heads in (8, 2, 2)
    )
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device="cuda")
    options = {"sliding_window": window, "cu_seq_lens_q": ends, "max_length_q": max(lengths)}
    fast, _ = attend(nn.Identity(), query, key, value, None, **options)
    exact, _ = attend(nn.Identity(), query.float(), key.float(), value.float(), None, **options)
    torch.testing.assert_close(fast.float(), exact, rtol=2e-2, atol=2e-2)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.integers(1, 7), max_size=3)).filter(lambda one: sum(one[1]) < 20),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["qwen2", "llama"]),
)
def test_branches_are_as_samples_with_the_beginning_of_their_own(
    shapes: list[tuple[int, list[int]]], kind: str
) -> None:
    model, rows = text_model(kind), []
    expected = []
    for seed, (beginning, branches) in enumerate(shapes):
        (ids,) = texts([beginning + sum(branches)], seed)
        rows.append({"input_ids": ids, "labels": ids, "branches": torch.tensor(branches, dtype=torch.long)})
        shared, *parts = ids.split([beginning, *branches])
        alone = [model(input_ids=torch.cat([shared, part])[None]).logits[0] for part in parts or [shared[:0]]]
        expected += [alone[0][:beginning], *(one[beginning:] for one in alone)]
    found = pack(rows)
    inputs = {name: found[name] for name in (*KEYS, "key_index")}
    torch.testing.assert_close(model(**inputs, use_cache=False).logits[0], torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_gradients_of_a_beginning_are_the_sum_over_its_branches() -> None:
    model = text_model("qwen2").double()
    (ids,) = texts([12])
    shared, one, other = ids.split([5, 4, 3])
    row = pack([{"input_ids": ids, "labels": ids, "branches": torch.tensor([4, 3])}])
    inputs = {name: row[name] for name in (*KEYS, "key_index")}
    model(**inputs, use_cache=False).logits[0, 5:].pow(2).sum().backward()
    found = [value.grad.clone() for value in model.parameters() if value.grad is not None]
    model.zero_grad()
    for part in (one, other):
        model(input_ids=torch.cat([shared, part])[None]).logits[0, 5:].pow(2).sum().backward()
    for ours, theirs in zip(found, (v.grad for v in model.parameters() if v.grad is not None), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)  # transformers norms in fp32 inside


def test_branches_longer_than_their_sample_are_refused() -> None:
    (ids,) = texts([5])
    for branches in ([5], [2, 3], [0, 2]):
        with pytest.raises(RiceError, match="branches"):
            pack([{"input_ids": ids, "labels": ids, "branches": torch.tensor(branches)}])
