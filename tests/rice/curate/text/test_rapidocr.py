"""What the engine reads comes back in the picture's own pixels, whatever it did inside."""

import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rice.curate.text.config import TextConfig
from rice.curate.text.reader import Line, TextReader, build_reader
from rice.curate.text.select import select
from rice.data.world import Part, SceneConfig, draw_scene
from rice.errors import MissingExtraError, RiceError

WORDS = ["Harvest café", "Größe 42", "mañana", "Total: 19.90"]


def bounds(line: Line) -> tuple[float, ...]:
    return (*line.quad.min(axis=0), *line.quad.max(axis=0))


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared)


def same(one: list[Line], other: list[Line]) -> bool:
    return len(one) == len(other) and all(
        a.text == b.text and a.confidence == b.confidence and np.array_equal(a.quad, b.quad)
        for a, b in zip(one, other, strict=True)
    )


def test_the_words_of_a_page_are_read(reader: TextReader, page: Callable[..., Any]) -> None:
    picture, boxes = page(WORDS)
    (lines,) = reader([picture])
    assert [line.text for line in lines] == WORDS
    assert all(line.confidence > 0.7 for line in lines)
    assert all(overlap(bounds(line), box) > 0.5 for line, box in zip(lines, boxes, strict=True))


@pytest.fixture(scope="module")
def shrinking() -> TextReader:
    """It reads anything longer than 400 pixels smaller."""
    pytest.importorskip("rapidocr")
    return build_reader(TextConfig(read_longest=400, read_shortest=320), "cpu", threads=1)


@pytest.mark.parametrize("factor", [0.4, 2.0])
def test_quads_are_in_the_pixels_of_small_and_of_large_pictures(
    shrinking: TextReader, page: Callable[..., Any], factor: float
) -> None:
    """The small page is enlarged by the engine, the large one is shrunk to less than a third."""
    picture, boxes = page(WORDS, size=(round(640 * factor), round(480 * factor)), em=32 * factor)
    (lines,) = shrinking([picture])
    assert [line.text for line in lines] == WORDS
    assert all(overlap(bounds(line), box) > 0.4 for line, box in zip(lines, boxes, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (3, 100), (2100, 9)])
def test_a_blank_picture_of_any_shape_has_no_text(
    shrinking: TextReader, shape: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """Also of those on which the engine's own preparation fails, and nothing is printed."""
    picture = np.full((*shape, 3), 255, dtype=np.uint8)
    lines = shrinking([picture])[0]
    assert select(lines, shape[1], shape[0], TextConfig()).texts == []
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("RapidOCR").isEnabledFor(logging.WARNING)


def test_a_thin_picture_is_read_in_its_own_pixels(shrinking: TextReader, page: Callable[..., Any]) -> None:
    """A strip of 30 pixels, lengthened downwards for the engine."""
    picture, boxes = page(["summer"], size=(160, 30), em=18)
    (lines,) = shrinking([picture])
    assert [line.text for line in lines] == ["summer"]
    assert overlap(bounds(lines[0]), boxes[0]) > 0.4


def test_colours_reach_the_engine_as_it_takes_them_from_a_picture(reader: TextReader, page: Callable[..., Any]) -> None:
    """The engine itself turns a PIL picture to its own order of channels; the other order reads differently."""
    rapidocr = pytest.importorskip("rapidocr")
    given = {"Global.log_level": "critical", "Global.text_score": 0.0, "Det.limit_side_len": TextConfig().read_shortest}
    engine = rapidocr.RapidOCR(params=given | {"EngineConfig.onnxruntime.intra_op_num_threads": 1})
    picture, _ = page(WORDS[:2], size=(300, 260), ink=(200, 90, 20), paper=(60, 110, 190))
    found = engine(Image.fromarray(picture))
    reference = [
        Line(np.asarray(quad, dtype=np.float64), text, float(score))
        for quad, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
    ]
    assert same(reader([picture])[0], reference)
    assert not same(reader([picture[:, :, ::-1]])[0], reference)


def test_lines_depend_on_neither_threads_nor_neighbours(reader: TextReader, page: Callable[..., Any]) -> None:
    first, second = page(WORDS[:2], size=(300, 260))[0], page(WORDS[2:], size=(280, 300))[0]
    alone = build_reader(TextConfig(), "cpu", threads=1)
    assert alone.identity == reader.identity
    both = reader([first, second])
    assert all(same(alone([picture])[0], lines) for picture, lines in zip((first, second), both, strict=True))


def test_onnxruntime_gets_the_threads_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of N worker processes with OMP_NUM_THREADS=1 each shall have one thread."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("rapidocr")
    threads = []

    class Session(runtime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            options = named["sess_options"]
            threads.append((options.intra_op_num_threads, options.inter_op_num_threads))
            super().__init__(*arguments, **named)

    monkeypatch.setattr("rapidocr.inference_engine.onnxruntime.main.InferenceSession", Session)
    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")
    engine: Any = build_reader(TextConfig(), "cpu")
    engine([np.full((80, 80, 3), 255, dtype=np.uint8)])
    assert set(threads) == {(1, 1)}


def test_words_of_the_generated_world_are_read(reader: TextReader) -> None:
    """Those of 24 pixels and more on signs; half of them at least, in whatever case."""
    scenes = [draw_scene(SceneConfig(height=384, width=384), Part.TRAIN, 3, index) for index in range(20)]
    printed = [
        (scene, word) for scene in scenes for word in scene.words if word.plate and word.box[3] - word.box[1] >= 24
    ][:5]
    assert len(printed) >= 4
    read = {id(scene): reader([scene.image])[0] for scene, _ in printed}
    found = [any(word.text.lower() in line.text.lower() for line in read[id(scene)]) for scene, word in printed]
    assert sum(found) >= len(found) / 2


def test_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rapidocr")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    reader = build_reader(TextConfig(), "cpu", threads=1)
    assert reader([np.full((80, 80, 3), 255, dtype=np.uint8)]) == [[]]


def test_the_identity_names_versions_and_every_model(reader: TextReader) -> None:
    rapidocr, runtime = pytest.importorskip("rapidocr"), pytest.importorskip("onnxruntime")
    assert runtime.__version__ in reader.identity
    folder = rapidocr.__path__[0]
    assert reader.identity.count(".onnx ") == 3, folder
    assert build_reader(TextConfig(read_shortest=320), "cpu").identity != reader.identity


def test_a_gpu_that_onnxruntime_lacks_is_one_clear_error() -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("rapidocr")
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    with pytest.raises(RiceError, match=r"cannot use the device 'cuda:0'.*use --device cpu, or: .*onnxruntime-gpu"):
        build_reader(TextConfig(), "cuda:0")
    assert " on cpu" in build_reader(TextConfig(), "auto").identity


@pytest.mark.parametrize(
    ("engine", "module", "extra"), [("rapidocr", "rapidocr", "curate"), ("paddle", "paddleocr", "paddle")]
)
def test_a_missing_engine_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, engine: Any, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'rice-suite\[{extra}\]'"):
        build_reader(TextConfig(reader=engine), "cpu")


def test_no_engine_reads_nothing() -> None:
    reader = build_reader(TextConfig(reader="none"), "cpu")
    assert reader([np.zeros((9, 9, 3), dtype=np.uint8)] * 3) == [[], [], []]
    assert reader.identity == "none"
