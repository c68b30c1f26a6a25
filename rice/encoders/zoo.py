"""The zoo: every encoder of the paper's tables at each resolution used there (Tables 1, 3 and 4). Imports no torch.

An entry carries the whole architecture, so that `weights=None` builds it offline. Facts come from the published
configuration files; what is not known is None and said in `note`.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rice.encoders.spec import HALF, IMAGENET_MEAN, IMAGENET_STD, EncoderSpec, Preprocessing
from rice.errors import RiceError, nearest

Loader = Literal["rice", "hf", "open_clip"]

_RICE_PAPER = "https://arxiv.org/abs/2507.20025"
_MLCD_PAPER = "https://arxiv.org/abs/2407.17331"
_SIGLIP_PAPER = "https://arxiv.org/abs/2303.15343"
_SIGLIP2_PAPER = "https://arxiv.org/abs/2502.14786"
_UNTRAINED = "never published: train it here, or bring weights of your own"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One zoo name. `repo`: where its published weights are, None where there are none; `shipped`: the folder in this
    package that holds them instead.

    `architecture`: what the loader builds: for `hf` a configuration (with its model_type), for `rice` the arguments of
    our ViT, for `open_clip` the architecture's name. `parameters`: of the tower as built here.
    """

    spec: EncoderSpec
    loader: Loader
    repo: str | None
    architecture: Mapping[str, Any] = field(hash=False)
    parameters: int
    shipped: Path | None = None


def entries(pattern: str = "*") -> list[Entry]:
    """Entries whose name matches a shell wildcard, in the paper's order. A name without a wildcard must exist.

    Errors: RiceError with the nearest names when nothing matches.
    """
    found = [entry for name, entry in ZOO.items() if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise RiceError(f"no encoder matches {pattern!r}.{nearest(pattern, ZOO)} See: rice encoders")
    return found


def _rice(kind: Literal["l14", "b16"], size: int, repo: str | None = None) -> Entry:
    name = f"rice-{kind}-{size}"
    patch, width, depth, parameters = (14, 1024, 24, 302_916_640) if kind == "l14" else (16, 768, 12, 85_648_160)
    spec = EncoderSpec(
        name=name,
        source=f"rice:{repo}" if repo else f"rice:{name}",
        paper=_RICE_PAPER,
        patch=patch,
        size_multiple=patch,
        width=width,
        depth=depth,
        mlp_width=4 * width,
        native_size=size,
        public=repo is not None,
        note=None if repo else _UNTRAINED,
    )
    architecture = {
        "width": width,
        "depth": depth,
        "heads": width // 64,
        "mlp_width": 4 * width,
        "patch": patch,
        "image_size": size,
    }
    return Entry(spec=spec, loader="rice", repo=repo, architecture=architecture, parameters=parameters)


def _mlcd_b16() -> Entry:
    entry = _rice("b16", 512)
    spec = replace(entry.spec, name="mlcd-b16-512", source="rice:mlcd-b16-512", paper=_MLCD_PAPER)
    return replace(entry, spec=spec)


def _clip(name: str, repo: str, parameters: int, licence: str | None, paper: str) -> Entry:
    spec = EncoderSpec(
        name=name,
        source=f"hf:{repo}",
        licence=licence,
        paper=paper,
        patch=14,
        size_multiple=14,
        width=1024,
        depth=24,
        mlp_width=4096,
        native_size=336,
    )
    architecture = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    }
    return Entry(spec=spec, loader="hf", repo=repo, architecture=architecture, parameters=parameters)


def _siglip(name: str, repo: str, parameters: int, paper: str, *, patch: int, size: int, so400m: bool = True) -> Entry:
    width, mlp, depth, heads = (1152, 4304, 27, 16) if so400m else (768, 3072, 12, 12)
    # The published processors differ: SigLIP resamples bicubically, SigLIP 2 bilinearly.
    interpolation: Literal["bicubic", "bilinear"] = "bilinear" if name.startswith("siglip2") else "bicubic"
    spec = EncoderSpec(
        name=name,
        source=f"hf:{repo}",
        licence="apache-2.0",
        paper=paper,
        patch=patch,
        size_multiple=patch,
        width=width,
        depth=depth,
        mlp_width=mlp,
        prefix_tokens=0,
        native_size=size,
        mean=HALF,
        std=HALF,
        norm="post",
        preprocessing=Preprocessing(resize="squash", interpolation=interpolation),
    )
    architecture = {
        "model_type": "siglip_vision_model",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "image_size": size,
        "patch_size": patch,
    }
    return Entry(spec=spec, loader="hf", repo=repo, architecture=architecture, parameters=parameters)


def _siglip2_560() -> Entry:
    entry = _siglip(
        "siglip2-so400m-16-560", "google/siglip2-so400m-patch16-512", 413_534_448, _SIGLIP2_PAPER, patch=16, size=512
    )
    note = "the 512 checkpoint at 560 with its positions interpolated: no 560 checkpoint was published"
    return replace(entry, spec=replace(entry.spec, native_size=560, note=note))


def _aimv2() -> Entry:
    repo = "apple/aimv2-large-patch14-336"
    spec = EncoderSpec(
        name="aimv2-l14-336",
        source=f"hf:{repo}",
        licence="apple-amlr",
        paper="https://arxiv.org/abs/2411.14402",
        patch=14,
        size_multiple=14,
        width=1024,
        depth=24,
        mlp_width=2816,
        prefix_tokens=0,
        gated_mlp=True,
        native_size=336,
        norm="post",
    )
    architecture = {
        "model_type": "aimv2_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "image_size": 336,
        "patch_size": 14,
    }
    return Entry(spec=spec, loader="hf", repo=repo, architecture=architecture, parameters=309_525_504)


