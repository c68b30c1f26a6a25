"""`rice doctor`: what is installed, what is missing, which device is used; and whether an encoder is what it says."""

import importlib.util
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from rice.errors import RiceError

if TYPE_CHECKING:
    from PIL.Image import Image

    from rice.encoders.verify import Check

DISTRIBUTION = "rice-suite"
EXIT_FAILED = 1
_CORE = ("torch", "torchvision", "transformers", "timm", "open_clip_torch", "safetensors", "numpy", "pandas", "av")
_REQUIREMENT = re.compile(r"\s*([\w.-]+)(\[[\w,.-]+\])?\s*([^;]*?)\s*(?:;.*extra == ['\"]([\w.-]+)['\"].*)?$")


@dataclass(frozen=True)
class Extra:
    """One optional part of this package: which of its requirements are not installed."""

    name: str
    missing: tuple[str, ...]

    @property
    def pip_line(self) -> str:
        """What adds it."""
        return f"pip install '{DISTRIBUTION}[{self.name}]'"


def doctor(
    encoder: Positional[str | None] = None,
    *,
    weights: str = "default",
    image: Path | None = None,
    allow_pickle: bool = False,
) -> int:
    """Say what is installed, which extras are missing and how to add them, and which device is used.

    Given an encoder, check it against its source library: the library's own processor and forward on the same picture,
    fp32, on the CPU. Exits with status 1 when they differ by more than 1e-5 of the largest value.

    Args:
        encoder: Zoo name, NAME@SIZE, rice:PATH, hf:REPO_OR_PATH, open_clip:ARCH/TAG or timm:NAME.
        weights: "default" (the published ones), "none" (random, offline) or a local path.
        image: Picture to compare on; a generated one where it is not given.
        allow_pickle: Read tensors out of pickled checkpoints too; nothing in them is executed.
    """
    if encoder is not None:
        return _check_encoder(encoder, weights, image, allow_pickle)
    for line in _installation():
        print(line)  # noqa: T201
    return 0


def extras() -> list[Extra]:
    """All extras of this package, with what each one lacks here. Errors: RiceError when it is not installed."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError as error:
        raise RiceError(f"{DISTRIBUTION} is not installed: pip install -e . in its folder") from error
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None or match[4] is None:
            continue
        lacking = missing.setdefault(match[4], [])
        if match[1].lower() != DISTRIBUTION and not _is_installed(match[1]):
            lacking.append(match[1])
    return [Extra(name, tuple(lacking)) for name, lacking in missing.items()]


def _installation() -> Iterator[str]:
    yield f"python          {platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in _CORE:
        yield f"{name:<15} {metadata.version(name) if _is_installed(name) else 'missing: pip install ' + DISTRIBUTION}"
    yield f"device          {_device()}"
    yield f"video           {_video()}"
    for extra in extras():
        state = "installed" if not extra.missing else f"lacks {', '.join(extra.missing)}: {extra.pip_line}"
        yield f"{'[' + extra.name + ']':<15} {state}"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1024**3
        return f"cuda: {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    return f"cpu, {torch.get_num_threads()} threads"


def _video() -> str:
    if importlib.util.find_spec("av") is None:
        return "missing: pip install av"
    import av

    codec = "libx264" if "libx264" in av.codecs_available else None
    return f"av with {codec}" if codec else "av without libx264: no H.264 clips; reinstall its wheel: pip install -U av"


def _check_encoder(name: str, weights: str, image: Path | None, allow_pickle: bool) -> int:
    from rice.encoders.load import load_encoder
    from rice.encoders.spec import EncoderReference
    from rice.encoders.verify import verify

    reference = EncoderReference.parse(name)
    picture = _picture(image)
    tower = load_encoder(reference, weights=weights, allow_pickle=allow_pickle)
    checks = verify(tower, reference, picture)
    spec = tower.spec
    revision = f" at {spec.revision}" if spec.revision else ""
    print(f"{reference}: {spec.source}{revision}, {tower.weights} weights, {spec.native_size} pixels")  # noqa: T201
    for check in checks:
        print(_line(check))  # noqa: T201
    return 0 if all(check.passed for check in checks) else EXIT_FAILED


def _line(check: "Check") -> str:
    verdict = "PASS" if check.passed else "FAIL"
    return (
        f"{verdict}  {check.what:<12} largest difference {check.max_abs:.2e}, {check.max_rel:.2e} of the largest value"
    )


def _picture(path: Path | None) -> "Image":
    """The user's picture, or 640 x 480 pixels of smooth noise. Errors: RiceError for a file that is no picture."""
    import numpy as np
    from PIL import Image

    from rice.data.picture import open_picture

    if path is None:
        coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    try:
        return open_picture(path).convert("RGB")
    except RiceError as error:
        raise RiceError(f"expected a picture as --image: {error}") from error


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
