"""The model hub: files of a repository, from its cache or the network, and one clear line when neither has them."""

import functools
import socket
from pathlib import Path

from rice.errors import RiceError


def fetch(repo: str, name: str) -> Path:
    """A file of `repo` on this machine. Errors: RiceError when it does not exist or cannot be reached."""
    path = find(repo, name)
    if path is None:
        raise RiceError(f"{repo} on the model hub has no file {name}")
    return path


def find(repo: str, name: str) -> Path | None:
    """A file of `repo` on this machine, or None when the repository does not have it.

    Errors: RiceError when the hub or the repository is out of reach, naming what to do.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, local_files_only=not _reachable()))
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


def cached_revision(repo: str) -> str | None:
    """The commit that this machine's hub cache has as `main`, or None: read from disk, never asked for."""
    from huggingface_hub.constants import HF_HUB_CACHE

    reference = Path(HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "refs" / "main"
    return reference.read_text().strip() if reference.is_file() else None


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
