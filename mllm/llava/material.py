"""Where a training's rows lie: ROOT/pretrain and ROOT/instruct, prepared folders or the files that they come from.

    ROOT/pretrain/ or pretrain.json, .jsonl, .parquet    stage 1's captions (LLaVA: 558K)
    ROOT/instruct/ or instruct.json, ...                 stage 2's conversations (LLaVA-NeXT: 740K to 790K)
    ROOT/images/                                         pictures of such files; ROOT itself where there is none
    ROOT/benchmarks/TASK/*.parquet, ROOT/tasks/*.yaml    questions on this machine, and tasks that lmms-eval has not

Imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from mllm.llava.pictures import PictureConfig
from mllm.llava.prepare import prepare_rows
from mllm.llava.rows import PREPARED, Rows
from mllm.llava.sources import find_sources
from probes.protocol import NotThisLayoutError
from rice.errors import RiceError
from rice.files import read_object, sha256_json, sha256_unchanged
from rice.progress import Progress

PRETRAIN, INSTRUCT, IMAGES, BENCHMARKS, TASKS = "pretrain", "instruct", "images", "benchmarks", "tasks"
_SUFFIXES = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Material:
    """A data root. `pretrain`: None where stage 1 has no rows; `pictures`: root of the pictures of `instruct`, where it
    is not prepared yet, None where it is ROOT/images, or ROOT itself where there is no such folder, as for
    `pretrain`."""

    root: Path
    pretrain: Path | None
    instruct: Path
    pictures: Path | None = None

    @classmethod
    def at(cls, root: Path) -> "Material":
        """Errors: NotThisLayoutError where there is nothing to train stage 2 on; RiceError for two sources of one."""
        instruct = source_of(root, INSTRUCT)
        if instruct is None:
            raise NotThisLayoutError(
                f"expected {INSTRUCT} (a folder of rice llava prepare) or {INSTRUCT}.json in {root}, found neither"
            )
        return cls(root=root, pretrain=source_of(root, PRETRAIN), instruct=instruct)

    def describe(self) -> str:
        """One line."""
        first = "no stage 1" if self.pretrain is None else f"stage 1 on {self.pretrain.name}"
        return f"{first}, stage 2 on {self.instruct.name}"

    def expect_pretrain(self) -> None:
        """Errors: RiceError where stage 1 has no rows."""
        if self.pretrain is None:
            raise RiceError(
                f"expected {PRETRAIN} or {PRETRAIN}.json in {self.root} for stage 1, found neither; "
                "or leave it out: --stage1.epochs 0"
            )

    def rows(self, source: Path, prepared: Path, progress: Progress) -> Rows:
        """Of one of the two; files are prepared into the folder `prepared` first. Errors: RiceError, as `prepare`."""
        if (source / PREPARED).is_file():
            return Rows(source)
        folder = prepared / source.stem
        if _is_of(folder, source):
            return Rows(folder)
        prepare_rows([source], self.images(source), folder, config=PictureConfig(), progress=progress)
        return Rows(folder)

    def images(self, source: Path) -> Path:
        """Root of the pictures of one of the two, where it is not prepared yet."""
        usual = self.root / IMAGES if (self.root / IMAGES).is_dir() else self.root
        return self._own(source) or usual

    def _own(self, source: Path) -> Path | None:
        return self.pictures if source == self.instruct else None

    def fingerprint(self) -> str:
        """SHA-256 of both stages' rows and of the questions that lie here."""
        sources = [source for source in (self.pretrain, self.instruct) if source is not None]
        raw = [source for source in sources if source.is_file()]
        places = dict.fromkeys(self._own(source) or self.root / IMAGES for source in raw)
        questions = [path for folder in (BENCHMARKS, TASKS) for path in sorted((self.root / folder).rglob("*"))]
        return sha256_json(
            {
                "rows": [_digest(source) for source in sources],
                "pictures": [one for place in places for one in _listing(place)],
                "questions": {
                    str(path.relative_to(self.root)): sha256_unchanged(path)
                    for path in questions
                    if path.is_file() and "__pycache__" not in path.parts
                },
            }
        )

    @property
    def benchmarks(self) -> Path | None:
        """Questions on this machine."""
        return self._folder(BENCHMARKS)

    @property
    def tasks(self) -> Path | None:
        """Definitions of further tasks."""
        return self._folder(TASKS)

    def _folder(self, name: str) -> Path | None:
        return self.root / name if (self.root / name).is_dir() else None


def _is_of(folder: Path, source: Path) -> bool:
    """Whether a folder holds the rows of that file as it is now."""
    if not (folder / PREPARED).is_file():
        return False
    (found,) = find_sources([source])
    return bool(read_object(folder / PREPARED)["sources"].get(found.name, {}).get("sha256") == found.digests())


def source_of(root: Path, name: str) -> Path | None:
    """Rows of that name. Errors: RiceError for two of them, or a folder that is not prepared."""
    if (root / name).is_dir() and not (root / name / PREPARED).is_file():
        raise RiceError(f"expected a folder of rice llava prepare at {root / name}, it has no {PREPARED}; prepare it")
    places = [root / name] if (root / name).is_dir() else []
    places += [path for suffix in _SUFFIXES if (path := root / f"{name}{suffix}").is_file()]
    if len(places) > 1:
        raise RiceError(f"expected one of {', '.join(p.name for p in places)} in {root}, found both; remove one")
    return places[0] if places else None


def _listing(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of all files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)


def _digest(source: Path) -> str:
    return Rows(source).fingerprint() if source.is_dir() else sha256_unchanged(source)
