"""The model hub: files of a repository, from its cache or the network, and one clear line when neither has them.

What a repository held when it was first read is pinned (`rice.encoders.pins`), and asked for from then on.
"""

import contextlib
import functools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rice.encoders.pins import pin_of, settle
from rice.errors import RiceError


def fetch(repo: str, name: str) -> Path:
    """A file of `repo` on this machine. Errors: RiceError when it does not exist, cannot be reached, or has changed."""
    path = find(repo, name)
    if path is None:
        raise RiceError(f"{repo} on the model hub has no file {name}")
    return path


def find(repo: str, name: str) -> Path | None:
    """A file of `repo` on this machine, or None when the repository does not have it.

    Errors: RiceError when the hub or the repository is out of reach, naming what to do; for a file that is not the one
    that was read before.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    pin = pin_of(repo)
    revision = None if pin is None else pin.revision
    try:
        path = Path(hf_hub_download(repo, name, revision=revision, local_files_only=not _reachable()))
    except (EntryNotFoundError, OSError) as error:
        # Without a network, a repository that is in the cache is taken to be there in full.
        if isinstance(error, EntryNotFoundError) and (
            not isinstance(error, LocalEntryNotFoundError) or cached_revision(repo)
        ):
            return None
        raise RiceError(
            f"cannot reach {repo} on the model hub for {name} ({type(error).__name__}); download the repository on a "
            "networked machine and pass its folder (weights=PATH), or take random weights (weights=none)"
        ) from error
    settle(repo, name, path)
    return path


@contextlib.contextmanager
def pinned(name: str) -> Iterator[dict[str, Any]]:
    """What another library's `from_pretrained(name, ...)` is given, so that it takes the pinned commit; nothing for a
    folder. All that it fetched is pinned at the end, or held against the pins.

    Errors: RiceError for a file that is not the one that was read before.
    """
    from rice.encoders.weights import is_repository

    if Path(name).exists() or not is_repository(name):
        yield {}
        return
    pin = pin_of(name)
    yield {} if pin is None else {"revision": pin.revision}
    commit = cached_revision(name)
    if commit is not None:
        folder = _folder(name) / "snapshots" / commit
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            settle(name, path.relative_to(folder).as_posix(), path)


def cached_revision(repo: str) -> str | None:
    """The commit that is pinned, or is `main` in this machine's hub cache, where it has that one: read from disk, never
    asked for."""
    folder, pin = _folder(repo), pin_of(repo)
    if pin is not None:
        return pin.revision if (folder / "snapshots" / pin.revision).is_dir() else None
    reference = folder / "refs" / "main"
    return reference.read_text().strip() if reference.is_file() else None


def _folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


@functools.cache
def _reachable() -> bool:
    """Whether the hub's name resolves: the client itself would retry for half a minute before it gives up."""
    import urllib.parse
    import urllib.request

    from huggingface_hub.constants import ENDPOINT

    address = urllib.parse.urlsplit(ENDPOINT)
    if urllib.request.getproxies().get(address.scheme):
        return True  # the proxy resolves it
    try:
        socket.getaddrinfo(address.hostname, None)
    except OSError:
        return False
    return True
