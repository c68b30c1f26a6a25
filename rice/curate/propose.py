"""Stage `propose`: boxes of the regions of every picture, by a model, by segments, or as the source annotates them.

OUT/propose/SHARD.parquet has a row for every kept picture: key, boxes (R, 4) uint16 xyxy in pixels of the upright
picture, scores (R,).
"""

import functools
import itertools
from collections import Counter
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from rice.curate.decode import DecodeStage
from rice.curate.pictures import decoded, kept
from rice.curate.proposals.config import ProposalConfig
from rice.curate.proposals.filter import select
from rice.curate.proposals.proposer import Proposals, Proposer, build_proposer
from rice.curate.stage import Done, Stage, Work
from rice.curate.tables import Row, write_rows
from rice.encoders.weights import place, weight_files
from rice.errors import require
from rice.files import sha256_unchanged

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("boxes", pa.list_(pa.list_(pa.uint16(), 4))),
        ("scores", pa.list_(pa.float32())),
    ]
)
NOT_ANNOTATED = "pictures without annotations"
_SAM = ("sam_checkpoint", "points_per_side", "sam_iou", "sam_stability")
"""Settings that count with SAM alone."""
_AT_ONCE = 8
"""Pictures that a proposer is given together."""


@dataclass(frozen=True)
class ProposeStage(Stage):
    """Regions of pictures."""

    out: Path
    config: ProposalConfig

    name: ClassVar[str] = "propose"

    def on_gpu(self) -> bool:
        """SAM is a network."""
        return self.config.proposals == "sam"

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        if self.config.proposals == "segments":
            require("skimage", "curate")  # said before hours of work
        facts = asdict(self.config)
        sam = {name: facts.pop(name) for name in _SAM}
        if self.config.proposals == "sam":
            source = place(self.config.sam_checkpoint)
            folder = Path(source.place)
            files = [*weight_files(folder), *sorted(folder.glob("*.json"))] if source.kind == "local" else []
            facts |= sam | ({"sam_checkpoint": [sha256_unchanged(file) for file in files]} if files else {})
        return {name: value for name, value in facts.items() if not name.endswith("_per_batch")}

    def settings(self) -> dict[str, Any]:
        """How regions are found, and which are left."""
        return self._settings

    def inputs(self, shard: str) -> list[str]:
        """The pictures."""
        return [self.before(DecodeStage.name, shard).digest]

    def open(self, device: str) -> Work:
        """Load the model, if there is one."""
        proposer = None if self.config.proposals == "boxes" else build_proposer(self.config, device)
        return functools.partial(self._propose, proposer=proposer)

    def _propose(self, shard: str, proposer: Proposer | None) -> Generator[None, None, Done]:
        rows: list[dict[str, Any]] = []
        counts, drops = Counter[str](), Counter[str]()
        for picture, proposals in self._found(shard, proposer, counts):
            chosen = select(proposals, picture["width"], picture["height"], self.config)
            counts["proposed"] += len(proposals.boxes)
            counts["regions"] += len(chosen.boxes)
            drops.update(chosen.dropped)
            rows.append({"key": picture["key"], "boxes": chosen.boxes.tolist(), "scores": chosen.scores.tolist()})
            yield
        path = self.folder / f"{shard}.parquet"
        write_rows(path, rows, SCHEMA)
        return Done(products=(path,), counts=counts, drops=drops)

    def _found(
        self, shard: str, proposer: Proposer | None, counts: Counter[str]
    ) -> Generator[tuple[Row, Proposals], None, None]:
        pictures = kept(self.out, shard)
        if proposer is None:
            for picture in pictures:
                counts[NOT_ANNOTATED] += picture["annotated"] is None
                yield picture, _annotated(picture)
            return
        pixels = decoded(self.out, shard, pictures)
        for first in range(0, len(pictures), _AT_ONCE):
            some = pictures[first : first + _AT_ONCE]
            yield from zip(some, proposer(list(itertools.islice(pixels, len(some)))), strict=True)


def _annotated(picture: Row) -> Proposals:
    boxes_R4 = np.array(picture["annotated"] or [], dtype=np.float64).reshape(-1, 4)
    return Proposals(boxes_R4, np.array(picture["confidence"] or [], dtype=np.float32))
