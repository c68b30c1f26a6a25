"""`rice_llava.json`: what a model's folder says of how it came to be. Imports no torch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from mllm.llava.tiling import Tiles, Tiling
from rice.errors import RiceError
from rice.files import read_object, sha256_json, sha256_unchanged, write_json

FACTS = "rice_llava.json"


@dataclass(frozen=True, kw_only=True)
class LlavaFacts:
    """`encoder`: as written, `weights` as given, `fingerprint` of its values before training, `trained` whether they
    ever were; `spec`: its facts; `layer`: the hidden state read; `size`: of a tile in pixels; `lm`: the language
    model's name, `lm_digest`: of what it was filled with where it is a local folder. `examples`: stage -> rows that it
    learnt from; `left_out`: too long ones; `refused`: those that were left out in preparing, by reason. `data`:
    fingerprints of the rows."""

    encoder: str
    weights: str | None
    fingerprint: str
    trained: bool
    spec: dict[str, Any]
    layer: int
    patch: int
    size: int
    tiling: str
    arch: str
    lm: str
    lm_digest: str | None
    recipe: str
    blind: bool
    lora: int
    seed: int
    examples: dict[str, int]
    left_out: dict[str, int]
    refused: dict[str, dict[str, int]]
    config: dict[str, Any]
    data: str
    versions: dict[str, str | None]

    def tiles(self) -> Tiles:
        """How its pictures become tokens."""
        return Tiles(tiling=cast(Tiling, self.tiling), edge=self.size, side=self.size // self.patch)

    def write(self, folder: Path) -> None:
        """Beside the model."""
        write_json(folder / FACTS, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Errors: RiceError where there are none, or another version's."""
        stored = read_object(folder / FACTS)
        fields = {field.name for field in dataclasses.fields(cls)}
        if stored.keys() != fields:
            odd = sorted(stored.keys() ^ fields)
            raise RiceError(f"{folder / FACTS} was written by another version of rice-suite: {', '.join(odd[:3])}")
        return cls(**stored)


def lm_digest(name: str) -> str | None:
    """Of the values of a language model in a local folder; None for one of the hub, which its name stands for."""
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    return sha256_json([sha256_unchanged(file) for file in files]) if files else None
