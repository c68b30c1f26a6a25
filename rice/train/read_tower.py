"""The towers that a training run keeps on its way, each as a frozen encoder: for whoever looks at the course of a run.

One process without a group reads them, whatever number of ranks wrote them. Only files that hold a part of the tower
are read, each verified by the SHA-256 of the manifest first; nothing is unpickled.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import load

from rice.device import pick_device
from rice.encoders.base import Encoder
from rice.encoders.rice import extract
from rice.encoders.spec import EncoderSpec, vit_spec
from rice.errors import RiceError
from rice.files import read_json, sha256_json
from rice.model import checkpoint
from rice.model.config import ViTConfig
from rice.model.vit import ViT
from rice.train import manifest
from rice.train.build import FINAL, RUN
from rice.train.config import TOWERS
from rice.train.loop import CHECKPOINTS
from rice.train.storage import SafetensorsReader
from rice.train.tree import mismatch

_STEP = re.compile(r"step-(\d+)")
_PREFIXES = {"regions": "model/tower.vit.", "image": "model/tower.", "captions": "model/tower.vit."}
"""What precedes the tower's names in a checkpoint, by what is trained."""


@dataclass(frozen=True)
class Stage:
    """A tower after `step` steps: a checkpoint, or the `final` folder of a run."""

    step: int
    folder: Path

    @property
    def final(self) -> bool:
        """Whether it is the folder that a finished run leaves."""
        return self.folder.name == FINAL


def stages(run: Path) -> list[Stage]:
    """What a run (`rice train --out`) has kept, by step; `final` stands for the last step. Nothing is verified yet.

    Errors: RiceError where it is no run, or has kept nothing yet.
    """
    if not (run / RUN).is_file():
        raise RiceError(f"expected the --out of `rice train`, found no {RUN} in {run}")
    found = {}
    for path in (run / CHECKPOINTS).glob("step-*"):
        if (match := _STEP.fullmatch(path.name)) and (path / manifest.NAME).is_file():
            found[int(match[1])] = path
    if (run / FINAL).is_dir():
        found[_steps(run / RUN)] = run / FINAL
    if not found:
        raise RiceError(f"{run} has kept no checkpoint yet; train on, or with a smaller --machine.save-every")
    return [Stage(step, found[step]) for step in sorted(found)]


def read_tower(folder: Path) -> ViT:
    """The tower of one checkpoint, `step-N`, in fp32 on the CPU, in evaluation mode.

    Errors: RiceError naming the file that is missing or damaged, or where it is no checkpoint of `rice train`.
    """
    record = manifest.read(folder)
    prefix, config = _described(record, folder)
    with torch.device("meta"):
        expected = ViT(config).state_dict()
    tensors: dict[str, Tensor] = {prefix + name: torch.empty_like(t, device="cpu") for name, t in expected.items()}
    saved = {name: tensor for name, tensor in record["tensors"].items() if name.startswith(prefix)}
    if (found := mismatch(saved, tensors)) is not None:
        raise RiceError(f"{folder} does not hold the tower that its manifest names: {found}")
    _verify(folder, record, prefix)
    planner = DefaultLoadPlanner(flatten_state_dict=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # that is what no_dist asks for
        load(tensors, storage_reader=SafetensorsReader(folder, record), planner=planner, no_dist=True)
    return checkpoint.build(config, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()})


def read_encoder(folder: Path, device: "str | torch.device" = "cpu") -> Encoder:
    """The tower of one checkpoint behind the interface of every encoder, as `rice:OUT/final` would be.

    Errors: as `read_tower`.
    """
    tower = read_tower(folder)
    encoder = Encoder(tower, spec_of(folder), extract, weights=str(folder))
    return encoder.to(device=pick_device(device))


def spec_of(folder: Path) -> EncoderSpec:
    """The spec of a checkpoint's tower, from its manifest alone. Errors: as `read_tower`."""
    _, config = _described(manifest.read(folder), folder)
    return vit_spec(config, name=folder.name, source=f"rice train: {folder.name}")


def fingerprint(folder: Path) -> str:
    """Hex SHA-256 of a checkpoint, whose tower's files are verified for it: what is damaged is found before any work.

    Errors: as `read_tower`.
    """
    record = manifest.read(folder)
    prefix, _ = _described(record, folder)
    _verify(folder, record, prefix)
    return sha256_json({name: record[name] for name in ("identity", "step", "files")})


def _verify(folder: Path, record: Mapping[str, Any], prefix: str) -> None:
    """Errors: RiceError naming a file of the tower that is not as it was written."""
    tensors = [tensor for name, tensor in record["tensors"].items() if name.startswith(prefix)]
    for name in sorted({chunk["file"] for tensor in tensors for chunk in tensor["chunks"]}):
        if (damage := manifest.damage(folder, name, record["files"][name])) is not None:
            raise RiceError(f"{damage}; copy it anew, or remove {folder}")


def _described(record: Mapping[str, Any], folder: Path) -> tuple[str, ViTConfig]:
    """What precedes the tower's names, and its configuration."""
    try:
        config = record["identity"]["config"]
        prefix, tower, size = _PREFIXES[config["target"]], TOWERS[config["tower"]], int(config["stream"]["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise RiceError(
            f"{folder} is no checkpoint of `rice train`: its manifest names no tower ({error!r})"
        ) from error
    return prefix, replace(tower, image_size=size)


def _steps(run: Path) -> int:
    """Steps of a whole run, as `TrainConfig.steps`."""
    try:
        config = read_json(run)["config"]
        return -(-int(config["samples"]) // int(config["batch"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise RiceError(f"{run} is not that of `rice train`: expected samples and batch in its config") from error
