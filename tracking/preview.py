"""Some frames of some clips with the tracker's box and the truth's, as one picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from probes.images import sheet
from rice.files import atomic_write
from tracking.draw import draw_found
from tracking.evaluate import Store
from tracking.sequence import PictureFiles, has_area
from tracking.sequence import Sequence as Clip
from tracking.tracker import Found

_CLIPS, _FRAMES = 6, 4


def write_preview(path: Path, clips: Sequence[Clip], store: Store) -> None:
    """A row a clip, its frames evenly spread from the first to the last; red: found, green: truth."""
    shown = [clip for clip in clips if isinstance(clip.frames, PictureFiles)]
    chosen = [shown[k] for k in np.unique(np.linspace(0, len(shown) - 1, _CLIPS).round().astype(int)) if shown]
    pictures = [picture for clip in chosen for picture in _row(clip, store)]
    if not pictures:
        return
    with atomic_write(path, "wb") as file:
        sheet(pictures, _FRAMES).save(file, "PNG")


def _row(clip: Clip, store: Store) -> list[Image.Image]:
    assert isinstance(clip.frames, PictureFiles)
    boxes_N4 = store.boxes(clip) - np.array([clip.origin, clip.origin, 0, 0])
    row = []
    for index in np.linspace(0, len(clip) - 1, _FRAMES).round().astype(int).tolist():
        truth = clip.boxes[index] if index < len(clip.boxes) and has_area(clip.boxes[index : index + 1])[0] else None
        x, y, width, height = boxes_N4[index].tolist()
        frame = clip.frames.read(index)
        row.append(Image.fromarray(draw_found(frame, Found((x, y, width, height), None), str(index), truth)))
    return row
