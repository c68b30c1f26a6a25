"""The folder of one PCA: refuses what is not its own, keeps what a killed run left, holds one process at a time."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rice.errors import NoRoomError, RiceError
from rice.files import leftovers, make_folder, read_json, sha256_json, write_json

VIDEO, STRIP, COMPONENTS, REPORT = "pca.mp4", "strip.png", "components.safetensors", "pca.json"
OUTPUTS = (VIDEO, STRIP, COMPONENTS, REPORT)
_SCRATCH = ".work"
_KEY = "key.json"


class Workplace:
    """`out` for the PCA identified by `key` (JSON: input, encoder, size, ...)."""

    def __init__(self, out: Path, key: dict[str, Any]) -> None:
        """Writes nothing. Errors: RiceError when `out` holds anything else."""
        self.out, self.key, self.digest = out, key, sha256_json(key)
        self.scratch = out / _SCRATCH
        self._refuse_foreign()

    @property
    def done(self) -> bool:
        """Whether an earlier run finished."""
        return all((self.out / name).is_file() for name in OUTPUTS) and self._found() == self.digest

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hold the folder. A clean exit removes the scratch; bad input leaves nothing that was not there before.

        Errors: RiceError when another process holds it, or the folder cannot be written.
        """
        fresh = not self.scratch.exists()
        try:
            make_folder(self.scratch)
            with FileLock(self.scratch / "lock", timeout=0):
                self._refuse_other()
                write_json(self.scratch / _KEY, {"key": self.key, "digest": self.digest})
                yield
                self.clean()
        except Timeout as error:
            raise RiceError(f"another process works in {self.out}; wait for it, or choose another --out") from error
        except NoRoomError:
            raise  # what is done stays: it is not the input
        except RiceError:
            if fresh:
                self.clean()
                with contextlib.suppress(OSError):  # it was not empty before
                    self.out.rmdir()
            raise

    def clean(self) -> None:
        """Remove the scratch and half-written outputs."""
        for leftover in self._leftovers():
            leftover.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _leftovers(self) -> list[Path]:
        return [path for name in OUTPUTS for path in leftovers(self.out / name)]

    def _refuse_foreign(self) -> None:
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise RiceError(f"--out {self.out} is a file; give a folder")
        own = {*(self.out / name for name in OUTPUTS), *self._leftovers(), self.scratch}
        foreign = sorted(path.name for path in self.out.iterdir() if path not in own)
        if foreign:
            raise RiceError(f"--out {self.out} already holds {foreign[0]!r}, not written by this; choose another --out")
        self._refuse_other()

    def _refuse_other(self) -> None:
        found = self._found()
        if found != self.digest and (found or any((self.out / name).exists() for name in OUTPUTS)):
            raise RiceError(
                f"--out {self.out} holds the PCA of another input, encoder or setting; delete it or choose another"
            )

    def _found(self) -> str | None:
        for path in (self.scratch / _KEY, self.out / REPORT):
            if path.is_file():
                found = read_json(path)
                return str(found.get("digest")) if isinstance(found, dict) else None
        return None
