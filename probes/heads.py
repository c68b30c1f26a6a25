"""Trained heads in one file, safetensors with facts as JSON beside them. The encoder's weights are not in it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from rice.errors import RiceError
from rice.files import atomic_write

if TYPE_CHECKING:
    import torch

    from rice.encoders.base import Encoder


def save_heads(path: Path, heads: nn.Module, key: str, facts: dict[str, Any]) -> None:
    """Write atomically; `facts`, JSON values, stand under `key` in the file's header."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in heads.state_dict().items()}
    with atomic_write(path, "wb") as file:
        file.write(save(tensors, metadata={key: json.dumps(facts)}))


def read_header(path: Path, key: str) -> dict[str, Any]:
    """The facts under `key`. Errors: OSError, SafetensorError, KeyError, ValueError for anything else."""
    with safe_open(path, framework="pt") as file:
        stored: dict[str, Any] = json.loads((file.metadata() or {})[key])
    return stored


def load_heads(path: Path, heads: nn.Module, what: str) -> None:
    """Fill `heads`. Errors: RiceError where the file does not hold `what` its facts describe."""
    try:
        with safe_open(path, framework="pt") as file:
            heads.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise RiceError(f"{path} does not hold the {what} that it describes: {said}") from error


def check_tower(path: Path, encoder: "Encoder", *, patch: int, width: int) -> None:
    """Errors: RiceError unless the encoder is of the shape that the heads were trained on."""
    spec = encoder.spec
    if (spec.patch, spec.width) != (patch, width):
        raise RiceError(
            f"{path} was trained on an encoder of patch {patch} and width {width}, {spec.name} has {spec.patch} and "
            f"{spec.width}"
        )


def encoder_of(path: Path, encoder: str, weights: str | None, mark: str, device: "torch.device") -> "Encoder":
    """The encoder that the heads at `path` were trained on. Errors: RiceError where its weights are not of `mark`."""
    from rice.encoders.identity import fingerprint
    from rice.encoders.load import load_encoder
    from rice.encoders.spec import EncoderReference

    reference = EncoderReference.parse(encoder)
    if fingerprint(reference, weights) != mark:
        raise RiceError(f"{path} was trained on other weights of {encoder} than are there now; train it anew")
    return load_encoder(reference, weights=weights, device=device)
