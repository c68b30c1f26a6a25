"""Pictures as the engines take them: BGR, of edges that they can work with.

The engines enlarge a picture until its short edge has `TextConfig.read_shortest` pixels, which would make gigabytes of
a strip of one pixel, and their own shrinking fails on strips. So both edges are bounded here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_ELONGATED, _SHORTEST = 8, 64


def fit(cv2: Any, picture_HW3: NDArray[np.uint8], longest: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(the picture in BGR, by how much x and y shrank).

    It is shrunk to `longest`; then black on the right or below lengthens the short edge to an eighth of the long one,
    and to 64 pixels. cv2: OpenCV, which each engine brings.
    """
    height, width = picture_HW3.shape[:2]
    shrink = min(longest / max(height, width), 1.0)
    size = max(round(width * shrink), 1), max(round(height * shrink), 1)
    bgr = np.ascontiguousarray(picture_HW3[:, :, ::-1])
    if shrink < 1:
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    least = max(-(-max(size) // _MOST_ELONGATED), _SHORTEST)
    right, below = (max(least - edge, 0) for edge in size)
    if right or below:
        bgr = cv2.copyMakeBorder(bgr, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return bgr, np.array([width / size[0], height / size[1]])
