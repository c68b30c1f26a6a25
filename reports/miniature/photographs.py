"""The same arms on a thousand real photographs: OUT/photographs, with the settings found on generated pictures.

So few pictures that differences may be noise. No claim was made about them; the page's verdicts are read as such.

DATA/photos/WNID_label.jpg                    captioned "a label"
DATA/coco/train2017, annotations/             captioned by the categories that are annotated
DATA/coco/val2017, DATA/bccd                  what the probes judge on
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from reports.miniature.arms import ARMS, Arm, Flags
from reports.miniature.data import SPLIT
from reports.miniature.run import Miniature
from reports.miniature.settings import MiniatureConfig
from rice.data.coco import open_split
from rice.data.picture import open_upright
from rice.errors import RiceError
from rice.files import atomic_folder, write_json
from rice.progress import Progress

FOLDER = "photographs"
_MOST_TOLD = 5
_PROBES = ("dense", "detection")
"""Those that have real data here: dense on COCO, detection on COCO and blood cells."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotographMiniature(Miniature):
    """A miniature whose pictures are photographs. data: the folder of the module's head."""

    data: Path

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Without the oracle: most photographs have no annotated box."""
        return tuple(arm for arm in ARMS if arm.name != "oracle")

    def run_with(self, chosen: dict[str, Flags]) -> Path:
        """All of it, with settings that were found elsewhere; the page."""
        self.check()
        return self.locked(lambda: self.finish(chosen))

    def check(self) -> None:
        """Errors: RiceError naming the first folder that is missing, before anything is computed."""
        for part in ("photos", "coco/train2017", "coco/val2017", "coco/annotations", "bccd"):
            if not (self.data / part).is_dir():
                raise RiceError(
                    f"--photographs {self.data}: expected photos/, coco/ (2017's layout) and bccd/ in it, "
                    f"found no {part}"
                )

    def pictures(self) -> Path:
        """Photographs, their shorter side made the miniature's size."""
        return write_photographs(self.out / "pictures", self.data, self.config.size, self.progress)

    def teacher_pictures(self, pictures: Path) -> Path:
        """The same: there are no others."""
        return pictures

    def datasets(self) -> dict[str, dict[str, Any]]:
        """Real ones."""
        return {"coco": {"path": str(self.data / "coco")}, "bccd": {"path": str(self.data / "bccd")}}

    def probes(self) -> list[dict[str, Any]]:
        """Those of the miniature that have real data."""
        chosen = [dict(probe) for probe in self.config.probes if probe["probe"] in _PROBES]
        data: Mapping[str, list[str]] = {"dense": ["coco"], "detection": ["coco", "bccd"]}
        return [probe | {"data": data[probe["probe"]]} for probe in chosen]


def few(config: MiniatureConfig) -> MiniatureConfig:
    """A miniature's configuration for a thousand pictures: half the updates and clusters, at equal updates alone."""
    return dataclasses.replace(
        config,
        updates=max(1, config.updates // 2),
        teacher_updates=max(1, config.teacher_updates // 2),
        regions=max(1, config.regions // 2),
        wholes=max(1, config.wholes // 2),
        equal_time=False,
    )


def write_photographs(folder: Path, data: Path, size: int, progress: Progress) -> Path:
    """Copy what `read_photographs` finds, made small, in the layout of `reports.miniature.data`; whole or not at all.

    Errors: RiceError naming a file that cannot be read.
    """
    if folder.is_dir():
        return folder
    found = list(read_photographs(data))
    images, captions = [], []
    with atomic_folder(folder) as temporary:
        (temporary / SPLIT).mkdir()
        for id_, (path, text) in enumerate(progress.track(found, "make photographs small", len(found)), start=1):
            picture = _smaller(open_upright(path), size)
            name = f"{id_:06d}.png"
            picture.save(temporary / SPLIT / name)
            images.append({"id": id_, "file_name": name, "width": picture.width, "height": picture.height})
            captions.append({"id": id_, "image_id": id_, "caption": text})
        (temporary / "annotations").mkdir()
        nothing = {"categories": [{"id": 1, "name": "none"}], "annotations": []}
        write_json(temporary / "annotations" / f"instances_{SPLIT}.json", {"images": images, **nothing})
        write_json(temporary / "annotations" / f"captions_{SPLIT}.json", {"annotations": captions})
    return folder


def read_photographs(data: Path) -> Iterator[tuple[Path, str]]:
    """Each photograph to learn from, with its caption."""
    for path in sorted((data / "photos").iterdir()):
        _, _, label = path.stem.partition("_")
        yield path, f"a {label.replace('_', ' ')}"
    split = open_split(data / "coco", "train2017")
    names = [category.name for category in split.categories]
    for image in split.images:
        there = dict.fromkeys(names[one.category] for one in image.annotations)
        yield split.files.folder / image.file_name, " and ".join(f"a {name}" for name in list(there)[:_MOST_TOLD])


def _smaller(picture: Image.Image, size: int) -> Image.Image:
    scale = size / min(picture.size)
    width, height = (max(size, round(edge * scale)) for edge in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
