"""Low-rank adapters (LoRA, by peft) in the language model; tower and projector learn as they are.

FOLDER/adapter_config.json, adapter_model.safetensors   peft's own
FOLDER/others.safetensors                               what learnt besides: projector, newline, perhaps the tower
FOLDER/rice_llava.json                                  facts
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mllm.llava.model import LANGUAGE, Llava, part_of
from rice.encoders.hf import quiet
from rice.errors import RiceError, require

OTHERS = "others.safetensors"
_ADAPTED, _WRAPPED = "model.language_model.", "base_model.model."


def add_adapters(
    model: nn.Module, rank: int, alpha: int, rates: Mapping[str, float], *, layers: Collection[str] = ()
) -> nn.Module:
    """The model with adapters in linear layers of its language model's blocks: those with one of the names `layers`
    (q_proj, ...), all where none is given; they learn, and the parts with a rate, the language model itself not."""
    peft = require("peft", "mllm")
    linear = (n for n, m in model.named_modules() if n.startswith(_ADAPTED) and isinstance(m, nn.Linear))
    names = [name for name in linear if not layers or name.rpartition(".")[2] in layers]
    if not names:
        raise RiceError(f"expected linear layers named {', '.join(layers)} in the language model, found none")
    options = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, exclude_modules=["lm_head"], bias="none")
    adapted: nn.Module = peft.get_peft_model(model, options)
    for name, parameter in adapted.named_parameters():
        plain = name.removeprefix(_WRAPPED)
        if "lora_" not in name:
            parameter.requires_grad_(part_of(plain) != LANGUAGE and rates.get(part_of(plain), 0.0) > 0)
    return adapted


def save_adapters(adapted: Any, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Adapters and what learnt besides; the language model itself is not in it. `state`: the values by plain names,
    where the model does not hold them."""
    values = {n.removeprefix(_WRAPPED): p for n, p in adapted.named_parameters()} if state is None else state
    with quiet():
        adapted.save_pretrained(folder, state_dict={_WRAPPED + name: value for name, value in values.items()})
    others = {n: v for n, v in values.items() if "lora_" not in n and part_of(n) != LANGUAGE}
    save_file({name: value.detach().cpu().contiguous() for name, value in others.items()}, folder / OTHERS)


def merge(llava: Llava, folder: Path) -> Llava:
    """`llava`, freshly built, with what `save_adapters` wrote, its adapters added into the language model's weights.

    Errors: RiceError where the folder holds the adapters of another model.
    """
    peft = require("peft", "mllm")
    own = dict(llava.model.named_parameters())
    for name, value in load_file(folder / OTHERS).items():
        if name not in own or own[name].shape != value.shape:
            raise RiceError(
                f"{folder / OTHERS} has a {name} that this model has not; name the tower that it was trained with"
            )
        own[name].data.copy_(value)
    adapted = peft.PeftModel.from_pretrained(llava.model, str(folder))
    return replace(llava, model=adapted.merge_and_unload().eval())
