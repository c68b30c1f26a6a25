"""Trained region layers on disk: `region.safetensors` beside the published form of their tower.

The file's metadata hold the RegionConfig as JSON. A folder without it is still a whole encoder, which is why exports
may drop it: dense features need no region layers.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from rice.encoders import rice as folders
from rice.encoders.hf_config import PROCESSOR
from rice.encoders.processor import processor_json
from rice.encoders.rice import REGION
from rice.encoders.spec import EncoderSpec, vit_spec
from rice.errors import RiceError
from rice.files import atomic_path, open_safetensors, sort_facts, write_json
from rice.model import checkpoint
from rice.model.names import shortened
from rice.model.region import RegionConfig, RiceModel
from rice.model.vit import ViT

_KEY = "region_config"
_TOWER = "vit."


def save_rice(model: RiceModel | ViT, folder: Path, spec: EncoderSpec | None = None) -> None:
    """Write a tower as `rice:FOLDER` and transformers load it, and its region layers where it has them.

    `spec`: what the files shall state as the size of pictures and how they are prepared; where None, the tower's own
    size, and as MLCD's and RICE's published ones. Every file is whole or absent; the folder may hold others.
    """
    vit = model.vit if isinstance(model, RiceModel) else model
    spec = spec or vit_spec(vit.config, name="rice", source="rice")
    checkpoint.save(vit, folder, image_size=spec.native_size)
    write_json(folder / PROCESSOR, processor_json(spec))
    if isinstance(model, RiceModel):
        _save_region(model, folder)


def _save_region(model: RiceModel, folder: Path) -> None:
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(_TOWER)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in own.items()}
    facts = json.dumps(dataclasses.asdict(model.region_config), sort_keys=True)
    with atomic_path(folder / REGION) as file:
        save_file(tensors, file, metadata={"format": "pt", _KEY: facts})
        sort_facts(file)


def load_vit(folder: Path) -> ViT:
    """The tower of a folder in any published form, fp32. Errors: RiceError, as `rice.encoders.rice.load`."""
    return cast(ViT, folders.load(str(folder)).module)


def load_rice(folder: Path) -> RiceModel:
    """The tower of a folder with its trained region layers, fp32, in evaluation mode.

    Errors: RiceError where it is no tower, has no region layers, or has those of another one.
    """
    file = folder / REGION
    if not file.is_file():
        raise RiceError(
            f"{folder} holds no trained region layers: expected {REGION}, which training writes and "
            "`rice export --keep-region` keeps"
        )
    return attach(load_vit(folder), file)


def attach(vit: ViT, file: Path) -> RiceModel:
    """`vit` with the region layers of `file`. Errors: RiceError that names the file and what is wrong with it."""
    config, tensors = _read(file)
    with torch.device("meta"):
        model = RiceModel(vit.config, config)
    model.vit = vit
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(_TOWER)}
    check_fit(own, tensors, file, vit.config.width)
    values = {name: value.float() for name, value in tensors.items()}
    model.load_state_dict(values | {_TOWER + name: value for name, value in vit.state_dict().items()}, assign=True)
    return model.eval()


def check_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], file: Path, width: int) -> None:
    """Errors: RiceError naming tensors in which a file beside a tower differs from a network of that width."""
    wrong = list(own.keys() ^ tensors.keys())
    wrong += [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if wrong:
        raise RiceError(
            f"{file} does not fit its tower of width {width}: {len(wrong)} tensors missing, unexpected or mis-shaped "
            f"({shortened(sorted(wrong))}); take both from one training"
        )


def _read(file: Path) -> tuple[RegionConfig, dict[str, Tensor]]:
    with open_safetensors(file) as content:
        config = _config((content.metadata() or {}).get(_KEY, "null"), file)
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    if config.layers > len(tensors):  # before a network of any size is built for it
        raise RiceError(f"{file} states {config.layers} region layers and holds {len(tensors)} tensors; it is damaged")
    return config, tensors


def _config(text: str, file: Path) -> RegionConfig:
    try:
        facts = json.loads(text)
    except ValueError:
        facts = text
    kinds = {"layers": int, "heads": int, "query": str}
    fits = isinstance(facts, dict) and facts.keys() == kinds.keys()
    if not fits or any(type(facts[name]) is not kind for name, kind in kinds.items()):
        raise RiceError(f"{file}: expected {', '.join(kinds)} as its metadata's {_KEY}, got {facts!r}")
    return RegionConfig(**facts)
