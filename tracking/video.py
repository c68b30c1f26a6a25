"""One target through one video: an annotated film and a result file."""

import math
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from rice.data.video import Footage, Image_HW3, open_footage, write_video
from rice.errors import RiceError
from rice.files import atomic_write
from rice.progress import Progress
from tracking.draw import draw_found
from tracking.layouts.folder import FRAMES, TRUTH
from tracking.layouts.text import number_lines, read_boxes
from tracking.sequence import Boxes_N4, has_area
from tracking.tracker import Box, Found, Tracker

_FPS = Fraction(25)


def run_video(
    footage: Footage, box: Box, tracker: Tracker, out: Path, progress: Progress, truth_N4: Boxes_N4 | None = None
) -> tuple[Path, Path, float]:
    """Write OUT/NAME.mp4 (H.264) and OUT/NAME.txt (x,y,w,h a frame). Returns both and the frames per second that were
    followed, decoding and drawing not counted. `truth_N4` is drawn, too.

    Errors: RiceError naming a frame that cannot be read, a first box outside the first frame, or an OUT in which the
    video and the boxes beside it would be overwritten; nothing is written.
    """
    check_start(box, footage.height, footage.width)
    name = clip_name(footage.path)
    if footage.kind == "video" and footage.path.resolve().parent == out.resolve():
        raise RiceError(f"{footage.path} lies in {out}, where it would be overwritten; name another --out")
    boxes: list[Found] = []
    spent = 0.0

    def drawn() -> Iterator[Image_HW3]:
        nonlocal spent
        follow = _timed(tracker, box)
        frames = progress.track(footage.frames(), f"follow {name}", footage.declared)
        for index, frame in enumerate(frames):
            found, seconds = follow(frame.image)
            spent += seconds
            boxes.append(found)
            truth = truth_N4[index] if truth_N4 is not None and index < len(truth_N4) else None
            shown = truth.tolist() if truth is not None and has_area(truth[None])[0] else None
            yield draw_found(frame.image, found, f"{index}  {(index + 1) / spent:.1f} fps", shown)

    out.mkdir(parents=True, exist_ok=True)
    film, result = out / f"{name}.mp4", out / f"{name}.txt"
    write_video(film, drawn(), footage.fps or _FPS)
    with atomic_write(result) as file:
        file.write(number_lines((found.box for found in boxes), 4))
    return film, result, len(boxes) / spent


def open_clip(path: Path) -> Footage:
    """A video, a folder of frames, or a clip's folder with its frames in `img` or `imgs`. Errors: as `open_footage`."""
    inside = [path / name for name in FRAMES if (path / name).is_dir()]
    return open_footage(inside[0] if len(inside) == 1 else path)


def clip_name(path: Path) -> str:
    """Of a video file, or of the folder that holds a clip."""
    if not path.is_dir():
        return path.stem
    whole = path.resolve()
    return whole.parent.name if whole.name in FRAMES else whole.name


def check_start(box: Box, height: int, width: int) -> None:
    """Errors: RiceError unless the first box has an area and meets the frame."""
    x, y, box_width, box_height = box
    if not (math.isfinite(sum(box)) and box_width > 0 and box_height > 0):
        raise RiceError(f"expected --box X Y W H with a width and a height over 0, got {_words(box)}")
    if not (x < width and y < height and x + box_width > 0 and y + box_height > 0):
        raise RiceError(f"the first box {_words(box)} lies outside the first frame of {width} x {height} pixels")


def known_truth(path: Path) -> Boxes_N4 | None:
    """(N, 4) of the groundtruth.txt beside a folder's frames (boxes, or polygons of 8 numbers), where there is one."""
    places = [folder / TRUTH for folder in (path, path.parent)] if path.is_dir() else []
    found = next((place for place in places if place.is_file()), None)
    return None if found is None else read_boxes(found)


def _timed(tracker: Tracker, box: Box) -> Callable[[Image_HW3], tuple[Found, float]]:
    """Follow frame by frame, with the seconds that each took."""
    current: Image_HW3 | None = None

    def given() -> Iterator[Image_HW3]:
        while current is not None:
            yield current

    steps = tracker.track(given(), box)

    def follow(frame: Image_HW3) -> tuple[Found, float]:
        nonlocal current
        current = frame
        start = time.perf_counter()
        found = next(steps)
        return found, time.perf_counter() - start

    return follow


def _words(box: Box) -> str:
    return " ".join(f"{value:g}" for value in box)
