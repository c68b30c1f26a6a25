"""ReasonSeg's polygons are painted pixel by pixel as LISA paints them, and its files read as they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lisa_tree import HEIGHT, WIDTH, save_picture, write_json
from PIL import Image
from pycocotools import mask as rle

from mllm.lisa.pictures import Picture
from mllm.lisa.pictures_writer import Refusals, UnusableError
from mllm.lisa.reason import paint, read_reason
from rice.errors import RiceError
from rice.progress import SilentProgress

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

cv2 = pytest.importorskip("cv2")

POINTS = st.lists(st.tuples(st.floats(-5, WIDTH + 5), st.floats(-5, HEIGHT + 5)), min_size=1, max_size=8)
SHAPES = st.lists(
    st.fixed_dictionaries(
        {"label": st.sampled_from(["target", "ignore", "Ignore 2", "flag", "FLAG"]), "points": POINTS}
    ),
    max_size=5,
)


ONE = {"count": 1, "first": ["a.json"]}


def rectangle(x0: int, y0: int, x1: int, y1: int, label: str = "target") -> dict[str, Any]:
    return {"label": label, "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}


def read(root: Path, explanations: Path | None = None) -> tuple[list[Picture], dict[str, Any]]:
    refusals = Refusals()
    found = read_reason(
        root, source="r", images="train", explanations=explanations, refusals=refusals, progress=SilentProgress()
    )
    return list(found), refusals.as_json()


def save(root: Path, name: str, shapes: list[Any], text: Any = ("why?",), sentence: Any = True) -> None:
    save_picture(root / "train" / f"{name}.jpg")
    write_json(root / "train" / f"{name}.json", {"shapes": shapes, "text": text, "is_sentence": sentence})


def brute_force(shapes: list[Any]) -> Any:
    """By areas of single drawings, straight onto one canvas; the order is NumPy's, turned around, as LISA has
    it, but of equal areas, where its plain order depends on the machine."""

    def draw(canvas_HW: Any, shape: Any, value: int) -> Any:
        points = np.array([shape["points"]], dtype=np.int32)
        cv2.polylines(canvas_HW, points, True, value, 1)
        cv2.fillPoly(canvas_HW, points, value)
        return canvas_HW

    kept = [shape for shape in shapes if shape["label"].lower() != "flag"]
    empty = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    areas = [int(draw(empty.copy(), shape, 1).sum()) for shape in kept]
    order = np.argsort(areas, kind="stable")[::-1].astype(int)
    for shape in (kept[k] for k in order):
        draw(empty, shape, 255 if "ignore" in shape["label"].lower() else 1)
    return empty


@given(shapes=SHAPES)
@settings(max_examples=200)
def test_shapes_are_painted_as_opencv_draws_them_smaller_ones_on_top(shapes: list[Any]) -> None:
    np.testing.assert_array_equal(paint(shapes, HEIGHT, WIDTH), brute_force(shapes))


def test_a_rectangle_has_both_its_edges_and_ignored_parts_lie_where_they_are_smaller() -> None:
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[2:13, 3:21] = 1
    expected[5:9, 6:11] = 255
    shapes = [rectangle(6, 5, 10, 8, "ignore"), rectangle(3, 2, 20, 12), rectangle(0, 0, 29, 19, "flag")]
    np.testing.assert_array_equal(paint(shapes, HEIGHT, WIDTH), expected)


@pytest.mark.parametrize(
    "shape",
    [
        "text",
        {"points": [[1, 2]]},
        {"label": "target"},
        {"label": "target", "points": []},
        {"label": "target", "points": [[1, 2, 3]]},
        {"label": "target", "points": [[1, "x"]]},
        {"label": "target", "points": [[1, float("nan")]]},
        {"label": "target", "points": [[1, 1e12]]},
        {"label": "target", "points": [[1, 10**400]]},
        {"label": "target", "points": [[1, 2], [3]]},
        {"label": 7, "points": [[1, 2]]},
    ],
)
def test_a_damaged_shape_cannot_be_used(shape: Any) -> None:
    with pytest.raises(UnusableError, match="a shape"):
        paint([shape], HEIGHT, WIDTH)


def test_a_file_is_one_target_with_all_its_texts(tmp_path: Path) -> None:
    save(tmp_path, "b_2", [rectangle(3, 2, 20, 12), rectangle(6, 5, 10, 8, "ignore")], ["What is it?", " And  this? "])
    save(tmp_path, "a_1", [rectangle(3, 2, 20, 12)], ["the thing that flies"], sentence=False)
    said = [{"image": "b_2.jpg", "query": "What is it?", "outputs": "It is\n a kite."}]
    pictures, refused = read(tmp_path, write_json(tmp_path / "explained.json", said))
    assert refused == {}
    assert [p.id for p in pictures] == ["a_1", "b_2"]
    first, second = (p.targets[0] for p in pictures)
    assert (first.texts, first.sentence, first.ignore, first.explanation) == (
        ("the thing that flies",),
        False,
        None,
        None,
    )
    assert (second.texts, second.sentence, second.explanation) == (
        ("What is it?", "And this?"),
        True,
        "It is a kite.",
    )
    painted = paint([rectangle(3, 2, 20, 12), rectangle(6, 5, 10, 8, "ignore")], HEIGHT, WIDTH)
    for code, value in ((second.masks[0], 1), (second.ignore, 255)):
        assert code is not None
        mask = rle.decode({"size": [HEIGHT, WIDTH], "counts": code.encode()})
        np.testing.assert_array_equal(mask, painted == value)


def test_a_file_in_windows_code_page_is_read(tmp_path: Path) -> None:
    save(tmp_path, "a", [rectangle(3, 2, 20, 12)])
    document = {"shapes": [rectangle(3, 2, 20, 12)], "text": ["the café costs 5 €"], "is_sentence": False}
    (tmp_path / "train/a.json").write_bytes(json.dumps(document, ensure_ascii=False).encode("cp1252"))
    (picture,) = read(tmp_path)[0]
    assert picture.targets[0].texts == ("the café costs 5 €",)


def test_polygons_lie_on_the_upright_picture(tmp_path: Path) -> None:
    save(tmp_path, "a", [rectangle(3, 2, 15, 25)])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "train/a.jpg", exif=exif)
    (picture,) = read(tmp_path)[0]
    assert (picture.height, picture.width) == (WIDTH, HEIGHT)
    exif[0x0112] = 3
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "train/a.jpg", exif=exif)
    assert read(tmp_path) == ([], {"EXIF turns its picture in a way that does not show in its size": ONE})


def test_files_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    good = [rectangle(3, 2, 20, 12)]
    save(tmp_path, "good", good)
    save(tmp_path, "no_text", good, [])
    save(tmp_path, "empty_text", good, ["fine", " "])
    save(tmp_path, "nothing", [rectangle(3, 2, 20, 12, "ignore")])
    save(tmp_path, "odd", good, sentence="yes")
    save(tmp_path, "line", ["shape"])
    for name in ("cut", "alone", "torn", "extra"):
        save(tmp_path, name, good)
    (tmp_path / "train/cut.json").write_text('{"shapes": [')
    (tmp_path / "train/alone.jpg").unlink()
    (tmp_path / "train/torn.jpg").write_bytes(b"nothing")
    (tmp_path / "train/extra.json").unlink()
    pictures, refused = read(tmp_path)
    assert [p.id for p in pictures] == ["good"]
    assert {reason: found["first"] for reason, found in refused.items()} == {
        "missing picture file": ["alone.json"],
        "unreadable JSON file": ["cut.json"],
        "empty text": ["empty_text.json", "no_text.json"],
        "a shape without a label": ["line.json"],
        "its mask has no pixel": ["nothing.json"],
        "JSON file of another layout": ["odd.json"],
        "unreadable picture": ["torn.json"],
        "picture without a JSON file": ["extra.jpg"],
    }


@pytest.mark.parametrize("said", [{}, ["x"], [{"image": 1, "outputs": "x"}], [{"image": "a.jpg", "outputs": " "}]])
def test_other_explanations_are_refused(said: Any, tmp_path: Path) -> None:
    save(tmp_path, "a", [rectangle(3, 2, 20, 12)])
    with pytest.raises(RiceError, match="explained.json"):
        read(tmp_path, write_json(tmp_path / "explained.json", said))
