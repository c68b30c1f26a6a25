"""Training of a Llava of transformers, by transformers' own Trainer, without padding and without whole logits.

Trainer and accelerate keep what they do well: ranks, FSDP, precision, clipping, schedule, checkpoints. Ours are the
micro-batches (`packing`), the attention within samples (`attention`), the loss of answers (`loss`), the parameter
groups, the progress and the log. FSDP comes from accelerate: `accelerate launch --config_file FILE`.

Weights after a step are those of padded training, to rounding: test_trainer compares them.
"""

import contextlib
import dataclasses
import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers import set_seed as seed_everything
from transformers.utils import logging

from mllm.llava.attention import packed_attention
from mllm.llava.checkpoints import keep_only, latest, load_others, mark_whole, save_others
from mllm.llava.course import Course
from mllm.llava.loss import answer_loss, bare_model
from mllm.llava.packing import Example, StepBins, WithoutLoss, pack
from mllm.llava.settings import TrainSettings
from rice.errors import RiceError, require
from rice.files import make_folder
from rice.progress import Progress

CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"

_WRAPPERS = re.compile(
    r"(^|\.)(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|module|modules_to_save\.[^.]+)(?=\.)"
)
_PEFT = re.compile(r"(^|\.)base_model\.model\.")


class TrainOutcome(NamedTuple):
    """What a training did. `start`: the step that it resumed from. `state`: the values by plain names, on the leading
    rank, where FSDP keeps the model in parts; else None: the model holds them."""

    steps: int
    start: int
    loss: float
    tokens: int
    seconds: float
    state: dict[str, Tensor] | None = None


def train(
    model: nn.Module,
    dataset: Any,
    lengths: Sequence[int] | NDArray[np.int64],
    *,
    settings: TrainSettings,
    groups: Mapping[str, float],
    out: Path,
    progress: Progress,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    kind: "type[PackedTrainer] | None" = None,
) -> TrainOutcome:
    """Train `model` in place; the same call resumes from the last whole checkpoint, to the same weights bit by bit.

    dataset[i]: an example (`packing.pack`). lengths[i]: its tokens; images[i]: its images, needed on several ranks.
    groups: first part of a parameter's name -> learning rate; the longest that fits counts. Names are those of the
    model without wrappers, "model.vision_tower" for instance. Frozen parameters are left out.
    out: gets `metrics.jsonl` and `checkpoints/`; the model itself is the caller's to save. kind: of trainer, where the
    model is more than a Llava.
    Errors: RiceError for trainable parameters without a learning rate, micro-batches that do not divide by the ranks,
    no sample, a folder that holds another training, a loss or gradient that is no number any more.
    """
    require("accelerate", "mllm")
    arguments = _arguments(settings, groups, out)
    ranks = arguments.world_size
    if ranks > 1 and images is None:
        raise RiceError("expected the number of images of each row on several ranks, got none; pass images=")
    bins = StepBins(
        lengths,
        batch=settings.batch,
        bins=settings.micro_batches,
        seed=settings.seed,
        images=images,
        spread=ranks > 1,
    )
    total = bins.steps * settings.epochs
    arguments.warmup_steps = math.ceil(settings.warmup * total)
    run = _run(settings, groups, bins)
    found = latest(out / CHECKPOINTS, run) if settings.save_every else None
    start = 0 if found is None else found.step
    if arguments.process_index == 0:
        make_folder(out)
    course = Course(out / METRICS, bins, progress, total, leads=arguments.process_index == 0)
    seed_everything(settings.seed)
    if settings.checkpointing:
        _recompute(bare_model(model))
    began = time.perf_counter()
    with _as_before(model), packed_attention(model), answer_loss(model), contextlib.closing(course):
        trainer = (kind or PackedTrainer)(model, arguments, WithoutLoss(dataset), bins, groups, run)
        trainer.add_callback(course)
        result = trainer.train(resume_from_checkpoint=None if found is None else str(found.folder))
        state = trainer.gathered() if trainer.is_fsdp_enabled else None
    return TrainOutcome(
        steps=total,
        start=start,
        loss=result.training_loss,
        tokens=sum(bins.tokens(*divmod(step, bins.steps)) for step in range(start, total)),
        seconds=time.perf_counter() - began,
        state=state,
    )


