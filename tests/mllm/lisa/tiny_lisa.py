"""A segmenting model of random weights and pictures to ask it about, alike every time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lisa_root import write_llava
from PIL import Image
from tiny_parts import noise
from tiny_sam import tiny_processor, tiny_sam

from mllm.lisa.facts import LisaFacts
from mllm.lisa.model import Lisa, Trained, add_seg, load_llava, save_lisa
from mllm.lisa.pictures import Picture, Target
from mllm.lisa.segmenter import Segmenter
from mllm.llava.facts import LlavaFacts
from mllm.llava.tiling import Tiling


def write_lisa(folder: Path, tiling: Tiling = "2x2+1", kind: str = "sam") -> Path:
    """As rice lisa train leaves it in OUT/model. `folder`: must not exist. kind: of `tiny_sam`."""
    start = write_llava(folder.with_name("llava"), tiling)
    llava = load_llava(start)
    lisa = Lisa(llava.model, Segmenter(tiny_sam(kind), tiny_processor(kind)), add_seg(llava.model, llava.tokenizer))
    torch.manual_seed(2)
    for layer in (lisa.projection[0], lisa.projection[2]):
        torch.nn.init.normal_(layer.weight, std=2.0)
    save_lisa(lisa, llava, folder)
    facts = LlavaFacts.read(start)
    facts.write(folder)
    LisaFacts(
        recipe="own", segmenter="tiny", segmenter_digest="s", start="", shuffled=False, seed=0, steps=1, drawn={},
        sets={}, config=facts.config, versions={},
    ).write(folder)  # fmt: skip
    return folder


def load(folder: Path) -> Trained:
    """On the CPU."""
    return Trained.load(folder, device="cpu")


@dataclass(frozen=True)
class Split:
    """As `mllm.lisa.sets.DataSet` names one."""

    name: str = "refcoco"
    split: str = "val"
    kind: str = "refer"

    @property
    def full_name(self) -> str:
        """Set and split."""
        return f"{self.name}_{self.split}"


class Memory(Sequence[Picture]):
    """Pictures of noise with a rectangle as target, as `mllm.lisa.pictures.Pictures` gives them. Every third picture
    has an expression without a target; some pixels of the first do not count."""

    def __init__(self, count: int = 20) -> None:
        self.count = count

    def fingerprint(self) -> str:
        """Of the data."""
        return f"memory {self.count}"

    def refused(self) -> list[str]:
        """Nothing."""
        return []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        number = range(self.count)[index]
        targets = [Target(f"{number}-a", ("the red box", f"box {number}"), masks=("",))]
        targets += [Target(f"{number}-b", ("no such thing",))] if number % 3 == 0 else []
        return Picture(str(number), "memory", f"{number}.png", 40 + number, 60, None, tuple(targets))

    def open_image(self, picture: Picture) -> Image.Image:
        """Noise."""
        return noise(picture.height, picture.width, int(picture.id))

    def mask(self, picture: Picture, target: Target) -> np.ndarray[Any, Any]:
        """The left half, or nothing."""
        mask_HW = np.zeros((picture.height, picture.width), dtype=np.uint8)
        if not target.absent:
            mask_HW[:, :30] = 1
            mask_HW[:5] = 255
        return mask_HW


class Material:
    """As `mllm.lisa.material.LisaMaterial`."""

    def __init__(self, count: int = 20) -> None:
        self.all = [(Split(), Memory(count)), (Split(split="testA"), Memory(3))]

    def judged(self, asked: str) -> list[Split]:
        """All, or by name."""
        return [one for one, _ in self.all if asked == "all" or one.full_name in asked.split(",")]

    def pictures(self, sets: list[Split], prepared: Path, progress: Any) -> list[Memory]:
        """Of these sets."""
        return [pictures for one, pictures in self.all if one in sets]
