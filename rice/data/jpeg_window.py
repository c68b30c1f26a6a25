"""Cutting a JPEG before it is decoded, where it has restart markers: what lies outside the crop is never parsed.

At a restart marker the entropy-coded data begin anew on a byte. So the stretches between markers that a window needs,
with the markers renumbered and the size in the header changed, are a JPEG of that window. It decodes to the very
pixels of the whole file, as long as chroma is upsampled by repetition, which looks at no neighbour.
(ITU-T T.81, sections B.1 and E.1.4.)
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rice.data.regions import Crop

_SOF_BASELINE, _SOF_EXTENDED, _SOS, _DRI, _EOI, _RST0 = 0xC0, 0xC1, 0xDA, 0xDD, 0xD9, 0xD0
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LEAST_SAVED = 0.08
"""Cutting takes about 60 microseconds; a smaller share of a picture is not worth them."""
_WANTED_MCUS = 4
"""Between two markers that we write: 64 pixels of 4:2:0, where markers cost about 1 % of the bytes."""


class _Layout(NamedTuple):
    """Of a sequential JPEG with one scan. size_at: where the header says the height, then the width.

    unit: width and height in pixels of the data between two markers. scan_at: where the entropy-coded data begin.
    """

    width: int
    height: int
    size_at: int
    unit: tuple[int, int]
    scan_at: int


def cut(data: bytes, crop: Crop) -> tuple[bytes, Crop] | None:
    """A JPEG of the smallest window that holds `crop` and begins and ends at markers, and the crop's place in it.

    None where nothing is won, or the file has no markers that allow it, or is damaged: it must be decoded whole then.
    The window begins at a multiple of 8 pixels, so that a reduced crop keeps its place.
    """
    layout = _layout(data)
    if layout is None or crop.left + crop.width > layout.width or crop.top + crop.height > layout.height:
        return None
    step, tall = layout.unit
    columns = slice(crop.left // step, -(-(crop.left + crop.width) // step))
    rows = slice(crop.top // tall, -(-(crop.top + crop.height) // tall))
    left, top = columns.start * step, rows.start * tall
    width, height = min(columns.stop * step, layout.width) - left, min(rows.stop * tall, layout.height) - top
    if width * height > (1 - _LEAST_SAVED) * layout.width * layout.height:
        return None
    body = _splice(data, layout, columns, rows)
    if body is None:
        return None
    at = layout.size_at
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    window = b"".join((data[:at], size, data[at + 4 : layout.scan_at], body))
    return window, Crop(crop.left - left, crop.top - top, crop.width, crop.height)


def restart_interval(width: int) -> int:
    """MCUs between markers for a 4:2:0 picture of that width: a divisor of its row near 4, as `cut` asks for."""
    across = -(-width // 16)
    divisors = [n for n in range(1, across + 1) if across % n == 0]
    return min(divisors, key=lambda n: abs(math.log(n / _WANTED_MCUS)))


def _layout(data: bytes) -> _Layout | None:
    """Read the header's segments; None for what is not one sequential scan with markers at the ends of rows."""
    at, size_at, mcu, components, interval = 2, 0, (0, 0), 0, 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in (_SOF_BASELINE, _SOF_EXTENDED) and at + 10 <= len(data):
            size_at, components = at + 5, data[at + 9]
            factors = data[at + 11 : at + 10 + 3 * components : 3]
            if len(factors) != components or not all(f >> 4 and f & 15 for f in factors):
                return None
            # A single component is not interleaved: its MCU is one block, whatever its factors.
            single = components == 1
            mcu = (8, 8) if single else (8 * max(f >> 4 for f in factors), 8 * max(f & 15 for f in factors))
        elif kind in _FRAMES:
            return None
        elif kind == _DRI:
            interval = int.from_bytes(data[at + 4 : at + 6], "big")
        elif kind == _SOS:
            if not size_at or not interval or data[at + 4 : at + 5] != bytes([components]):
                return None
            height, width = (int.from_bytes(data[i : i + 2], "big") for i in (size_at, size_at + 2))
            whole_rows = -(-width // mcu[0]) % interval == 0
            return _Layout(width, height, size_at, (interval * mcu[0], mcu[1]), at + 2 + length) if whole_rows else None
        at += 2 + length
    return None


def _splice(data: bytes, layout: _Layout, columns: slice, rows: slice) -> bytes | None:
    """The entropy-coded data of some units, each with the marker that ends it; None where markers are missing."""
    across, down = (-(-edge // unit) for edge, unit in zip((layout.width, layout.height), layout.unit, strict=True))
    end = data.rfind(bytes([0xFF, _EOI]), layout.scan_at)  # a search from the front would take longer than all else
    if end < 0:
        return None
    ends = _marker_ends(np.frombuffer(data, np.uint8, end), layout.scan_at)
    if len(ends) != across * down - 1:
        return None
    bounds = np.concatenate([[layout.scan_at], ends, [end + 2]])
    begins_at, ends_at = (
        bounds[:-1].reshape(down, across)[rows, columns],
        bounds[1:].reshape(down, across)[rows, columns],
    )
    stretches = zip(begins_at[:, 0].tolist(), ends_at[:, -1].tolist(), strict=True)
    body = np.frombuffer(b"".join(data[a:b] for a, b in stretches), np.uint8).copy()
    markers = np.cumsum((ends_at - begins_at).ravel()) - 1
    body[markers] = _RST0 + np.arange(len(markers)) % 8
    body[-1] = _EOI
    return body.tobytes()


def _marker_ends(content: NDArray[np.uint8], begin: int) -> NDArray[np.int64]:
    """Offsets right behind each restart marker. Within entropy-coded data 0xFF is followed by 0 or a marker."""
    scan = content[begin:]
    found = np.flatnonzero(scan[:-1] == 0xFF)
    ends: NDArray[np.int64] = begin + 2 + found[scan[found + 1] & 0xF8 == _RST0]
    return ends
