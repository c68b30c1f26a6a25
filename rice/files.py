"""Atomic writes, safe paths, hashes: the only module that renames, and the only one that resolves foreign paths."""

import contextlib
import errno
import functools
import glob
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from rice.errors import NoRoomError, RiceError, no_room, out_of_room

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
"""Names that tempfile gives, between a dot and a suffix of ours."""


class UnsafePathError(RiceError):
    """A path that came from a file leads outside the folder that it belongs to."""


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on a clean exit flush it to disk and rename it over `path`.

    A reader sees the old file or the whole new one, whenever the writer is killed. On an exception nothing changes.
    Errors: RiceError where nothing can be written there, or the disk is full.
    """
    encoding = None if "b" in mode else "utf-8"
    with atomic_path(path) as temporary, temporary.open(mode, encoding=encoding) as file:
        yield file


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """`atomic_write` for libraries that want a file's name: yield a temporary name, rename it on a clean exit."""
    descriptor, name = _beside(path)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with _room(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp creates 0600
            os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on a clean exit rename it to `path`, which must not exist by then.

    If another writer finished `path` first, its folder stays and ours is dropped: both must hold the same content.
    """
    temporary = temporary_folder(path)
    try:
        with _room(path):
            yield temporary
        temporary.chmod(0o777 & ~_umask())
        try:
            os.rename(temporary, path)  # noqa: PTH104 - fails when `path` is a folder with content
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """`path` and what is above it, where they are not there yet. Errors: RiceError where the system refuses."""
    with _named(path):
        path.mkdir(parents=True, exist_ok=True)


def temporary_folder(path: Path) -> Path:
    """An empty hidden folder beside `path`, for several processes to fill before one of them publishes it."""
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))


def publish_folder(temporary: Path, path: Path) -> None:
    """Rename `temporary`, whose files are on disk, to `path`, which must not exist; survives a power cut."""
    temporary.chmod(0o777 & ~_umask())
    _sync_names(temporary)
    os.rename(temporary, path)  # noqa: PTH104 - fails when `path` is a folder with content
    _sync_names(path.parent)


def remove_folder(path: Path) -> None:
    """Remove `path` so that a kill on the way leaves it whole or hidden (`leftovers`), never half there."""
    hidden = temporary_folder(path)
    os.rename(path, hidden)  # noqa: PTH104 - replaces the empty folder
    shutil.rmtree(hidden)


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name, where there is none yet; a copy where the file system has no links."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _beside(path: Path) -> tuple[int, str]:
    """A temporary file beside `path`, open, and its name."""
    with _named(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """What the system refuses, said of the path that was asked for, not of the temporary one beside it."""
    try:
        yield
    except OSError as error:
        reason = "a file is where a folder must be" if isinstance(error, FileExistsError) else error.strerror
        if out_of_room(error):
            raise no_room(f"cannot write {path}") from error
        raise RiceError(f"cannot write {path}: {reason}; give another place") from error


@contextlib.contextmanager
def _room(path: Path) -> Iterator[None]:
    """A full disk is said of `path`, not of a temporary one in it, whatever a library that writes makes of it; other
    errors are as they are."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, NoRoomError) or (not isinstance(error, RiceError) and out_of_room(error))
        if full:
            raise no_room(f"cannot write {path}") from error
        raise


def reserve(path: Path, size: int) -> None:
    """A file of `size` zero bytes whose room is taken: through a map of a file that only says its size, a full disk
    would kill the writer (SIGBUS). Errors: OSError where there is no room."""
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # macOS has none
            file.truncate(size)


def _sync_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftovers(path: Path) -> list[Path]:
    """What killed writers of `path` left half-done beside it. To be removed only where no writer can be at work."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))


def remove_leftovers(*folders: Path) -> None:
    """Remove what killed writers left half-done in `folders`, not below: only where nobody else can be at work."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name) is None:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as JSON with sorted keys. NaN and infinity are refused: they are not JSON."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse a JSON file; `object_hook` may replace each object as it closes, which keeps large files small.

    Errors: RiceError naming the file (missing, unreadable, not JSON, not UTF-8).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=object_hook)
    except OSError as error:
        raise RiceError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RiceError(f"{path} is not valid JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file that holds an object. Errors: RiceError, as `read_json`; another value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise RiceError(f"expected a JSON object in {path}, got {type(value).__name__}")
    return value


@contextlib.contextmanager
def open_safetensors(path: Path, framework: str = "pt") -> Iterator[Any]:
    """`safetensors.safe_open` on the CPU. Errors: RiceError naming a file that is missing, cut off or no safetensors.

    "numpy" reads headers without importing torch.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise RiceError(f"{path} is not a readable safetensors file: {error}") from error


def sort_facts(path: Path) -> None:
    """Put the facts that a safetensors file notes about itself in the order of their names, in place.

    The library writes them in an order that differs from write to write; sorted, equal contents are equal files.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:
            raise RuntimeError(f"{path}: a header of {length} bytes became one of {len(text)}")
        file.seek(8)
        file.write(text.ljust(length))


def safe_join(root: Path, relative: str) -> Path:
    """`root / relative` for a name that came from outside, e.g. COCO's `file_name`.

    Errors: UnsafePathError for absolute names, drive letters, NUL bytes, and names or links that leave `root`.
    """
    check_name(root, relative)
    path = root / relative
    if _leaves(path, root):
        raise UnsafePathError(f"{relative!r} is a link that leaves {root}; replace it with the file itself")
    return path


def check_name(root: Path, relative: str) -> None:
    """`safe_join` of a name that may be a link. Errors: UnsafePathError for names that leave `root` by themselves."""
    posix, windows = PurePosixPath(relative), PureWindowsPath(relative)
    escapes = ".." in posix.parts or ".." in windows.parts
    if not relative or "\0" in relative or posix.is_absolute() or windows.drive or windows.root or escapes:
        raise UnsafePathError(f"expected a file name inside {root}, got {relative!r}; correct the annotation file")


def leads_out(entry: Path, root: Path) -> bool:
    """Whether what a listing of `root` found there is a link that leaves it. `root` itself may be a link."""
    return entry.is_symlink() and _leaves(entry, root)


def refuse_links_out(entries: Iterable[Path], root: Path) -> None:
    """Errors: UnsafePathError naming the first of what a listing of `root` found that is a link and leaves it."""
    for entry in entries:
        if leads_out(entry, root):
            raise UnsafePathError(f"{entry} is a link that leaves {root}; replace it with the file itself")


def _leaves(path: Path, root: Path) -> bool:
    # Unlike Path.resolve, this has an answer for links in a circle: themselves.
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_unchanged(path: Path) -> str:
    """`sha256_file`, computed once per process for as long as the file's size and time stay: some have gigabytes."""
    status = path.stat()
    return _sha256_of_state(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256_of_state(path: Path, _size: int, _modified: int) -> str:
    return sha256_file(path)


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value's canonical form (sorted keys, no spaces). NaN is refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def format_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0 if count < 1 else min(int(math.log(count, 1024)), len(units) - 1)
    return f"{count:.0f} B" if power == 0 else f"{count / 1024**power:.1f} {units[power]}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
