"""Tar files from outside, read member by member: no header of theirs asks for more memory or time than it is worth."""

import contextlib
import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

DAMAGE = (tarfile.TarError, EOFError, gzip.BadGzipFile, RecursionError)
"""What the standard library and this module raise on tars that are damaged or hostile, besides zlib.error."""

_MOST_HEADER = 1 << 20
"""Bytes of a name or of pax records, which the library reads whole, whatever their length."""
_MOST_GLOBAL = 64
"""Records for all members; usually one or none."""
_FACTOR, _LEAST = 100, 1 << 30
"""A compressed tar may grow to this many times its size, or to a GiB. Deflate can reach 1,032; pictures stay below 2,
their JSON files below 20."""
_GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar, or one in gzip, whatever its name. Errors: those of DAMAGE, here and while it is read; OSError."""
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        stream = _Inflated(path.stat().st_size, file) if zipped else file
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Member) as tar:
            yield tar


class _Member(tarfile.TarInfo):
    """A member whose headers have a limit. Sparse files, which announce more than the tar holds, are none."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if self.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *extended) and self.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE or len(tar.pax_headers) > _MOST_GLOBAL:
            raise tarfile.ReadError("a sparse member, or too many global headers")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]  # where the library asks to be extended

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("a sparse member")


class _Inflated(gzip.GzipFile):
    """Ends with an error where far more comes out than went in."""

    def __init__(self, size: int, file: IO[bytes]) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._most = max(_FACTOR * size, _LEAST)

    def read(self, size: int | None = -1) -> bytes:
        self._check(self.tell())
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._check(offset)
        return super().seek(offset, whence)

    def _check(self, place: int) -> None:
        if place > self._most:
            raise gzip.BadGzipFile(f"it inflates to more than {self._most:,} bytes")
