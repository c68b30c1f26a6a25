"""RICE: region-based cluster discrimination, and any other frozen vision encoder behind one interface.

Importing this package is cheap: torch is imported when the first encoder is loaded.
"""

from typing import TYPE_CHECKING, Any

from rice import transformers_hook

if TYPE_CHECKING:
    from rice.encoders import Encoder, EncoderSpec, Features, load_encoder, register_encoder

__version__ = "0.1.0"
transformers_hook.install()

__all__ = ["Encoder", "EncoderSpec", "Features", "__version__", "load_encoder", "register_encoder"]


def __getattr__(name: str) -> Any:
    """Import the public names from `rice.encoders` when they are first used (PEP 562)."""
    if name in __all__:
        import rice.encoders

        return getattr(rice.encoders, name)
    raise AttributeError(f"module 'rice' has no attribute {name!r}")
