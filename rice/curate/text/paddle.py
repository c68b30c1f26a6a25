"""PaddleOCR 3, the engine of the paper: with exported models from a folder, or from its model host.

Turning and unrolling of whole pages are off: a quad must lie where the text stands in the picture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from rice.curate.text.config import TextConfig
from rice.curate.text.fit import fit
from rice.curate.text.reader import Line
from rice.device import AUTO
from rice.errors import RiceError, os_errors_as, require
from rice.files import sha256_file, sha256_json

_EXTRA = "paddle"
_PARTS = {"det": "text_detection", "rec": "text_recognition"}
"""Folder in `models` -> how PaddleOCR calls the part."""
_DESCRIPTION = "inference.yml"
"""It names the architecture, without which PaddleOCR takes the folder for that of its default model."""


class PaddleReader:
    """The engine, with the threads of one process."""

    def __init__(self, config: TextConfig, device: str, threads: int) -> None:
        """Arguments and errors: as `build_reader`."""
        package, framework = require("paddleocr", _EXTRA), require("paddle", _EXTRA)
        self._cv2, self._longest = require("cv2", _EXTRA), config.read_longest
        place = _place(framework, device)
        models = {} if config.reader_models is None else _models(config.reader_models)
        try:
            self._engine = package.PaddleOCR(**models, **_settings(config, place, threads))
        except Exception as error:  # of any kind: no host, no such model, an architecture that it does not know
            raise RiceError(
                f"paddleocr {package.__version__} cannot start: {' '.join(str(error).split())}; "
                "where its model host is out of reach, give --models FOLDER with exported models in det/ and rec/"
            ) from error
        origin = "its own models" if config.reader_models is None else f"models {_digest(config.reader_models)}"
        versions = f"paddleocr {package.__version__}, paddlepaddle {framework.__version__}"
        self.identity = (
            f"{versions} on {place.partition(':')[0]}, {origin}, edges {config.read_shortest} to {config.read_longest}"
        )

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Line]]:
        """Lines of each picture, RGB (H, W, 3)."""
        if not pictures:
            return []
        fitted = [fit(self._cv2, picture, self._longest) for picture in pictures]
        found = self._engine.predict([picture for picture, _ in fitted])
        return [_lines(result, scale_2) for result, (_, scale_2) in zip(found, fitted, strict=True)]


def _lines(found: Any, scale_2: NDArray[np.float64]) -> list[Line]:
    """rec_polys: (4, 2) whole pixels each; rec_texts, rec_scores: of the same lines. All empty without text."""
    each = zip(found["rec_polys"], found["rec_texts"], found["rec_scores"], strict=True)
    return [Line(np.asarray(quad, dtype=np.float64) * scale_2, text, float(score)) for quad, text, score in each]


def _settings(config: TextConfig, place: str, threads: int) -> dict[str, Any]:
    return {
        "use_doc_orientation_classify": False,
        "use_doc_unwarping": False,
        "use_textline_orientation": False,
        "text_det_limit_type": "min",
        "text_det_limit_side_len": config.read_shortest,
        "text_rec_score_thresh": 0.0,  # what is dropped for its confidence is counted by `select`
        "device": place,
        "cpu_threads": threads,
    }


def _place(framework: Any, device: str) -> str:
    """cuda:1 -> gpu:1, as paddle names it. Errors: RiceError where it has no GPU."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return "cpu"
    gpus = framework.device.cuda.device_count() if framework.device.is_compiled_with_cuda() else 0
    if int(number or 0) < gpus:
        return f"gpu:{number or 0}"
    if device == AUTO:
        return "cpu"
    raise RiceError(
        f"paddle cannot use the device '{device}'; GPUs that it finds here: {gpus}; use --device cpu, "
        "or install paddlepaddle-gpu"
    )


def _models(folder: Path) -> dict[str, str]:
    """PaddleOCR's arguments for the models in `folder`. Errors: RiceError naming what is missing."""
    arguments: dict[str, str] = {}
    for part, name in _PARTS.items():
        path = folder / part / _DESCRIPTION
        with os_errors_as(f"expected an exported PaddleOCR model in {folder / part}: {_DESCRIPTION}"):
            text = path.read_text(encoding="utf-8")
        try:
            architecture = yaml.safe_load(text)["Global"]["model_name"]
        except (yaml.YAMLError, TypeError, KeyError) as error:
            raise RiceError(
                f"{path} does not name its model (Global: model_name); export it with PaddleOCR 3"
            ) from error
        arguments |= {f"{name}_model_dir": str(folder / part), f"{name}_model_name": str(architecture)}
    return arguments


def _digest(folder: Path) -> str:
    """Of every file of the two models."""
    files = [path for part in _PARTS for path in sorted((folder / part).iterdir()) if path.is_file()]
    return sha256_json([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files])[:16]
