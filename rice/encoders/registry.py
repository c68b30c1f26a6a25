"""Own encoders: by decorator, by `module:attr`, or by the entry point group `rice.encoders`.

    @rice.register_encoder("mine", patch=16, width=384, native_size=224)
    def mine(weights):                      # None: random values; "default"; or a path
        network = Network()
        if weights:
            network.load_state_dict(safetensors.torch.load_file(weights))
        return network                      # (B, 3, H, W) normalised -> (B, 384, H/16, W/16)

Importing this module imports no torch.
Shapes: B images, T tokens, D width, h w patch grid.
"""

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rice.encoders.spec import CLIP_MEAN, CLIP_STD, EncoderSpec, Preprocessing
from rice.errors import RiceError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rice.encoders.base import Features

ENTRY_POINTS = "rice.encoders"
Factory = Callable[[str | None], "nn.Module"]


@dataclass(frozen=True)
class Registration:
    """An own encoder: its facts, and what builds its network."""

    spec: EncoderSpec
    factory: Factory


_REGISTERED: dict[str, Registration] = {}


def register_encoder(
    name: str,
    *,
    patch: int,
    width: int,
    native_size: int,
    size_multiple: int | None = None,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
    depth: int | None = None,
    mlp_width: int | None = None,
    prefix_tokens: int = 0,
    norm: Literal["none", "post"] = "none",
    preprocessing: Preprocessing | None = None,
    licence: str | None = None,
    paper: str | None = None,
    note: str | None = None,
) -> Callable[[Factory], Factory]:
    """Register the decorated `factory(weights) -> nn.Module` under `name`.

    The network maps normalised images (B, 3, H, W) to a map (B, D, h, w), tokens without a class token (B, T, D), a
    pair (either of them, cls (B, D)), or `Features`. `weights` is None for random values (under a fixed seed),
    "default" for the factory's own, or a path. `size_multiple`: of accepted sizes, the patch where it is not given;
    sizes in pixels; `mean`, `std`: of RGB in [0, 1]. `depth` and `mlp_width` let the cost be told before running.
    Errors: RiceError when the name is taken.
    """
    _check_free(name)
    spec = EncoderSpec(
        name=name,
        source="own",
        patch=patch,
        size_multiple=size_multiple or patch,
        width=width,
        depth=depth,
        mlp_width=mlp_width,
        prefix_tokens=prefix_tokens,
        native_size=native_size,
        mean=mean,
        std=std,
        norm=norm,
        preprocessing=preprocessing or Preprocessing(),
        licence=licence,
        paper=paper,
        note=note,
    )

    def decorate(factory: Factory) -> Factory:
        _check_free(name)
        _REGISTERED[name] = Registration(spec, factory)
        return factory

    return decorate


def registered(name: str) -> Registration | None:
    """What is registered under `name`; where nothing is, the entry point of that name is imported first.

    Errors: RiceError when an entry point takes a name of the zoo, or what it names registers nothing.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    point = _entry_points().get(name)
    if point is None:
        return None
    found = resolve(point)
    return found if isinstance(found, Registration) else None


def names() -> list[str]:
    """Names of own encoders: registered ones first, then those of entry points."""
    return [*_REGISTERED, *(name for name in _entry_points() if name not in _REGISTERED)]


def resolve(target: str) -> Any:
    """`module:attr`: the Registration of a decorated factory, or the attribute itself (a factory or an Encoder).

    Imports the module, from the path or the working directory. Errors: RiceError when there is no such thing.
    """
    module_name, _, attribute = target.partition(":")
    with _working_directory():
        if _find(module_name) is None:
            raise _no_module(module_name)
        module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if found is None:
        raise RiceError(f"module {module_name} has no {attribute!r}; expected a factory or an Encoder")
    decorated = next((r for r in _REGISTERED.values() if r.factory is found), None)
    return found if decorated is None else decorated


def target_of(name: str) -> str:
    """`module:attr` of a registered encoder's factory, which another process can import; the name where none can."""
    found = _REGISTERED.get(name)
    if found is None or found.factory.__module__ == "__main__" or "." in found.factory.__qualname__:
        return name
    return f"{found.factory.__module__}:{found.factory.__qualname__}"


