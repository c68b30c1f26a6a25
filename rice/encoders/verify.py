"""Is an encoder what its source library says? The library's own processor and forward on the same picture as ours.

The reference below shares no code with the loaders' `extract`: only the tower's tensors, where the library cannot read
them by itself.
Shapes: B images, T tokens, D width, h w patch grid.
"""

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rice.encoders.base import Encoder, Features
from rice.encoders.hf_config import tower_of
from rice.encoders.hf_families import FAMILIES
from rice.encoders.hub import pinned
from rice.encoders.load import split, zoo_weights
from rice.encoders.spec import EncoderReference
from rice.encoders.weights import PUBLISHED, Source, place
from rice.encoders.zoo import ZOO
from rice.errors import RiceError

if TYPE_CHECKING:
    from PIL.Image import Image

TOLERANCE = 1e-5
# transformers reads the published files of these types by itself.
_READ_BY_TRANSFORMERS = {
    "clip_vision_model",
    "siglip_vision_model",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "mlcd_vision_model",
    "vit",
}


class Reference(NamedTuple):
    """What the source library makes of the picture: normalised pixels (1, 3, S, S), and features."""

    pixels: Tensor
    features: Features


@dataclass(frozen=True)
class Check:
    """One comparison: the largest absolute difference, and that over the reference's largest value."""

    what: str
    max_abs: float
    max_rel: float

    @property
    def passed(self) -> bool:
        """Whether the relative difference is within 1e-5; NaN is not."""
        return self.max_rel <= TOLERANCE


def verify(encoder: Encoder, reference: EncoderReference, image: "Image") -> list[Check]:
    """Compare pixels, patches and class token on one picture, in fp32 on the encoder's device.

    Errors: RiceError for own encoders and layers other than the default, where there is nothing to compare with.
    """
    if reference.layer not in (None, -1):
        raise RiceError(f"the check compares the last hidden state; leave out ,layer={reference.layer}")
    if encoder.spec.window is not None:  # Qwen's processor keeps the aspect ratio
        edge = min(image.size)
        image = image.crop((0, 0, edge, edge))
    theirs = _reference(encoder, reference, image)
    pixels = encoder.normalise(encoder.preprocess(image)[None])
    with torch.no_grad():
        ours = encoder.features(pixels)
    pairs = [("pixels", pixels, theirs.pixels), ("patches", ours.patches, theirs.features.patches)]
    if ours.cls is not None and theirs.features.cls is not None:
        pairs.append(("class token", ours.cls, theirs.features.cls))
    return [_check(what, a, b) for what, a, b in pairs]


def _check(what: str, ours: Tensor, theirs: Tensor) -> Check:
    if ours.shape != theirs.shape:
        return Check(f"{what}: {tuple(ours.shape)} instead of {tuple(theirs.shape)}", math.inf, math.inf)
    difference = float((ours - theirs).abs().max())
    return Check(what, difference, difference / max(1e-12, float(theirs.abs().max())))


@torch.no_grad()
def _reference(encoder: Encoder, reference: EncoderReference, image: "Image") -> Reference:
    source, target = split(reference.name)
    loader, home, config = source, None, None
    if source == "zoo":
        entry = ZOO[target]
        loader, config, target = entry.loader, entry.architecture, str(entry.architecture.get("name", target))
        home = zoo_weights(entry, encoder.weights)
    elif source in ("hf", "rice"):
        home = place(reference.name.partition(":")[2])
        config = tower_of(home.place) if source == "hf" else None
    if encoder.weights != PUBLISHED:
        home = None  # other values than the place's own: the library gets a copy of ours
    if loader == "hf":
        assert config is not None
        return _transformers(encoder, dict(config), home, image)
    if loader == "rice":
        return _mlcd(encoder, home, image)
    if loader == "open_clip":
        return _open_clip(encoder, image)
    if loader == "timm":
        return _timm(encoder, target, image)
    raise RiceError(f"{reference} is code of its own: there is no source library to compare it with")


