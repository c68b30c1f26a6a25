"""The tower's weights in their published forms, both ways. Files are read by `rice.encoders.weights`.

Shapes: D width, P patch edge.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rice.errors import RiceError
from rice.files import atomic_path, write_json
from rice.model.config import ViTConfig, to_json
from rice.model.names import LLAVA_ONEVISION, MLCD, Scheme, shortened
from rice.model.vit import ViT

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def from_published(
    tensors: Mapping[str, Tensor], scheme: Scheme, config: ViTConfig, *, origin: str
) -> dict[str, Tensor]:
    """Our state dict from published tensors (prefix removed), each in its own dtype.

    LLaVA-OneVision-1.5 has no post-norm: it becomes one without effect of its parameters (weight 1, bias 0), so the
    pooled output is the class token, normalised. Its patch filters may be stored (D, 3*P*P) or (D, 3, 1, P, P).
    Errors: RiceError that names missing, unexpected and mis-shaped tensors.
    """
    expected = _own_shapes(config)
    parts = {ours: scheme.published(ours) for ours in expected}
    _check(tensors, scheme, config, parts, origin)
    state = {}
    for ours, shape in expected.items():
        if not parts[ours]:
            state[ours] = torch.ones(shape) if ours.endswith("weight") else torch.zeros(shape)
            continue
        pieces = [tensors[name] for name in parts[ours]]
        state[ours] = (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).reshape(shape)
    return state


def to_published(module: ViT, scheme: Scheme = MLCD) -> dict[str, Tensor]:
    """The tower's tensors under published names: 391 of them for L/14 in MLCD's form."""
    published: dict[str, Tensor] = {}
    for ours, value in module.state_dict().items():
        names = scheme.published(ours)
        pieces = value.chunk(len(names)) if names else ()
        published |= {name: piece.contiguous() for name, piece in zip(names, pieces, strict=True)}
    return published


def build(config: ViTConfig, state: Mapping[str, Tensor]) -> ViT:
    """A tower that holds `state` (of `from_published`) in fp32, without initialising it first."""
    with torch.device("meta"):
        module = ViT(config)
    module.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return module.eval()


def save(module: ViT, folder: Path, *, image_size: int | None = None) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, in MLCD's form: `transformers.AutoModel` reads it.

    `image_size`: what the configuration shall state, in pixels, where it is not the tower's own.
    """
    tensors = {name: value.detach().cpu() for name, value in to_published(module).items()}
    config = replace(module.config, image_size=image_size or module.config.image_size)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    with atomic_path(folder / WEIGHTS) as file:
        save_file(tensors, file, metadata={"format": "pt"})
    write_json(folder / CONFIG, to_json(config, dtype))


def _own_shapes(config: ViTConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in ViT(config).state_dict().items()}


def _check(
    tensors: Mapping[str, Tensor],
    scheme: Scheme,
    config: ViTConfig,
    parts: Mapping[str, tuple[str, ...]],
    origin: str,
) -> None:
    own = _own_shapes(config)
    wanted = {name: (own[ours][0] // len(names), *own[ours][1:]) for ours, names in parts.items() for name in names}
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted and not name.startswith(scheme.ignored)]
    misshaped = [
        f"{name} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in tensors and not _fits(tuple(tensors[name].shape), shape, scheme)
    ]
    problems = {"missing": missing, "unexpected": unexpected, "mis-shaped": misshaped}
    if any(problems.values()):
        lists = "; ".join(f"{len(found)} {what}: {shortened(found)}" for what, found in problems.items() if found)
        raise RiceError(f"{origin} is not this {scheme.name} tower ({config.depth} blocks of {config.width}): {lists}")


def _fits(shape: tuple[int, ...], expected: tuple[int, ...], scheme: Scheme) -> bool:
    if shape == expected:
        return True
    width, *filters = expected
    flattened = (width, math.prod(filters))
    return scheme is LLAVA_ONEVISION and len(filters) == 3 and shape in (flattened, (width, 3, 1, *filters[1:]))
