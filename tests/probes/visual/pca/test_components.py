"""The streaming fit equals float64 references whatever the chunks, and its signs depend on the covariance alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from probes.visual.pca import components as module
from probes.visual.pca.components import Components, StreamingPca
from probes.visual.pca.foreground import Foreground
from probes.visual.pca.palette import Palette, load_palette, save_palette
from rice.errors import RiceError

WIDTH = 24


def tokens(count: int = 600, seed: int = 0, mean: float = 3.0) -> np.ndarray:
    """(N, D) fp32 with a decaying spectrum, turned, on an offset."""
    generator = np.random.default_rng(seed)
    turned = np.linalg.qr(generator.standard_normal((WIDTH, WIDTH)))[0] * np.geomspace(5, 0.1, WIDTH)[:, None]
    return (generator.standard_normal((count, WIDTH)) @ turned + mean).astype(np.float32)


def streamed(tokens_ND: np.ndarray, cuts: list[int] | None = None) -> StreamingPca:
    pca = StreamingPca(tokens_ND.shape[1])
    for chunk in np.split(tokens_ND, sorted(cuts or [])):
        pca.update(chunk)
    return pca


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 64)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 600), max_size=20), st.integers(0, 5))
def test_any_chunks_give_scikit_learns_components(cuts: list[int], seed: int) -> None:
    tokens_ND = tokens(seed=seed)
    ours, theirs = streamed(tokens_ND, cuts).finish(3), PCA(3, svd_solver="full").fit(tokens_ND.astype(np.float64))
    assert np.abs((ours.axes * theirs.components_).sum(axis=1)).min() >= 0.9999
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-6)
    np.testing.assert_allclose(ours.variance, theirs.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_, rtol=1e-5)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 600), max_size=20))
def test_merged_chunks_give_the_float64_covariance(cuts: list[int]) -> None:
    tokens_ND = tokens()
    expected = np.cov(tokens_ND.astype(np.float64).T)
    np.testing.assert_allclose(streamed(tokens_ND, cuts).covariance(), expected, atol=1e-6 * np.trace(expected))


@pytest.mark.parametrize("mean", [1e3, -1e4])
def test_a_mean_of_thousands_of_deviations_costs_no_digits(mean: float) -> None:
    tokens_ND = (np.random.default_rng(0).standard_normal((5000, WIDTH)) + mean).astype(np.float32)
    expected = np.cov(tokens_ND.astype(np.float64).T)
    np.testing.assert_allclose(streamed(tokens_ND, list(range(0, 5000, 37))).covariance(), expected, atol=1e-5)


def test_a_mean_that_wanders_costs_no_digits() -> None:
    offsets = np.linspace(-500, 500, 3000)[:, None]
    tokens_ND = (np.random.default_rng(0).standard_normal((3000, WIDTH)) + offsets).astype(np.float32)
    expected = np.cov(tokens_ND.astype(np.float64).T)
    np.testing.assert_allclose(streamed(tokens_ND, list(range(0, 3000, 50))).covariance(), expected, rtol=1e-6)


def test_signs_do_not_depend_on_the_order_or_the_sign_of_the_tokens() -> None:
    tokens_ND = tokens()
    reference = streamed(tokens_ND).finish(3)
    shuffled = streamed(np.random.default_rng(1).permutation(tokens_ND), [100, 101, 350]).finish(3)
    negated = streamed(-tokens_ND).finish(3)
    for other in (shuffled, negated):
        assert (reference.axes * other.axes).sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in reference.axes)


def test_projections_are_the_centred_products() -> None:
    tokens_ND = tokens()
    fitted = streamed(tokens_ND).finish(3)
    wide = tokens_ND.astype(np.float64)
    expected = (wide - wide.mean(axis=0)) @ fitted.axes.T
    np.testing.assert_allclose(fitted.project(tokens_ND), expected, atol=1e-4)


def test_a_restored_fit_goes_on_where_it_was() -> None:
    tokens_ND = tokens()
    first, second = streamed(tokens_ND[:211]), StreamingPca(WIDTH)
    second.restore(first.state())
    second.update(tokens_ND[211:])
    np.testing.assert_allclose(second.covariance(), streamed(tokens_ND).covariance(), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_tokens_that_are_no_numbers_are_refused(bad: float) -> None:
    tokens_ND = tokens()
    tokens_ND[17, 3] = bad
    with pytest.raises(RiceError, match="NaN or infinity"):
        streamed(tokens_ND).finish(3)


@pytest.mark.parametrize("shape", [(5, WIDTH + 1), (WIDTH,), (2, 3, WIDTH)])
def test_tokens_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RiceError, match=rf"\(N, {WIDTH}\)"):
        StreamingPca(WIDTH).update(np.zeros(shape, np.float32))


@pytest.mark.parametrize(("count", "k"), [(0, 1), (1, 1), (3, 3), (100, WIDTH + 1), (100, 0)])
def test_too_few_tokens_or_dimensions_are_refused(count: int, k: int) -> None:
    with pytest.raises(RiceError, match=f"{count}.* give a larger size or more frames"):
        streamed(tokens(count)).finish(k)


def test_equal_tokens_explain_nothing_and_look_grey() -> None:
    same = np.full((50, WIDTH), 7.5, np.float32)
    fitted = streamed(same).finish(3).scaled([0, 0, 0], [0, 0, 0])
    assert fitted.explained.tolist() == [0, 0, 0]
    assert (fitted.colours(fitted.project(same)) == 128).all()


def test_colours_run_from_low_to_high_and_clip() -> None:
    fitted = streamed(tokens()).finish(1).scaled([-2.0], [2.0])
    values = np.array([[-9], [-2], [0], [1], [2], [9]], np.float32)
    assert fitted.colours(values)[:, 0].tolist() == [0, 0, 128, 191, 255, 255]


@pytest.mark.parametrize("with_foreground", [False, True])
def test_a_palette_is_read_as_it_was_written(tmp_path: Path, with_foreground: bool) -> None:
    fitted = streamed(tokens()).finish(3).scaled([-1, -2, -3], [1, 2, 3])
    rule = Foreground(first=streamed(tokens()).finish(1), threshold=0.25, above=False, share=0.4)
    palette = Palette(components=fitted, foreground=rule if with_foreground else None)
    save_palette(tmp_path / "c.safetensors", palette, {"encoder": "e", "fingerprint": "f"})
    read, facts = load_palette(tmp_path / "c.safetensors")
    assert facts == {"encoder": "e", "fingerprint": "f"}
    assert read.digest() == palette.digest()
    assert_equal(read.components, fitted)
    assert (read.foreground is None) != with_foreground
    if read.foreground is not None:
        assert_equal(read.foreground.first, rule.first)
        assert (read.foreground.threshold, read.foreground.above, read.foreground.share) == (0.25, False, 0.4)


def assert_equal(one: Components, other: Components) -> None:
    for name in ("mean", "axes", "variance", "low", "high", "total_variance", "count"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("content", [b"", b"nothing", (8).to_bytes(8, "little") + b"{}      "])
def test_a_file_without_components_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.safetensors").write_bytes(content)
    with pytest.raises(RiceError, match=r"not a components\.safetensors"):
        load_palette(tmp_path / "c.safetensors")


def test_a_missing_file_of_components_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match=r"not a components\.safetensors"):
        load_palette(tmp_path / "c.safetensors")
