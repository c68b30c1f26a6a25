"""Training of LISA: the packed trainer of a Llava, with masks beside the rows, and lean checkpoints.

A checkpoint holds what learns, and nothing else: with adapters, these and the token tables, which are 4 % of a model.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from mllm.lisa.data import pack_segments
from mllm.lisa.model import Lisa
from mllm.llava.packing import Example
from mllm.llava.trainer import PackedTrainer, plain_name
from rice.errors import RiceError

LEARNT = "learnt.safetensors"


class LisaTrainer(PackedTrainer):
    """Sums of mask losses are divided by the masks of the whole step, over all ranks, as texts' are by its tokens."""

    collate: Callable[[Sequence[Example]], dict[str, Any]] = staticmethod(pack_segments)

    def __init__(self, model: nn.Module, *arguments: Any) -> None:
        """Errors: RiceError for a way of FSDP to keep checkpoints in parts, which Trainer would write in our stead."""
        super().__init__(model, *arguments)
        if self.is_fsdp_enabled:
            refuse_parts(self.accelerator.state.fsdp_plugin.state_dict_type)
        self._masks: Tensor | int = 1
        self._sums: dict[str, Tensor] = {}

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Counts the masks of a step, too."""
        count = sum(len(masks) for row in batch_samples for masks in row.get("masks", ()))
        found = torch.tensor(count, device=device)
        self._masks = self.accelerator.reduce(found, "sum").clamp(min=1)
        return super()._get_num_items_in_batch(batch_samples, device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As `PackedTrainer`; the parts of the loss are added up for the log."""
        found = super().compute_loss(model, {**inputs, "num_masks": self._masks}, return_outputs, num_items_in_batch)
        lisa: Lisa = self.accelerator.unwrap_model(model)
        for name, value in lisa.parts.items():
            self._sums[name] = self._sums.get(name, 0) + value
        return found

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """With the parts of the loss, over all ranks."""
        if "loss" in logs:
            sums, self._sums = self._sums, {}
            logs |= {name: float(self.accelerator.reduce(value, "sum")) for name, value in sums.items()}
        super().log(logs, *arguments, **options)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        lisa: Lisa = self.accelerator.unwrap_model(self.model)
        values: Mapping[str, Any] = lisa.learning()
        if state_dict is not None:
            whole = {plain_name(name): value for name, value in state_dict.items()}
            values = {name: whole[name] for name in values}
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in values.items()}, folder / LEARNT)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Errors: RiceError where the checkpoint is of something else."""
        target = self.model if model is None else model
        path = Path(resume_from_checkpoint) / LEARNT
        found: dict[str, Any] = load_file(path) if path.is_file() else {}
        names = {plain_name(name): name for name, value in target.named_parameters() if value.requires_grad}
        wrong = sorted(found.keys() ^ names.keys())
        if wrong:
            raise RiceError(
                f"expected {path} to hold what learns, got one that differs in {wrong[0]} and {len(wrong) - 1} more "
                f"parameters; remove {path.parent.parent}, or give the model that it belongs to"
            )
        values: dict[str, Any] = {names[plain]: value for plain, value in found.items()}
        set_model_state_dict(target, values, options=StateDictOptions(full_state_dict=True, strict=False))


def refuse_parts(kind: Any) -> None:
    """Errors: RiceError for a state_dict_type of FSDP other than the whole state."""
    if "FULL_STATE_DICT" not in str(kind):
        raise RiceError(
            f"expected fsdp_state_dict_type: FULL_STATE_DICT in accelerate's configuration, got {kind}; set it"
        )
