"""LISA: a Llava of transformers, the token [SEG], layers that make prompts of hidden states, and a segmenter.

The language model's last hidden state where it predicts [SEG] becomes the prompt of the segmenter's mask decoder
(section 4.1; LISA, Lai et al., 2024, section 3.2). LISA's text speaks of the state "of" the token; its code takes the
one before it, and so does this. MLCD's authors take the state of the token itself, through Linear(D, 256), GELU and
Linear(256, 256); LISA's layers, and these, are Linear(D, D), ReLU and Linear(D, C).

FOLDER/...                     the Llava, as transformers saves it, with [SEG] among its tokens; rice_llava.json
FOLDER/segmenter/...           the segmenter, as transformers saves it
FOLDER/projection.safetensors  the layers in between
FOLDER/rice_lisa.json          how it came to be

Shapes: N prompts, K kept positions, D width of the language model, C of a prompt, B pictures, M masks of one picture, E
edge of the segmenter's input, h, w its maps, H, W a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mllm.lisa.facts import LisaFacts
from mllm.lisa.loss import mask_losses
from mllm.lisa.phrases import SEG
from mllm.lisa.segmenter import Segmenter, enlarge
from mllm.llava.facts import LlavaFacts
from mllm.llava.loss import bare_model
from mllm.llava.model import Llava
from mllm.llava.tiling import Tiles
from mllm.llava.trainer import plain_name
from rice.device import pick_device
from rice.encoders.hf import quiet
from rice.errors import RiceError

SEGMENTER, PROJECTION = "segmenter", "projection.safetensors"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the three losses."""

    ce: float = 1.0
    bce: float = 2.0
    dice: float = 0.5


class Lisa(nn.Module):
    """The three together. `llava` may be wrapped by PEFT; `weights`: of the losses."""

    accepts_loss_kwargs = True
    """For transformers' Trainer: losses are divided by the counts of the whole step."""

    def __init__(self, llava: Any, segmenter: Segmenter, seg_id: int, weights: Weights | None = None) -> None:
        super().__init__()
        self.llava, self.segmenter, self.seg_id = llava, segmenter, seg_id
        self.projection = projection_of(bare_model(llava).config.text_config.hidden_size, segmenter.width)
        self.weights = weights or Weights()
        self.parts: dict[str, Tensor] = {}
        kept = set(bare_model(llava)._no_split_modules or ()) | set(segmenter.model._no_split_modules or ())
        self._no_split_modules = kept & {type(module).__name__ for module in self.modules()}

    @property
    def config(self) -> Any:
        """Of the Llava: Trainer and accelerate look for one."""
        return bare_model(self.llava).config

    def get_base_model(self) -> Any:
        """The Llava itself, as PEFT's models give it."""
        return bare_model(self.llava)

    def prompt(self, hidden_ND: Tensor) -> Tensor:
        """Prompts (N, C) of last hidden states, after the final norm, where [SEG] is predicted."""
        first: nn.Linear = self.projection[0]  # type: ignore[assignment]
        prompts_NC: Tensor = self.projection(hidden_ND.to(first.weight.dtype))
        return prompts_NC

    def forward(
        self,
        labels: Tensor,
        num_items_in_batch: Tensor | int,
        num_masks: Tensor | int = 1,
        frames: Tensor | None = None,
        seen: Sequence[Any] = (),
        masks: Sequence[Tensor] = (),
        **row: Any,
    ) -> dict[str, Tensor]:
        """The loss of a packed row, inside `answer_loss` and `packed_attention`; `parts` are its unweighted parts.

        labels: targets (1, K) of the kept positions. num_items_in_batch, num_masks: answer tokens and masks of the
        whole step, which sums are divided by. frames: (B, 3, E, E); seen: B times what part of it is picture; masks: B
        times uint8 (M, H, W), in order of the row's [SEG]. row: what the Llava takes.

        LISA and MLCD's authors average the text's loss within micro-batches of 2 and 4 samples; here every answer token
        of a step counts alike, so that long visual answers weigh more.
        """
        output = self.llava(**row, labels=labels, num_items_in_batch=num_items_in_batch)
        hidden_KD = output.logits.flatten(0, -2)  # the head passes them on
        prompts_NC = self.prompt(hidden_KD[labels.flatten() == self.seg_id])
        if len(prompts_NC) != sum(map(len, masks)):
            raise ValueError(f"expected a mask for each [SEG], got {sum(map(len, masks))} for {len(prompts_NC)}")
        bce = dice = prompts_NC.sum() * 0.0  # every rank's graph has the same parts
        if len(prompts_NC) and frames is not None:
            bce, dice = self._mask_losses(prompts_NC, frames, seen, masks)
        elif torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            bce = dice = self._blank_mask(hidden_KD) * 0.0
        found = {"ce": output.loss, "bce": bce / num_masks, "dice": dice / num_masks}
        self.parts = {name: value.detach() for name, value in found.items()}
        return {"loss": sum((getattr(self.weights, name) * value for name, value in found.items()), start=bce * 0.0)}

    def _mask_losses(
        self, prompts_NC: Tensor, frames: Tensor, seen: Sequence[Any], masks: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Sums over all masks."""
        counts = [len(one) for one in masks]
        owners_N = torch.arange(len(masks), device=prompts_NC.device).repeat_interleave(
            torch.tensor(counts, device=prompts_NC.device)
        )
        logits_Nhw = self.segmenter.decode(self.segmenter.encode(frames), owners_N, prompts_NC)
        bce = dice = logits_Nhw.new_zeros((), dtype=torch.float32)
        for logits_Mhw, part, mask_MHW in zip(torch.split(logits_Nhw, counts), seen, masks, strict=True):
            if not len(mask_MHW):
                continue
            height, width = mask_MHW.shape[1:]
            logits_MHW = enlarge(logits_Mhw, part, (height, width), self.segmenter.edge)
            bce_M, dice_M = mask_losses(logits_MHW, mask_MHW)
            bce, dice = bce + bce_M.sum(), dice + dice_M.sum()
        return bce, dice

    def _blank_mask(self, hidden_KD: Tensor) -> Tensor:
        """A mask of a blank picture: all ranks must run the same blocks, and hand in the same gradients, or FSDP's
        collectives would wait for ever."""
        edge = self.segmenter.edge
        blank_13EE = hidden_KD.new_zeros((1, 3, edge, edge))
        prompt_1C = self.prompt(hidden_KD.new_zeros((1, hidden_KD.shape[-1])))
        owner_1 = torch.zeros(1, dtype=torch.int64, device=hidden_KD.device)
        return self.segmenter.decode(self.segmenter.encode(blank_13EE), owner_1, prompt_1C).float().sum()

    def tie_weights(self) -> None:
        """accelerate asks for it once FSDP has put other parameters in place."""
        bare_model(self.llava).tie_weights()

    def learning(self) -> dict[str, nn.Parameter]:
        """What learns, by plain names."""
        return {plain_name(name): value for name, value in self.named_parameters() if value.requires_grad}


def projection_of(width: int, prompt: int) -> nn.Sequential:
    """Linear, ReLU, Linear: from the language model's width to a prompt's, initialised as torch does."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, prompt))


def add_seg(model: Any, tokenizer: Any) -> int:
    """[SEG] as a token of its own; returns its id. Its rows begin as the mean of all others, as transformers' own new
    ones."""
    if SEG not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [SEG]}, replace_extra_special_tokens=False)
    seg_id = int(tokenizer.convert_tokens_to_ids(SEG))
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    if seg_id >= len(tables[0].weight):
        with quiet():
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for table in tables if tables[0].weight is not tables[1].weight else tables[:1]:
            table.weight[seg_id] = table.weight[:seg_id].mean(dim=0)
    return seg_id


