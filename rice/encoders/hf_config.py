"""What a transformers folder says of its vision tower: config.json and preprocessor_config.json to an EncoderSpec.

Imports no torch and no transformers.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rice.encoders.hf_families import FAMILIES, Family, Triple, tower_config
from rice.encoders.hub import find
from rice.encoders.spec import EncoderSpec, Interpolation, Preprocessing, Resize
from rice.encoders.weights import Source, place
from rice.errors import RiceError
from rice.files import read_object

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
_MOST, _MOST_DEPTH, _DEPTHS = 2**20, 1000, ("depth", "num_hidden_layers")
"""Beyond any tower: a file that asks for more would fill the memory."""
RESAMPLE: dict[Interpolation, int] = {"lanczos": 1, "bilinear": 2, "bicubic": 3}
"""PIL's numbers, as processor files write them."""


@dataclass(frozen=True)
class ProcessorFacts:
    """What a processor file says: mean, std, how to resize, and the size that it makes."""

    mean: Triple
    std: Triple
    preprocessing: Preprocessing
    size: int | None
    note: str | None = None


def tower_of(target: str) -> dict[str, Any]:
    """The vision tower's configuration of `REPO_OR_PATH`. Errors: RiceError (missing, foreign, out of reach)."""
    path = _file(place(target), CONFIG)
    if path is None:
        raise RiceError(f"expected a {CONFIG} in {target}; for a bare weights file name its architecture: a zoo entry")
    return tower_config(read_object(path), f"{target}/{CONFIG}")


def describe(target: str) -> EncoderSpec:
    """The spec of the tower at `REPO_OR_PATH`; only its two JSON files are read."""
    config = tower_of(target)
    path = _file(place(target), PROCESSOR)
    processor = None if path is None else read_processor(read_object(path), FAMILIES[config["model_type"]], path)
    name = f"hf:{target}"
    return spec_from_config(config, name=name, source=name, where=f"{target}/{CONFIG}", processor=processor)


def _file(source: Source, name: str) -> Path | None:
    if source.kind == "hub":
        return find(source.place, name)
    path = Path(source.place)
    return path / name if (path / name).is_file() else None


@contextlib.contextmanager
def _sound(where: str) -> Iterator[None]:
    """Whatever Python says of a value of the wrong kind, the file is at fault. Errors: RiceError that names it."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RiceError(f"{where} holds a value of another kind than expected ({error}); get a whole copy") from error


def spec_from_config(
    config: Mapping[str, Any], *, name: str, source: str, where: str, processor: ProcessorFacts | None
) -> EncoderSpec:
    """The spec of a tower's configuration (as `tower_config` gives it). `where` names the file in errors."""
    with _sound(where):
        return _spec(config, name, source, where, processor)


def _spec(
    config: Mapping[str, Any], name: str, source: str, where: str, processor: ProcessorFacts | None
) -> EncoderSpec:
    family = FAMILIES[config["model_type"]]
    fields = {**family.defaults, **config}
    patch = _positive(fields, "patch_size", where)
    merge = fields.get("spatial_merge_size", 1)
    facts = processor or ProcessorFacts(
        family.mean,
        family.std,
        family.preprocessing,
        None,
        note=f"no {PROCESSOR}: mean, std and resizing are the documented defaults of {config['model_type']}",
    )
    full_layers = fields.get("fullatt_block_indexes")
    return EncoderSpec(
        name=name,
        source=source,
        patch=patch,
        size_multiple=patch * merge,
        width=_positive(fields, family.width, where),
        depth=_positive(fields, family.depth, where),
        mlp_width=_mlp_width(fields, family),
        prefix_tokens=(0 if family.cls == "none" else 1) + (fields[family.registers] if family.registers else 0),
        gated_mlp=is_gated(fields, family),
        window=None if full_layers is None else fields["window_size"] // patch,
        full_attention_layers=None if full_layers is None else len(full_layers),
        native_size=facts.size or _native_size(fields, family, patch, where),
        mean=facts.mean,
        std=facts.std,
        norm=family.norm,
        preprocessing=facts.preprocessing,
        note=facts.note,
    )


