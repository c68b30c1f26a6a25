"""What is read from disk again: exact percentiles, records that survive a kill, the foreground's rule."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.filters import threshold_otsu

from probes.visual.pca.components import StreamingPca
from probes.visual.pca.foreground import border, find_foreground, otsu
from probes.visual.pca.percentile import percentiles
from probes.visual.pca.records import ArrayRecords, TokenRecords
from rice.errors import RiceError

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 200), st.just(2)), elements=FLOATS), st.data())
def test_percentiles_are_numpys_lower_ones_whatever_the_chunks(values: np.ndarray, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    quantiles = [0.0, 0.01, 0.5, 0.99, 1.0]
    found = percentiles(lambda: np.split(values, cuts), quantiles)
    ranks = [int(np.floor(q * (len(values) - 1))) for q in quantiles]
    np.testing.assert_array_equal(found, np.sort(values, axis=0)[ranks].astype(np.float64))


def test_percentiles_of_many_values_are_numpys() -> None:
    values = np.random.default_rng(0).normal(3, 100, (20_001, 3)).astype(np.float32)
    expected = np.percentile(values, [1, 99], axis=0, method="lower")
    np.testing.assert_array_equal(percentiles(lambda: np.split(values, 7 * [0]), [0.01, 0.99]), expected)


def test_percentiles_of_nothing_are_refused() -> None:
    with pytest.raises(RiceError, match="no value"):
        percentiles(lambda: [], [0.5])


@pytest.mark.parametrize("offset", [0.0, 1e3, -3e4])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e6])
def test_stored_tokens_keep_fp16s_digits_of_the_spread(tmp_path: Path, offset: float, spread: float) -> None:
    tokens_TD = (np.random.default_rng(0).standard_normal((50, 8)) * spread + offset).astype(np.float32)
    with TokenRecords(tmp_path / "tokens", tokens_TD.shape) as records:
        records.append(tokens_TD)
        rounding = 2 * np.spacing(np.float32(abs(offset)))  # of fp32 itself
        np.testing.assert_allclose(records.read(0), tokens_TD, atol=4 * spread * 2**-11 + rounding)


def test_stored_tokens_must_be_numbers(tmp_path: Path) -> None:
    with TokenRecords(tmp_path / "tokens", (2, 2)) as records, pytest.raises(RiceError, match="NaN"):
        records.append(np.array([[1, 2], [np.nan, 4]], np.float32))


@pytest.mark.parametrize("kind", [ArrayRecords, TokenRecords])
@pytest.mark.parametrize("torn", [1, 11])
def test_a_half_written_record_is_dropped(tmp_path: Path, kind: type[ArrayRecords], torn: int) -> None:
    frames = np.random.default_rng(0).integers(-9, 9, (3, 4, 2)).astype(np.float32)
    path = tmp_path / "records"
    with kind(path, (4, 2)) as records:
        for frame in frames:
            records.append(frame)
    path.write_bytes(path.read_bytes()[:-torn])
    with kind(path, (4, 2)) as records:
        assert records.count == 2
        records.append(frames[2])
        for index, frame in enumerate(frames):
            np.testing.assert_allclose(records.read(index), frame, atol=1e-2)


@given(st.lists(st.integers(0, 100), min_size=8, max_size=8).filter(lambda counts: sum(c > 0 for c in counts) > 1))
def test_the_threshold_is_otsus(counts: list[int]) -> None:
    histogram = np.array(counts)
    centres = (np.arange(8) + 0.5) / 8
    expected = threshold_otsu(hist=(histogram, centres)) + 0.5 / 8  # scikit-image names the bin, we its upper edge
    assert variance_between(histogram, otsu(histogram)) == pytest.approx(variance_between(histogram, expected))


def variance_between(histogram: np.ndarray, split: float) -> float:
    centres = (np.arange(len(histogram)) + 0.5) / len(histogram)
    sides = [histogram * (centres <= split), histogram * (centres > split)]
    means = [(side * centres).sum() / max(side.sum(), 1) for side in sides]
    return float(np.prod([side.sum() / histogram.sum() for side in sides]) * (means[0] - means[1]) ** 2)


def test_the_border_is_the_outermost_ring() -> None:
    assert border((4, 5)).reshape(4, 5).sum() == 14
    assert not border((4, 5)).reshape(4, 5)[1:3, 1:4].any()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("inside", [2, 5])
def test_the_foreground_is_what_seldom_touches_the_border(tmp_path: Path, sign: int, inside: int) -> None:
    grid, generator = (8, 8), np.random.default_rng(0)
    is_object = np.zeros(grid, bool)
    is_object[1 : 1 + inside, 1 : 1 + inside + 1] = True
    values = sign * np.where(is_object, 1.0, -1.0).reshape(1, -1, 1) + generator.normal(0, 0.1, (3, 64, 1))
    frames = values.astype(np.float32)
    pca = StreamingPca(1)
    pca.update(frames.reshape(-1, 1))
    with ArrayRecords(tmp_path / "first", (64, 1)) as records:
        for frame in frames:
            records.append(frame)
        rule = find_foreground(pca.finish(1), records, grid)
        np.testing.assert_array_equal(rule.mask(records.read(1)), is_object.ravel())
    assert rule.share == pytest.approx(is_object.mean())
