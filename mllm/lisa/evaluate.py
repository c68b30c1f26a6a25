"""Judges a trained model on splits of referring expressions, on one rank or several, and goes on where it was killed.

    OUT/prepared/SPLIT/                  the split, read and checked
    OUT/segmented/SPLIT/KEY/N.parquet    items of 16 pictures each; KEY says of which model, data and settings

Ranks share the parts that are not there yet, by the order of the pictures: each is computed by one rank, the same way
by any, so that numbers do not depend on how many ranks there are. Shapes: H, W a picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mllm.lisa.asked import Asked
from mllm.lisa.items import row_of, split_metrics, write_items
from mllm.lisa.material import LisaMaterial
from mllm.lisa.measures import overlaps
from mllm.lisa.model import Trained
from mllm.lisa.model_id import digest_of
from mllm.lisa.phrases import ask
from mllm.lisa.pictures import Picture, Pictures
from mllm.lisa.segment import Grounder, Sight
from mllm.lisa.sets import DataSet
from mllm.llava.train import ALONE
from probes.images import load_each
from probes.protocol import Metric
from rice.files import sha256_json
from rice.progress import Progress
from rice.train.world import World

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
"""Of how masks are made and judged: raised whenever a change of code changes them."""

PREPARED, SEGMENTED = "prepared", "segmented"
_PART = 16
"""Pictures of a part: what a killed evaluation does again at most, for each rank."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A split's expressions, in order. `data`: fingerprint of its pictures; `items`: see `mllm.lisa.items`; `refused`:
    a line for each reason for which some are not judged."""

    of: DataSet
    data: str
    items: "pd.DataFrame"
    asked: Asked
    refused: Sequence[str]

    @property
    def name(self) -> str:
        """Of set and split: refcoco_val."""
        return self.of.full_name

    def metrics(self, *, named: bool) -> Iterator[Metric]:
        """named: called SPLIT MEASURE, as those of one result with several splits."""
        return split_metrics(self.items, self.of.split, self.asked.most, prefix=f"{self.name} " if named else "")


def evaluate_splits(
    trained: Trained,
    material: LisaMaterial,
    splits: str,
    folder: Path,
    *,
    asked: Asked,
    progress: Progress,
    world: World = ALONE,
) -> Iterator[Judged]:
    """Each split as soon as it is done, on every rank. splits: see `LisaMaterial.judged`.

    Errors: RiceError naming a picture that cannot be read; for logits that are not finite.
    """
    sets = material.judged(splits)
    with world.leader_first():
        every = material.pictures(sets, folder / PREPARED, progress)
    grounder = Grounder(trained, most=asked.most, together=asked.together)
    model = digest_of(trained.folder)
    for one, pictures in zip(sets, every, strict=True):
        facts = {"version": VERSION, "model": model, "data": pictures.fingerprint(), "kind": one.kind}
        facts |= {"limit": asked.limit, "most": asked.most, "dtype": str(trained.lisa.llava.dtype)}
        place = folder / SEGMENTED / one.full_name / sha256_json(facts)[:16]
        run = _Run(grounder, one, pictures, place, len(range(len(pictures))[: asked.limit]))
        items = run.finish(world, progress)
        yield Judged(of=one, data=pictures.fingerprint(), items=items, asked=asked, refused=pictures.refused())


@dataclass(frozen=True)
class _Run:
    """One split. `count`: pictures."""

    grounder: Grounder
    of: DataSet
    pictures: Pictures
    folder: Path
    count: int

    def finish(self, world: World, progress: Progress) -> "pd.DataFrame":
        """Compute what is missing, this rank's share of it; then all items, in the order of the pictures."""
        import pandas as pd

        parts = range(0, self.count, _PART)
        missing = [start for start in parts if not self._part(start).is_file()]
        world.wait()  # all have looked before one writes
        self._compute(missing[world.rank :: world.size], progress)
        world.wait()
        return pd.concat([pd.read_parquet(self._part(start)) for start in parts], ignore_index=True)

    def _part(self, start: int) -> Path:
        return self.folder / f"{start:07}.parquet"

    def _compute(self, starts: Sequence[int], progress: Progress) -> None:
        import pandas as pd

        numbers = [number for start in starts for number in range(start, min(start + _PART, self.count))]
        rows: list[dict[str, Any]] = []
        loaded = progress.track(load_each(self._load, numbers), f"{self.of.full_name}: segment", len(numbers))
        for number, one in zip(numbers, loaded, strict=True):
            rows += self._judge(one)
            if number + 1 == self.count or (number + 1) % _PART == 0:
                write_items(self._part(number - number % _PART), [pd.DataFrame(rows)])
                rows = []

    def _load(self, number: int) -> "_Loaded":
        picture = self.pictures[number]
        masks = [torch.from_numpy(self.pictures.mask(picture, target)) for target in picture.targets]
        return _Loaded(picture, self.grounder.look(self.pictures.open_image(picture)), masks)

    def _judge(self, loaded: "_Loaded") -> Iterator[dict[str, Any]]:
        """A row for each expression; of class names and of ReasonSeg's questions the first, as LISA validates."""
        asked = [
            (number, k, target, text)
            for number, target in enumerate(loaded.picture.targets)
            for k, text in enumerate(target.texts if self.of.kind == "refer" else target.texts[:1])
        ]
        replies = self.grounder.reply(loaded.sight, [ask(target, text) for _, _, target, text in asked])
        for (number, k, target, text), reply in zip(asked, replies, strict=True):
            true_HW = loaded.masks[number].to(reply.mask_HW.device)
            said, forced = overlaps(torch.stack([reply.mask_HW, reply.given_HW]), true_HW.expand(2, -1, -1))
            yield {
                "id": f"{self.of.full_name}/{target.id}/{k}",
                "split": self.of.full_name,
                "picture": loaded.picture.id,
                "kind": self.of.kind,
                "text": text,
                "answer": reply.text,
                **row_of(said, forced),
            }


@dataclass(frozen=True)
class _Loaded:
    """A picture, ready. `masks`: uint8 (H, W) of each target."""

    picture: Picture
    sight: Sight
    masks: Sequence[Tensor]
