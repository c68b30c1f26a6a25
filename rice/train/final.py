"""The folder that a finished run leaves: the encoder in its published form, region layers, class centres.

    config.json, model.safetensors, preprocessor_config.json    what `rice:DIR` and transformers load
    region.safetensors                                          the region layers
    captions.safetensors                                        the text tower, where captions were learned
    centers-NAME-00000-of-00002.safetensors                     rows of the class centres, a file a rank

Only safetensors: it may be shared. A later stage starts from it, on any number of ranks.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from rice.encoders.region_checkpoint import load_rice, load_vit, save_rice
from rice.errors import RiceError
from rice.files import leftovers, open_safetensors, publish_folder, remove_folder, sort_facts, temporary_folder
from rice.loss import CenterBank
from rice.model.region import RiceModel
from rice.model.vit import ViT, begin_with_contrast
from rice.train.agree import lead, settle
from rice.train.captions import CaptionModel, attach_captions, save_captions
from rice.train.config import TrainConfig
from rice.train.learner import Learner, Tower


def write_final(learner: Learner, folder: Path) -> None:
    """Write all of it, whole or not at all; a folder that is there is kept. Collective.

    Errors: RiceError, the same on every rank, where it cannot be written; nothing is left then.
    """
    lead(lambda: _clear(folder))
    if lead(folder.exists):
        return
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(learner.embedder, options=options)
    temporary = lead(lambda: temporary_folder(folder))
    try:
        settle(lambda: _write_centers(learner, temporary))
        lead(lambda: _write_tower(learner, state, temporary))
        lead(lambda: publish_folder(temporary, folder))
    except Exception:
        if learner.world.leads:
            remove_folder(temporary)
        raise


def _clear(folder: Path) -> None:
    """Remove what a run that was killed has left of it; this one holds the lock of its checkpoints."""
    for leftover in leftovers(folder):
        shutil.rmtree(leftover)


def new_tower(config: TrainConfig) -> Tower:
    """The network that the target trains, from its random initialisation."""
    tower = _new(config)
    if config.begin == "contrast":
        begin_with_contrast(tower if isinstance(tower, ViT) else tower.vit)
    return tower


def _new(config: TrainConfig) -> Tower:
    if config.target == "captions":
        return CaptionModel(config.vit, config.text)
    return RiceModel(config.vit, config.region) if config.target == "regions" else ViT(config.vit)


def load_tower(config: TrainConfig, folder: Path) -> Tower:
    """The tower of `folder`, with region layers or text tower where they are trained; rotary positions fit any size.

    Errors: RiceError where it is another architecture, or has none of these or others than the recipe's.
    """
    tower = load_rice(folder) if config.target == "regions" else load_vit(folder)
    found = tower.vit.config if isinstance(tower, RiceModel) else tower.config
    if replace(found, image_size=config.size) != config.vit:
        raise RiceError(f"{folder} holds {found}, the recipe trains {config.vit}; pass --tower")
    if isinstance(tower, RiceModel) and tower.region_config != config.region:
        raise RiceError(f"{folder} has {tower.region_config}, the recipe trains {config.region}; pass --region.* flags")
    if isinstance(tower, ViT) and config.target == "captions":
        return attach_captions(tower, config.text, folder)
    return tower.train()


def load_centers(bank: CenterBank, folder: Path) -> None:
    """Take over the rows of this rank's classes; their moments start anew.

    Errors: RiceError where the folder has no such centres, or of another number of classes or width.
    """
    expected = (bank.classes, bank.width)
    found = sorted(folder.glob(f"centers-{bank.name}-*.safetensors"))
    own, done = local(bank.state()["weight"]), 0
    for file in found:
        with open_safetensors(file) as content:
            rows = content.get_slice("weight")
            metadata = content.metadata() or {}
            first, shape = int(metadata.get("first", "-1")), (int(metadata.get("classes", "0")), rows.get_shape()[1])
            if shape != expected:
                raise RiceError(f"{file}: expected centres of {expected} (classes, width), got {shape}")
            low, high = max(first, bank.shard.start), min(first + rows.get_shape()[0], bank.shard.stop)
            if low < high:
                own[low - bank.shard.start : high - bank.shard.start] = rows[low - first : high - first]
                done += high - low
    if done != len(bank.shard):
        raise RiceError(
            f"{folder} holds {done} of the {len(bank.shard)} centres of {bank.name!r} that this rank needs; "
            "start from the `final` folder of a run on data with the same classes"
        )


def _write_centers(learner: Learner, folder: Path) -> None:
    rank, size = learner.world.rank, learner.world.size
    for name, bank in learner.banks.items():
        metadata = {"format": "pt", "classes": str(bank.classes), "first": str(bank.shard.start)}
        file = folder / f"centers-{name}-{rank:05d}-of-{size:05d}.safetensors"
        save_file({"weight": local(bank.state()["weight"]).cpu().contiguous()}, file, metadata=metadata)
        sort_facts(file)


def _write_tower(learner: Learner, state: Mapping[str, Tensor], folder: Path) -> None:
    with torch.device("meta"):
        tower = _new(learner.config)
    tower.load_state_dict({name.removeprefix("tower."): value for name, value in state.items()}, assign=True)
    if isinstance(tower, CaptionModel):
        save_captions(tower, learner.config.text, folder)
        tower = tower.vit
    save_rice(tower, folder)


def local(tensor: Tensor) -> Tensor:
    """This rank's rows, sharing memory with the bank."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
