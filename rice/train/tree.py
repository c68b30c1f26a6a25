"""A run's state as nested mappings, taken apart into tensors, which are sharded, and plain values, which are JSON."""

import json
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor

from rice.errors import RiceError
from rice.train.storage import DTYPES

Split = tuple[dict[str, Tensor], dict[str, Any]]


def split(state: Mapping[str, Any]) -> Split:
    """(tensors, plain values) of `state`, named by their keys joined with '/', in the order of names.

    Errors: RiceError naming the entry: a name with '/', a type of tensor or a value that a checkpoint cannot hold.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, value in sorted(_leaves(state)):
        if not isinstance(value, Tensor):
            plain[name] = as_json(value, f"entry {name!r} of the state")
        elif value.dtype not in DTYPES:
            raise RiceError(f"entry {name!r} of the state is {value.dtype}; a checkpoint holds {_known()}")
        else:
            tensors[name] = value
    return tensors, plain


def put(state: MutableMapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Set the plain values of `state` from `split`'s; a tuple, which JSON made a list, is a tuple again."""
    for name, value in plain.items():
        *parents, key = name.split("/")
        place = state
        for parent in parents:
            place = place[parent]
        place[key] = tuple(value) if isinstance(place[key], tuple) else value


def as_json(value: Any, what: str) -> Any:
    """`value` as it will be read back. Errors: RiceError naming `what` where it is not JSON; NaN is not."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RiceError(f"{what} cannot be saved as JSON: {error}") from error


def mismatch(saved: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor whose presence, shape or type differs from the saved record's, in words, or None."""
    for name in sorted({*saved, *tensors}):
        if name not in tensors:
            return f"it holds tensor {name!r}, which this run does not have"
        if name not in saved:
            return f"it has no tensor {name!r}, which this run needs"
        was, now = (saved[name]["dtype"], saved[name]["shape"]), (DTYPES[tensors[name].dtype], [*tensors[name].shape])
        if was != now:
            return f"its tensor {name!r} is {was[0]} {was[1]}, this run's is {now[0]} {now[1]}"
    return None


def _leaves(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        if not isinstance(key, str) or "/" in key:
            raise RiceError(f"a checkpoint's state is keyed by names without '/', got {key!r} under {prefix or 'it'!r}")
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _known() -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
