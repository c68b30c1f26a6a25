"""CTC against a sum over all paths, decoding against its definition, and a head that can spell."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.text.config import TextConfig
from probes.text.data import ALPHABET, steps_needed
from probes.text.model import Recogniser, ctc_loss, decode, encode, even_loss, parameters, spread
from probes.text.probe import TextProbe
from rice.encoders.base import Encoder
from rice.progress import SilentProgress

CLASSES = len(ALPHABET) + 1


def collapsed(path: tuple[int, ...]) -> str:
    """Graves et al. (2006), section 3.1: remove repeats, then blanks."""
    return "".join(ALPHABET[key - 1] for key, _ in itertools.groupby(path) if key)


@given(path=st.lists(st.integers(0, 3), max_size=9))
def test_decoding_removes_repeats_and_then_blanks(path: list[int]) -> None:
    assert decode(path) == collapsed(tuple(path))


@given(word=st.text(alphabet=ALPHABET, max_size=9))
def test_what_is_encoded_with_blanks_between_decodes_to_itself(word: str) -> None:
    assert decode(code for letter in encode(word) for code in (letter, letter, 0)) == word


@pytest.mark.parametrize("words", [["01", "0"], ["11", "2"], ["0", "1"]])
def test_the_loss_is_minus_the_log_of_all_paths_that_spell_the_word(words: list[str]) -> None:
    torch.manual_seed(0)
    steps, used = 4, 4
    logits = torch.full((2, steps, CLASSES), -40.0)
    logits[..., :used] = torch.randn(2, steps, used)
    p = logits.double().softmax(-1)
    expected = []
    for row, word in enumerate(words):
        total = sum(
            math.prod(p[row, step, code].item() for step, code in enumerate(path))
            for path in itertools.product(range(used), repeat=steps)
            if collapsed(path) == word
        )
        expected.append(-math.log(total) / len(word))
    assert ctc_loss(logits, words).item() == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_a_word_that_does_not_fit_has_no_loss_and_one_step_more_gives_one() -> None:
    for word in ("aab", "111"):
        needed = steps_needed(word)
        assert ctc_loss(torch.zeros(1, needed - 1, CLASSES), [word]).isinf()
        assert ctc_loss(torch.zeros(1, needed, CLASSES), [word]).isfinite()


@given(count=st.integers(1, 12), steps=st.integers(1, 40))
def test_letters_are_spread_as_evenly_as_steps_allow(count: int, steps: int) -> None:
    found = spread(range(count), steps)
    assert found == [int((Fraction(2 * step + 1, 2 * steps)) * count) for step in range(steps)]
    assert found == sorted(found)
    if steps >= count:
        assert set(found) == set(range(count))
        shares = [found.count(letter) for letter in range(count)]
        assert max(shares) - min(shares) <= 1


def test_evenly_spread_letters_have_no_loss_where_each_step_is_sure_of_its_own() -> None:
    logits = torch.full((1, 4, CLASSES), -50.0)
    logits[0, [0, 1, 2, 3], [1, 1, 2, 2]] = 50
    assert even_loss(logits, ["01"]).item() == pytest.approx(0, abs=1e-6)
    assert even_loss(logits, ["10"]).item() > 50
    assert even_loss(torch.zeros(1, 4, CLASSES), ["01"]).item() == pytest.approx(math.log(CLASSES))


@pytest.mark.parametrize("grid", [(4, 4), (16, 16), (27, 27), (3, 9)])
def test_any_grid_of_tokens_is_read_in_the_same_steps(grid: tuple[int, int]) -> None:
    config = TextConfig(steps=20, rows=5, channels=8, hidden=12)
    head = Recogniser(config, width=16, grid=grid)
    assert head(torch.randn(2, grid[0] * grid[1], 16).half()).shape == (2, 20, CLASSES)


def test_steps_go_from_left_to_right() -> None:
    """A token changes the steps of its own column and their neighbours, and no others."""
    config = TextConfig(steps=16, rows=4, channels=8, hidden=12)
    head = Recogniser(config, width=6, grid=(4, 8)).eval()
    tokens = torch.randn(1, 4, 8, 6)
    changed = tokens.clone()
    changed[:, 2, 5] += 3
    moved = (head(changed.flatten(1, 2)) - head(tokens.flatten(1, 2))).abs().amax(-1)[0] > 0
    assert moved[9:13].all()
    assert not moved[:8].any()
    assert not moved[14:].any()


def test_a_seed_decides_the_start_and_leaves_the_generator_alone() -> None:
    config = TextConfig(channels=8, hidden=12)
    before = torch.random.get_rng_state()
    first, again, other = (Recogniser(config, width=6, grid=(4, 4), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.project.weight, again.project.weight)
    assert not torch.equal(first.project.weight, other.project.weight)


@pytest.mark.parametrize(("width", "million"), [(128, 0.08), (1024, 0.13)])
def test_the_head_is_small(width: int, million: float) -> None:
    assert parameters(Recogniser(TextConfig(), width=width, grid=(16, 16))) < 1e6 * million


def test_eight_words_are_learnt_by_heart(
    make_words: Callable[..., Path], make_encoder: Callable[..., Encoder], tmp_path: Path
) -> None:
    config = TextConfig(epochs=120, batch=8, steps=16, rows=4, channels=24, hidden=48)
    probe = TextProbe(config, make_words())
    metrics = probe.run(make_encoder(), seed=0, workdir=tmp_path / "work", progress=SilentProgress())
    assert [metric.value for metric in metrics] == [1, 1]
