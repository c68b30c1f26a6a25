"""Which tiles a picture is cut into, and how many tokens they make. Imports no torch.

LLaVA-NeXT sees a picture whole, squashed to one tile, and cut: resized with its proportions into the grid of tiles that
keeps most of it, padded, and the padding's tokens left out again ("spatial unpad"); a newline token ends each row.
Sizes are (height, width) in pixels of the upright picture; a tile is square, `edge` pixels and `side` x `side` tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tiling = Literal["one", "2x2+1", "anyres5", "anyres9", "anyres10"]
"""one: the whole picture only (stage 1; LLaVA 1.5). 2x2+1: always 5 tiles (caption of Table 1). anyres5: 3 to 5 tiles,
LLaVA-NeXT's own five grids. anyres9: LLaVA-OneVision's grids up to 6 x 6, at most nine tiles' tokens and the whole.
anyres10: the ten grids of 1 to 6 tiles with which MLCD's authors train referring segmentation."""

GRIDS: dict[Tiling, tuple[tuple[int, int], ...]] = {
    "one": (),
    "2x2+1": ((2, 2),),
    "anyres5": ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)),
    "anyres9": tuple((rows, columns) for rows in range(1, 7) for columns in range(1, 7)),
    "anyres10": ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (4, 1)),
}
"""Tiling -> grids as (rows, columns), in the order in which ties are decided."""

ONEVISION_MOST = 9
"""Tiles' worth of tokens to which LLaVA-OneVision shrinks a map ("anyres_max_9") that has over 1.1 ** 2 times more."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How pictures become tokens. `edge`: of a tile in pixels; `side`: its tokens along one edge."""

    tiling: Tiling
    edge: int
    side: int

    @property
    def pinpoints(self) -> list[list[int]]:
        """transformers' `image_grid_pinpoints`: (height, width) of the grids in pixels."""
        return [[rows * self.edge, columns * self.edge] for rows, columns in GRIDS[self.tiling]]

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """The grid (rows, columns) that a picture of `size` is cut into: most of its pixels kept, then least wasted."""
        height, width = size
        best, kept, wasted = (0, 0), 0, math.inf
        for rows, columns in GRIDS[self.tiling]:
            across, down = columns * self.edge, rows * self.edge
            scale = min(across / width, down / height)
            effective = min(int(width * scale) * int(height * scale), width * height)
            waste = across * down - effective
            if effective > kept or (effective == kept and waste < wasted):
                best, kept, wasted = (rows, columns), effective, waste
        return best

    def count(self, size: tuple[int, int], *, among: int = 1) -> int:
        """Tiles of a picture, the whole one included. `among`: pictures in its conversation."""
        rows, columns = (0, 0) if self._whole_only(among) else self.grid(size)
        return 1 + rows * columns

    def tokens(self, size: tuple[int, int], *, among: int = 1) -> int:
        """Tokens of a picture, newlines included. `among`: pictures in its conversation."""
        whole = self.side**2
        if self.tiling == "one":
            return whole
        if self._whole_only(among):
            return whole + 1  # one newline
        rows, columns = self._unpadded(size)
        if self.tiling == "anyres9":
            ratio = math.sqrt(rows * columns / (ONEVISION_MOST * whole))
            if ratio > 1.1:
                rows, columns = int(rows // ratio), int(columns // ratio)
        return whole + rows * (columns + 1)

    def total(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Tokens of all pictures of one conversation."""
        return sum(self.tokens(size, among=len(sizes)) for size in sizes)

    def _whole_only(self, among: int) -> bool:
        """LLaVA-OneVision cuts a picture only where it is the conversation's only one."""
        return self.tiling == "one" or (self.tiling == "anyres9" and among > 1)

    def _unpadded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens that are left of the grid's without its padding. Rounded as LLaVA rounds."""
        height, width = size
        grid_rows, grid_columns = self.grid(size)
        rows, columns = grid_rows * self.side, grid_columns * self.side
        if width / height > columns / rows:
            padding = (rows - int(round(height * (columns / width), 7))) // 2
            return rows - 2 * padding, columns
        padding = (columns - int(round(width * (rows / height), 7))) // 2
        return rows, columns - 2 * padding
