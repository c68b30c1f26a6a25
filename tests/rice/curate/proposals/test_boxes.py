"""SA-1B's annotations as proposals."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as rle

from rice.curate.proposals.boxes import sa1b_proposals
from rice.errors import RiceError

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def _document(*annotations: Any) -> dict[str, Any]:
    return {"image": {"image_id": 1, "width": 4, "height": 3, "file_name": "a.jpg"}, "annotations": [*annotations]}


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths down the columns, background first, counted one by one."""
    runs, value = [0], False
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            runs, value = [*runs, 0], not value
        runs[-1] += 1
    return runs


@given(mask=MASKS, as_text=st.booleans())
def test_a_mask_becomes_the_box_of_its_pixels(mask: NDArray[np.bool_], as_text: bool) -> None:
    code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = code["counts"].decode() if as_text else _runs(mask)
    segmentation = {"size": list(mask.shape), "counts": counts}
    found = sa1b_proposals(_document({"segmentation": segmentation, "predicted_iou": 0.9}), *mask.shape[::-1])
    x, y, width, height = rle.toBbox(code)
    np.testing.assert_array_equal(found.boxes, [[x, y, x + width, y + height]])
    np.testing.assert_array_equal(found.scores, np.float32([0.9]))


def test_a_region_without_a_mask_has_its_bbox_and_one_without_an_estimate_the_score_1() -> None:
    found = sa1b_proposals(_document({"bbox": [1, 0.5, 2, 1]}, {"bbox": [0, 0, 4, 3], "predicted_iou": 0.25}), 4, 3)
    np.testing.assert_array_equal(found.boxes, [[1, 0.5, 3, 1.5], [0, 0, 4, 3]])
    np.testing.assert_array_equal(found.scores, np.float32([1, 0.25]))


def test_the_masks_box_goes_before_the_bbox_which_sa1b_ends_at_the_last_pixel() -> None:
    found = sa1b_proposals(
        _document({"segmentation": {"size": [3, 4], "counts": [3, 3, 6]}, "bbox": [1, 0, 0, 2]}), 4, 3
    )
    np.testing.assert_array_equal(found.boxes, [[1, 0, 2, 3]])


def test_no_annotation_is_no_region() -> None:
    found = sa1b_proposals(_document(), 4, 3)
    assert (found.boxes.shape, found.scores.shape) == ((0, 4), (0,))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "annotations"),
        ({}, "annotations"),
        ({"annotations": {}}, "annotations"),
        (_document(3), "annotation 0: expected an object"),
        (_document({}), "expected a bbox"),
        (_document({"bbox": [1, 2, 3]}), "expected a bbox"),
        (_document({"bbox": [1, 2, 3, "4"]}), "expected a bbox"),
        (_document({"bbox": [1, 2, 3, True]}), "expected a bbox"),
        (_document({"bbox": [1, 2, 3, 10**400]}), "expected a bbox"),
        (_document({"bbox": [0, 0, 1, 1]}, {"bbox": [0, 0, 1, 1], "predicted_iou": None}), "annotation 1.*number"),
        (_document({"segmentation": {"size": [4, 3], "counts": [12]}}), r"annotation 0.*\[3, 4\], got \[4, 3\]"),
        (_document({"segmentation": {"size": [3, 4], "counts": [11]}}), "add up to 12"),
        (_document({"segmentation": {"size": [3, 4], "counts": "~~~"}}), "text form"),
        (_document({"segmentation": "mask"}), "polygons or run lengths"),
        (_document({"segmentation": {"size": None, "counts": [12]}}), "list of integers"),
    ],
)
def test_what_is_not_sa1b_is_refused_in_one_line(document: object, says: str) -> None:
    with pytest.raises(RiceError, match=says) as raised:
        sa1b_proposals(document, 4, 3)
    assert "\n" not in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["segmentation", "bbox", "predicted_iou", "size", "counts"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(annotation=JSON)
def test_any_json_gives_a_region_or_is_refused(annotation: object) -> None:
    with contextlib.suppress(RiceError):
        assert sa1b_proposals({"annotations": [annotation]}, 4, 3).boxes.shape == (1, 4)
