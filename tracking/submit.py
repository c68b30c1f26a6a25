"""Zip files that the servers of GOT-10k and TrackingNet take, checked before a byte is written.

Shapes: N frames. Boxes are x, y, width, height in pixels from the top left corner (0, 0), as both benchmarks have them.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rice.errors import RiceError
from rice.files import atomic_write
from tracking.layouts.text import number_lines

_MOMENT = (1980, 1, 1, 0, 0, 0)
"""All entries' time: the same boxes give the same bytes."""

_NAME = re.compile(r"[\w-][\w.-]*")
_NAMED = 5
_BOX_DECIMALS, _TIME_DECIMALS = 3, 8


def got10k_zip(
    path: Path, tracks: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], expected: Mapping[str, int]
) -> None:
    """SEQ/SEQ_001.txt with boxes (N, 4) and SEQ/SEQ_time.txt with the seconds (N,) that each frame took.

    expected: frames of every sequence of the test split. Errors: RiceError naming the first sequences that are missing,
    unknown, of another length, or with a box or a time that the server could not judge.
    """
    _check({name: boxes for name, (boxes, _) in tracks.items()}, expected)
    odd = [
        name
        for name, (_, seconds) in tracks.items()
        if np.shape(seconds) != (expected[name],) or not (np.isfinite(seconds) & (np.asarray(seconds) >= 0)).all()
    ]
    if odd:
        raise RiceError(f"expected the seconds of each frame, finite and >= 0; {_some(odd, expected)} have others")
    entries = {}
    for name, (boxes_N4, seconds_N) in tracks.items():
        entries[f"{name}/{name}_001.txt"] = number_lines(np.asarray(boxes_N4).tolist(), _BOX_DECIMALS)
        entries[f"{name}/{name}_time.txt"] = number_lines(np.reshape(seconds_N, (-1, 1)).tolist(), _TIME_DECIMALS)
    _write(path, entries)


def trackingnet_zip(path: Path, tracks: Mapping[str, NDArray[Any]], expected: Mapping[str, int]) -> None:
    """VIDEO.txt with boxes (N, 4), without a folder. expected, errors: see `got10k_zip`."""
    _check(tracks, expected)
    _write(
        path,
        {
            f"{name}.txt": number_lines(np.asarray(boxes_N4).tolist(), _BOX_DECIMALS)
            for name, boxes_N4 in tracks.items()
        },
    )


def _check(tracks: Mapping[str, NDArray[Any]], expected: Mapping[str, int]) -> None:
    """Judged as the text will be: a width that is written as 0.000 is none."""
    missing = [name for name in expected if name not in tracks]
    if missing:
        raise RiceError(f"expected a track of every sequence of the split; {_some(missing, expected)} have none")
    unknown = [name for name in tracks if name not in expected]
    if unknown:
        raise RiceError(f"expected tracks of the split's sequences only; {_some(unknown, tracks)} are not in it")
    unsafe = [name for name in expected if not _NAME.fullmatch(name)]
    if unsafe:
        raise RiceError(f"expected names of letters, digits and . _ -; {_some(unsafe, expected)} have other characters")
    odd = [name for name, boxes in tracks.items() if np.shape(boxes) != (expected[name], 4)]
    if odd:
        first = f"{odd[0]} has {np.shape(tracks[odd[0]])}, expected ({expected[odd[0]]}, 4)"
        raise RiceError(f"expected a box for each frame; {_some(odd, expected)} have other shapes; {first}")
    bad = [name for name, boxes in tracks.items() if not _can_be_judged(np.asarray(boxes, dtype=np.float64)).all()]
    if bad:
        frame = int(np.argmin(_can_be_judged(np.asarray(tracks[bad[0]], dtype=np.float64)))) + 1
        raise RiceError(
            f"expected finite boxes with a width and a height of at least .001; {_some(bad, expected)} have others; "
            f"the first is {bad[0]}, frame {frame}: {np.asarray(tracks[bad[0]])[frame - 1].tolist()}"
        )


def _can_be_judged(boxes_N4: NDArray[np.float64]) -> NDArray[np.bool_]:
    flags_N: NDArray[np.bool_] = np.all(np.isfinite(boxes_N4), axis=1) & np.all(
        np.round(boxes_N4[:, 2:], 3) > 0, axis=1
    )
    return flags_N


def _write(path: Path, entries: Mapping[str, str]) -> None:
    with atomic_write(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, date_time=_MOMENT)
            info.create_system, info.external_attr = 3, 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entries[name])


def _some(names: list[str], of: Mapping[str, Any]) -> str:
    listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names)} of {len(of)} ({listed})"
