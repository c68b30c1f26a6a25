"""The zoo: every encoder of the paper's tables at each resolution used there (Tables 1, 3 and 4). Imports no torch.

An entry carries the whole architecture, so that `weights=None` builds it offline. Facts come from the published
configuration files; what is not known is None and said in `note`.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rice.encoders.hf_config import spec_from_config
from rice.encoders.hf_families import sizes
from rice.encoders.spec import EncoderSpec, Preprocessing, vit_spec
from rice.errors import RiceError, nearest
from rice.model.config import B16, L14, MICRO8, MINI8, ViTConfig

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


def _vit(
    name: str, config: ViTConfig, parameters: int, *, repo: str | None = None, shipped: Path | None = None, **facts: Any
) -> Entry:
    """Our own tower."""
    spec = replace(vit_spec(config, name=name, source=f"rice:{repo or name}"), **facts)
    # Results are stored under a hash of these fields; eps and theta are the same in every published tower.
    architecture = {key: value for key, value in asdict(config).items() if key not in ("eps", "theta")}
    return Entry(spec=spec, loader="rice", repo=repo, architecture=architecture, parameters=parameters, shipped=shipped)


def _rice(kind: Literal["l14", "b16"], size: int, repo: str | None = None) -> Entry:
    tower, parameters = (L14, 302_916_640) if kind == "l14" else (B16, 85_648_160)
    note = None if repo else _UNTRAINED
    config = replace(tower, image_size=size)
    facts: dict[str, Any] = {"paper": _RICE_PAPER, "public": repo is not None, "note": note}
    return _vit(f"rice-{kind}-{size}", config, parameters, repo=repo, **facts)


def _shipped(name: str, config: ViTConfig, parameters: int, note: str) -> Entry:
    """One whose weights are in this package."""
    folder = Path(__file__).parent / "shipped" / name
    return _vit(name, config, parameters, shipped=folder, licence="apache-2.0", note=note)


def _hf(name: str, repo: str, parameters: int, architecture: Mapping[str, Any], **facts: Any) -> Entry:
    """A tower of transformers, described by its configuration as `hf:REPO` is; `facts`: what that leaves open."""
    spec = spec_from_config(architecture, name=name, source=f"hf:{repo}", where=name, processor=None)
    spec = replace(spec, **{"note": None} | facts)
    return Entry(spec=spec, loader="hf", repo=repo, architecture=architecture, parameters=parameters)


def _clip(name: str, repo: str, licence: str | None, paper: str) -> Entry:
    architecture = {
        "model_type": "clip_vision_model",
        **sizes(width=1024, mlp=4096, depth=24, image=336, patch=14),
        "num_attention_heads": 16,
        "hidden_act": "quick_gelu",
    }
    return _hf(name, repo, 303_507_456, architecture, licence=licence, paper=paper)


def _siglip(
    name: str, repo: str, parameters: int, *, patch: int, size: int, so400m: bool = True, **facts: Any
) -> Entry:
    width, mlp, depth, heads = (1152, 4304, 27, 16) if so400m else (768, 3072, 12, 12)
    architecture = {
        "model_type": "siglip_vision_model",
        **sizes(width=width, mlp=mlp, depth=depth, image=size, patch=patch),
        "num_attention_heads": heads,
    }
    facts = {"licence": "apache-2.0", "paper": _SIGLIP_PAPER} | facts
    return _hf(name, f"google/{repo}", parameters, architecture, **facts)


def _siglip2(name: str, repo: str, parameters: int, *, patch: int, size: int, **facts: Any) -> Entry:
    """Its published processors resample bilinearly, SigLIP's bicubically."""
    facts |= {"paper": _SIGLIP2_PAPER, "preprocessing": Preprocessing(resize="squash", interpolation="bilinear")}
    return _siglip(name, repo, parameters, patch=patch, size=size, **facts)


