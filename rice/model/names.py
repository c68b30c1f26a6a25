"""Tensor names of the published forms: MLCD/RICE, as transformers reads and writes it, and LLaVA-OneVision-1.5.

A scheme maps each of our names to the published names whose tensors, concatenated along the first dimension, are ours:
q, k and v are one tensor here and in LLaVA-OneVision-1.5, three in MLCD. Imports no torch.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rice.errors import RiceError
from rice.model.config import SIZE_IN_PATCHES, ViTConfig

ANCHOR = "class_pos_emb"
"""The one name that every published form has and no other architecture does."""
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Scheme:
    """One published naming. `parts`: our module -> theirs; a name that is not listed is the same in both.

    `without`: our modules that the form does not have. `ignored`: beginnings of its names that are not of the tower.
    """

    name: str
    blocks: str
    parts: Mapping[str, tuple[str, ...]]
    without: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def published(self, ours: str) -> tuple[str, ...]:
        """The published names of one of our tensors, without a prefix; none where the form drops it."""
        if ours in (ANCHOR, "class_embedding"):
            return self.parts.get(ours, (ours,))
        block, module, kind = re.fullmatch(r"(blocks\.\d+\.)?(.+)\.(weight|bias)", ours).groups()  # type: ignore[union-attr]
        if module in self.without:
            return ()
        place = block.replace("blocks.", self.blocks) if block else ""
        return tuple(f"{place}{theirs}.{kind}" for theirs in self.parts.get(module, (module,)))


MLCD = Scheme(
    name="MLCD",
    blocks="encoder.layers.",
    parts={
        "class_embedding": ("embeddings.class_embedding",),
        "patch_embed": ("embeddings.patch_embedding",),
        "pre_norm": ("pre_layrnorm",),
        "norm1": ("layer_norm1",),
        "norm2": ("layer_norm2",),
        "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attn.proj": ("self_attn.out_proj",),
        "post_norm": ("post_layernorm",),
    },
    ignored=("embeddings.position_ids", "vision_rotary_embedding."),
)
LLAVA_ONEVISION = Scheme(
    name="LLaVA-OneVision-1.5",
    blocks="blocks.",
    parts={"patch_embed": ("patch_embed.proj",), "pre_norm": ("pre_layernorm",)},
    without=("post_norm",),
    ignored=("merger.", "rotary_pos_emb."),
)
SCHEMES = (MLCD, LLAVA_ONEVISION)


def detect(names: Iterable[str], origin: str) -> tuple[Scheme, str]:
    """The scheme of a checkpoint's tensor names, and the prefix before them: "vision_model.", "model.visual.", "".

    Errors: RiceError when the names are of no published form; `origin` names the checkpoint.
    """
    known = set(names)
    for name in sorted(known):
        prefix = name.removesuffix(ANCHOR)
        if prefix == name or (prefix and not prefix.endswith(".")):
            continue
        for scheme in SCHEMES:
            if f"{prefix}{scheme.parts['patch_embed'][0]}.weight" in known:
                return scheme, prefix
    absolute = any("position_embedding" in name for name in known)
    hint = "; absolute position embeddings: this is another architecture, load it with hf:PATH" if absolute else ""
    raise RiceError(f"{origin} is no MLCD/RICE tower: expected {ANCHOR} and a patch embedding, {_sample(known)}{hint}")


def config_of(shapes: Mapping[str, Sequence[int]], scheme: Scheme, *, origin: str) -> ViTConfig:
    """The configuration that tensor shapes (prefix removed) state. The class token's angles are half a head wide, so
    the number of heads follows. Shapes do not state the image size: it becomes sixteen patches.

    Errors: RiceError when a shape that decides is missing or impossible.
    """
    try:
        width = shapes[scheme.published("class_embedding")[0]][0]
        filters = shapes[scheme.published("patch_embed.weight")[0]]
        patch = filters[-1] if len(filters) > 2 else math.isqrt(filters[1] // 3)
        heads, remainder = divmod(width, 2 * shapes[ANCHOR][-1])
        mlp_width = shapes[scheme.published("blocks.0.mlp.fc1.weight")[0]][0]
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise RiceError(f"{origin}: the shapes of its tensors state no tower ({error}); add its config.json") from error
    if remainder:
        raise RiceError(f"{origin}: {ANCHOR} of {2 * shapes[ANCHOR][-1]} channels does not divide the width {width}")
    blocks = {name.removeprefix(scheme.blocks).split(".")[0] for name in shapes if name.startswith(scheme.blocks)}
    return ViTConfig(
        width=width,
        depth=len(blocks),
        heads=heads,
        patch=patch,
        image_size=SIZE_IN_PATCHES * patch,
        mlp_width=mlp_width,
    )


def shortened(found: Sequence[str]) -> str:
    """The first few names, for an error message."""
    return ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")


def _sample(names: set[str]) -> str:
    return f"got {shortened(sorted(names))}" if names else "got no tensors"
