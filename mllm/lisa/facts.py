"""`rice_lisa.json`: what a segmenting model's folder says of how it came to be. Imports no torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rice.errors import RiceError
from rice.files import read_object, write_json

FACTS = "rice_lisa.json"
_MODEL = "model"
"""Where `rice lisa train` puts it, in its --out."""


@dataclass(frozen=True, kw_only=True)
class LisaFacts:
    """What the Llava's own `rice_llava.json` beside it does not say. `segmenter`: as it was asked for,
    `segmenter_digest` of its values before training; `start`: digest of the Llava's values that it began with; `sets`:
    name -> fingerprint and numbers of pictures and targets, of what was learnt from ("vqa": of rows); `drawn`: samples
    of each kind."""

    recipe: str
    segmenter: str
    segmenter_digest: str
    start: str
    shuffled: bool
    seed: int
    steps: int
    drawn: Mapping[Any, int]
    sets: dict[str, dict[str, Any]]
    config: dict[str, Any]
    versions: dict[str, str | None]

    def write(self, folder: Path) -> None:
        """Beside the model."""
        write_json(folder / FACTS, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Errors: RiceError where there are none, or another version's."""
        if not (folder / FACTS).is_file():
            hint = f"; is it {folder / _MODEL}?" if (folder / _MODEL / FACTS).is_file() else ""
            raise RiceError(f"expected a model of rice lisa train, found no {folder / FACTS}{hint}")
        stored = read_object(folder / FACTS)
        fields = {field.name for field in dataclasses.fields(cls)}
        if stored.keys() != fields:
            odd = sorted(stored.keys() ^ fields)
            raise RiceError(f"{folder / FACTS} was written by another version of rice-suite: {', '.join(odd[:3])}")
        return cls(**stored)