def code_file(name: str) -> Path:
    """The file that a registered encoder is written in. Errors: RiceError when it was typed into a session."""
    if name not in _REGISTERED and name in _entry_points():
        return source_file(_entry_points()[name])
    path = inspect.getsourcefile(_REGISTERED[name].factory)
    if path is None or not Path(path).is_file():
        raise RiceError(f"{name} is not written in a file, so results of it cannot be told apart; put it in a module")
    return Path(path)


def source_file(target: str) -> Path:
    """The file of `module` in `module:attr`, found without importing it. Errors: RiceError."""
    module_name = target.partition(":")[0]
    with _working_directory():
        found = _find(module_name)
    if found is None or found.origin is None:
        raise _no_module(module_name)
    return Path(found.origin)


def extract(module: "nn.Module", pixels_B3HW: "Tensor", layer: int) -> "Features":
    """Features of an own network's output, whatever form it has. Errors: RiceError for another form or layer."""
    from rice.encoders.base import Features

    if layer != -1:
        raise RiceError("an own encoder gives its last layer only: leave out ,layer= or return another network")
    output = module(pixels_B3HW)
    if isinstance(output, Features):
        return output
    patches, cls = output if isinstance(output, tuple) and len(output) == 2 else (output, None)
    ndim = getattr(patches, "ndim", None)
    if ndim == 4:
        return Features(patches, cls)
    if ndim != 3:
        raise RiceError(f"expected a map (B, D, h, w) or tokens (B, T, D) from the network, got {_form(output)}")
    return Features(_token_map(patches, pixels_B3HW), cls)


def _token_map(tokens_BTD: "Tensor", pixels_B3HW: "Tensor") -> "Tensor":
    """Tokens carry no grid: it has the picture's aspect."""
    from rice.encoders.loaded import as_map

    count = tokens_BTD.shape[1]
    height = round((count * pixels_B3HW.shape[-2] / pixels_B3HW.shape[-1]) ** 0.5)
    if height == 0 or count % height:
        size = tuple(pixels_B3HW.shape[-2:])
        raise RiceError(f"{count} tokens fill no grid of a {size[0]} x {size[1]} picture; leave out class tokens")
    return as_map(tokens_BTD, (height, count // height))


def _form(output: Any) -> str:
    shape = getattr(output, "shape", None)
    return type(output).__name__ if shape is None else str(tuple(shape))


def _check_free(name: str) -> None:
    from rice.encoders.zoo import ZOO

    if name in ZOO or name in _REGISTERED:
        where = "the zoo" if name in ZOO else f"{_REGISTERED[name].factory.__module__}"
        raise RiceError(f"the name {name!r} is taken by {where}; register the encoder under another one")
    if any(mark in name for mark in ":@, ") or not name:
        raise RiceError(f"expected an encoder name without ':', '@', ',' or spaces, got {name!r}")


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    from rice.encoders.zoo import ZOO

    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    for name in points.keys() & ZOO.keys():
        raise RiceError(f"the entry point {points[name].value} takes the zoo's name {name!r}; rename or uninstall it")
    return {name: point.value for name, point in points.items()}


def _no_module(name: str) -> RiceError:
    return RiceError(f"no module {name!r} on the path or in {Path.cwd()}; expected an encoder as module:attr")


def _find(module_name: str) -> Any:
    try:
        return importlib.util.find_spec(module_name)
    except (ModuleNotFoundError, ValueError):  # a missing parent package, or no module name at all
        return None


@contextlib.contextmanager
def _working_directory() -> Iterator[None]:
    """A console script does not look for modules where it is called; a user with `mine.py` at hand expects it to."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
