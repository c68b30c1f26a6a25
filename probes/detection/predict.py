"""A trained detector on any pictures: drawn, and as COCO results."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from probes.detection.checkpoint import DetectorFacts
from probes.detection.draw import draw_results
from probes.detection.evaluate import on_cpu, to_results
from probes.detection.material import Canvas, as_tokens, token_source
from probes.detection.model import Detector
from probes.detection.views import View, to_square
from rice.data.picture import open_picture
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.files import atomic_write, write_json
from rice.progress import Progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The pictures named, and those in the folders named, by name. Errors: RiceError where there are none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        elif path.is_file():
            found.append(path)
        else:
            raise RiceError(f"expected a picture or a folder of pictures, found none at {path}")
    if not found:
        raise RiceError(f"no picture ({', '.join(SUFFIXES)}) in {', '.join(map(str, paths))}")
    return found


def predict_pictures(
    pictures: Sequence[Path],
    detector: Detector,
    encoder: Encoder,
    facts: DetectorFacts,
    out: Path,
    threshold: float,
    progress: Progress,
) -> int:
    """Write OUT/STEM.png for each picture, OUT/results.json and OUT/images.json; how many objects were drawn.

    Errors: RiceError naming a picture that cannot be read; what was drawn before it stays.
    """
    names = dict(facts.categories)
    ids = [id_ for id_, _ in facts.categories]
    results, drawn = [], 0
    canvas = Canvas.of(encoder, facts.size)
    source = token_source(encoder, canvas, partial(to_square, edge=canvas.edge, fill=encoder.spec.mean), amp=True)
    work = list(zip(pictures, _targets(pictures, out), strict=True))
    for number, (path, target) in enumerate(progress.track(work, "detect"), 1):
        picture = open_picture(path).convert("RGB")
        view = View.whole(picture.width, picture.height, canvas.covered)
        (features,) = source.stream([[view.picture(picture)]])
        (found,) = detector.detect(as_tokens(features.to(encoder.device)), [(view.shown[1], view.shown[0])])
        mine = to_results(on_cpu(found), view, number, ids)
        drawn += sum(result["score"] >= threshold for result in mine)
        with atomic_write(target, "wb") as file:
            draw_results(picture, mine, names, threshold=threshold).save(file, "PNG")
        results += mine
    write_json(out / "results.json", results)
    write_json(out / "images.json", [{"id": k, "file_name": str(path)} for k, path in enumerate(pictures, 1)])
    return drawn


def _targets(pictures: Sequence[Path], out: Path) -> Iterator[Path]:
    """OUT/STEM.png; with a number where two pictures share a stem."""
    seen: dict[str, int] = {}
    for path in pictures:
        count = seen[path.stem] = seen.get(path.stem, 0) + 1
        yield out / (f"{path.stem}.png" if count == 1 else f"{path.stem}-{count}.png")