def _dfn5b() -> Entry:
    repo = "apple/DFN5B-CLIP-ViT-H-14-378"
    spec = EncoderSpec(
        name="dfn5b-h14-378",
        source="open_clip:ViT-H-14-378-quickgelu/dfn5b",
        licence="apple-amlr",
        paper="https://arxiv.org/abs/2309.17425",
        patch=14,
        size_multiple=14,
        width=1280,
        depth=32,
        mlp_width=5120,
        native_size=378,
        norm="post",
        preprocessing=Preprocessing(resize="squash", backend="pil"),
    )
    architecture = {"name": "ViT-H-14-378-quickgelu", "tag": "dfn5b"}
    return Entry(spec=spec, loader="open_clip", repo=repo, architecture=architecture, parameters=632_682_240)


def _unit() -> Entry:
    repo = "yeeaa/UNIT_600M"
    spec = EncoderSpec(
        name="unit-h14-378",
        source=f"hf:{repo}",
        licence="apache-2.0",
        paper="https://arxiv.org/abs/2409.04095",
        patch=14,
        size_multiple=14,
        width=1280,
        depth=32,
        mlp_width=5120,
        native_size=378,
        norm="post",
        note="its position table is cut from 1022 pixels for any size; the picture is prepared as CLIP's, its own "
        "processor file was not at hand",
    )
    # RADIO's ViT: its code (github.com/yeezhu/UNIT) rounds the table's 1024 pixels to 73 x 73 patches.
    architecture = {
        "model_type": "unit",
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "mlp_ratio": 4.0,
        "image_size": 378,
        "patch_size": 14,
        "table_size": 73,
        "num_registers": 0,
    }
    return Entry(spec=spec, loader="hf", repo=repo, architecture=architecture, parameters=637_255_680)


def _qwen() -> Entry:
    repo = "Qwen/Qwen2.5-VL-7B-Instruct"
    spec = EncoderSpec(
        name="qwen2.5-vit-560",
        source=f"hf:{repo}",
        licence="apache-2.0",
        paper="https://arxiv.org/abs/2502.13923",
        patch=14,
        size_multiple=28,
        width=1280,
        depth=32,
        mlp_width=3420,
        prefix_tokens=0,
        gated_mlp=True,
        window=8,
        full_attention_layers=4,
        native_size=560,
        preprocessing=Preprocessing(resize="squash"),
        note="patches are the tokens before the 2 x 2 merge; the tower of the 7B model",
    )
    architecture = {
        "model_type": "qwen2_5_vl_vision",
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "window_size": 112,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    return Entry(spec=spec, loader="hf", repo=repo, architecture=architecture, parameters=676_550_144)


def _dinov2() -> Entry:
    repo = "facebook/dinov2-base"
    spec = EncoderSpec(
        name="dinov2-b14-518",
        source=f"hf:{repo}",
        licence="apache-2.0",
        paper="https://arxiv.org/abs/2304.07193",
        patch=14,
        size_multiple=14,
        width=768,
        depth=12,
        mlp_width=3072,
        native_size=518,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        norm="post",
        preprocessing=Preprocessing(crop_fraction=224 / 256),
    )
    architecture = {
        "model_type": "dinov2",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 518,
        "patch_size": 14,
    }
    return Entry(spec=spec, loader="hf", repo=repo, architecture=architecture, parameters=86_580_480)


def _mini() -> Entry:
    name = "mini-s8-128"
    spec = EncoderSpec(
        name=name,
        source=f"rice:{name}",
        licence="apache-2.0",
        patch=8,
        size_multiple=8,
        width=128,
        depth=4,
        mlp_width=512,
        native_size=128,
        note="comes with the package: trained for minutes on generated scenes (benchmarks/train_mini.py), for trials",
    )
    architecture = {"image_size": 128, "patch": 8, "width": 128, "depth": 4, "heads": 4, "mlp_width": 512}
    shipped = Path(__file__).parent / "shipped" / name
    return Entry(spec=spec, loader="rice", repo=None, architecture=architecture, parameters=818_320, shipped=shipped)


_ENTRIES = (
    _rice("l14", 224),
    _rice("l14", 336),
    _rice("l14", 378),
    _rice("l14", 560, "DeepGlint-AI/rice-vit-large-patch14-560"),
    _rice("b16", 224),
    _rice("b16", 512),
    _clip("clip-l14-336", "openai/clip-vit-large-patch14-336", 303_507_456, None, "https://arxiv.org/abs/2103.00020"),
    _clip("mlcd-l14-336", "DeepGlint-AI/mlcd-vit-large-patch14-336", 303_507_456, "apache-2.0", _MLCD_PAPER),
    _mlcd_b16(),
    _aimv2(),
    _dfn5b(),
    _unit(),
    _siglip("siglip-so400m-14-384", "google/siglip-so400m-patch14-384", 412_987_248, _SIGLIP_PAPER, patch=14, size=384),
    _siglip(
        "siglip-b16-512", "google/siglip-base-patch16-512", 86_433_024, _SIGLIP_PAPER, patch=16, size=512, so400m=False
    ),
    _siglip(
        "siglip2-so400m-14-384", "google/siglip2-so400m-patch14-384", 412_987_248, _SIGLIP2_PAPER, patch=14, size=384
    ),
    _siglip(
        "siglip2-so400m-16-512", "google/siglip2-so400m-patch16-512", 413_534_448, _SIGLIP2_PAPER, patch=16, size=512
    ),
    _siglip2_560(),
    _qwen(),
    _dinov2(),
    _mini(),
)
ZOO: dict[str, Entry] = {entry.spec.name: entry for entry in _ENTRIES}
