"""Draws come from PCG64's raw stream by integer arithmetic, and no two streams are alike."""

import math

import numpy as np
import pytest

from rice.data.world.draws import TURN, VERSION, Dice, Part, cos_sin


def test_integers_and_reals_are_the_raw_stream_scaled() -> None:
    raw = [int(x) for x in np.random.PCG64(np.random.SeedSequence((VERSION, 1, 2, 3))).random_raw(256)]
    dice = Dice(1, 2, 3)
    assert [dice.integer(-3, 9) for _ in range(100)] == [-3 + (13 * value >> 64) for value in raw[:-101:-1]]
    assert [dice.real(2, 6) for _ in range(50)] == [2 + 4 * ((value >> 11) / 2**53) for value in raw[-101:-151:-1]]


@pytest.mark.parametrize("count", [2, 7, 24])
def test_choices_are_uniform(count: int) -> None:
    dice = Dice(5, count)
    tally = np.bincount([dice.integer(0, count - 1) for _ in range(20_000)], minlength=count)
    expected = 20_000 / count
    assert tally.min() > expected - 5 * math.sqrt(expected)
    assert tally.max() < expected + 5 * math.sqrt(expected)


def test_bytes_fill_any_shape_uniformly() -> None:
    values = Dice(9).bytes(3, 101, 33)
    assert (values.shape, values.dtype) == ((3, 101, 33), np.uint8)
    assert abs(values.mean() - 127.5) < 3
    assert len(np.unique(values)) == 256


def test_streams_with_other_keys_differ() -> None:
    keys = [(kind, part, seed, index) for kind in range(3) for part in Part for seed in (0, 1) for index in range(5)]
    firsts = {tuple(Dice(*key).integer(0, 2**60) for _ in range(2)) for key in keys}
    longer = {tuple(Dice(*key, 1).integer(0, 2**60) for _ in range(2)) for key in keys}
    assert len(firsts | longer) == 2 * len(keys)


def test_angles_are_rounded_cosines_and_sines() -> None:
    for turn in (-1, 0, 1, 7, TURN // 4, TURN // 3, TURN - 1, TURN + 5):
        angle = 2 * math.pi * turn / TURN
        np.testing.assert_allclose(cos_sin(turn), (math.cos(angle), math.sin(angle)), atol=2**-30)
        assert all((value * 2**30).is_integer() for value in cos_sin(turn))
