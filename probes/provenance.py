"""What a result remembers of where it came from. Imports torch only for CUDA devices."""

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from rice.errors import RiceError
from rice.files import leftovers, read_json, write_json

PACKAGES = ("rice-suite", "torch", "torchvision", "transformers", "timm", "open_clip_torch", "numpy")


def same_run(folder: Path, facts: dict[str, object]) -> None:
    """Write `facts` as the folder's run.json. Errors: RiceError where another run is there."""
    path = folder / "run.json"
    if path.exists():
        found = read_json(path)
        if not isinstance(found, dict):
            raise RiceError(f"{path} is not a run's: expected an object; name another --out, or move the file away")
        wrong = [name for name in facts if found.get(name) != facts[name]]
        if wrong:
            was, now = found.get(wrong[0]), facts[wrong[0]]
            raise RiceError(f"{folder} holds another run: its {wrong[0]} is {was!r}, not {now!r}; name another --out")
    write_json(path, facts)


def refuse_other(folder: Path, facts: dict[str, object], scratch: str) -> None:
    """Errors: RiceError where the folder holds another run, or anything that no run of this kind has written yet: until
    there is a run.json, only `scratch` and what a killed writer left may be there. Writes nothing that is not there."""
    if folder.exists() and not folder.is_dir():
        raise RiceError(f"--out {folder} is a file; give a folder")
    if (folder / "run.json").is_file():
        same_run(folder, facts)
    elif folder.is_dir():
        own = {folder / scratch, *leftovers(folder / "run.json")}
        foreign = sorted(path.name for path in folder.iterdir() if path not in own)
        if foreign:
            raise RiceError(f"--out {folder} already holds {foreign[0]!r}, not written by this; choose another --out")


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
