"""From a name to an encoder, and, without building it, to its spec. Importing this module imports no torch."""

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rice.encoders import registry
from rice.encoders.spec import EncoderReference, EncoderSpec
from rice.encoders.weights import PUBLISHED, RANDOM, Source, pick, plain
from rice.encoders.zoo import ZOO, Entry
from rice.errors import RiceError, nearest

if TYPE_CHECKING:
    import torch

    from rice.encoders.base import Encoder
    from rice.encoders.loaded import Loaded

SOURCES = ("rice", "hf", "open_clip", "timm")


def load_encoder(
    spec: str | EncoderReference,
    *,
    weights: str | None = PUBLISHED,
    device: "str | torch.device" = "cpu",
    dtype: "torch.dtype | None" = None,
    allow_pickle: bool = False,
) -> "Encoder":
    """Load a frozen vision tower behind the one interface of every encoder.

    `spec`: a zoo name (`rice encoders` lists them), an own name, `rice:PATH`, `hf:REPO_OR_PATH`,
    `open_clip:ARCH[/TAG]`, `timm:NAME` or `module:attr`; each may end in `@SIZE` (pixels) and `,layer=K` (a hidden
    state, counted as the source counts). `weights`: "default" (the published ones), None (random, the same every time,
    offline; the global generator is left alone), or a local path. `device`: auto, cpu or cuda. `dtype`: fp32 where it
    is not given. `allow_pickle`: read tensors out of pickled checkpoints too; nothing in them is executed.
    Errors: RiceError for an unknown name, a size or layer that it does not have, weights that are missing, unpublished,
    out of reach, pickled, or of another network; a device that is not there.
    """
    import torch

    from rice.device import pick_device
    from rice.encoders.base import Encoder
    from rice.encoders.loaded import Loaded

    chosen = pick_device(device)  # a wrong device, size or layer is told before gigabytes are built
    reference = spec if isinstance(spec, EncoderReference) else EncoderReference.parse(spec)
    weights = plain(weights)
    if reference.name in ZOO:
        applied(ZOO[reference.name].spec, reference)
    loaded = _load(reference.name, weights, allow_pickle)
    label = weights or RANDOM
    if isinstance(loaded, Encoder):
        label, loaded = loaded.weights, Loaded(loaded.module, loaded.spec, loaded._extract)
    encoder = Encoder(loaded.module, applied(loaded.spec, reference), loaded.extract, weights=label)
    return encoder.to(device=chosen, dtype=dtype or torch.float32)


def describe(reference: EncoderReference, weights: str | None = PUBLISHED) -> EncoderSpec:
    """The spec that `load_encoder` would give, with the reference's size and layer.

    Zoo names, own names, `rice:` and `hf:` need no torch; `open_clip:` and `timm:` ask their libraries. Errors:
    RiceError, as `load_encoder`, for what can be known without reading weights.
    """
    name, weights = reference.name, plain(weights)
    source, target = split(name)
    if source == "zoo":
        spec = ZOO[target].spec
        zoo_weights(ZOO[target], weights)
    elif source == "own":
        spec = _own(name).spec
    elif source == "module":
        spec = _module_spec(target)
    else:
        spec = _describe_source(source, target)
    return applied(spec, reference)


def applied(spec: EncoderSpec, reference: EncoderReference) -> EncoderSpec:
    """A spec at another size or layer. Errors: RiceError with the nearest sizes, or the range of layers."""
    if reference.size is not None:
        spec.check_size(reference.size, reference.size)
        spec = replace(spec, native_size=reference.size)
    layer = reference.layer
    if layer is None or layer == spec.layer:
        return spec
    if spec.depth is not None and not -spec.depth - 1 <= layer <= spec.depth:
        raise RiceError(f"{spec.name} has hidden states {-spec.depth - 1} to {spec.depth}, got layer={layer}")
    return replace(spec, layer=layer, norm="none")


def split(name: str) -> tuple[str, str]:
    """Where a name leads: ("zoo" | "own" | "module" | one of SOURCES, what follows). Errors: RiceError."""
    if name in ZOO:
        return "zoo", name
    prefix, colon, rest = name.partition(":")
    if colon and prefix in SOURCES:
        if not rest:
            raise RiceError(f"expected {prefix}:NAME, got {name!r}")
        return prefix, rest
    if colon:
        return "module", name
    if name in registry.names():
        return "own", name
    known = [*ZOO, *registry.names()]
    forms = "rice:PATH, hf:REPO_OR_PATH, open_clip:ARCH/TAG, timm:NAME, module:attr"
    raise RiceError(f"unknown encoder {name!r}.{nearest(name, known)} See: rice encoders; or one of {forms}")


def zoo_weights(entry: Entry, weights: str | None) -> Source:
    """The source that `weights` means for a zoo entry. Errors: RiceError when its weights were never published."""
    published = Source("hub", entry.repo) if entry.repo else None
    if entry.shipped is not None:
        published = Source("local", str(entry.shipped))
    return pick(weights, published, entry.spec.name, entry.spec.note)


def _load(name: str, weights: str | None, allow_pickle: bool) -> "Loaded | Encoder":
    source, target = split(name)
    if source == "zoo":
        return load_entry(ZOO[target], weights, allow_pickle=allow_pickle)
    if source == "own":
        return _build_own(_own(name), weights)
    if source == "module":
        return _load_module(target, weights)
    loader: Any = importlib.import_module(f"rice.encoders.{source}")
    loaded: Loaded = loader.load(target, weights, allow_pickle=allow_pickle)
    return loaded


def load_entry(entry: Entry, weights: str | None, *, allow_pickle: bool = False) -> "Loaded":
    """Build a zoo entry. Errors: RiceError, as `load_encoder`."""
    source = zoo_weights(entry, weights)
    loader: Any = importlib.import_module(f"rice.encoders.{entry.loader}")
    loaded: Loaded = loader.load_architecture(entry.architecture, entry.spec, source, allow_pickle=allow_pickle)
    return loaded


def _describe_source(source: str, target: str) -> EncoderSpec:
    module: Any = importlib.import_module(f"rice.encoders.{'hf_config' if source == 'hf' else source}")
    spec: EncoderSpec = module.describe(target)
    return spec


def _own(name: str) -> registry.Registration:
    found = registry.registered(name)
    if found is None:
        raise RiceError(f"the entry point of {name!r} registers no encoder; decorate it with @rice.register_encoder")
    return found


def _build_own(registration: registry.Registration, weights: str | None) -> "Loaded":
    from torch import nn

    from rice.encoders.loaded import Loaded, seeded_init

    with seeded_init():
        module = registration.factory(weights)
    if not isinstance(module, nn.Module):
        raise RiceError(f"{registration.spec.name}: expected a torch module, got {type(module).__name__}")
    return Loaded(module, registration.spec, registry.extract)


def _load_module(target: str, weights: str | None) -> "Loaded | Encoder":
    from rice.encoders.base import Encoder
    from rice.encoders.loaded import seeded_init

    found = registry.resolve(target)
    if isinstance(found, registry.Registration):
        return _build_own(found, weights)
    if callable(found) and not isinstance(found, Encoder):
        with seeded_init():
            found = found(weights)
    if not isinstance(found, Encoder):
        raise RiceError(
            f"expected {target} to be an Encoder, or a factory decorated with @rice.register_encoder or returning an "
            f"Encoder, got {type(found).__name__}"
        )
    return found


def _module_spec(target: str) -> EncoderSpec:
    found = registry.resolve(target)
    if isinstance(found, registry.Registration):
        return found.spec
    return _load_module(target, None).spec
