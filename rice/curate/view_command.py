"""The verb `rice view`."""

from pathlib import Path
from typing import Annotated

import tyro

from rice.curate.montage.config import MontageConfig
from rice.curate.stage import PAGE, REPORT
from rice.errors import RiceError


def view(
    shards: Annotated[Path, tyro.conf.Positional],
    *,
    montage: Annotated[MontageConfig, tyro.conf.arg(name="")],
    out: Path | None = None,
    page: bool = False,
    pictures: int = 1000,
) -> None:
    """Look at the regions of shards: in FiftyOne where it is installed and its database starts, else as a page.

    The page has a sheet of regions for each cluster or class, half of them the nearest to its centre and half drawn,
    sizes, totals, and a sample of text. It is a folder that opens without a server and asks nothing of any network;
    the same command again replaces it where shards or settings changed.

    FiftyOne gets pictures as files, with boxes, labels, scores and texts.

    Example: rice view curated --page

    Args:
        shards: Folder that rice pack or rice curate wrote.
        montage: What the page shows.
        out: Folder for the page, and for FiftyOne's pictures; SHARDS/page where it is not given.
        page: Build the page, whether or not there is FiftyOne.
        pictures: How many FiftyOne gets, drawn by the seed; 0 for all.
    """
    from rice.curate.montage.regions import shards_of
    from rice.progress import BarProgress

    if pictures < 0:
        raise RiceError(f"expected --pictures of at least 0, got {pictures}")
    if out is None:
        if not shards.is_dir():
            raise RiceError(f"{shards} is no folder here; name one for the page: --out")
        out = shards / PAGE
    if not page:
        from rice.curate.in_fiftyone import open_in_fiftyone, why_not

        reason = why_not()
        if not reason:
            open_in_fiftyone(shards_of(shards), out, pictures, montage.seed, BarProgress())
            return
        print(f"a page, as FiftyOne cannot be used: {reason}")  # noqa: T201
    from rice.curate.montage.page import build_montage

    inside = shards_of(shards)
    report = shards / REPORT if inside != shards and (shards / REPORT).is_file() else None
    written = build_montage(inside, out, montage, BarProgress(), report=report)
    print(f"open {written}")  # noqa: T201