def _transformers(encoder: Encoder, config: dict[str, Any], home: Source | None, image: "Image") -> Reference:
    import transformers

    family = FAMILIES[config["model_type"]]
    if config["model_type"] == "unit":
        raise RiceError(f"no installed library has {encoder.spec.name}'s network to compare it with")
    aimv2 = config["model_type"] == "aimv2_vision_model"
    cls: Any = transformers.Aimv2VisionModel if aimv2 else type(encoder.module)
    if home is not None and config["model_type"] in _READ_BY_TRANSFORMERS:
        with pinned(home.place) as options:
            model = cls.from_pretrained(home.place, dtype=torch.float32, **options)
    elif cls is type(encoder.module):
        model = copy.deepcopy(encoder.module)
    else:
        model = cls(encoder.module.config)
        model.load_state_dict(encoder.module.state_dict())
    model = model.to(encoder.device).eval()
    if config["model_type"] == "qwen2_5_vl_vision":
        return _qwen(model, encoder, image)
    pixels = _processor(encoder, home, image).to(encoder.device)
    options = {"interpolate_pos_encoding": True} if family.interpolate else {}
    output = model(pixel_values=pixels, **options)
    tokens_BTD = output.last_hidden_state
    prefix = tokens_BTD.shape[1] - (pixels.shape[-1] // encoder.spec.patch) ** 2
    cls_BD = output.pooler_output if family.cls == "pooled" else tokens_BTD[:, 0]
    return Reference(pixels, Features(_map(tokens_BTD[:, prefix:]), None if family.cls == "none" else cls_BD))


def _processor(encoder: Encoder, home: Source | None, image: "Image") -> Tensor:
    """The published processor where the weights have one beside them, else the type's class with the spec's facts."""
    import transformers

    spec = encoder.spec
    if home is not None:
        with pinned(home.place) as options:
            processor = transformers.AutoImageProcessor.from_pretrained(home.place, trust_remote_code=False, **options)
        pixels: Tensor = processor(image.convert("RGB"), return_tensors="pt").pixel_values
        if pixels.shape[-1] == spec.native_size:
            return pixels
    steps = spec.preprocessing
    kinds = {"pil": "CLIPImageProcessorPil", "torchvision": "CLIPImageProcessor"}
    cls = getattr(transformers, kinds.get(steps.backend, "DINOv3ViTImageProcessor"))
    edge = math.floor(spec.native_size / steps.crop_fraction + 1e-6)
    processor = cls(
        size={"shortest_edge": edge} if steps.resize == "shortest" else {"height": edge, "width": edge},
        do_center_crop=True,
        crop_size={"height": spec.native_size, "width": spec.native_size},
        resample={"lanczos": 1, "bilinear": 2, "bicubic": 3}[steps.interpolation],
        image_mean=list(spec.mean),
        image_std=list(spec.std),
    )
    made: Tensor = processor(image.convert("RGB"), return_tensors="pt").pixel_values
    return made


def _qwen(model: Any, encoder: Encoder, image: "Image") -> Reference:
    """Qwen's processor resizes a square picture to a square; its own forward undoes the windows before it merges."""
    from transformers import Qwen2VLImageProcessor

    size, patch, merge = encoder.spec.native_size, encoder.spec.patch, model.config.spatial_merge_size
    # Just below and above the square's area: the smart resize rounds to a multiple from either side.
    processor = Qwen2VLImageProcessor(size={"shortest_edge": size**2 - 1, "longest_edge": size**2 + size})
    cut = processor(image.convert("RGB"), return_tensors="pt").to(encoder.device)
    model.merger = _Unmerged(merge**2)
    units = model(cut.pixel_values, grid_thw=cut.image_grid_thw).pooler_output
    edge = size // patch // merge
    patches = (
        units.view(edge, edge, merge, merge, -1).permute(4, 0, 2, 1, 3).reshape(1, -1, size // patch, size // patch)
    )
    cells = cut.pixel_values.view(edge, edge, merge, merge, 3, -1, patch, patch)[:, :, :, :, :, 0]
    return Reference(cells.permute(4, 0, 2, 5, 1, 3, 6).reshape(1, 3, size, size), Features(patches, None))


class _Unmerged(torch.nn.Module):
    """In the place of Qwen's merger: neighbours side by side, unmixed."""

    def __init__(self, unit: int) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, states: Tensor) -> Tensor:
        return states.reshape(len(states) // self.unit, -1)


def _mlcd(encoder: Encoder, home: Source | None, image: "Image") -> Reference:
    """transformers' MLCDVisionModel; of local weights in another form, with a copy of ours."""
    from transformers import MLCDVisionConfig, MLCDVisionModel

    from rice.model.checkpoint import to_published
    from rice.model.config import to_json

    module: Any = encoder.module
    if home is not None and home.kind == "hub":
        with pinned(home.place) as options:
            model = MLCDVisionModel.from_pretrained(home.place, dtype=torch.float32, **options)
    else:
        model = MLCDVisionModel(MLCDVisionConfig(**to_json(module.config, "float32")))
        model.load_state_dict(to_published(module))
    pixels = _processor(encoder, home if home is not None and home.kind == "hub" else None, image).to(encoder.device)
    output = model.to(encoder.device).eval()(pixel_values=pixels)
    return Reference(pixels, Features(_map(output.last_hidden_state[:, 1:]), output.pooler_output))


def _open_clip(encoder: Encoder, image: "Image") -> Reference:
    """open_clip's own transform and forward; its tower returns the tokens that it pools when asked to."""
    from open_clip.transform import image_transform

    spec = encoder.spec
    transform = image_transform(
        spec.native_size,
        is_train=False,
        mean=spec.mean,
        std=spec.std,
        resize_mode=spec.preprocessing.resize,
        interpolation=spec.preprocessing.interpolation,
    )
    pixels = transform(image)[None].to(encoder.device)
    tower: Any = copy.deepcopy(encoder.module)
    if hasattr(tower, "trunk"):
        return Reference(pixels, _timm_features(tower.trunk, pixels))
    if spec.native_size != tower.image_size[0]:
        raise RiceError("open_clip resizes positions only when it loads weights: check its native size")
    kept: list[Tensor] = []
    tower.ln_post.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    tower.output_tokens = True
    _, patches_BTD = tower(pixels)
    return Reference(pixels, Features(_map(patches_BTD), kept[0][:, 0] if kept[0].ndim == 3 else None))


def _timm(encoder: Encoder, name: str, image: "Image") -> Reference:
    """timm's own transform and `forward_features`, built and read by timm where the weights are the published ones."""
    import timm

    size = encoder.spec.native_size
    model = timm.create_model(name, pretrained=encoder.weights == PUBLISHED, num_classes=0)
    if encoder.weights != PUBLISHED:
        model.load_state_dict(encoder.module.state_dict())
    config = timm.data.resolve_model_data_config(model) | {"input_size": (3, size, size)}
    if hasattr(model, "set_input_size"):
        model.set_input_size(img_size=(size, size))
    pixels = timm.data.create_transform(**config)(image.convert("RGB"))[None].to(encoder.device)
    return Reference(pixels, _timm_features(model.to(encoder.device).eval(), pixels))


def _timm_features(model: Any, pixels_B3HW: Tensor) -> Features:
    output = model.forward_features(pixels_B3HW)
    if output.ndim == 4:
        return Features(output if getattr(model, "output_fmt", "NCHW") == "NCHW" else output.movedim(-1, 1), None)
    patches = _map(output[:, getattr(model, "num_prefix_tokens", 0) :])
    return Features(patches, output[:, 0] if getattr(model, "cls_token", None) is not None else None)


def _map(tokens_BTD: Tensor) -> Tensor:
    batch, count, width = tokens_BTD.shape
    edge = math.isqrt(count)
    return tokens_BTD.reshape(batch, edge, edge, width).movedim(-1, 1)
