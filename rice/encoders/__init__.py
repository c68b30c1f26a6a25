"""Encoders: one interface, a zoo, and a loader per source. Importing this package imports no torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rice.encoders.base import Encoder, Features
    from rice.encoders.load import load_encoder
    from rice.encoders.registry import register_encoder
    from rice.encoders.spec import EncoderReference, EncoderSpec

_HOMES = {
    "Encoder": "base",
    "EncoderReference": "spec",
    "EncoderSpec": "spec",
    "Features": "base",
    "load_encoder": "load",
    "register_encoder": "registry",
}
__all__ = ["Encoder", "EncoderReference", "EncoderSpec", "Features", "load_encoder", "register_encoder"]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"rice.encoders.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rice.encoders' has no attribute {name!r}")