def load_llava(folder: Path, dtype: torch.dtype = torch.float32) -> Llava:
    """What rice llava train wrote. Errors: RiceError where it is not whole, or holds adapters."""
    from transformers import AutoProcessor

    import rice  # noqa: F401 - makes our towers known to transformers
    from mllm.generation import load_model

    facts = LlavaFacts.read(folder)
    if facts.lora or facts.blind:
        kind = "adapters; merge them: rice llava merge" if facts.lora else "a blind model; train another"
        raise RiceError(f"expected a model of rice llava train that sees, {folder} holds {kind}")
    model = load_model(str(folder), dtype)
    with quiet():
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    return Llava(model=model, processor=processor, tiles=facts.tiles(), arch=cast(Any, facts.arch))


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that segments. `folder`: where it came from."""

    lisa: Lisa
    processor: Any
    tiles: Tiles
    prompt: Any
    facts: LisaFacts
    folder: Path

    @property
    def tokenizer(self) -> Any:
        """With [SEG] and the image token."""
        return self.processor.tokenizer

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", dtype: str = "auto") -> "Trained":
        """OUT/model of rice lisa train. Errors: RiceError where it is not whole."""
        from mllm.generation import pick_dtype

        facts = LisaFacts.read(folder)
        place = pick_device(device)
        kind = pick_dtype(dtype, place)
        llava = load_llava(folder, kind)
        seg_id = int(llava.tokenizer.convert_tokens_to_ids(SEG))
        lisa = Lisa(llava.model, Segmenter.load(str(folder / SEGMENTER)), seg_id)
        try:
            lisa.projection.load_state_dict(load_file(folder / PROJECTION))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RiceError(f"cannot read {folder / PROJECTION}: {reason}; train the model anew") from error
        lisa.projection.to(kind)
        lisa.requires_grad_(False).to(place).eval()
        prompt = LlavaFacts.read(folder).config["prompt"]
        return cls(lisa=lisa, processor=llava.processor, tiles=llava.tiles, prompt=prompt, facts=facts, folder=folder)


def save_lisa(lisa: Lisa, llava: Llava, folder: Path) -> None:
    """Everything but the facts. Not atomic by itself. `llava`: its Llava, without adapters."""
    llava.save(folder)
    lisa.segmenter.save(folder / SEGMENTER)
    state = {name: value.detach().float().cpu().contiguous() for name, value in lisa.projection.state_dict().items()}
    save_file(state, folder / PROJECTION)