_ENTRIES = (
    _rice("l14", 224),
    _rice("l14", 336),
    _rice("l14", 378),
    _rice("l14", 560, "DeepGlint-AI/rice-vit-large-patch14-560"),
    _rice("b16", 224),
    _rice("b16", 512),
    _clip("clip-l14-336", "openai/clip-vit-large-patch14-336", None, "https://arxiv.org/abs/2103.00020"),
    _clip("mlcd-l14-336", "DeepGlint-AI/mlcd-vit-large-patch14-336", "apache-2.0", _MLCD_PAPER),
    _vit("mlcd-b16-512", B16, 85_648_160, paper=_MLCD_PAPER, public=False, note=_UNTRAINED),
    _hf(
        "aimv2-l14-336",
        "apple/aimv2-large-patch14-336",
        309_525_504,
        {
            "model_type": "aimv2_vision_model",
            **sizes(width=1024, mlp=2816, depth=24, image=336, patch=14),
            "num_attention_heads": 8,
        },
        licence="apple-amlr",
        paper="https://arxiv.org/abs/2411.14402",
    ),
    Entry(
        spec=EncoderSpec(
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
        ),
        loader="open_clip",
        repo="apple/DFN5B-CLIP-ViT-H-14-378",
        architecture={"name": "ViT-H-14-378-quickgelu", "tag": "dfn5b"},
        parameters=632_682_240,
    ),
    _hf(
        "unit-h14-378",
        "yeeaa/UNIT_600M",
        637_255_680,
        # RADIO's ViT: its code (github.com/yeezhu/UNIT) rounds the table's 1024 pixels to 73 x 73 patches.
        {
            "model_type": "unit",
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "mlp_ratio": 4.0,
            "image_size": 378,
            "patch_size": 14,
            "table_size": 73,
            "num_registers": 0,
        },
        licence="apache-2.0",
        paper="https://arxiv.org/abs/2409.04095",
        note="its position table is cut from 1022 pixels for any size; the picture is prepared as CLIP's, its own "
        "processor file was not at hand",
    ),
    _siglip("siglip-so400m-14-384", "siglip-so400m-patch14-384", 412_987_248, patch=14, size=384),
    _siglip("siglip-b16-512", "siglip-base-patch16-512", 86_433_024, patch=16, size=512, so400m=False),
    _siglip2("siglip2-so400m-14-384", "siglip2-so400m-patch14-384", 412_987_248, patch=14, size=384),
    _siglip2("siglip2-so400m-16-512", "siglip2-so400m-patch16-512", 413_534_448, patch=16, size=512),
    _siglip2(
        "siglip2-so400m-16-560",
        "siglip2-so400m-patch16-512",
        413_534_448,
        patch=16,
        size=512,
        native_size=560,
        note="the 512 checkpoint at 560 with its positions interpolated: no 560 checkpoint was published",
    ),
    _hf(
        "qwen2.5-vit-560",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        676_550_144,
        {
            "model_type": "qwen2_5_vl_vision",
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "window_size": 112,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        licence="apache-2.0",
        paper="https://arxiv.org/abs/2502.13923",
        note="patches are the tokens before the 2 x 2 merge; the tower of the 7B model",
    ),
    _hf(
        "dinov2-b14-518",
        "facebook/dinov2-base",
        86_580_480,
        {
            "model_type": "dinov2",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 518,
            "patch_size": 14,
        },
        licence="apache-2.0",
        paper="https://arxiv.org/abs/2304.07193",
    ),
    _shipped(
        "mini-s8-128",
        MINI8,
        818_320,
        "comes with the package: trained for minutes on generated scenes (benchmarks/train_mini.py), for trials",
    ),
    *(
        _shipped(f"{arm}-mini", MICRO8, 212_552, f"comes with the package: {made} in miniature (docs/miniature.md)")
        for arm, made in (("rice", "RICE"), ("mlcd", "MLCD"), ("unicom", "UNICOM"), ("clip", "CLIP"))
    ),
)
ZOO: dict[str, Entry] = {entry.spec.name: entry for entry in _ENTRIES}
