"""Whose tokens are looked at: encoders by name, or what training runs have kept. Importing this imports no torch."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.provenance import device_name
from rice.encoders.identity import fingerprint
from rice.encoders.load import describe, load_encoder
from rice.encoders.spec import EncoderReference, EncoderSpec
from rice.encoders.weights import PUBLISHED, plain
from rice.errors import RiceError

if TYPE_CHECKING:
    from torch import Tensor

    from rice.encoders.base import Encoder
    from rice.train.read_tower import Stage

DEFAULT_GRID = 16


@dataclass(frozen=True, kw_only=True)
class Tower:
    """An encoder that is not built yet. `run`, `step`: of which training, and when; None for one that was named.

    `size`: input pixels that its name asks for. `load(device)` builds it.
    """

    label: str
    spec: EncoderSpec
    fingerprint: str
    load: Callable[[str], "Encoder"]
    size: int | None = None
    run: str | None = None
    step: int | None = None

    def shown(self, encoder: "Encoder") -> str:
        """The label; of a built encoder with random weights it says so."""
        said = encoder.trained or self.label.endswith("(untrained)")
        return self.label if said else f"{self.label} (untrained)"

    def facts(self, encoder: "Encoder", grid: int, edge: int) -> dict[str, Any]:
        """What a report says of the built encoder, its input of `edge` pixels and its `grid` x `grid` tokens."""
        return {
            "trained": encoder.trained,
            "weights": encoder.weights,
            "fingerprint": self.fingerprint,
            "spec": dataclasses.asdict(encoder.spec),
            "input": edge,
            "tokens": grid**2,
            "device": device_name(str(encoder.device)),
        }


@contextlib.contextmanager
def refused_size(encoder: "Encoder", label: str, images_B3HW: "Tensor", remedy: str) -> Iterator[None]:
    """Around a forward pass of images of another size than the encoder's own.

    Some towers only say when they run that they take no other. Errors: RiceError in one line, which ends in `remedy`.
    """
    import torch

    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        height, width = images_B3HW.shape[-2:]
        if height == width == encoder.spec.native_size or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())
        raise RiceError(f"{label} failed on {width} x {height} pixels ({reason}); {remedy}") from error


def named_towers(names: Sequence[str], weights: Sequence[str]) -> list[Tower]:
    """Encoders as users name them. `weights`: one for all, or one for each.

    Errors: RiceError for an unknown name, missing weights, another number of weights, an encoder that is there twice.
    """
    if len(weights) not in (1, len(names)):
        raise RiceError(f"expected --weights once, or once for each of {len(names)} encoders, got {len(weights)}")
    each = list(weights) * (len(names) if len(weights) == 1 else 1)
    towers = [_named(name, value) for name, value in zip(names, each, strict=True)]
    _refuse_twice([tower.label for tower in towers], "--encoders")
    return towers


def run_towers(runs: Sequence[Path]) -> list[Tower]:
    """All that one run, or two, have kept, by run and step. Of two runs: the steps that both have, to be compared.

    Errors: RiceError for what is no run, holds nothing, or is damaged; more than two; two without a common step.
    """
    from rice.train.read_tower import stages

    if len(runs) > 2:
        raise RiceError(f"expected one --run, or two to compare, got {len(runs)}")
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    _refuse_twice(names, "--run")
    kept = [stages(run) for run in runs]
    common = set.intersection(*({stage.step for stage in of_run} for of_run in kept))
    if not common:
        steps = " and ".join(", ".join(str(stage.step) for stage in of_run) for of_run in kept)
        raise RiceError(f"the two runs have kept no common step ({steps}); train both with one --machine.save-every")
    return [_stage(name, s) for name, of_run in zip(names, kept, strict=True) for s in of_run if s.step in common]


def matched_grid(towers: Sequence[Tower], asked: int | None) -> int:
    """Edge of the token grid that every tower gets: `asked`, else 16 or the largest below it that all can do.

    Errors: RiceError naming the tower that cannot, or that is named with another size.
    """
    grid = asked if asked is not None else next((g for g in range(DEFAULT_GRID, 1, -1) if _all_can(towers, g)), 0)
    if asked is not None and asked < 2:
        raise RiceError(f"expected --grid of at least 2, got {asked}")
    if grid == 0:
        takes = "; ".join(f"{t.label}: {t.spec.native_size} px or multiples of {t.spec.size_multiple}" for t in towers)
        raise RiceError(f"no grid of up to {DEFAULT_GRID} x {DEFAULT_GRID} tokens suits all ({takes}); pass a --grid")
    for tower in towers:
        edge = grid * tower.spec.patch
        tower.spec.check_size(edge, edge)
        if tower.size not in (None, edge):
            raise RiceError(
                f"a grid of {grid} x {grid} tokens gives {tower.label} {edge} pixels, but @{tower.size} was asked; "
                f"drop @{tower.size}, or choose a --grid that fits"
            )
    return grid


def _all_can(towers: Sequence[Tower], grid: int) -> bool:
    for tower in towers:
        try:
            tower.spec.check_size(grid * tower.spec.patch, grid * tower.spec.patch)
        except RiceError:
            return False
    return True


def _named(name: str, weights: str) -> Tower:
    reference = EncoderReference.parse(name)
    values = plain(weights)
    layer = "" if reference.layer is None else f",layer={reference.layer}"
    words = {PUBLISHED: "", None: " (untrained)"}.get(values, f" ({values})")
    return Tower(
        label=f"{reference.name}{layer}{words}",
        spec=describe(reference, values),
        fingerprint=fingerprint(reference, values),
        load=lambda device: load_encoder(reference, weights=values, device=device),
        size=reference.size,
    )


def _stage(run: str, stage: "Stage") -> Tower:
    from rice.train import read_tower

    label = f"{run}, step {stage.step:,}"
    if stage.final:
        reference = EncoderReference(f"rice:{stage.folder}")
        return Tower(
            label=label,
            spec=describe(reference),
            fingerprint=fingerprint(reference),
            load=lambda device: load_encoder(reference, device=device),
            run=run,
            step=stage.step,
        )
    return Tower(
        label=label,
        spec=read_tower.spec_of(stage.folder),
        fingerprint=read_tower.fingerprint(stage.folder),
        load=lambda device: read_tower.read_encoder(stage.folder, device),
        run=run,
        step=stage.step,
    )


def _refuse_twice(labels: Sequence[str], flag: str) -> None:
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise RiceError(f"{flag} names {twice[0]} twice; name each once")
