"""Heads that were trained on a frozen encoder: their file, the encoder that belongs to them, what a training keeps.

A probe with heads names its facts and uses the rest as it is:

    @dataclass(frozen=True, kw_only=True)
    class TrackerFacts(Facts):
        KEY, WHAT, VERB = "rice.tracking", "tracker", "rice track train"
        sizes: tuple[int, int]

The file is safetensors with the facts as JSON in its header. The encoder's weights are not in it.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, get_type_hints

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from probes.protocol import Probe, identity
from probes.provenance import versions
from rice.errors import RiceError
from rice.files import atomic_write, read_json, write_json
from rice.runs import same_run

if TYPE_CHECKING:
    import torch
    from _typeshed import DataclassInstance

    from rice.encoders.base import Encoder

BEST, LAST, EVALUATIONS = "best.safetensors", "last.safetensors", "evaluations.json"

Config = TypeVar("Config", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A frozen encoder as a training names it: `reference` as written, e.g. `rice-b16-512@256`; `fingerprint`: of its
    `weights` ("default", a path, or None for random ones)."""

    encoder: "Encoder"
    reference: str
    weights: str | None
    fingerprint: str

    @classmethod
    def load(cls, reference: str, weights: str | None, device: "torch.device") -> "Tower":
        """By name. Errors: RiceError, as `rice.load_encoder`."""
        from rice.encoders.identity import fingerprint
        from rice.encoders.load import load_encoder
        from rice.encoders.spec import EncoderReference

        parsed = EncoderReference.parse(reference)
        encoder = load_encoder(parsed, weights=weights, device=device).requires_grad_(False)
        return cls(encoder=encoder, reference=reference, weights=weights, fingerprint=fingerprint(parsed, weights))

    @classmethod
    def of(cls, encoder: "Encoder") -> "Tower":
        """An encoder that is there already, as its spec names it. One that no name leads to is known by its values:
        its heads are for use from Python only."""
        from probes.cache import weights_digest
        from rice.encoders.identity import fingerprint
        from rice.encoders.spec import EncoderReference
        from rice.encoders.weights import plain

        spec, weights = encoder.spec, plain(encoder.weights)
        reference = EncoderReference(spec.name, spec.native_size, spec.layer)
        try:
            mark = fingerprint(reference, weights)
        except RiceError:
            mark = weights_digest(encoder.module)
        return cls(encoder=encoder, reference=str(reference), weights=weights, fingerprint=mark)

    def facts(self) -> dict[str, Any]:
        """What `Facts` says of the encoder and of the software."""
        spec = self.encoder.spec
        return {
            "encoder": self.reference,
            "weights": self.weights,
            "fingerprint": self.fingerprint,
            "patch": spec.patch,
            "width": spec.width,
            "versions": versions(),
        }


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What heads were trained on and with. `encoder`, `weights`, `fingerprint`: see `Tower`; `config`: of the training;
    `done`, `updates`: steps; `scores`: of the test set, where it was judged. KEY: in the file's header; WHAT the heads
    are, and the VERB that trains them, for messages."""

    KEY: ClassVar[str]
    WHAT: ClassVar[str]
    VERB: ClassVar[str]

    encoder: str
    weights: str | None
    fingerprint: str
    patch: int
    width: int
    config: dict[str, Any]
    seed: int
    done: int
    updates: int
    scores: dict[str, float]
    versions: dict[str, str | None]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Errors: RiceError for a file that is missing, damaged, or holds something else."""
        try:
            with safe_open(path, framework="pt") as file:
                stored = json.loads((file.metadata() or {})[cls.KEY])
            return cls(**{name: _tuples(value) for name, value in stored.items()})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RiceError(f"expected a {cls.WHAT} at {path} ({BEST} or {LAST} of {cls.VERB}): {error}") from error

    def open_tower(self, path: Path, device: "torch.device") -> "Encoder":
        """The encoder that these heads, at `path`, were trained on. Errors: RiceError where its weights changed."""
        tower = Tower.load(self.encoder, self.weights, device)
        if tower.fingerprint != self.fingerprint:
            raise RiceError(f"{path} was trained on other weights of {self.encoder} than are there now; train it anew")
        return tower.encoder


def save_heads(path: Path, heads: nn.Module, facts: Facts) -> None:
    """Write atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in heads.state_dict().items()}
    with atomic_write(path, "wb") as file:
        file.write(save(tensors, metadata={facts.KEY: json.dumps(dataclasses.asdict(facts))}))


def load_heads(path: Path, heads: nn.Module, facts: Facts, encoder: "Encoder") -> None:
    """Fill fresh `heads`, leave them on the encoder's device and in evaluation mode.

    Errors: RiceError for an encoder of another shape than they were trained on, or tensors other than described.
    """
    spec = encoder.spec
    if (spec.patch, spec.width) != (facts.patch, facts.width):
        raise RiceError(
            f"{path} was trained on an encoder of patch {facts.patch} and width {facts.width}, {spec.name} has "
            f"{spec.patch} and {spec.width}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            heads.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise RiceError(f"{path} does not hold the heads that it describes: {said}") from error
    heads.to(encoder.device).eval()


def config_from(kind: type[Config], stored: Any) -> Config:
    """A configuration from what `dataclasses.asdict` made of it and JSON kept. Errors: RiceError where another version
    wrote other fields; a field that is new since then has its default."""
    hints, known = get_type_hints(kind), {field.name for field in dataclasses.fields(kind)}
    if not isinstance(stored, dict) or not stored.keys() <= known:
        odd = ", ".join(sorted(stored.keys() - known)) if isinstance(stored, dict) else repr(stored)
        raise RiceError(f"the file was written by another version of rice-suite: {kind.__name__} has no {odd}")
    nested = [name for name in known if dataclasses.is_dataclass(hints[name])]
    fields = {name: _tuples(value) for name, value in stored.items()}
    return kind(**fields | {name: config_from(hints[name], stored.get(name)) for name in nested})


def same_training(folder: Path, tower: Tower, probe: Probe, seed: int) -> None:
    """Make `folder` this training's. Errors: RiceError where it is another one's, naming what differs."""
    facts = {"encoder": tower.fingerprint, "size": probe.input_size(tower.encoder.spec, None)}
    same_run(folder, facts | {"config": identity(probe.config), "data": probe.fingerprint(), "seed": seed})


def keep_heads(folder: Path, heads: nn.Module, facts: Facts, headline: Callable[[Mapping[str, float]], float]) -> None:
    """Write an evaluation's heads as LAST, and as BEST where no earlier one has a higher headline of its scores; then
    enter it in EVALUATIONS. A run that resumes drops what it entered after the point that it resumed from."""
    path = folder / EVALUATIONS
    earlier = [entry for entry in (read_json(path) if path.exists() else []) if entry["done"] < facts.done]
    save_heads(folder / LAST, heads, facts)
    if headline(facts.scores) >= max(map(headline, earlier), default=-math.inf):
        save_heads(folder / BEST, heads, facts)
    write_json(path, [*earlier, {"done": facts.done, **facts.scores}])


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