def read_processor(config: Mapping[str, Any], family: Family, path: Path) -> ProcessorFacts:
    """Mean, std and resizing of a parsed preprocessor_config.json; fields that it omits have the family's defaults.

    A processor that keeps the aspect ratio and does not crop gives no square: Qwen's smart resize and NaFlex are
    squashed here, others are cropped. Errors: RiceError for fields that cannot be followed.
    """
    with _sound(str(path)):
        return _processor(config, family, path)


def _processor(config: Mapping[str, Any], family: Family, path: Path) -> ProcessorFacts:
    if config.get("do_resize") is False or abs(config.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise RiceError(f"expected a processor that resizes and scales by 1/255 in {path}; wrap the tower as your own")
    preprocessing, size = _geometry(config, family, path)
    if config.get("do_normalize") is False:
        return ProcessorFacts((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), preprocessing, size)
    return ProcessorFacts(
        mean=_triple(config.get("image_mean") or family.mean, "image_mean", path),
        std=_triple(config.get("image_std") or family.std, "image_std", path),
        preprocessing=preprocessing,
        size=size,
    )


def _geometry(config: Mapping[str, Any], family: Family, path: Path) -> tuple[Preprocessing, int | None]:
    default = family.preprocessing
    stated = {number: name for name, number in RESAMPLE.items()}
    interpolation = stated.get(config.get("resample", -1), default.interpolation)
    if family.native_size is not None or "max_num_patches" in config or not config.get("size"):
        return replace(default, interpolation=interpolation), None
    edge, resize = _edge(config["size"], default.resize, path)
    crop = edge
    if config.get("do_center_crop", default.resize == "shortest") and config.get("crop_size"):
        crop, _ = _edge(config["crop_size"], "squash", path)
    if crop > edge:
        raise RiceError(f"expected a crop of at most {edge} pixels in {path}, got {crop}")
    return Preprocessing(
        resize=resize, interpolation=interpolation, crop_fraction=crop / edge, backend=default.backend
    ), crop


def _edge(size: Any, default: Resize, path: Path) -> tuple[int, Resize]:
    """The edge in pixels that a processor's `size` or `crop_size` asks for, and how it gets there."""
    if isinstance(size, int):
        return size, default
    if isinstance(size, Mapping) and size.get("shortest_edge") and not size.get("longest_edge"):
        return int(size["shortest_edge"]), "shortest"
    if isinstance(size, Mapping) and size.get("height") and size.get("height") == size.get("width"):
        return int(size["height"]), "squash"
    raise RiceError(f"expected a square size or a shortest_edge in {path}, got {size!r}; wrap the tower as your own")


def is_gated(fields: Mapping[str, Any], family: Family) -> bool:
    """Whether the tower's MLP has a gate (three matrices)."""
    return bool(fields[family.gated]) if isinstance(family.gated, str) else family.gated


def _mlp_width(fields: Mapping[str, Any], family: Family) -> int:
    if "intermediate_size" in fields:
        return int(fields["intermediate_size"])
    hidden = int(fields[family.width] * fields["mlp_ratio"])
    # DINOv2's SwiGLU keeps two thirds of the hidden width, rounded up to eight.
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if is_gated(fields, family) else hidden


def _native_size(fields: Mapping[str, Any], family: Family, patch: int, where: str) -> int:
    if family.native_size is not None:
        return family.native_size
    if "num_patches" in fields:
        return math.isqrt(fields["num_patches"]) * patch
    return _positive(fields, family.image_size, where)


def _positive(fields: Mapping[str, Any], key: str, where: str) -> int:
    value = fields.get(key)
    if isinstance(value, (list, tuple)) and len(set(value)) == 1:
        value = value[0]  # some files write [14, 14]
    most = _MOST_DEPTH if key in _DEPTHS else _MOST
    if not isinstance(value, int) or not 0 < value <= most:
        raise RiceError(f"expected {key} in {where} to be a positive whole number, at most {most:,}, got {value!r}")
    return value


def _triple(value: Any, key: str, path: Path) -> Triple:
    if not isinstance(value, (list, tuple)) or len(value) != 3 or not all(isinstance(v, (int, float)) for v in value):
        raise RiceError(f"expected three numbers as {key} in {path}, got {value!r}")
    return (float(value[0]), float(value[1]), float(value[2]))
