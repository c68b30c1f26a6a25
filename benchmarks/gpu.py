"""The GPU set, whenever a GPU is at hand: every benchmark that has a device, at the paper's sizes, in under 8 minutes.

    python benchmarks/gpu.py [--out benchmarks/results] [--seconds 480] [--only step classifier]

Each runs as a process of its own and writes RESULTS/NAME-DEVICE.json; one that fails its goal or runs out of time is
reported, and the others still run. Exits 1 where any did. The GPU tests (`pytest -m gpu`) are not part of it.
"""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

HERE = Path(__file__).parent

SET: dict[str, list[str]] = {
    "encoder": ["encoder.py", "--bf16", "--batch", "64", "--rounds", "9"],
    "regions": ["regions.py", "--bf16", "--batch", "256"],
    "classifier": [
        "classifier.py",
        "--classes",
        "1000000",
        "--width",
        "768",
        "--regions",
        "5120",
        "--slots",
        "10",
        "--rounds",
        "5",
    ],
    "classifier-100k": ["classifier.py", "--rounds", "9"],
    "step": ["step.py", "--bf16", "--batch", "512", "--classes", "1000000", "--rho", "0.1", "--rounds", "7"],
    "step-compiled": ["step.py", "--bf16", "--batch", "512", "--classes", "1000000", "--compile", "--rounds", "7"],
    "track": ["track.py", "--frames", "32"],
    "detection": ["detection.py"],
}
"""The most telling ones first: what is left of the time is theirs."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What runs.

    Args:
        out: Folder for the figures.
        seconds: For all of them together.
        only: Names out of the set; all of it where none is given.
    """

    out: Path = HERE / "results"
    seconds: float = 480
    only: tuple[str, ...] = ()


def main(config: Config) -> int:
    """Run the set; 0 where everything ran in time and met its goals."""
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py: expected a CUDA device, torch finds none; nothing was run", file=sys.stderr)
        return 2
    device = re.sub(r"\W+", "-", torch.cuda.get_device_name().lower())
    config.out.mkdir(parents=True, exist_ok=True)
    end, outcomes = time.monotonic() + config.seconds, {}
    for name in config.only or SET:
        script, *flags = SET[name]
        left = end - time.monotonic()
        file = config.out / f"{name}-{device}.json"
        command = [sys.executable, str(HERE / script), *flags, "--device", "cuda", "--json", str(file)]
        print(f"== {name}: {' '.join(command[1:])}", flush=True)
        began = time.monotonic()
        try:
            status = subprocess.run(command, timeout=max(left, 1), check=False).returncode
            outcomes[name] = f"exit {status}"
        except subprocess.TimeoutExpired:
            outcomes[name] = "out of time"
        outcomes[name] += f", {time.monotonic() - began:.0f} s"
    for name, outcome in outcomes.items():
        print(f"{name:<16} {outcome}")
    return 0 if all(outcome.startswith("exit 0") for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