def _arguments(settings: TrainSettings, groups: Mapping[str, float], out: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        per_device_train_batch_size=1,
        num_train_epochs=settings.epochs,
        learning_rate=max(groups.values()),
        lr_scheduler_type=settings.decay,
        adam_beta2=settings.beta2,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        seed=settings.seed,
        bf16=settings.amp,
        use_cpu=settings.device == "cpu" or not torch.cuda.is_available(),
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        log_level="warning",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        ddp_find_unused_parameters=True,  # the tower's last layers get no gradient where an earlier one is read
    )
    if settings.micro_batches % arguments.world_size:
        raise RiceError(
            f"expected micro_batches that divide by the {arguments.world_size} ranks, got {settings.micro_batches}"
        )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process, one GPU: Trainer would split rows over several
    arguments.gradient_accumulation_steps = settings.micro_batches // arguments.world_size
    return arguments


def _run(settings: TrainSettings, groups: Mapping[str, float], bins: StepBins) -> dict[str, Any]:
    """What must be equal for a checkpoint to continue a run: all but where, how fast and in how much memory it runs.

    Other micro-batches change a step's sums by rounding only.
    """
    fields = dataclasses.asdict(settings)
    for name in ("workers", "device", "save_every", "checkpointing", "micro_batches"):
        del fields[name]
    rows = hashlib.sha256(bins.lengths.tobytes()).hexdigest()[:16]
    return {**fields, "rates": dict(groups), "rows": len(bins.lengths), "lengths": rows}


