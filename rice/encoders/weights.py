"""Where a network's values come from, and how they are read: safetensors, from a path or the model hub.

Importing this module imports no torch. Pickles are refused unless the user allows them, and then only tensors are read.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.files import open_safetensors, read_json, safe_join, sha256_json, sha256_unchanged

if TYPE_CHECKING:
    from torch import Tensor

INIT_SEED = 0
PUBLISHED = "default"
RANDOM = "random"
INDEX = "model.safetensors.index.json"
SAFE_NAMES = ("model.safetensors", "open_clip_model.safetensors")
PICKLE_NAMES = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_REPO = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9_][\w.-]{0,94}/[A-Za-z0-9_][\w.-]{0,94}(?<![.-])", re.ASCII)
"""As the hub has them: a name becomes a folder of its cache."""


@dataclass(frozen=True)
class Source:
    """Random values, a folder or file, or a repository of the model hub."""

    kind: Literal["random", "local", "hub"]
    place: str = ""

    def __str__(self) -> str:
        return self.place or self.kind

    def revision(self) -> str | None:
        """The commit of a repository of the hub that this machine holds, where it is known."""
        from rice.encoders.hub import cached_revision

        return cached_revision(self.place) if self.kind == "hub" else None


def plain(weights: str | None) -> str | None:
    """The `weights` argument with command lines' "none" as None."""
    return None if weights is None or weights.lower() in ("none", RANDOM) else weights


def pick(weights: str | None, default: Source | None, name: str, note: str | None = None) -> Source:
    """Which source `weights` means: None, "default" or a local path.

    Errors: RiceError when there are no published weights, or the path does not exist.
    """
    weights = plain(weights)
    if weights is None:
        return Source("random")
    if weights == PUBLISHED:
        if default is None:
            raise RiceError(
                f"{name} has no published weights ({note or 'none are known'}); pass a local path: weights=PATH"
            )
        return default
    if not Path(weights).exists():
        raise RiceError(f"expected weights as {PUBLISHED}, none or a local path, got {weights!r}, which does not exist")
    return Source("local", weights)


def place(target: str) -> Source:
    """`REPO_OR_PATH`: what exists on disk is a path. Errors: RiceError for neither."""
    if Path(target).exists():
        return Source("local", target)
    if is_repository(target):
        return Source("hub", target)
    raise RiceError(f"expected an existing path or a hub repository OWNER/NAME, got {target!r}")


def is_repository(name: str) -> bool:
    """Whether a text can be the name of a repository of the hub, OWNER/NAME."""
    return _REPO.fullmatch(name) is not None


@dataclass
class Checkpoint:
    """Tensors by name, read on demand. `shards`: the file that holds each tensor; `locate`: brings a file here;
    `located`: those that were read."""

    label: str
    shards: dict[str, str]
    locate: Callable[[str], Path] = field(repr=False)
    located: dict[str, Path] = field(default_factory=dict, repr=False)

    def prefix(self, anchors: Iterable[str]) -> str:
        """What precedes the vision tower's names. Errors: RiceError when none of its tensors is here."""
        for anchor in anchors:
            for name in self.shards:
                if name == anchor or name.endswith(f".{anchor}"):
                    return name.removesuffix(anchor)
        raise RiceError(f"{self.label} does not hold this tower: none of its tensors is called {' or '.join(anchors)}")

    def read(self, prefix: str = "") -> "dict[str, Tensor]":
        """All tensors under `prefix`, without it."""
        wanted = [name for name in self.shards if name.startswith(prefix)]
        tensors: dict[str, Tensor] = {}
        for shard in sorted({self.shards[name] for name in wanted}):
            names = [name for name in wanted if self.shards[name] == shard]
            self.located[shard] = self.locate(shard)
            tensors |= {name.removeprefix(prefix): value for name, value in _read(self.located[shard], names)}
        return tensors

    def noted(self, spec: EncoderSpec, source: Source) -> EncoderSpec:
        """The spec, with commit and SHA-256 of the files of published values, which were read before."""
        if source.kind != "hub":
            return spec
        digests = [sha256_unchanged(path) for _, path in sorted(self.located.items())]
        return replace(spec, revision=source.revision(), digest=sha256_json(digests))


