"""Which device a command works on, the one meaning of every `--device`, and how full it became. Imports torch late."""

import resource
import sys
from typing import TYPE_CHECKING

from rice.errors import RiceError

if TYPE_CHECKING:
    import torch

AUTO = "auto"


def pick_device(name: "str | torch.device") -> "torch.device":
    """`auto`: the GPU where there is one, else the CPU. Errors: RiceError for a name, or a GPU, that is not there."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == AUTO:
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RiceError(f"no device '{name}'; expected auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise RiceError(f"no device '{name}'; GPUs that torch finds here: {gpus}; use auto or cpu, or mend the driver")
    return device


def peak_memory(device: str) -> dict[str, int]:
    """Largest memory so far, in bytes: `host`, of this process, and `device`, of torch on `device` if it is a GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.startswith("cuda"):
        import torch

        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak
