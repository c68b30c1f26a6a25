"""The numbers of a run: one JSON line per report, and how fast and how full the machine is.

A line is an object with at least "step", counted from 0. The file survives kills: a run that resumes from step s drops
the lines of step s and later, which it is about to write again.
"""

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from rice.device import peak_memory
from rice.errors import RiceError, os_errors_as
from rice.files import atomic_write

Line = Mapping[str, Any]

PEAK_BF16 = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense bf16 products with fp32 sums, in FLOP/s, by a part of the device's name (the makers' data sheets, without
sparsity). The first that matches counts; a device that is not here has no MFU."""


class Sink(Protocol):
    """Where lines go."""

    def write(self, line: Line) -> None:
        """Take one line."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class MetricsLog:
    """Passes each line to every sink; a context manager that closes them. Ranks that do not write have no sinks."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = tuple(sinks)

    def write(self, line: Line) -> None:
        """Errors: RiceError where the file cannot be written."""
        for sink in self._sinks:
            sink.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for sink in self._sinks:
            sink.close()


class JsonLines:
    """Appends to `path`, after dropping what was written at step `start` or later.

    A number that JSON lacks is written as its name: "nan", "inf", "-inf".
    Errors: RiceError where `path` cannot be written, or holds a line that is not of this kind.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        kept = list(_before(path, start))
        with os_errors_as(f"cannot write {path}"), atomic_write(path) as file:
            file.writelines(kept)
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line) -> None:
        """Whole lines only, each handed to the system at once."""
        text = json.dumps({name: _json_number(value) for name, value in line.items()}, allow_nan=False)
        with os_errors_as(f"cannot write {self._path}"):
            self._file.write(text + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with os_errors_as(f"cannot write {self._path}"):
            self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a finished run."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


class StepRate:
    """Images per second, MFU and peak memory since the last report.

    batch: images per step over all ranks. flops: of the forward and backward pass of one image; peak: what one rank's
    device can do per second (`peak_flops`). Where either is None, so is the MFU: it is never guessed.
    """

    def __init__(
        self,
        batch: int,
        device: torch.device | None = None,
        *,
        flops: float | None = None,
        peak: float | None = None,
        ranks: int = 1,
    ) -> None:
        self._batch, self._device = batch, device or torch.device("cpu")
        self._share = None if flops is None or peak is None else flops / (peak * ranks)
        self._steps, self._since = 0, time.perf_counter()

    def count(self) -> None:
        """A step has passed without a report."""
        self._steps += 1

    def measure(self) -> dict[str, float | None]:
        """A step has passed: report all since the last report, this one included, and start anew.

        "step_s" and "images_per_s", "mfu" in [0, 1] or None, "memory": this rank's peak in bytes (`peak_memory`).
        """
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        steps, self._steps = self._steps + 1, 0
        rate = self._batch * steps / seconds
        memory = peak_memory(str(self._device))
        return {
            "step_s": seconds / steps,
            "images_per_s": rate,
            "mfu": None if self._share is None else self._share * rate,
            "memory": memory.get("device", memory["host"]),
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside (validation) is not part of any step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - began


def peak_flops(name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s of the device called `name` (`torch.cuda.get_device_name`), or None where they are not known."""
    if dtype != torch.bfloat16:
        return None
    return next((peak for part, peak in PEAK_BF16.items() if re.search(rf"\b{part}\b", name)), None)


def _before(path: Path, start: int) -> Iterator[str]:
    """The lines of steps before `start`; the last one may be half-written, by a killed run, and is dropped then."""
    if not path.exists():
        return
    with os_errors_as(f"cannot read {path}"), path.open(encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith("\n"):
                return
            try:
                step = json.loads(text)["step"]
            except (ValueError, TypeError, KeyError) as error:
                raise RiceError(
                    f"line {number} of {path} is no object with a step; it was not written by rice train: move it away"
                ) from error
            if step < start:
                yield text


def _json_number(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
