"""The adapter of PaddleOCR 3, against a stand-in that has its signature and gives its documented results."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rice.curate.text.config import TextConfig
from rice.curate.text.reader import build_reader
from rice.errors import RiceError

ARGUMENTS = {
    *("doc_orientation_classify_model_name", "doc_orientation_classify_model_dir", "doc_unwarping_model_name"),
    *("doc_unwarping_model_dir", "text_detection_model_name", "text_detection_model_dir"),
    *("textline_orientation_model_name", "textline_orientation_model_dir", "textline_orientation_batch_size"),
    *("text_recognition_model_name", "text_recognition_model_dir", "text_recognition_batch_size"),
    *("use_doc_orientation_classify", "use_doc_unwarping", "use_textline_orientation", "text_det_limit_side_len"),
    *("text_det_limit_type", "text_det_thresh", "text_det_box_thresh", "text_det_unclip_ratio", "text_det_input_shape"),
    *("text_rec_score_thresh", "return_word_box", "text_rec_input_shape", "lang", "ocr_version"),
    *("device", "enable_hpi", "use_tensorrt", "precision", "enable_mkldnn", "mkldnn_cache_capacity", "cpu_threads"),
}
"""Of paddleocr.PaddleOCR, 3.x, the common ones at the end; any other raises ValueError there."""


class StandIn:
    """Keys as paddlex' OCRResult has them; a blank picture has empty ones."""

    def __init__(self, **arguments: Any) -> None:
        unknown = arguments.keys() - ARGUMENTS
        if unknown:
            raise ValueError(f"Unknown argument: {unknown}")
        self.arguments = arguments
        self.seen: list[np.ndarray[Any, Any]] = []
        StandIn.last = self

    last: "StandIn"

    def predict(self, pictures: list[np.ndarray[Any, Any]]) -> list[dict[str, Any]]:
        assert isinstance(pictures, list)
        self.seen += pictures
        return [self._result(picture) for picture in pictures]

    def _result(self, picture: np.ndarray[Any, Any]) -> dict[str, Any]:
        common = {
            "input_path": None,
            "page_index": None,
            "text_type": "general",
            "dt_polys": [],
            "rec_boxes": np.array([]),
        }
        if not picture.any():
            return common | {"rec_texts": [], "rec_scores": [], "rec_polys": []}
        polys = [
            np.array([[1, 2], [30, 2], [30, 9], [1, 9]], dtype=np.int16),
            np.array([[1, 12], [9, 12], [9, 19], [1, 19]]),
        ]
        return common | {"rec_texts": ["Größe", "?"], "rec_scores": [np.float32(0.98), 0.2], "rec_polys": polys}


def install(monkeypatch: pytest.MonkeyPatch, engine: Any = StandIn, gpus: int = 0) -> None:
    package, framework = ModuleType("paddleocr"), ModuleType("paddle")
    package.__dict__.update(PaddleOCR=engine, __version__="3.7.0")
    cuda = SimpleNamespace(device_count=lambda: gpus)
    device = SimpleNamespace(is_compiled_with_cuda=lambda: gpus > 0, cuda=cuda)
    framework.__dict__.update(device=device, __version__="3.2.0")
    monkeypatch.setitem(sys.modules, "paddleocr", package)
    monkeypatch.setitem(sys.modules, "paddle", framework)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for part, architecture in (("det", "PP-OCRv5_mobile_det"), ("rec", "latin_PP-OCRv5_mobile_rec")):
        folder = tmp_path / "models" / part
        folder.mkdir(parents=True)
        (folder / "inference.yml").write_text(f"Global:\n  model_name: {architecture}\n", encoding="utf-8")
        (folder / "inference.pdiparams").write_bytes(part.encode())
    return tmp_path / "models"


