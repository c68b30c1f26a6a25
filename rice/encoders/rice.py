"""Our own tower: `rice:PATH`, a folder, file or hub repository in any published form, and the zoo's entries of it.

Importing this module imports no torch, so that a sweep is planned without it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rice.encoders.hf_config import CONFIG, PROCESSOR, ProcessorFacts, read_processor
from rice.encoders.hf_families import FAMILIES
from rice.encoders.hub import find
from rice.encoders.spec import EncoderSpec, vit_spec
from rice.encoders.weights import PUBLISHED, Source, open_checkpoint, pick, place, weight_files
from rice.errors import RiceError
from rice.files import open_safetensors, read_object
from rice.model.config import ViTConfig, from_json
from rice.model.names import config_of, detect

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rice.encoders.base import Features
    from rice.encoders.loaded import Loaded

REGION = "region.safetensors"
"""Trained region layers; see `rice.encoders.region_checkpoint`."""
_FAMILY = FAMILIES["mlcd_vision_model"]


def load(target: str, weights: str | None = PUBLISHED, *, allow_pickle: bool = False) -> "Loaded":
    """Load `rice:target` (a folder, a weights file or a repository of the hub) with its own weights, with others of
    the same shape (a path), or with random ones (None).

    Errors: RiceError for what cannot be read or is not this architecture; pickles without `allow_pickle`.
    """
    spec, config = describe(target), read_config(target)
    return load_config(config, spec, pick(weights, place(target), spec.name), allow_pickle=allow_pickle)


def load_architecture(
    architecture: Mapping[str, Any], spec: EncoderSpec, source: Source, *, allow_pickle: bool = False
) -> "Loaded":
    """Build a zoo entry's architecture (the fields of ViTConfig) with the values of `source`. Errors: RiceError."""
    return load_config(ViTConfig(**architecture), spec, source, allow_pickle=allow_pickle)


def load_config(config: ViTConfig, spec: EncoderSpec, source: Source, *, allow_pickle: bool = False) -> "Loaded":
    """Build `config` with the values of `source`. Errors: RiceError."""
    from rice.encoders.loaded import Loaded
    from rice.model import checkpoint

    if source.kind == "random":
        return Loaded(build(config), spec, extract)
    published = open_checkpoint(source, allow_pickle=allow_pickle)
    scheme, prefix = detect(published.shards, published.label)
    state = checkpoint.from_published(published.read(prefix), scheme, config, origin=published.label)
    return Loaded(checkpoint.build(config, state), published.noted(spec, source), extract)


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


def describe(target: str) -> EncoderSpec:
    """The spec of `rice:target`, from its JSON files, or from the header of its weights where it has no config.json.

    Errors: RiceError when it is not there or holds another architecture.
    """
    config, processor = read_config(target), _processor(target)
    stated = processor.size or (_states_size(target) and config.image_size)
    notes = (processor.note, None if stated else f"no image size is stated: {config.image_size} is assumed")
    return replace(
        vit_spec(config, name=f"rice:{target}", source=f"rice:{target}"),
        native_size=stated or config.image_size,
        mean=processor.mean,
        std=processor.std,
        preprocessing=processor.preprocessing,
        note="; ".join(note for note in notes if note) or None,
    )


def read_config(target: str) -> ViTConfig:
    """The configuration of `rice:target`: its config.json (of a weights file: the one beside it).

    Without one the shapes of the tensors state all but the size. Errors: RiceError when the target is not there or
    holds another architecture.
    """
    file = beside(target, CONFIG)
    return _config_of_header(target) if file is None else from_json(read_object(file), origin=str(file))


def _states_size(target: str) -> bool:
    file = beside(target, CONFIG)
    content = {} if file is None else read_object(file)
    return bool(content.get("vision_config", content).get("image_size"))


def _processor(target: str) -> ProcessorFacts:
    file = beside(target, PROCESSOR)
    if file is not None:
        return read_processor(read_object(file), _FAMILY, file)
    note = f"no {PROCESSOR}: CLIP's mean, std and resizing, as MLCD and RICE were published"
    return ProcessorFacts(_FAMILY.mean, _FAMILY.std, _FAMILY.preprocessing, None, note)


def beside(target: str, name: str) -> Path | None:
    """The file `name` in the folder or repository that `rice:target` names, or beside its weights file, if any."""
    source = place(target)
    if source.kind == "hub":
        return find(source.place, name)
    path = Path(target)
    file = (path if path.is_dir() else path.parent) / name
    return file if file.is_file() else None


def _config_of_header(target: str) -> ViTConfig:
    """The configuration that the shapes in safetensors headers state. Errors: RiceError."""
    if place(target).kind == "hub":
        raise RiceError(f"{target} on the model hub has no {CONFIG}; download it and pass the weights file")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(Path(target)):
        if file.suffix != ".json":  # the index of a sharded checkpoint
            shapes |= _shapes(file)
    scheme, prefix = detect(shapes, target)
    inner = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    return config_of(inner, scheme, origin=target)


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    if file.suffix != ".safetensors":
        raise RiceError(f"expected a {CONFIG} beside {file}: a pickle does not state shapes before it is loaded")
    with open_safetensors(file, "numpy") as header:
        return {name: tuple(header.get_slice(name).get_shape()) for name in header.keys()}  # noqa: SIM118