@contextlib.contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Trainer turns the cache off for good, and saving draws bars of its own: neither lasts."""
    config = bare_model(model).config
    cached, bars = config.__dict__.get("use_cache"), logging.is_progress_bar_enabled()
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if cached is None:
            config.__dict__.pop("use_cache", None)
        else:
            config.use_cache = cached
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _recompute(model: nn.Module) -> None:
    """Checkpoint activations, without reentry: it needs no gradient at the inputs, and works with frozen parts."""
    once: Any = getattr(model, "activation_checkpointing_enable", None)
    if once is not None:
        once(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        before: Any = getattr(model, "gradient_checkpointing_enable")  # noqa: B009
        before(gradient_checkpointing_kwargs={"use_reentrant": False})


class PackedTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer over packed micro-batches, with named parameter groups and checkpoints that are marked."""

    collate: Callable[[Sequence[Example]], dict[str, Any]] = staticmethod(pack)

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        dataset: Any,
        bins: StepBins,
        groups: Mapping[str, float],
        run: Mapping[str, Any],
    ) -> None:
        super().__init__(model=model, args=arguments, train_dataset=dataset, data_collator=self.collate)
        self.remove_callback(PrinterCallback)
        self._bins, self._groups, self._run = bins, groups, run
        self._matrices = {plain_name(name) for name, value in model.named_parameters() if value.ndim > 1}
        self._beside = _beside_adapters(model)
        self._kind = bare_model(model).config.model_type
        self._built: torch.optim.Optimizer | None = None

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Bins in turn: accelerate hands every rank its own, as many to each."""
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._bins,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Keep the positions before answer tokens; their targets are the next labels."""
        taken = {"images_per_sample", *(("image_sizes",) if self._kind == "llava" else ())}
        row = {name: value for name, value in inputs.items() if name not in taken}
        if self._kind == "llava_onevision" and "images_per_sample" in inputs:
            row["batch_num_images"] = inputs["images_per_sample"]
        row["labels"] = row["labels"][:, row["logits_to_keep"] + 1]
        return super().compute_loss(model, {**row, "use_cache": False}, return_outputs, num_items_in_batch)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over `parameter_groups`."""
        if self._built is None:
            decay = float(self.args.weight_decay)
            found = parameter_groups(model or self.model, self._groups, decay, self._matrices)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self._built = self.optimizer = kind(found, **options)
        return self._built

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Under the names that the model has: `save_pretrained` would write Llava's older ones, which Trainer, loading
        by name and without insisting, silently fails to find. PEFT writes its own; what learns beside goes with it.
        """
        bare = self.accelerator.unwrap_model(self.model)
        if bare is not bare_model(bare):
            super()._save(output_dir, state_dict)
            if self.args.should_save and self._beside:
                values = {plain_name(n): v for n, v in (state_dict or dict(bare.named_parameters())).items()}
                save_others({name: values[name] for name in self._beside}, Path(output_dir or self.args.output_dir))
        elif self.args.should_save:
            bare.save_pretrained(output_dir, state_dict=state_dict, save_original_format=False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Errors: RiceError where what learns beside adapters is not what the checkpoint holds."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not self._beside:
            return
        values = load_others(Path(resume_from_checkpoint), self._beside)
        target = self.model if model is None else model
        named: dict[str, Any] = {self._beside[plain]: value for plain, value in values.items()}
        set_model_state_dict(target, named, options=StateDictOptions(full_state_dict=True, strict=False))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Errors: RiceError where a checkpoint lacks a parameter that shares none that it has, or has another."""
        lacking = set(load_result.missing_keys)
        named = dict(self.model.named_parameters(remove_duplicate=False))
        found = {id(value) for name, value in named.items() if name not in lacking}
        wrong = [name for name in lacking if name not in named or id(named[name]) not in found]
        wrong += load_result.unexpected_keys
        if wrong:
            raise RiceError(
                f"expected a checkpoint of this model, got one that differs in {min(wrong)} and {len(wrong) - 1} more "
                f"parameters; remove {self.args.output_dir}, or give the model that it belongs to"
            )

    def gathered(self) -> dict[str, Tensor]:
        """The whole model's values by plain names; empty on ranks that do not lead, all of which must ask."""
        whole = self.accelerator.get_state_dict(self.model_wrapped)
        return {plain_name(name): value for name, value in whole.items()} if self.args.process_index == 0 else {}

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            mark_whole(folder, self.state.global_step, self._run)
            keep_only(folder)
        self.accelerator.wait_for_everyone()


def _beside_adapters(model: nn.Module) -> dict[str, str]:
    """What learns in a model of PEFT's without being PEFT's to write: plain name -> name."""
    if model is bare_model(model):
        return {}
    learning = [name for name, value in model.named_parameters() if value.requires_grad]
    return {plain_name(name): name for name in learning if "lora_" not in name and "modules_to_save" not in name}


def parameter_groups(
    model: nn.Module, rates: Mapping[str, float], weight_decay: float, matrices: set[str] | None = None
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters for an optimiser, by learning rate, highest first, and by decay.

    rates: first part of a name, as in the bare model -> learning rate. matrices: names that decay; None: all with two
    axes or more. Errors: RiceError naming trainable parameters that no part fits.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    strange = []
    for wrapped, value in model.named_parameters():
        name = plain_name(wrapped)
        fits = [part for part in rates if name == part or name.startswith(f"{part}.")]
        if not value.requires_grad:
            continue
        if not fits:
            strange.append(name)
            continue
        decays = value.ndim > 1 if matrices is None else name in matrices
        groups.setdefault((rates[max(fits, key=len)], weight_decay if decays else 0.0), []).append(value)
    if strange:
        raise RiceError(
            f"expected a learning rate for every trained parameter, got none for {strange[0]} and "
            f"{len(strange) - 1} more; freeze them or add their part to {', '.join(rates)}"
        )
    if not groups:
        raise RiceError("expected parameters to train, got none; all are frozen")
    ordered = sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1]))
    return [{"params": values, "lr": rate, "weight_decay": decay} for (rate, decay), values in ordered]


def plain_name(name: str) -> str:
    """A parameter's name in the bare model: without what DDP, FSDP, torch.compile and PEFT put before and between."""
    while (shorter := _WRAPPERS.sub("", name).lstrip(".")) != name:
        name = shorter
    return _PEFT.sub(r"\1", name)