def open_checkpoint(source: Source, *, allow_pickle: bool) -> Checkpoint:
    """Open a local or published checkpoint. Errors: RiceError (missing, pickled, corrupt, out of reach)."""
    if source.kind == "local":
        path = weight_files(Path(source.place))[0]
        if path.name.endswith(INDEX):
            return Checkpoint(str(path.parent), _weight_map(path), lambda shard: safe_join(path.parent, shard))
        _allow(path.name, allow_pickle, source.place)
        return Checkpoint(source.place, dict.fromkeys(_names(path), path.name), lambda _: path)
    return _open_hub(source.place, allow_pickle)


def weight_files(path: Path) -> list[Path]:
    """The files behind a local path that hold values: [index, shards...] or one file; safetensors before pickles.

    Errors: RiceError when there is none, or more than one and no usual name.
    """
    if path.is_file():
        return [path]
    index = path / INDEX
    if index.is_file():
        return [index, *(safe_join(path, shard) for shard in sorted(set(_weight_map(index).values())))]
    for names in (SAFE_NAMES, PICKLE_NAMES):
        usual = [path / name for name in names if (path / name).is_file()]
        if usual:
            return usual[:1]
    for suffixes in ({".safetensors"}, _PICKLE_SUFFIXES):
        others = sorted(file for file in path.glob("*") if file.suffix in suffixes)
        if len(others) == 1:
            return others
        if others:
            found = ", ".join(file.name for file in others)
            raise RiceError(f"expected one weights file in {path}, found {found}; pass the file itself")
    raise RiceError(f"expected {SAFE_NAMES[0]} in {path}, found no weights")


def _open_hub(repo: str, allow_pickle: bool) -> Checkpoint:
    from rice.encoders.hub import fetch, find

    index = find(repo, INDEX)
    if index is not None:
        return Checkpoint(repo, _weight_map(index), lambda shard: fetch(repo, shard))
    for name in (*SAFE_NAMES, *(PICKLE_NAMES if allow_pickle else ())):
        path = find(repo, name)
        if path is not None:
            return Checkpoint(repo, dict.fromkeys(_names(path), name), lambda name: fetch(repo, name))
    raise RiceError(
        f"found no safetensors weights of {repo}; if it has pickled ones and you trust their origin: --allow-pickle"
    )


def _allow(name: str, allow_pickle: bool, where: str) -> None:
    if Path(name).suffix in _PICKLE_SUFFIXES and not allow_pickle:
        raise RiceError(
            f"{where} holds pickled weights ({name}), which are refused; convert them to safetensors, or, if you trust "
            "their origin, allow them: --allow-pickle"
        )


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise RiceError(f"expected a weight_map of tensor names to files in {index}")
    return weight_map


def _names(path: Path) -> list[str]:
    if path.suffix in _PICKLE_SUFFIXES:
        return list(_unpickle(path))
    with open_safetensors(path) as file:
        return list(file.keys())


def _read(path: Path, names: list[str]) -> "Iterable[tuple[str, Tensor]]":
    if path.suffix in _PICKLE_SUFFIXES:
        tensors = _unpickle(path)
        yield from ((name, tensors[name]) for name in names)
        return
    with open_safetensors(path) as file:
        for name in names:
            yield name, file.get_tensor(name)


def _unpickle(path: Path) -> "dict[str, Tensor]":
    """The tensors of a pickle, read with `weights_only`: nothing in it is executed."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged one makes the unpickler raise whatever its own code may
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RiceError(f"{path} is not a pickle of plain tensors: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise RiceError(f"expected names and tensors in {path}, got {type(content).__name__}")
    return {name.removeprefix("module."): value for name, value in content.items()}
