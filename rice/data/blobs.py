"""Byte ranges of a file: by `pread` on this machine, by fsspec for URLs (s3://, https://, memory://)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rice.errors import RiceError

Range = tuple[int, int]
"""(first byte, number of bytes)."""


def location_of(folder: Path | str) -> str:
    """A folder as text; `Path` takes one slash out of s3://bucket, which is put back."""
    scheme, colon, rest = str(folder).partition(":/")
    url = colon and len(scheme) > 1 and "/" not in scheme
    return f"{scheme}://{rest.removeprefix('/')}".rstrip("/") if url else str(folder)


class Blob:
    """A file in a folder or under a URL. Opened when it is first read, closed with its last user.

    Errors of all methods: RiceError naming the file.
    """

    def __init__(self, location: str, name: str) -> None:
        self.path = f"{location}/{name}"
        self._url = "://" in location
        self._descriptor: int | None = None

    def size(self) -> int:
        """In bytes."""
        try:
            if self._url:
                system, path = self._system()
                return int(system.size(path))
            return Path(self.path).stat().st_size
        except OSError as error:
            raise self._unreadable(error) from error

    def read_all(self) -> bytes:
        """The whole file."""
        try:
            if self._url:
                system, path = self._system()
                content: bytes = system.cat_file(path)
                return content
            return Path(self.path).read_bytes()
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """The ranges, in order; those of a URL are fetched together. A range beyond the end is an error."""
        try:
            found = self._fetch(ranges) if self._url else [os.pread(self._open(), n, at) for at, n in ranges]
        except OSError as error:
            raise self._unreadable(error) from error
        for (start, length), content in zip(ranges, found, strict=True):
            if len(content) != length:
                ends = start + len(content)
                raise RiceError(f"{self.path} ends before byte {ends + 1} of {start + length}; get a whole copy")
        return found

    def _fetch(self, ranges: Sequence[Range]) -> list[bytes]:
        system, path = self._system()
        starts, ends = [start for start, _ in ranges], [start + length for start, length in ranges]
        found: list[bytes] = system.cat_ranges([path] * len(ranges), starts, ends, on_error="raise")
        return found

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return self._descriptor

    def _system(self) -> tuple[Any, str]:
        """fsspec keeps one instance per process, so that workers may fork."""
        import fsspec  # type: ignore[import-untyped]

        try:
            system, path = fsspec.core.url_to_fs(self.path)
        except (ValueError, ImportError) as error:
            raise RiceError(f"cannot open {self.path}: {error}") from error
        return system, str(path)

    def _unreadable(self, error: OSError) -> RiceError:
        return RiceError(f"cannot read {self.path}: {error.strerror or str(error) or type(error).__name__}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptor": None}

    def close(self) -> None:
        """Until the next read."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()
