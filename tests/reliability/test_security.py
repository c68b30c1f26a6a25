"""No name in any file from outside opens, reads or writes what lies outside the folder that it belongs to.

The readers are those of tests/fuzz. Python itself says which files they open.
"""

import contextlib
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pile
import pytest
from PIL import Image
from targets import Target, targets

from rice.curate.sources import find_sources
from rice.encoders.weights import place
from rice.errors import RiceError
from rice.files import UnsafePathError, safe_join

SECRET = "secret"
"""Part of the names of all that lies outside."""
PICTURES = (".jpg", ".png")
MOST_PLACES = 24
_opened: list[str] = []
_listening = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes)):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_hear)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Every path that Python opens or lists meanwhile, links resolved."""
    global _listening
    _opened.clear()
    _listening = True
    found: list[str] = []
    try:
        yield found
    finally:
        _listening = False
        found += [os.path.realpath(path) for path in _opened if "\0" not in path]


def hostile_names(outside: Path) -> list[str]:
    """Ways out of a folder, to a file that is there."""
    steps = [f"{'../' * up}{outside.name}" for up in (1, 2, 3, 4)]
    return [*steps, str(outside), f"a/../../{outside.name}", f"./../{outside.name}"]


def texts_of(value: Any, where: str = "") -> Iterator[tuple[Any, Any]]:
    """Holder and key of one text of each kind: the first at places that differ in more than the number in a list."""
    seen: set[str] = set()
    stack = [(value, where)]
    while stack:
        holder, path = stack.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in items:
            inside = f"{path}/{key if isinstance(holder, dict) else '*'}"
            if isinstance(inner, str) and inside not in seen:
                seen.add(inside)
                yield holder, key
            stack.append((inner, inside))


def variants(path: Path, names: list[str]) -> Iterator[bytes]:
    """The file with one of its texts, lines or elements replaced by each name."""
    content = path.read_bytes()
    if path.suffix == ".json":
        document = json.loads(content)
        for holder, key in list(texts_of(document))[:MOST_PLACES]:
            kept = holder[key]
            for name in names:
                holder[key] = name
                yield json.dumps(document).encode()
            holder[key] = kept
    elif path.suffix == ".xml":
        for text in dict.fromkeys(re.findall(rb">([^<>\n]*\w[^<>\n]*)<", content)):
            yield from (content.replace(b">" + text + b"<", b">" + name.encode() + b"<") for name in names)
    elif path.suffix in (".txt", ".label"):
        lines = content.splitlines()
        for number in range(min(len(lines), 3)):
            yield from (b"\n".join([*lines[:number], name.encode(), *lines[number + 1 :], b""]) for name in names)


WITHOUT_NAMES = ("picture", "frame", "video", "pickled weights", "piles", "detections")
LAYOUTS = [target for target in targets() if target.name not in WITHOUT_NAMES]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", LAYOUTS, ids=lambda target: target.name)
def test_no_name_in_a_file_opens_what_lies_outside(target: Target, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    files = [root / name for name in target.make(root)]
    outside = tmp_path / f"{SECRET}.jpg"
    Image.new("RGB", (64, 64)).save(outside)
    before = set(tmp_path.rglob("*"))
    tried = 0
    for file in files:
        valid = file.read_bytes()
        for content in variants(file, hostile_names(outside)):
            file.write_bytes(content)
            with listening() as opened, contextlib.suppress(RiceError):
                target.read(root, file)
            tried += 1
            assert [path for path in opened if SECRET in path] == [], content[:500]
        file.write_bytes(valid)
    assert set(tmp_path.rglob("*")) == before
    assert tried or all(file.suffix not in (".json", ".xml", ".txt", ".label") for file in files)


LINKED = ("coco", "lvis", "roboflow", "voc", "words", "got10k", "lasot", "trackingnet", "tnl2k", "refcoco", "reasons")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", [t for t in LAYOUTS if t.name in LINKED], ids=lambda target: target.name)
def test_a_picture_that_is_a_link_out_of_its_folder_is_not_opened(target: Target, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    files = [root / name for name in target.make(root)]
    pictures = sorted(path for path in root.rglob("*") if path.suffix in PICTURES)
    if not pictures:
        (root / "images").mkdir(exist_ok=True)
        pytest.skip("its pictures lie beside the world")
    for picture in pictures:
        outside = tmp_path / f"{SECRET}-{picture.name}"
        picture.rename(outside)
        picture.symlink_to(outside)
        with listening() as opened, contextlib.suppress(RiceError):
            target.read(root, files[0])
        assert [path for path in opened if SECRET in path] == []
        picture.unlink()
        outside.rename(picture)


def footage(folder: Path) -> None:
    from rice.data.video import open_footage

    list(open_footage(folder).frames())


def words(folder: Path) -> None:
    from rice.data.icdar import read_split

    (folder.parent / "truth").mkdir(exist_ok=True)
    (folder.parent / "truth" / "gt_1.txt").write_text("0,0,9,0,9,9,0,9,word\n")
    read_split(folder, folder.parent / "truth")


def numbered(folder: Path) -> None:
    from tracking.layouts.frames import names_in, numbered_frames

    numbered_frames(folder, names_in(folder), pattern="%d.jpg", first=1)


@pytest.mark.parametrize("read", [footage, words, numbered])
def test_a_folder_of_pictures_may_be_a_link_and_a_picture_in_it_may_not_lead_out(
    read: Callable[[Path], None], tmp_path: Path
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / f"{SECRET}.jpg"
    inside.mkdir()
    Image.new("RGB", (16, 16)).save(outside)
    (inside / "1.jpg").symlink_to(outside)
    with pytest.raises(UnsafePathError, match="a link that leaves"):
        read(inside)
    (inside / "1.jpg").unlink()
    outside.rename(inside / "1.jpg")
    (tmp_path / "linked").symlink_to(inside)
    read(tmp_path / "linked")


def test_a_pile_gives_nothing_of_what_its_links_lead_to(tmp_path: Path) -> None:
    outside = tmp_path / f"{SECRET}.jpg"
    outside.write_bytes(pile.jpeg(1))
    (tmp_path / f"{SECRET}.json").write_text('{"password": 1}')
    place = pile.write_files(tmp_path / "in", {"a.jpg": pile.jpeg(2), "c.jpg": pile.jpeg(3)})
    (place / "b.jpg").symlink_to(outside)
    (place / "a.json").symlink_to(tmp_path / f"{SECRET}.json")
    (place / "d.jpg").symlink_to(place / "c.jpg")
    with listening() as opened:
        found = {one.name: one for shard in find_sources([place], 10) for one in shard.candidates()}
    assert found["b.jpg: a link that leaves in"].content is None
    assert found["a.jpg"].annotation is None
    assert found["d.jpg"].content == pile.jpeg(3)
    assert [path for path in opened if SECRET in path] == []


def test_members_of_a_tar_are_names_and_never_paths(tmp_path: Path) -> None:
    outside = tmp_path / f"{SECRET}.jpg"
    outside.write_bytes(pile.jpeg(1))
    place = tmp_path / "in" / "a.tar"
    place.parent.mkdir()
    names = ["../../x.jpg", "/x.jpg", "C:\\x.jpg", f"../{outside.name}"]
    odd = [
        (tarfile.SYMTYPE, "s.jpg"),
        (tarfile.LNKTYPE, "l.jpg"),
        (tarfile.CHRTYPE, "c.jpg"),
        (tarfile.FIFOTYPE, "f.jpg"),
    ]
    with tarfile.open(place, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(pile.jpeg(2))
            tar.addfile(member, io.BytesIO(pile.jpeg(2)))
        for kind, name in odd:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(outside)
            tar.addfile(member)
    before = set(tmp_path.rglob("*"))
    with listening() as opened:
        found = {one.name: one.content for shard in find_sources([place], 10) for one in shard.candidates()}
    assert {name: found[name] for name in names} == dict.fromkeys(names, pile.jpeg(2))
    assert all(found.get(name) is None for _, name in odd)
    assert [path for path in opened if SECRET in path] == []
    assert set(tmp_path.rglob("*")) == before


def test_a_prepared_folder_cannot_name_a_root_of_its_pictures_outside(tmp_path: Path) -> None:
    from mllm.lisa.pictures import Pictures

    (tmp_path / f"{SECRET}.jpg").write_bytes(pile.jpeg(1))
    pictures = object.__new__(Pictures)
    pictures.root, pictures.about = tmp_path / "root", {"folders": [".."]}
    with pytest.raises(UnsafePathError):
        pictures.path(f"../{SECRET}.jpg")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../../no-such",
            "../no-such",
            "a/..",
            "/etc/none",
            "a/b/c",
            "https://x/y",
            "https://x.org/a/b",
            "file:///etc",
        ),
        *(
            "a\0b/c",
            "a/b\n",
            "a--b/c",
            "a/b..c",
            "-a/b",
            "a/.b",
            "a/b.",
            "C:/x",
            "C:\\x/y",
            "\u0430/b",
            f"a/{'b' * 97}",
        ),
    ],
)
def test_what_is_no_name_of_a_repository_never_reaches_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RiceError, match="existing path or a hub repository"):
        place(name)


def test_names_of_repositories_are_taken_as_they_are() -> None:
    from rice.encoders.zoo import ZOO

    for repo in {entry.repo for entry in ZOO.values() if entry.repo}:
        assert place(repo).kind == "hub"


def test_a_link_in_a_circle_is_no_file_and_no_error_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert not safe_join(tmp_path, "a").is_file()