def test_results_become_lines_and_none_is_dropped_here(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    reader = build_reader(TextConfig(reader="paddle"), "cpu", threads=3)
    red = np.zeros((80, 90, 3), dtype=np.uint8)
    red[..., 0] = 200
    found, blank = reader([red, np.zeros((20, 40, 3), dtype=np.uint8)])
    assert [(line.text, round(line.confidence, 4)) for line in found] == [("Größe", 0.98), ("?", 0.2)]
    assert found[0].quad.dtype == np.float64
    assert found[0].quad.tolist() == [[1, 2], [30, 2], [30, 9], [1, 9]]
    assert blank == []
    assert StandIn.last.seen[0].shape == red.shape
    assert reader([]) == []
    assert (StandIn.last.seen[0][..., 2] == 200).all(), "PaddleOCR takes BGR"
    assert StandIn.last.arguments["cpu_threads"] == 3
    assert StandIn.last.arguments["text_rec_score_thresh"] == 0


def test_quads_are_in_the_pixels_of_a_picture_that_was_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    reader = build_reader(TextConfig(reader="paddle", read_longest=800), "cpu")
    ((line, _),) = reader([np.full((1000, 2000, 3), 9, dtype=np.uint8)])
    assert StandIn.last.seen[0].shape == (400, 800, 3)
    assert line.quad.tolist() == [[2.5, 5], [75, 5], [75, 22.5], [2.5, 22.5]]


def test_pages_are_neither_turned_nor_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else quads would lie in another picture."""
    install(monkeypatch)
    build_reader(TextConfig(reader="paddle", read_shortest=480), "cpu")
    given = StandIn.last.arguments
    assert not given["use_doc_unwarping"]
    assert not given["use_doc_orientation_classify"]
    assert (given["text_det_limit_type"], given["text_det_limit_side_len"]) == ("min", 480)


def test_models_come_from_the_folder_with_their_names(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    install(monkeypatch)
    reader = build_reader(TextConfig(reader="paddle", reader_models=models), "cpu")
    given = StandIn.last.arguments
    assert given["text_detection_model_dir"] == str(models / "det")
    assert given["text_detection_model_name"] == "PP-OCRv5_mobile_det"
    assert given["text_recognition_model_dir"] == str(models / "rec")
    assert given["text_recognition_model_name"] == "latin_PP-OCRv5_mobile_rec"
    assert str(models) not in reader.identity
    (models / "rec" / "inference.pdiparams").write_bytes(b"other")
    assert build_reader(TextConfig(reader="paddle", reader_models=models), "cpu").identity != reader.identity


@pytest.mark.parametrize("damage", ["missing", "nameless", "no YAML"])
def test_a_folder_without_models_is_one_error(monkeypatch: pytest.MonkeyPatch, models: Path, damage: str) -> None:
    install(monkeypatch)
    path = models / "rec" / "inference.yml"
    path.unlink() if damage == "missing" else path.write_text("Global:" if damage == "nameless" else "\t{")
    with pytest.raises(RiceError, match=r"rec.*inference.yml"):
        build_reader(TextConfig(reader="paddle", reader_models=models), "cpu")


def test_a_host_out_of_reach_is_one_line_that_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise Exception("No model hoster is available!\nPlease check your network")

    install(monkeypatch, refuse)
    with pytest.raises(RiceError, match=r"No model hoster .* network; .*--models FOLDER") as error:
        build_reader(TextConfig(reader="paddle"), "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("device", "gpus", "place"), [("cpu", 2, "cpu"), ("auto", 0, "cpu"), ("auto", 1, "gpu:0"), ("cuda:1", 2, "gpu:1")]
)
def test_devices_are_named_as_paddle_names_them(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, place: str
) -> None:
    install(monkeypatch, gpus=gpus)
    build_reader(TextConfig(reader="paddle"), device)
    assert StandIn.last.arguments["device"] == place


def test_a_gpu_that_paddle_lacks_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gpus=1)
    with pytest.raises(RiceError, match=r"cannot use the device 'cuda:1'; GPUs that it finds here: 1"):
        build_reader(TextConfig(reader="paddle"), "cuda:1")


def test_models_are_for_paddle_alone(models: Path) -> None:
    with pytest.raises(RiceError, match="models=.* is out of range"):
        TextConfig(reader_models=models)


@pytest.mark.hub
def test_paddle_reads_a_page(page: Any) -> None:
    pytest.importorskip("paddleocr")
    picture, _ = page(["Harvest 42", "Total 19.90"])
    (lines,) = build_reader(TextConfig(reader="paddle"), "cpu")([picture])
    assert [line.text for line in lines] == ["Harvest 42", "Total 19.90"]
