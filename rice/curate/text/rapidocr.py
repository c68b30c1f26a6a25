"""RapidOCR: PaddleOCR's models by onnxruntime. Its package carries the models, so nothing is loaded."""

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rice.curate.text.config import TextConfig
from rice.curate.text.fit import fit
from rice.curate.text.reader import Line
from rice.device import AUTO
from rice.errors import RiceError, require
from rice.files import sha256_unchanged

_EXTRA = "curate"
_PARTS = ("det", "cls", "rec")
"""The models: where text is, whether it stands on its head, what it says."""
_CUDA = "CUDAExecutionProvider"


class RapidReader:
    """The engine, with the threads of one process."""

    def __init__(self, config: TextConfig, device: str, threads: int) -> None:
        """Arguments and errors: as `build_reader`."""
        package, runtime = require("rapidocr", _EXTRA), require("onnxruntime", _EXTRA)
        self._cv2 = require("cv2", _EXTRA)
        self._longest = config.read_longest
        models = _models(Path(str(package.__file__)).parent / "models")
        card = _card(runtime, device, models["det"])
        # OpenCV, which cuts the lines out, has threads of its own.
        self._cv2.setNumThreads(threads)
        self._engine = package.RapidOCR(params=_parameters(config, models, threads, card))
        packages = f"rapidocr {version('rapidocr')}, opencv {self._cv2.__version__}, onnxruntime {runtime.__version__}"
        files = ", ".join(f"{path.name} {sha256_unchanged(path)[:16]}" for path in models.values())
        place = "cpu" if card is None else "cuda"
        self.identity = f"{packages} on {place}, {files}, edges {config.read_shortest} to {config.read_longest}"

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Line]]:
        """Lines of each picture, RGB (H, W, 3)."""
        return [self._read(picture) for picture in pictures]

    def _read(self, picture_HW3: NDArray[np.uint8]) -> list[Line]:
        fitted_hw3, scale_2 = fit(self._cv2, picture_HW3, self._longest)
        found = self._engine(fitted_hw3)
        if found.boxes is None or found.txts is None or found.scores is None:  # a picture without text
            return []
        quads_N42 = np.asarray(found.boxes, dtype=np.float64) * scale_2
        return [Line(*line) for line in zip(quads_N42, found.txts, map(float, found.scores), strict=True)]


def _models(folder: Path) -> dict[str, Path]:
    """By part. Naming them keeps the engine from loading others. Errors: RiceError for a package without models."""
    models = {part: next(iter(sorted(folder.glob(f"*_{part}_*.onnx"))), None) for part in _PARTS}
    missing = [part for part, path in models.items() if path is None]
    if missing:
        raise RiceError(
            f"expected models for {', '.join(missing)} in rapidocr's package, got none in {folder}; "
            "install its wheel anew: pip install --force-reinstall rapidocr"
        )
    return {part: path for part, path in models.items() if path is not None}


def _parameters(config: TextConfig, models: dict[str, Path], threads: int, card: int | None) -> dict[str, Any]:
    """What differs from the engine's defaults."""
    runtime = "EngineConfig.onnxruntime"
    given: dict[str, Any] = {
        "Global.log_level": "critical",
        "Global.text_score": 0.0,  # what is dropped for its confidence is counted by `select`
        "Global.use_preprocess_img": False,  # see `fit`
        "Global.use_vertical_padding": False,
        "Det.limit_type": "min",
        "Det.limit_side_len": config.read_shortest,
        f"{runtime}.intra_op_num_threads": min(threads, os.cpu_count() or 1),  # more is taken for all by the engine
        f"{runtime}.inter_op_num_threads": 1,
    }
    if card is not None:
        given |= {f"{runtime}.use_cuda": True, f"{runtime}.cuda_ep_cfg.device_id": card}
    return given | {f"{part.capitalize()}.model_path": str(path) for part, path in models.items()}


def _card(runtime: Any, device: str, model: Path) -> int | None:
    """Number of the GPU, None for the CPU. A session is tried, as onnxruntime goes on without the GPU by itself."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return None
    card = int(number or 0)
    if _CUDA in runtime.get_available_providers():
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        session = runtime.InferenceSession(str(model), options, providers=[(_CUDA, {"device_id": card})])
        if session.get_providers()[0] == _CUDA:
            return card
    if device == AUTO:
        return None
    raise RiceError(
        f"rapidocr cannot use the device '{device}': onnxruntime {runtime.__version__} finds no CUDA that works; "
        "use --device cpu, or: pip uninstall onnxruntime, pip install onnxruntime-gpu"
    )
