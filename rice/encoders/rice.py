"""Our own tower: `rice:PATH`, a folder or file in any published form, and the zoo's entries of this architecture.

Importing this module imports no torch, so that a sweep is planned without it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rice.encoders.hf_config import CONFIG, PROCESSOR, ProcessorFacts, read_processor
from rice.encoders.hf_families import FAMILIES
from rice.encoders.spec import EncoderSpec
from rice.encoders.weights import PUBLISHED, Source, open_checkpoint, pick, weight_files
from rice.errors import RiceError
from rice.files import read_json
from rice.model.config import ViTConfig, from_json
from rice.model.names import config_of, detect

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rice.encoders.base import Features
    from rice.encoders.loaded import Loaded

_FAMILY = FAMILIES["mlcd_vision_model"]


def load(path: Path, *, weights: str | None = PUBLISHED, allow_pickle: bool = False) -> "Loaded":
    """Load `rice:PATH` with its own weights, with others of the same shape (a path), or with random ones (None).

    Errors: RiceError for what cannot be read or is not this architecture; pickles without `allow_pickle`.
    """
    spec, config = spec_from_folder(path), read_config(path)
    source = pick(weights, Source("local", str(path)), spec.name)
    return load_config(config, spec, source, allow_pickle=allow_pickle)


def load_architecture(
    architecture: Mapping[str, Any], spec: EncoderSpec, source: Source, *, allow_pickle: bool = False
) -> "Loaded":
    """Build a zoo entry's architecture (the fields of ViTConfig) with the values of `source`. Errors: RiceError."""
    return load_config(ViTConfig(**architecture), spec, source, allow_pickle=allow_pickle)


def load_config(config: ViTConfig, spec: EncoderSpec, source: Source, *, allow_pickle: bool = False) -> "Loaded":
    """Build `config` with the values of `source`. Errors: RiceError."""
    from rice.encoders.hub import cached_revision
    from rice.encoders.loaded import Loaded
    from rice.model import checkpoint

    if source.kind == "random":
        return Loaded(build(config), spec, extract)
    published = open_checkpoint(source, allow_pickle=allow_pickle)
    scheme, prefix = detect(published.shards, published.label)
    state = checkpoint.from_published(published.read(prefix), scheme, config, origin=published.label)
    revision = cached_revision(source.place) if source.kind == "hub" else None
    return Loaded(checkpoint.build(config, state), replace(spec, revision=revision), extract)


def build(config: ViTConfig) -> "nn.Module":
    """The tower with MLCD's random initialisation, the same every time."""
    from rice.encoders.loaded import seeded_init
    from rice.model.vit import ViT

    with seeded_init():
        return ViT(config).eval()


def extract(module: "nn.Module", pixels_B3HW: "Tensor", layer: int) -> "Features":
    """Features of hidden state `layer`. `cls` is the pooled output with the last one, else the state's class token."""
    from rice.encoders.base import Features
    from rice.encoders.loaded import as_map

    tower: Any = module
    output = tower(pixels_B3HW, layer)
    last = layer in (-1, tower.config.depth)
    return Features(as_map(output.hidden[:, 1:], output.grid), output.pooled if last else output.hidden[:, 0])


def spec_from_folder(path: Path) -> EncoderSpec:
    """The spec of `rice:PATH`, from its JSON files, or from the header of its weights where it has no config.json.

    Errors: RiceError when the path is not there or holds another architecture.
    """
    config = read_config(path)
    processor = _processor(path)
    stated = processor.size or (_stated_size(path) and config.image_size)
    notes = (processor.note, None if stated else f"no image size is stated: {config.image_size} is assumed")
    return EncoderSpec(
        name=f"rice:{path}",
        source=f"rice:{path}",
        patch=config.patch,
        size_multiple=config.patch,
        width=config.width,
        depth=config.depth,
        mlp_width=config.mlp_width,
        native_size=stated or config.image_size,
        mean=processor.mean,
        std=processor.std,
        preprocessing=processor.preprocessing,
        note="; ".join(note for note in notes if note) or None,
    )


def read_config(path: Path) -> ViTConfig:
    """The configuration of a folder, or of a weights file and the config.json beside it.

    Without a config.json the shapes of the tensors state all but the size. Errors: RiceError when the path is not
    there or holds another architecture.
    """
    if not path.exists():
        raise RiceError(f"expected a folder or a weights file after rice:, {path} does not exist")
    file = _beside(path, CONFIG)
    return _config_of_header(path) if file is None else from_json(_object(file), origin=str(file))


def _stated_size(path: Path) -> bool:
    file = _beside(path, CONFIG)
    content = {} if file is None else _object(file)
    return bool(content.get("vision_config", content).get("image_size"))


def _processor(path: Path) -> ProcessorFacts:
    file = _beside(path, PROCESSOR)
    if file is not None:
        return read_processor(_object(file), _FAMILY, file)
    note = f"no {PROCESSOR}: CLIP's mean, std and resizing, as MLCD and RICE were published"
    return ProcessorFacts(_FAMILY.mean, _FAMILY.std, _FAMILY.preprocessing, None, note)


def _beside(path: Path, name: str) -> Path | None:
    file = (path if path.is_dir() else path.parent) / name
    return file if file.is_file() else None


def _config_of_header(path: Path) -> ViTConfig:
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(path):
        if file.suffix == ".json":
            continue
        if file.suffix != ".safetensors":
            raise RiceError(f"expected a {CONFIG} beside {file}, whose shapes cannot be read before it is trusted")
        try:
            with safe_open(file, framework="numpy") as header:
                shapes |= {name: tuple(header.get_slice(name).get_shape()) for name in header.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise RiceError(f"{file} is not a readable safetensors file: {error}") from error
    scheme, prefix = detect(shapes, str(path))
    inner = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    return config_of(inner, scheme, origin=str(path))


def _object(file: Path) -> dict[str, Any]:
    value = read_json(file)
    if not isinstance(value, dict):
        raise RiceError(f"expected a JSON object in {file}, got {type(value).__name__}")
    return value
