"""What a result remembers of where it came from. Imports torch only for CUDA devices."""

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = ("rice-suite", "torch", "torchvision", "transformers", "timm", "open_clip_torch", "numpy")


@functools.cache
def versions() -> dict[str, str | None]:
    """Installed versions of the packages that numbers depend on; None where one is absent."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that runs, with '-dirty' where files were changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine
        return None
    return said.stdout.strip() or None


@functools.cache
def device_name(device: str) -> str:
    """The name of a GPU, or of the processor."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
