"""What an encoder is, as one hash: results of other weights never meet under one name. Imports no torch.

Local weights are hashed by content. Published ones are known by their repository, as this must be known before they are
fetched; `rice.encoders.pins` keeps a repository from changing, and the commit and the hash of what was really loaded
are in the spec of the loaded encoder, and so in every result: results of other values are never read together. Random
ones are known by their architecture and seed.
"""

import dataclasses
from pathlib import Path
from typing import Any

from rice.encoders import registry
from rice.encoders.hf_config import CONFIG, PROCESSOR
from rice.encoders.load import split, zoo_weights
from rice.encoders.spec import EncoderReference
from rice.encoders.weights import INIT_SEED, PUBLISHED, Source, pick, place, plain, weight_files
from rice.encoders.zoo import ZOO
from rice.files import sha256_json, sha256_unchanged

# What of a zoo entry's spec changes numbers; a corrected note or licence does not.
_FACTS = ("source", "revision", "patch", "width", "mean", "std", "norm", "preprocessing")
_DESCRIPTIONS = (CONFIG, PROCESSOR)


def fingerprint(reference: EncoderReference, weights: str | None = PUBLISHED) -> str:
    """Hex SHA-256 of what `load_encoder` would give: architecture, values, preparation and layer; not the input size.

    It changes with any byte of the weights file, of config.json or preprocessor_config.json beside it, or of the file
    that an own encoder is written in; not with other files. Errors: RiceError, where the weights are not there.
    """
    source, target = split(reference.name)
    weights = plain(weights)
    facts: dict[str, Any]
    if source == "zoo":
        entry = ZOO[target]
        spec = dataclasses.asdict(entry.spec)
        facts = {key: spec[key] for key in _FACTS} | {"architecture": dict(entry.architecture)}
        default_layer, values = entry.spec.layer, _values(zoo_weights(entry, weights))
    elif source in ("own", "module"):
        file = registry.source_file(target) if source == "module" else registry.code_file(target)
        facts, default_layer = {"code": sha256_unchanged(file)}, -1
        values = _values(pick(weights, Source("local"), target)) if weights != PUBLISHED else PUBLISHED
    else:
        facts, default_layer = {"name": _portable(source, target)}, -1
        values = _source_values(source, target, weights)
    layer = default_layer if reference.layer is None else reference.layer
    return sha256_json({"facts": facts, "layer": layer, "values": values})


def _source_values(source: str, target: str, weights: str | None) -> Any:
    """Values of `rice:`, `hf:`, `open_clip:` and `timm:`; the first two have their own folder besides."""
    if source in ("open_clip", "timm"):
        return PUBLISHED if weights == PUBLISHED else _values(pick(weights, None, target))
    home = place(target)
    described = _descriptions(home)
    return [described, _values(pick(weights, home, target))]


def _values(source: Source) -> Any:
    if source.kind == "random":
        return {"init seed": INIT_SEED}
    if source.kind == "hub":
        return {"repo": source.place}
    files = weight_files(Path(source.place))
    return [sha256_unchanged(file) for file in files] + _descriptions(source)


def _descriptions(source: Source) -> list[str]:
    """Hashes of the files that say what a local folder's weights are."""
    if source.kind != "local":
        return [source.place]
    path = Path(source.place)
    folder = path if path.is_dir() else path.parent
    return [sha256_unchanged(folder / name) for name in _DESCRIPTIONS if (folder / name).is_file()]


def _portable(source: str, target: str) -> str:
    """A folder's content counts, not where it lies."""
    return source if source in ("rice", "hf") and Path(target).exists() else f"{source}:{target}"
