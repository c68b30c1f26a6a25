"""Writes are whole or absent, foreign paths stay inside their folder."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from rice.errors import RiceError
from rice.files import (
    UnsafePathError,
    atomic_folder,
    atomic_path,
    atomic_write,
    format_bytes,
    leftovers,
    make_folder,
    publish_folder,
    read_json,
    remove_folder,
    remove_leftovers,
    safe_join,
    sha256_file,
    sha256_json,
    sort_facts,
    temporary_folder,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write("half")
        raise ZeroDivisionError
    assert json.loads(path.read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("write", [atomic_write, atomic_path, atomic_folder])
def test_a_place_that_cannot_be_written_is_named_in_one_line(write: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(RiceError, match=r"^cannot write .*file/a: a file is where a folder must be"),
        write(tmp_path / "file" / "a"),
    ):
        pytest.fail("nothing may be computed for it")


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="cannot write .*: Is a directory; give another place"):
        write_json(tmp_path, {})
    assert tmp_path.is_dir()
    assert not leftovers(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RiceError, match="cannot write .*file/a: Not a directory"):
        make_folder(tmp_path / "file" / "a")


def test_a_killed_writer_never_leaves_a_half_written_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    code = (
        "import sys; from pathlib import Path; from rice.files import atomic_write\n"
        "i = 0\n"
        "while True:\n"
        "    i += 1\n"
        "    with atomic_write(Path(sys.argv[1])) as file:\n"
        "        for _ in range(2000): file.write(f'{i % 10}' * 10)\n"
    )
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        while not path.exists():
            time.sleep(0.005)
        time.sleep(0.02 * attempt + 0.013)
        process.send_signal(signal.SIGKILL)
        process.wait()
        text = path.read_text()
        assert len(text) == 20_000
        assert len(set(text)) == 1


def test_what_a_killed_writer_left_is_found_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from rice.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file: os._exit(1)\n"
    )
    for name in ("a[1].json", "b.json"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False)
    (tmp_path / "a[1].json").write_text("whole")
    (found,) = leftovers(tmp_path / "a[1].json")
    assert found.name.startswith(".a[1].json.")
    assert len(list(tmp_path.iterdir())) == 3


def test_all_that_killed_writers_left_in_a_folder_goes_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from rice.files import atomic_folder, atomic_write\n"
        "with atomic_folder(Path(sys.argv[1]) / 'model') as folder, atomic_write(folder / 'weights') as file,\\\n"
        "     atomic_write(Path(sys.argv[1]) / 'a[1].json') as other, atomic_write(Path(sys.argv[2]) / 'b.json'):\n"
        "    os._exit(1)\n"
    )
    below = tmp_path / "below"
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(below)], check=False)
    names = ("model", ".hidden", ".notes.tmp", "..abcdefgh.tmp", "mine.abcdefgh.tmp", ".mine.ABCDEFGH.tmp")
    for name in names:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".linked.abcdefgh.tmp").symlink_to(below)
    assert len(leftovers(tmp_path / "model")) == len(leftovers(tmp_path / "a[1].json")) == 1
    remove_leftovers(tmp_path, tmp_path / "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "below"])
    assert len(leftovers(below / "b.json")) == 1


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "atomic", 1)
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_folder_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "set") as folder:
        (folder / "part").write_text("x")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_of_two_writers_of_a_folder_the_first_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "set") as second:
        (second / "who").write_text("second")
        with atomic_folder(tmp_path / "set") as first:
            (first / "who").write_text("first")
    assert (tmp_path / "set" / "who").read_text() == "first"
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_not_json(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="Out of range|not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": value})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_unreadable_json_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RiceError, match=r"a\.json") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "", "a\0b", "..\\x", "C:\\x", "\\\\host\\x", ".."]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafePathError):
        safe_join(tmp_path, name)


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_text("secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    with pytest.raises(UnsafePathError):
        safe_join(tmp_path / "in", "link")


@given(st.text(min_size=1, max_size=30))
def test_a_joined_path_is_always_inside(name: str) -> None:
    root = Path("/root/of/images")
    try:
        path = safe_join(root, name)
    except UnsafePathError:
        return
    assert path.resolve().is_relative_to(root)


def test_hashes_are_the_standard_ones(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert sha256_json({"b": [1, 2.5], "a": "é"}) == hashlib.sha256('{"a":"é","b":[1,2.5]}'.encode()).hexdigest()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes_read_well(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_a_shared_folder_appears_whole_and_never_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "step"
    for content in ("first", "second"):
        temporary = temporary_folder(path)
        (temporary / "file").write_text(content)
        assert leftovers(path) == [temporary]
        if content == "first":
            publish_folder(temporary, path)
        else:
            with pytest.raises(OSError, match="not empty"):
                publish_folder(temporary, path)
    assert (path / "file").read_text() == "first"


def test_a_killed_removal_leaves_the_folder_whole_or_hidden(tmp_path: Path) -> None:
    path = tmp_path / "step"
    code = (
        "import sys; from pathlib import Path; from rice.files import remove_folder; remove_folder(Path(sys.argv[1]))"
    )
    names = {f"{number:04d}" for number in range(4000)}
    hidden = 0
    for attempt in range(4):
        path.mkdir(exist_ok=True)
        for name in names:
            (path / name).touch()
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        while path.exists() and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(0.002 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not path.exists() or set(os.listdir(path)) == names
        hidden += bool(leftovers(path))
        for left in leftovers(path):
            remove_folder(left)
    assert hidden, "no kill fell inside a removal"
    assert os.listdir(tmp_path) == []


@given(facts=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=9), rows=st.integers(0, 3))
def test_equal_tensors_and_facts_are_equal_bytes(
    facts: dict[str, str], rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("facts")
    tensors = {name: np.arange(rows * size, dtype=np.float32) for name, size in (("w", 2), ("é", 1))}
    for name, order in (("one", 1), ("other", -1)):
        (folder / name).write_bytes(save(tensors, metadata=dict(list(facts.items())[::order])))
        sort_facts(folder / name)
    assert (folder / "one").read_bytes() == (folder / "other").read_bytes()
    with safe_open(folder / "one", framework="np") as file:
        assert (file.metadata() or {}) == facts
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {  # noqa: SIM118 - not a mapping
            name: tensor.tolist() for name, tensor in tensors.items()
        }
