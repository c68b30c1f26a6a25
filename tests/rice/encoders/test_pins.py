"""A name of the hub never comes to mean other weights without a word. The hub here is a cache on disk."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rice.encoders import hub
from rice.encoders.pins import pin_of, pins_file, settle
from rice.errors import RiceError

REPO = "owner/tower"
FIRST, SECOND = "a" * 40, "b" * 40
Publish = Callable[[str, dict[str, bytes]], Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache as its client lays it out, out of reach of the hub itself."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "_reachable", lambda: False)
    return tmp_path / "hub"


@pytest.fixture
def publish(cache: Path) -> Publish:
    """Make a commit `main`."""

    def publish(commit: str, files: dict[str, bytes]) -> Path:
        home = cache / f"models--{REPO.replace('/', '--')}"
        for name, content in files.items():
            path = home / "snapshots" / commit / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / "main").write_text(commit)
        return home / "snapshots" / commit

    return publish


def pins() -> Any:
    return json.loads(pins_file().read_text())


def test_what_is_read_first_is_noted_with_its_commit_and_hash(publish: Publish) -> None:
    publish(FIRST, {"config.json": b"{}", "part/model.safetensors": b"values"})
    hub.fetch(REPO, "config.json")
    hub.fetch(REPO, "part/model.safetensors")
    digests = {name: hashlib.sha256(text).hexdigest() for name, text in
               (("config.json", b"{}"), ("part/model.safetensors", b"values"))}  # fmt: skip
    assert pins() == {REPO: {"revision": FIRST, "files": digests}}
    assert hub.cached_revision(REPO) == FIRST


def test_a_branch_that_moves_on_takes_no_effect(publish: Publish) -> None:
    publish(FIRST, {"model.safetensors": b"old"})
    hub.fetch(REPO, "model.safetensors")
    publish(SECOND, {"model.safetensors": b"new", "config.json": b"{}"})
    assert hub.fetch(REPO, "model.safetensors").read_bytes() == b"old"
    assert hub.find(REPO, "config.json") is None  # the pinned commit has none
    assert hub.cached_revision(REPO) == FIRST


def test_a_file_of_other_content_is_refused_in_one_line(publish: Publish) -> None:
    folder = publish(FIRST, {"model.safetensors": b"values"})
    hub.fetch(REPO, "model.safetensors")
    (folder / "model.safetensors").write_bytes(b"other values")
    with pytest.raises(RiceError, match="owner/tower is not what it was: model.safetensors") as caught:
        hub.fetch(REPO, "model.safetensors")
    assert str(pins_file()) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_entry_written_by_hand_is_the_commit_that_is_asked_for(publish: Publish) -> None:
    publish(FIRST, {"model.safetensors": b"old"})
    publish(SECOND, {"model.safetensors": b"new"})
    pins_file().write_text(json.dumps({REPO: {"revision": FIRST}}))
    assert hub.fetch(REPO, "model.safetensors").read_bytes() == b"old"
    assert list(pins()[REPO]["files"]) == ["model.safetensors"]


def test_a_commit_other_than_the_pinned_one_is_refused(publish: Publish) -> None:
    folder = publish(SECOND, {"model.safetensors": b"new"})
    pins_file().write_text(json.dumps({REPO: {"revision": FIRST}}))
    with pytest.raises(RiceError, match="is not what it was"):
        settle(REPO, "model.safetensors", folder / "model.safetensors")
    assert hub.cached_revision(REPO) is None


def test_other_libraries_get_the_pinned_commit_and_what_they_fetched_is_pinned(publish: Publish) -> None:
    folder = publish(FIRST, {"config.json": b"{}"})
    with hub.pinned(REPO) as options:
        assert options == {}
        (folder / "model.safetensors").write_bytes(b"fetched by the library")
    assert set(pins()[REPO]["files"]) == {"config.json", "model.safetensors"}
    publish(SECOND, {"config.json": b"{}"})
    with hub.pinned(REPO) as options:
        assert options == {"revision": FIRST}
    (folder / "config.json").write_bytes(b"{ }")
    with pytest.raises(RiceError, match="is not what it was"), hub.pinned(REPO):
        pass


def test_a_folder_and_what_is_no_repository_have_no_pin(cache: Path, tmp_path: Path) -> None:
    for name in (str(tmp_path), "gpt2", "../etc", "https://x.org/a"):
        with hub.pinned(name) as options:
            assert options == {}
    assert not pins_file().exists()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[]",
            "{",
            '{"a/b": 1}',
            '{"a/b": {"revision": "main"}}',
            json.dumps({"a/b": {"revision": FIRST, "files": []}}),
        ),
        json.dumps({"a/b": {"revision": FIRST, "files": {"x": "short"}}}),
    ],
)
def test_damaged_pins_are_an_error_and_never_none(cache: Path, text: str) -> None:
    pins_file().write_text(text)
    with pytest.raises(RiceError, match=pins_file().name):
        pin_of(REPO)


def test_pins_lie_beside_the_cache_unless_a_file_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RICE_PINS", str(tmp_path / "mine.json"))
    assert pins_file() == tmp_path / "mine.json"
    monkeypatch.delenv("RICE_PINS")
    assert pins_file() == tmp_path / "rice-pins.json"
