"""Where the data of a training lies: the rows of a LLaVA, and the sets to segment, in LISA's own tree.

    ROOT/pretrain, ROOT/instruct     rows, as for rice llava train (mllm.llava.material); instruct is also the mixture's
                                     part of visual questions, as is
    ROOT/llava_dataset/llava_instruct_150k.json    where there is no instruct, with pictures in ROOT/coco/train2017;
                                     pretrain may be there beside it
    ROOT/refer_seg, ROOT/ade20k, ... sets to segment (mllm.lisa.sets)

Imports no torch.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mllm.lisa.pictures import Pictures
from mllm.lisa.refer import forget
from mllm.lisa.sets import DataSet, find_sets, prepare
from mllm.llava.config import LlavaConfig
from mllm.llava.material import PRETRAIN, Material, source_of
from probes.protocol import NotThisLayoutError
from rice.errors import RiceError, nearest
from rice.files import sha256_json
from rice.progress import Progress

_LISA_ROWS, _LISA_PICTURES = "llava_dataset/llava_instruct_150k.json", "coco/train2017"
TRAIN = "train"


@dataclass(frozen=True)
class LisaMaterial:
    """A data root."""

    root: Path

    @cached_property
    def sets(self) -> list[DataSet]:
        """What is there to segment, of all splits. Errors: NotThisLayoutError where there is nothing."""
        found = find_sets(self.root)
        if not found:
            raise NotThisLayoutError(
                f"expected sets to segment in {self.root}, such as refer_seg/refcoco, ade20k or reason_seg, found none"
            )
        return found

    @cached_property
    def llava(self) -> Material | None:
        """Rows of captions and conversations, None where there are none."""
        try:
            return Material.at(self.root)
        except NotThisLayoutError:
            rows = self.root / _LISA_ROWS
            if not rows.is_file():
                return None
            first = source_of(self.root, PRETRAIN)
            return Material(root=self.root, pretrain=first, instruct=rows, pictures=self.root / _LISA_PICTURES)

    def rows(self, config: LlavaConfig) -> Material:
        """What a LLaVA is trained on. Errors: RiceError where rows of a stage are not there."""
        if self.llava is None:
            raise RiceError(
                f"expected pretrain and instruct, rows of rice llava prepare, in {self.root}, found no instruct; or "
                "begin with a trained model: --llava MODEL"
            )
        if config.stage1.epochs:
            self.llava.expect_pretrain()
        return self.llava

    def training(self) -> list[DataSet]:
        """Sets to learn from. Errors: NotThisLayoutError where there is none."""
        found = [one for one in self.sets if one.split == TRAIN]
        if not found:
            raise NotThisLayoutError(f"expected a split {TRAIN} of a set to segment in {self.root}, found none")
        return found

    def judged(self, asked: str) -> list[DataSet]:
        """Sets to be judged on. asked: names such as refcoco_val, with commas between, or all; each is taken once.

        Errors: RiceError for a name that is not there, and for none.
        """
        there = {one.full_name: one for one in self.sets if one.split != TRAIN}
        if asked == "all":
            if not there:
                raise RiceError(f"expected a split to be judged on in {self.root}, found only those to train on")
            return list(there.values())
        names = list(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
        if not names:
            raise RiceError(f"expected names of splits with commas between, or all, got {asked!r}")
        for name in names:
            if name not in there:
                hint = nearest(name, there)
                raise RiceError(f"no split {name!r} to be judged on in {self.root}.{hint} Found: {', '.join(there)}")
        return [there[name] for name in names]

    def pictures(self, sets: list[DataSet], prepared: Path, progress: Progress) -> list[Pictures]:
        """Of some sets, prepared where they are not yet."""
        try:
            return [prepare(one, prepared / one.full_name, progress) for one in sets]
        finally:
            forget()

    def describe(self) -> str:
        """One line."""
        train, rest = ([one.full_name for one in self.sets if (one.split == TRAIN) is mine] for mine in (True, False))
        rows = "no rows" if self.llava is None else self.llava.describe()
        return f"{rows}; segments {', '.join(train) or 'nothing'}; is judged on {', '.join(rest) or 'nothing'}"

    def fingerprint(self) -> str:
        """SHA-256 of the files that rows and sets come from, and of names and sizes of the rows' pictures."""
        rows = None if self.llava is None else self.llava.fingerprint()
        return sha256_json({"rows": rows, "sets": {one.full_name: one.fingerprint() for one in self.sets}})
