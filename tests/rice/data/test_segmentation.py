"""Masks agree with pycocotools on everything valid, and damaged codes never reach its C code."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as rle

from rice.data.segmentation import decode_segmentation, encode_mask, encode_segmentation

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

masks = npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(masks)
def test_run_lengths_in_text_round_trip_through_pycocotools(mask_HW: np.ndarray) -> None:
    code = rle.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    for counts in (code["counts"], code["counts"].decode()):
        decoded_HW = decode_segmentation({"size": list(mask_HW.shape), "counts": counts}, *mask_HW.shape)
        np.testing.assert_array_equal(decoded_HW, mask_HW)


@given(masks)
def test_run_lengths_as_numbers_round_trip(mask_HW: np.ndarray) -> None:
    column_major = mask_HW.T.ravel()
    edges = np.flatnonzero(np.diff(column_major)) + 1
    runs = np.diff([0, *edges, column_major.size]).tolist()
    counts = [0, *runs] if column_major[0] else runs
    decoded_HW = decode_segmentation({"size": list(mask_HW.shape), "counts": counts}, *mask_HW.shape)
    np.testing.assert_array_equal(decoded_HW, mask_HW)


@given(
    st.lists(
        st.lists(st.floats(-3, 33, allow_nan=False), min_size=6, max_size=14).filter(lambda p: len(p) % 2 == 0),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_are_filled_as_pycocotools_fills_them(polygons: list[list[float]]) -> None:
    expected_HW = rle.decode(rle.merge(rle.frPyObjects(polygons, 30, 20)))
    np.testing.assert_array_equal(decode_segmentation(polygons, 30, 20), expected_HW.astype(bool))


@given(st.lists(masks, min_size=1, max_size=3), st.sampled_from(["text", "numbers", "list"]))
def test_what_is_encoded_is_what_is_decoded(drawn: list[np.ndarray], form: str) -> None:
    height, width = drawn[0].shape
    found = [mask_HW for mask_HW in drawn if mask_HW.shape == (height, width)]
    codes = [encode_mask(mask_HW) for mask_HW in found]
    numbers = {"size": [height, width], "counts": [0, *[1] * height * width]}
    stripes_HW = decode_segmentation(numbers, height, width)
    segmentation, expected_HW = {
        "text": (codes[0], found[0]),
        "numbers": (numbers, stripes_HW),
        "list": ([*codes, numbers], np.logical_or.reduce([*found, stripes_HW])),
    }[form]
    counts = encode_segmentation(segmentation, height, width)
    np.testing.assert_array_equal(rle.decode({"size": [height, width], "counts": counts.encode()}), expected_HW)


@given(
    st.lists(
        st.lists(st.floats(-3, 33, allow_nan=False), min_size=4, max_size=14).filter(lambda p: len(p) % 2 == 0),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_are_encoded_as_they_are_filled(polygons: list[list[float]]) -> None:
    counts = encode_segmentation(polygons, 30, 20)
    mask_HW = rle.decode({"size": [30, 20], "counts": counts.encode()})
    np.testing.assert_array_equal(mask_HW, decode_segmentation(polygons, 30, 20))


def test_polygons_of_fewer_than_three_points_add_nothing() -> None:
    triangle = [2.0, 2.0, 12.0, 2.0, 2.0, 12.0]
    np.testing.assert_array_equal(
        decode_segmentation([[0, 0, 19, 19], triangle], 20, 20), decode_segmentation([triangle], 20, 20)
    )
    assert not decode_segmentation([[0, 0, 19, 19]], 20, 20).any()


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        [],
        "text",
        [[1, 2, 3, 4, 5, 6, 7]],
        [["a", "b"] * 3],
        [[[0, 0], [1, 1], [2, 0]]],
        [[0, 0, 1e9, 0, 1e9, 1e9]],
        [[0, 0, float("nan"), 0, 5, 5]],
        [[0, 0, float("inf"), 0, 5, 5]],
        [5, 6],
        {},
        {"size": [6, 7]},
        {"size": [7, 6], "counts": [42]},
        {"size": "67", "counts": [42]},
        {"size": [6, 7], "counts": [10, 3]},
        {"size": [6, 7], "counts": [10, -3, 35]},
        {"size": [6, 7], "counts": [10, 3, 30]},
        {"size": [6, 7], "counts": [10.5, 31.5]},
        {"size": [6, 7], "counts": ["a"]},
        {"size": [6, 7], "counts": ""},
        {"size": [6, 7], "counts": ">3"},
        {"size": [6, 7], "counts": "=33000;a"},
        {"size": [6, 7], "counts": "P"},
        {"size": [6, 7], "counts": "o" * 50},
        {"size": [6, 7], "counts": "é"},
        {"size": [6, 7], "counts": "\0"},
    ],
)
def test_damaged_segmentations_are_refused(damaged: Any) -> None:
    for read in (decode_segmentation, encode_segmentation):
        with pytest.raises(ValueError, match="expected|run length|polygon"):
            read(damaged, 6, 7)
    if isinstance(damaged, dict):
        with pytest.raises(ValueError, match="expected|run length|polygon"):
            encode_segmentation([{"size": [6, 7], "counts": [42]}, damaged], 6, 7)


@given(st.text(alphabet=st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_any_text_is_a_mask_or_a_value_error(counts: str) -> None:
    try:
        mask_HW = decode_segmentation({"size": [6, 7], "counts": counts}, 6, 7)
    except ValueError:
        return
    assert mask_HW.shape == (6, 7)
