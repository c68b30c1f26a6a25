"""Two-dimensional rotary positions (section 3.1; the angles of MLCD and of LLaVA-OneVision-1.5).

Shapes: T tokens (the class token first), h w patch grid, K channels of a head, F = K/4 frequencies per axis,
A = K/2 = 2F angles: the row's F, then the column's F. The head's channels are their own second half's partners
("rotate-half"), so that channel i and channel i + A turn by angle i.
"""

import functools

import torch
from torch import Tensor

Grid = tuple[int, int]


def patch_angles(grid: Grid, head_dim: int, theta: float) -> Tensor:
    """Angles (h*w, A), radians, fp32, of patches in reading order: [row * f, column * f], f = theta^(-i/F).

    Computed on the CPU whatever the device: every device gets the same angles.
    """
    exponents_F = torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device="cpu") / (head_dim // 2)
    frequencies_F = 1.0 / theta**exponents_F
    rows, columns = (torch.arange(edge, dtype=torch.float32, device="cpu") for edge in grid)
    row_hF, column_wF = torch.outer(rows, frequencies_F), torch.outer(columns, frequencies_F)
    h, w = grid
    angles_hwA = torch.cat([row_hF[:, None].expand(h, w, -1), column_wF[None].expand(h, w, -1)], dim=-1)
    return angles_hwA.flatten(0, 1)


def _patch_turns(grid: Grid, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    angles = patch_angles(grid, head_dim, theta)
    return angles.cos().to(device), angles.sin().to(device)


_cached_patch_turns = functools.lru_cache(maxsize=32)(_patch_turns)


def turns(grid: Grid, class_angles_1A: Tensor, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 1, A), fp32, of all tokens: the class token's learned angles, then the patches'.

    `class_angles_1A`: radians; gradients flow into it.
    """
    patch_turns = _patch_turns if torch.compiler.is_compiling() else _cached_patch_turns
    cos, sin = patch_turns(grid, 2 * class_angles_1A.shape[-1], theta, class_angles_1A.device)
    learned_1A = class_angles_1A.to(torch.promote_types(class_angles_1A.dtype, torch.float32))
    cos_TA, sin_TA = torch.cat([learned_1A.cos().float(), cos]), torch.cat([learned_1A.sin().float(), sin])
    return cos_TA[:, None], sin_TA[:, None]


def rotate(x_BTNK: Tensor, cos_T1A: Tensor, sin_T1A: Tensor) -> Tensor:
    """Turn every head's channel pairs (i, i + A) by its token's angles, in fp32; the result has x's dtype."""
    a, b = x_BTNK.float().chunk(2, dim=-1)
    turned = torch.cat([a * cos_T1A - b * sin_T1A, b * cos_T1A + a * sin_T1A], dim=-1)
    return turned.to(x_BTNK.dtype)
