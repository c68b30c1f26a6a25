"""A full disk is known by whatever a library makes of it, and half a file is never taken for a whole one.

/dev/full and a limit on the size of files (RLIMIT_FSIZE) stand for the disk: neither needs any rights.
"""

import errno
import io
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from rice.errors import NO_ROOM, NoRoomError, RiceError, no_room, os_errors_as, out_of_room
from rice.files import atomic_folder, atomic_path, atomic_write, reserve

FULL = Path("/dev/full")
LARGE = np.random.default_rng(0).random(200_000)

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def zipped(file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", LARGE.tobytes())


def in_a_tar(file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("a")
        member.size = LARGE.nbytes
        tar.addfile(member, io.BytesIO(LARGE.tobytes()))


def with_torch(file: IO[bytes]) -> None:
    import torch

    torch.save({"a": torch.from_numpy(LARGE)}, file)


def with_safetensors(_: IO[bytes]) -> None:
    """In its words, as heard from a full disk: it renames a file of its own over the one that it is given, and so would
    take /dev/full away from the whole machine, where a test runs as root."""
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def with_arrow(file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": LARGE}), file)


def as_pdf(file: IO[bytes]) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().imshow(LARGE.reshape(400, 500))
    figure.savefig(file, format="pdf")


WRITERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "Python": lambda file: file.write(LARGE.tobytes()),
    "NumPy": lambda file: np.save(file, LARGE),
    "zipfile": zipped,
    "tarfile": in_a_tar,
    "torch": with_torch,
    "safetensors": with_safetensors,
    "Arrow": with_arrow,
    "matplotlib": as_pdf,
    "shutil": lambda file: shutil.copyfileobj(io.BytesIO(LARGE.tobytes()), file),
}


def test_a_folder_is_named_not_the_temporary_file_in_it(tmp_path: Path) -> None:
    with (
        pytest.raises(NoRoomError, match=f"^cannot write {tmp_path / 'out'}: No space"),
        atomic_folder(tmp_path / "out") as folder,
        atomic_path(folder / "part"),
    ):
        write_to_full("Python")


def write_to_full(name: str) -> None:
    with FULL.open("wb") as file:
        WRITERS[name](file)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_whatever_a_library_makes_of_it_the_file_is_named_and_nothing_stays(
    name: str, atomic: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(NoRoomError) as caught, atomic(tmp_path / "out"):
        write_to_full(name)
    assert str(caught.value) == f"cannot write {tmp_path / 'out'}: {NO_ROOM}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no"), ValueError("28"), RuntimeError("errno 28"), OSError("[Errno 2] 28")]
)
def test_another_error_is_not_taken_for_it_and_comes_as_it_is(error: Exception, tmp_path: Path) -> None:
    assert not out_of_room(error)
    with pytest.raises(type(error)) as caught, atomic_write(tmp_path / "out"):
        raise error
    assert caught.value is error


def test_a_quota_is_a_full_disk_too_and_the_error_crosses_processes() -> None:
    said = "^cannot write x: No space left on device; make room"
    with pytest.raises(NoRoomError, match=said) as caught, os_errors_as("cannot write x"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (NoRoomError, str(no_room("cannot write x")))
    assert isinstance(again, RiceError)


def test_a_read_only_disk_is_said_with_what_to_do() -> None:
    with pytest.raises(RiceError, match="^x: Read-only file system; give another place$"), os_errors_as("x"):
        raise OSError(errno.EROFS, "Read-only file system")


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from rice.data.world.layouts import save_picture

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
try:
    save_picture(Path(sys.argv[1]), noise)
except OSError:
    print("refused")
else:
    print("written")
"""


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_does_not_fit_is_refused_not_cut(suffix: str, tmp_path: Path) -> None:
    """Pillow itself writes as much of a JPEG as there is room for, and says nothing."""
    for limit, said in ((65_536, "refused"), (1 << 24, "written")):
        words = [sys.executable, "-c", LIMITED, str(tmp_path / f"a{suffix}"), str(limit)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ran.stdout.split() == [said], ran


def test_room_that_was_reserved_is_taken(tmp_path: Path) -> None:
    reserve(tmp_path / "a", 1 << 20)
    status = (tmp_path / "a").stat()
    assert status.st_size == 1 << 20
    assert sys.platform != "linux" or status.st_blocks * 512 >= 1 << 20
