"""What is known of an encoder without building it, and how its name is written. Imports no torch."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

from rice.errors import RiceError
from rice.model.config import ViTConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

Resize = Literal["shortest", "squash"]
Interpolation = Literal["bicubic", "bilinear", "lanczos"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How the source's own processor makes a picture of `EncoderSpec.native_size` (before the normalisation).

    `shortest`: the shorter edge becomes the size (`crop_fraction` of it is kept by a centre crop); `squash`: both
    edges become the size. `backend`: whose resampling is bit-exact with the source (PIL, torchvision on uint8, or
    torchvision on floats).
    """

    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    crop_fraction: float = 1.0
    backend: Literal["pil", "torchvision", "torchvision-float"] = "torchvision"


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """Facts of one encoder; everything that a probe or a table needs to know of it.

    Sizes are input pixels of a square image; `mean` and `std` apply to RGB in [0, 1]. `revision`, the commit, and
    `digest`, SHA-256 of the files that published values were read from, are None where they are not known, never
    invented. `layer` counts hidden states as the source does (-1: the last hidden state);
    `norm` says whether the patches of that layer have passed the tower's final norm ("post") or not ("none").
    What the cost of a forward needs besides: `prefix_tokens` (class and register tokens), `gated_mlp` (three matrices
    instead of two), and, where most layers attend only inside windows, the window's edge in patches and the number of
    layers that attend to everything.
    """

    name: str
    source: str
    revision: str | None = None
    digest: str | None = None
    licence: str | None = None
    paper: str | None = None
    patch: int
    size_multiple: int
    width: int
    depth: int | None = None
    mlp_width: int | None = None
    prefix_tokens: int = 1
    gated_mlp: bool = False
    window: int | None = None
    full_attention_layers: int | None = None
    native_size: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    layer: int = -1
    norm: Literal["none", "post"] = "none"
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    public: bool = True
    note: str | None = None

    def check_size(self, height: int, width: int) -> tuple[int, int]:
        """The patch grid (h, w) of an input of height x width pixels.

        The native size is always accepted and its remainder dropped, as the source's convolution does (SigLIP 384/14:
        27 x 27); other sizes must be multiples of `size_multiple`. Errors: RiceError with the nearest sizes.
        """
        for edge in (height, width):
            if edge < self.patch or (edge != self.native_size and edge % self.size_multiple):
                below = max(edge // self.size_multiple, 1) * self.size_multiple
                raise RiceError(
                    f"{self.name} takes its native size {self.native_size} or multiples of {self.size_multiple}, "
                    f"got {height} x {width}; nearest: {below} and {below + self.size_multiple}"
                )
        return height // self.patch, width // self.patch


def vit_spec(config: ViTConfig, *, name: str, source: str) -> EncoderSpec:
    """The spec of our own tower, its pictures prepared as MLCD's and RICE's published ones are."""
    return EncoderSpec(
        name=name,
        source=source,
        patch=config.patch,
        size_multiple=config.patch,
        width=config.width,
        depth=config.depth,
        mlp_width=config.mlp_width,
        native_size=config.image_size,
    )


@dataclass(frozen=True)
class EncoderReference:
    """A name as users write it: `NAME`, `NAME@SIZE`, `NAME,layer=-2`, `NAME@SIZE,layer=-2`.

    `name` is a zoo name, or `rice:PATH`, `hf:REPO_OR_PATH`, `open_clip:ARCH[/TAG]`, `timm:NAME`, `module:attr`.
    """

    name: str
    size: int | None = None
    layer: int | None = None

    @classmethod
    def parse(cls, text: str) -> "EncoderReference":
        """Split `NAME@SIZE,layer=K`. Errors: RiceError that shows the form."""
        match = re.fullmatch(r"(?P<name>.+?)(?:@(?P<size>\d{1,5}))?(?:,layer=(?P<layer>-?\d{1,3}))?", text.strip())
        if match is None or ",layer" in match["name"] or re.search(r"@[^/]*$", match["name"]):
            raise RiceError(f"expected an encoder as NAME, NAME@SIZE or NAME@SIZE,layer=-2, got {text!r}")
        size, layer = match["size"], match["layer"]
        return cls(match["name"], int(size) if size else None, int(layer) if layer else None)

    def __str__(self) -> str:
        size = "" if self.size is None else f"@{self.size}"
        return f"{self.name}{size}" + ("" if self.layer is None else f",layer={self.layer}")
