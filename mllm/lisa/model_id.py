"""Whose masks are judged: the Llava's own id (`mllm.llava.model_id`), with the segmenter beside it and LISA's facts."""

import dataclasses
from pathlib import Path
from typing import Any

from mllm.lisa.facts import LisaFacts
from mllm.lisa.model import SEGMENTER
from mllm.llava.model_id import ModelId, name_of
from probes.import_formats.foreign import Whose
from rice.files import sha256_json, sha256_unchanged

_NOT_THE_TRAINING = frozenset({"shuffled"})
"""What learnt shuffled expressions is compared with what learnt the true ones, on the same questions."""
_PLACES = frozenset({"lm", "segmenter"})
"""Of a configuration: may be folders. Where files lay is not what was measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LisaId:
    """`llava`: of the folder, whose digest covers the layers in between; `digest`: of all that makes masks."""

    llava: ModelId
    lisa: LisaFacts
    digest: str

    @classmethod
    def of(cls, folder: Path) -> "LisaId":
        """OUT/model of rice lisa train. Errors: RiceError."""
        lisa = LisaFacts.read(folder)
        return cls(llava=ModelId.of(str(folder)), lisa=lisa, digest=digest_of(folder))

    def whose(self, label: str | None) -> Whose:
        """The encoder as results name it; what learnt shuffled expressions says so."""
        whose = self.llava.whose(label)
        return dataclasses.replace(whose, label=f"{whose.label}, shuffled") if self.lisa.shuffled else whose

    def training(self) -> dict[str, Any]:
        """What of the training tells measurements of one encoder apart: part of a result's identity."""
        lisa = self.lisa
        own = {"recipe": lisa.recipe, "segmenter": name_of(lisa.segmenter), "segmenter_sha256": lisa.segmenter_digest}
        config = {
            key: name_of(value) if key in _PLACES else value
            for key, value in lisa.config.items()
            if key not in _NOT_THE_TRAINING
        }
        return self.llava.training() | own | {"training": config}


def digest_of(folder: Path) -> str:
    """SHA-256 over the Llava, the layers in between and the segmenter."""
    parts = sorted(path for path in (folder / SEGMENTER).iterdir() if path.is_file())
    return sha256_json([ModelId.of(str(folder)).digest, {path.name: sha256_unchanged(path) for path in parts}])
