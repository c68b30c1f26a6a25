"""lmms-eval's plug-in `rice_llava`: any image-text-to-text model, asked in batches, and no error is ever scored.

    python -m lmms_eval eval --model rice_llava --model_args pretrained=out/mini/model --tasks docvqa_val --batch_size 8

lmms-eval finds MANIFEST by the entry point `lmms_eval.models`. Imports neither torch nor lmms-eval.
"""

from typing import Any

NAME = "rice_llava"
"""As `--model`."""


def __getattr__(name: str) -> Any:
    """MANIFEST when it is asked for: lmms-eval's registry loads its entry points while it is imported itself, so that
    an import at the top of this module would find it half-loaded (PEP 562)."""
    if name == "MANIFEST":
        from lmms_eval.models.registry_v2 import ModelManifest

        return ModelManifest(model_id=NAME, chat_class_path="mllm.lmms_model.RiceLlava")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
