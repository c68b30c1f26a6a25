"""Workflows that join the parts; may import everything."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from reports.miniature.panels import PanelId
from reports.miniature.settings import MiniatureConfig
from rice.errors import RiceError, require

if TYPE_CHECKING:
    from PIL.Image import Image

ENCODER = "mini-s8-128"
_PHOTO_SIZE = (512, 384)
_CLIP_EDGE = 256
_CLIP_FRAMES = 24


def quickstart(*, out: Path = Path("quickstart"), jobs: int | None = None) -> int:
    """The main job in minutes, on generated data and the photographs that scikit-image and scikit-learn install.

    Sweeps the four small encoders that come with the package, pretrained alike but by RICE, MLCD, UNICOM and CLIP, over
    the probes `dense`, `knn`, `text`, `detection` and `tracking`, prints and writes the table, shows patch tokens as
    colours on a generated clip and on real photographs, and ends with a page of it all. Killed, the same command goes
    on. How the encoders were made, and three seeds of each: docs/miniature.md.

    Args:
        out: Folder for everything it writes.
        jobs: Cells of the sweep at a time, which share the cores. Default: one for each core.
    """
    from probes.sweeps.command import sweep
    from probes.sweeps.local import cores
    from probes.visual.pca.command import pca
    from reports.page.command import report

    require("skimage", "samples")
    require("sklearn", "samples")
    started = time.monotonic()
    failed = sweep("quickstart", out=out / "sweep", jobs=jobs or cores())
    if failed:
        raise RiceError(f"cells of the sweep failed; their logs are in {out / 'sweep' / 'logs'}")
    _write_tables(out / "sweep", out)
    frames = {"clip": _clip, "photos": _photos}
    for name, draw in frames.items():
        folder = out / "inputs" / name
        _write_pictures(draw(), folder)
        pca((folder,), encoder=ENCODER, out=out / "pca" / name, size=_PHOTO_SIZE[1] if name == "photos" else _CLIP_EDGE)
    report((out / "sweep",), out=out / "site", figures=(out / "pca",), title="rice quickstart")
    _say_where(out, time.monotonic() - started)
    return 0


def reproduce_mini(
    *,
    out: Path,
    config: Annotated[MiniatureConfig, tyro.conf.arg(name="")],
    extended: bool = False,
    panels: tuple[PanelId, ...] = (),
    photographs: Path | None = None,
    jobs: int | None = None,
) -> None:
    """The paper in miniature: do its claims hold where every part is small? From nothing to verdicts, offline.

    Generated pictures with captions; a small CLIP; curation by its features; RICE, RICE without text labels, MLCD,
    UNICOM and CLIP from scratch on the same pictures, three seeds each; probes on the frozen encoders; verdicts on
    claims that were written down before, tables, and a page. Killed, the same command goes on.

    Example: rice reproduce mini --out out/mini

    OUT/index.html: what held and what did not, each number with its files; OUT/runs: the encoders; OUT/sweep: results.

    Args:
        out: Folder for everything; the same one resumes.
        extended: Afterwards also variants of RICE, one setting at a time (Table 5: N, K, rho, M; the loss, what is
            labelled, how regions are read out), and the multimodal probes; OUT/extended/index.html. Two hours more.
        panels: Of --extended only these, each of which is one to four trainings; others can follow. Default: all.
        photographs: A folder with photos/, coco/ and bccd/: afterwards also the same arms on these few real ones, with
            the settings that were found; OUT/photographs/index.html.
        jobs: Trainings and cells at a time. Default: one for each core.
    """
    from probes.sweeps.local import cores
    from reports.miniature.extended import Extension
    from reports.miniature.photographs import FOLDER, PhotographMiniature, few
    from reports.miniature.run import Miniature
    from rice.progress import BarProgress

    started = time.monotonic()
    shared: dict[str, Any] = {"progress": BarProgress(), "at_once": jobs or cores()}
    generated = Miniature(config=config, out=out.absolute(), **shared)
    real = None
    if photographs is not None:
        place = out.absolute() / FOLDER
        real = PhotographMiniature(config=few(config), out=place, data=photographs.absolute(), **shared)
        real.check()
    pages = [generated.run()]
    if extended or panels:
        pages.append(Extension(generated, generated.search(), panels).run())
    if real is not None:
        pages.append(real.run_with(generated.search()))
    if len(pages) > 1:
        generated.refreshed_page()
    said = " and ".join(map(str, pages))
    print(f"reproduced in {(time.monotonic() - started) / 60:.0f} min: open {said} in a browser")  # noqa: T201


def _write_tables(results: Path, out: Path) -> None:
    from reports.grid import SUFFIXES
    from reports.tables_command import tables

    metrics = ("mIoU", "knn top-1", "word accuracy", "box AP", "LaSOT success")
    tables(results, metrics=metrics)
    for name, suffix in SUFFIXES.items():
        tables(results, metrics=metrics, format=name, out=out / f"table{suffix}")


def _write_pictures(pictures: "Iterator[tuple[str, Image]]", folder: Path) -> None:
    """Once, whole or not at all."""
    from rice.files import atomic_folder

    if folder.is_dir():
        return
    with atomic_folder(folder) as temporary:
        for name, picture in pictures:
            picture.save(temporary / f"{name}.png")


def _clip() -> "Iterator[tuple[str, Image]]":
    """A clip of the generated world's held-out part."""
    from PIL import Image

    from rice.data.world import ClipConfig, Part, draw_clip

    clip = draw_clip(ClipConfig(height=_CLIP_EDGE, width=_CLIP_EDGE, frames=_CLIP_FRAMES), Part.TEST, 0, 0)
    for index, frame in enumerate(clip):
        yield f"{index:05d}", Image.fromarray(frame.image)


def _photos() -> "Iterator[tuple[str, Image]]":
    """Photographs that two libraries install, cut to one size so that they share one fit and one colour scale."""
    import skimage.data
    import sklearn.datasets
    from PIL import Image, ImageOps

    china, flower = sklearn.datasets.load_sample_images().images
    photos = {
        "astronaut": skimage.data.astronaut(),
        "china": china,
        "coffee": skimage.data.coffee(),
        "flower": flower,
        "motorcycle": skimage.data.stereo_motorcycle()[0],
        "rocket": skimage.data.rocket(),
    }
    for name, pixels in photos.items():
        yield name, ImageOps.fit(Image.fromarray(pixels), _PHOTO_SIZE, Image.Resampling.LANCZOS)


def _say_where(out: Path, seconds: float) -> None:
    print(  # noqa: T201
        f"\nquickstart took {seconds:.0f} s. Look at:\n"
        f"  {out}/site/index.html             all of it as one page: open it in a browser\n"
        f"  {out}/table.md, .tex, .csv, .html   the table above\n"
        f"  {out}/pca/clip/pca.mp4              patch tokens of a generated clip as colours\n"
        f"  {out}/pca/photos/strip.png          the same on real photographs\n"
        f"  {out}/sweep/results                 one JSON file per result, with all that it needs to be repeated\n"
        "Next: rice compare, rice encoders, rice data check ROOT, rice sweep --help"
    )
