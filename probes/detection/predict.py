"""A trained detector on any pictures: drawn, and as COCO results."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from probes.detection.checkpoint import DetectorFacts
from probes.detection.draw import draw_results
from probes.detection.evaluate import on_cpu, to_results
from probes.detection.material import Canvas, as_tokens, token_source
from probes.detection.model import Detector
from probes.detection.views import View, to_square
from rice.data.picture import PICTURES, open_upright
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.files import atomic_write, write_json
from rice.progress import Progress


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The pictures named, and those in the folders named, by name. Errors: RiceError where there are none."""
    if not paths:
        raise RiceError("expected pictures, or folders of them, to find objects in; got none")
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
        elif path.is_file():
            found.append(path)
        else:
            raise RiceError(f"expected a picture or a folder of pictures, found none at {path}")
    if not found:
        raise RiceError(f"no picture ({', '.join(PICTURES)}) in {', '.join(map(str, paths))}")
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

    Pictures are turned upright where EXIF says so; boxes are in the pixels of the upright picture. Errors: RiceError
    naming a picture that cannot be read (what was drawn before it stays), or that would be replaced.
    """
    names = dict(facts.categories)
    ids = [id_ for id_, _ in facts.categories]
    results, drawn = [], 0
    canvas = Canvas.of(encoder, facts.size)
    source = token_source(encoder, canvas, partial(to_square, edge=canvas.edge, fill=encoder.spec.mean), amp=True)
    work = list(zip(pictures, _targets(pictures, out), strict=True))
    for number, (path, target) in enumerate(progress.track(work, "detect"), 1):
        picture = open_upright(path)
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


def _targets(pictures: Sequence[Path], out: Path) -> list[Path]:
    """OUT/STEM.png, with a number where it is taken. Errors: RiceError where that is one of the pictures."""
    targets: dict[Path, None] = {}
    for path in pictures:
        names = (f"{path.stem}{'' if number == 1 else f'-{number}'}.png" for number in itertools.count(1))
        targets[next(out / name for name in names if out / name not in targets)] = None
    if lost := {path.resolve() for path in pictures} & {path.resolve() for path in targets}:
        raise RiceError(f"{min(lost)} would be replaced by its drawn copy; choose another --out")
    return list(targets)
