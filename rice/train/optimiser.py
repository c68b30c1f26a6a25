"""The tower's optimiser: AdamW, or Muon on the matrices of its blocks and AdamW on the rest."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from rice.model.region import RegionLayer
from rice.model.vit import Block
from rice.train.config import OptimiserConfig

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
_HIDDEN = (Block, RegionLayer)


class TowerOptimiser:
    """All that moves a module's parameters; the sampled class centres have their bank's AdamW.

    Muon (Keller Jordan's; `torch.optim.Muon`: Nesterov's momentum 0.95, orthogonalised by five Newton-Schulz steps)
    has the products inside blocks and region layers, as it is meant for hidden layers only.
    """

    def __init__(self, module: nn.Module, config: OptimiserConfig, *, spare_vectors: bool) -> None:
        """`spare_vectors`: no decay of gains, biases and scales."""
        self.config = config
        parameters = [p for p in module.parameters() if p.requires_grad]
        hidden = _hidden(module) if config.muon else []
        theirs = {id(p) for p in hidden}
        rest = [p for p in parameters if id(p) not in theirs]
        self._adamw = torch.optim.AdamW(
            _groups(rest, spare_vectors),
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._all: list[torch.optim.Optimizer] = [self._adamw]
        if hidden:
            self._all.append(
                torch.optim.Muon(hidden, lr=config.muon, weight_decay=config.weight_decay, momentum=0.95, nesterov=True)
            )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both."""
        return [group for optimiser in self._all for group in optimiser.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimiser in self._all:
            optimiser.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """Update at AdamW's learning rate `rate`; Muon's has the same share of its peak."""
        for group in self._adamw.param_groups:
            group["lr"] = rate
        for muon in self._all[1:]:
            for group in muon.param_groups:
                group["lr"] = self.config.muon * rate / self.config.learning_rate
        for optimiser in self._all:
            optimiser.step()

    def state(self, module: nn.Module) -> dict[str, Any]:
        """Tensors by the names of `module`'s parameters: those of no step, too, where none was taken yet.

        torch makes them when it is asked, but not where there are gradients, and counts that as a step.
        """
        fresh = [optimiser for optimiser in self._all if not optimiser.state]
        if fresh:
            self.zero_grad()
            get_optimizer_state_dict(module, self._all, options=_FLAT)
        for counts in (values for optimiser in fresh for values in optimiser.state.values()):
            if "step" in counts:
                counts["step"].zero_()
        return get_optimizer_state_dict(module, self._all, options=_FLAT)

    def restore(self, module: nn.Module, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        set_optimizer_state_dict(module, self._all, state, options=_FLAT)


def _hidden(module: nn.Module) -> list[Tensor]:
    """Trainable matrices of blocks and region layers."""
    parts = [part for part in module.modules() if isinstance(part, _HIDDEN)]
    return [p for part in parts for p in part.parameters() if p.requires_grad and p.ndim == 2]


def _groups(parameters: Iterable[Tensor], spare_vectors: bool) -> list[dict[str, Any]]:
    """What decays, and what does not."""
    if not spare_vectors:
        return [{"params": list(parameters)}]
    matrices, others = list[Tensor](), list[Tensor]()
    for parameter in parameters:
        (matrices if parameter.ndim > 1 else others).append(parameter)
    return [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
