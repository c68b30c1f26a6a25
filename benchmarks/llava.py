"""Our training of a Llava over transformers' Trainer with padding: tokens per second and peak memory of training steps,
and the memory of the answers' loss over whole logits. Exits 1 where a goal fails.

    python benchmarks/llava.py [--rounds 3] [--micro 4] [--parts next onevision loss] [--device cuda] [--json FILE]

next, onevision  Trainings of the same samples, the same model, the same steps; learning rate 0, so that every round
      does the same work. Losses are compared first. "padded" is plain Trainer: random order, `--micro` samples a
      micro-batch, padded right to the longest, whole logits. "grouped" is its `group_by_length`, "rebalanced" its
      `batch_rebalance`: they change which samples meet in a step, or how many a micro-batch has. Real tokens count.
loss  Forward and backward pass of head and loss on `--positions` hidden states of which `--answers` count, at Qwen2.5's
      152,064 entries: our chunks on answer positions over transformers' own on whole logits. Peak above what the
      weights take; the head's gradient is in both.

Two histograms of lengths (MIXTURES below), both with shares as published. next: LLaVA-1.5's instruction mixture (Liu et
al., "Improved Baselines with Visual Instruction Tuning", table 7), 2x2+1 tiles of 336 pixels, 24 x 24 tokens each.
onevision: LLaVA-OneVision's single-image stage (Li et al., "LLaVA-OneVision", figure 4), up to 6 x 6 tiles of 384
pixels, 27 x 27 tokens each. Image tokens follow from typical sizes of a source's pictures by the models' own rule,
padding left out. Text lengths are not published: ours, log-uniform between the bounds given. The goal is onevision's:
with 2x2+1 all pictures are nearly equally long, and no packing can save more than the padding there is (`padding`),
the head's 7.7 %, and half of attention.

All is a sixteenth: tokens, and the widths of Qwen2.5-7B (3,584 -> 224, 28 heads -> 7, MLP 18,944 -> 1,184), with as
many layers and entries that the head has 7.7 % of the language model's FLOPs as there, attention as much as there, and
the tower 4 % (ViT-L/14's share at 5 tiles).
"""

import ctypes
import gc
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PrinterCallback,
    Qwen2Config,
    SiglipVisionConfig,
    Trainer,
    TrainingArguments,
)
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.trainer_pt_utils import LengthGroupedSampler

from benchmarks.timing import alternate, begin, finish, process_mib, ratios, shown, spread
from mllm.llava.loss import AnswerLoss
from mllm.llava.packing import StepBins
from mllm.llava.settings import TrainSettings
from mllm.llava.tiling import Tiles
from mllm.llava.trainer import parameter_groups, train
from rice.progress import SilentProgress
from rice.train.metrics import read_lines

FASTER, LEANER, AGREE = 1.5, 0.5, 1e-4
QWEN_VOCABULARY = 152_064
SCALE = 16
IMAGE = 1
RATES = {"model": 0.0, "lm_head": 0.0}

COCO = ((480, 640), (480, 640), (640, 480), (427, 640), (640, 640))
BOOKS = ((500, 333), (500, 375), (500, 357))
PHOTOS = (*COCO, (1024, 576), (576, 1024), (1024, 512), (512, 1024))
PAGES = ((2200, 1700), (1754, 1240), (600, 800), (850, 600), (1080, 1920), (768, 1024))
FIGURES = ((300, 400), (250, 500), (400, 400), (200, 300))


class Source(NamedTuple):
    """A part of a mixture: its share, tokens of questions and of answers, (height, width) of its pictures."""

    name: str
    share: float
    asked: tuple[int, int]
    answered: tuple[int, int]
    pictures: tuple[tuple[int, int], ...]


class Mixture(NamedTuple):
    """Rows, how their pictures are tiled (`edge` pixels and `side` tokens, both a quarter), and the goal."""

    tiles: Tiles
    pixels: int
    sources: tuple[Source, ...]
    goal: float | None


Part = Literal["next", "onevision", "loss"]

MIXTURES: dict[Part, Mixture] = {
    "next": Mixture(
        Tiles(tiling="2x2+1", edge=84, side=6),
        336,
        (
            Source("llava-instruct", 158, (20, 150), (80, 500), COCO),
            Source("sharegpt", 40, (100, 2000), (300, 6000), ()),
            Source("vqav2", 83, (60, 400), (10, 60), COCO),
            Source("gqa", 72, (60, 400), (10, 60), PHOTOS),
            Source("okvqa", 9, (30, 60), (2, 10), COCO),
            Source("ocrvqa", 80, (60, 140), (10, 50), BOOKS),
            Source("a-okvqa", 66, (60, 200), (2, 20), COCO),
            Source("textcaps", 22, (40, 120), (10, 30), PHOTOS),
            Source("refcoco", 48, (80, 400), (60, 400), COCO),
            Source("visual genome", 86, (80, 600), (60, 500), PHOTOS),
        ),
        None,
    ),
    "onevision": Mixture(
        Tiles(tiling="anyres9", edge=98, side=7),
        384,
        (
            Source("general", 36.1, (20, 400), (10, 500), PHOTOS),
            Source("document, chart, screen", 20.6, (20, 300), (5, 200), PAGES),
            Source("mathematics, reasoning", 20.1, (40, 200), (20, 400), FIGURES),
            Source("general OCR", 8.9, (20, 60), (10, 300), (*BOOKS, *PAGES)),
            Source("language", 14.3, (20, 400), (100, 1500), ()),
        ),
        FASTER,
    ),
}
"""Shares: thousands of rows; per cent."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        samples: Rows drawn from the histogram; all are trained once in a round.
        batch: Samples of a step.
        micro: Samples of a padded micro-batch; ours packs a step into as many rows as that makes.
        rounds: Alternating rounds; the median of their ratios counts.
        positions: Tokens of the loss's part.
        answers: Of these, tokens of answers.
        width: Of the loss's hidden states.
        device: cpu or cuda.
        parts: Which figures.
        json: Write the figures here, too.
    """

    samples: int = 48
    batch: int = 16
    micro: int = 4
    rounds: int = 3
    positions: int = 1024
    answers: int = 128
    width: int = 512
    device: str = "cpu"
    parts: tuple[Part, ...] = ("next", "onevision", "loss")
    json: Path | None = None


def main(config: Config) -> int:
    """Run everything; 0 where every goal is met."""
    report = begin(config, config.device)
    for part in config.parts:
        found = report[part] = loss(config) if part == "loss" else step(part, config)
        print(f"  {part:<9} {found['said']}")
    return finish(report, config.json, holds=all(report[part]["meets"] for part in config.parts))


def draw(mixture: Mixture, samples: int) -> list[dict[str, Tensor]]:
    """Rows of the histogram, a sixteenth as long, with random pictures."""
    dice = np.random.default_rng(0)
    shares = np.array([source.share for source in mixture.sources])
    rows = []
    for number in dice.choice(len(shares), samples, p=shares / shares.sum()).tolist():
        source = mixture.sources[number]
        asked, answered = (
            max(1, round(float(np.exp(dice.uniform(*np.log(bounds)))) / SCALE))
            for bounds in (source.asked, source.answered)
        )
        ids = torch.from_numpy(dice.integers(2, 1000, asked + answered))
        row = {"input_ids": ids, "labels": torch.cat([torch.full((asked,), -100), ids[asked:]])}
        if source.pictures:
            row = _illustrated(row, source.pictures[int(dice.integers(len(source.pictures)))], mixture)
        rows.append(row)
    return rows


def _illustrated(row: dict[str, Tensor], pixels: tuple[int, int], mixture: Mixture) -> dict[str, Tensor]:
    tiles = mixture.tiles
    size = (round(pixels[0] * tiles.edge / mixture.pixels), round(pixels[1] * tiles.edge / mixture.pixels))
    before = torch.full((tiles.tokens(size),), IMAGE)
    return {
        "input_ids": torch.cat([before, row["input_ids"]]),
        "labels": torch.cat([torch.full_like(before, -100), row["labels"]]),
        "pixel_values": torch.randn(tiles.count(size), 3, tiles.edge, tiles.edge),
        "image_sizes": torch.tensor([size]),
    }


def build(mixture: Mixture, device: str, vocabulary: int = 1344) -> nn.Module:
    """A sixteenth of Qwen2.5-7B, in width, with four layers, and as small a tower."""
    torch.manual_seed(0)
    tiles = mixture.tiles
    text = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=224,
        intermediate_size=1184,
        num_hidden_layers=4,
        num_attention_heads=7,
        num_key_value_heads=1,
    )
    tower: dict[str, int] = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": tiles.edge,
        "patch_size": tiles.edge // tiles.side,
    }
    shared = {"text_config": text, "image_grid_pinpoints": tiles.pinpoints}
    if tiles.tiling == "2x2+1":
        next_ = LlavaNextConfig(vision_config=CLIPVisionConfig(**tower), image_token_index=IMAGE, **shared)
        model: nn.Module = LlavaNextForConditionalGeneration(next_)
    else:
        one = LlavaOnevisionConfig(vision_config=SiglipVisionConfig(**tower), image_token_id=IMAGE, **shared)
        model = LlavaOnevisionForConditionalGeneration(one)
    return model.to(device)


def step(part: Part, config: Config) -> dict[str, Any]:
    """Our training over transformers'."""
    rows = draw(MIXTURES[part], config.samples)
    lengths = [len(row["input_ids"]) for row in rows]
    arms = ("ours", "padded", "grouped", "rebalanced")
    runs = {arm: _train(arm, part, config, rows) for arm in arms}
    losses = {arm: run() for arm, run in runs.items()}
    apart = max(abs(value - losses["padded"]) for value in losses.values()) / losses["padded"]
    seconds = alternate(runs, config.rounds, config.device)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {arm: pool.apply(_step_memory, (arm, part, config)) for arm in ("ours", "padded")}
    ratio = {arm: ratios(seconds, arm, "ours") for arm in arms if arm != "ours"}
    leaner, padding, goal = memory["ours"] / memory["padded"], _padding(lengths, config), MIXTURES[part].goal
    faster = "; as ".join(f"{arm} {shown(values, '.2f')}" for arm, values in ratio.items())
    return {
        "said": f"times as fast as {faster}; padding is {padding:.0%} of padded rows; {leaner:.2f} of padded memory "
        f"with {QWEN_VOCABULARY:,} entries; losses {apart:.1e} apart",
        "lengths": _quantiles(lengths),
        "padding": padding,
        "seconds": {arm: spread(values) for arm, values in seconds.items()},
        "tokens_per_s": {arm: sum(lengths) / spread(values)["median"] for arm, values in seconds.items()},
        "ratio": ratio,
        "memory_mib": memory,
        "memory_ratio": leaner,
        "losses_apart": apart,
        "goal": goal,
        "meets": ratio["padded"]["median"] >= (goal or 0.0) and apart < AGREE,
    }


def _settings(config: Config) -> TrainSettings:
    return TrainSettings(
        batch=config.batch,
        micro_batches=config.batch // config.micro,
        amp=config.device != "cpu",
        workers=0,
        device="cpu" if config.device == "cpu" else "auto",
        save_every=0,
    )


def _train(arm: str, part: Part, config: Config, rows: list[dict[str, Tensor]]) -> Callable[[], float]:
    """A run: all rows once. Returns the mean loss of an answer token."""
    model, settings = build(MIXTURES[part], config.device), _settings(config)
    lengths = [len(row["input_ids"]) for row in rows]
    answers = [int((row["labels"] >= 0).sum()) for row in rows]
    bins = StepBins(lengths, batch=config.batch, bins=settings.micro_batches, seed=0)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            train(model, rows, lengths, settings=settings, groups=RATES, out=folder, progress=SilentProgress())
            found = [line["loss"] for line in read_lines(folder / "metrics.jsonl")]
        return _mean(found, [bins.samples(0, number).tolist() for number in range(bins.steps)], answers)

    def theirs() -> float:
        with tempfile.TemporaryDirectory() as name:
            trainer = _Padded(arm, model, rows, bins, settings, name)
            trainer.train()
            found = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        return _mean(found, trainer.steps, answers)

    return ours if arm == "ours" else theirs


def _mean(losses: Sequence[float], steps: Sequence[Sequence[int]], answers: Sequence[int]) -> float:
    """Over all answer tokens: a step's loss is the mean over its own."""
    counts = [sum(answers[sample] for sample in samples) for samples in steps]
    return sum(a * b for a, b in zip(losses, counts, strict=True)) / sum(counts)


class _Padded(Trainer):  # type: ignore[misc]
    """Plain Trainer on padded micro-batches, in one of its orders."""

    def __init__(
        self,
        arm: str,
        model: nn.Module,
        rows: list[dict[str, Tensor]],
        bins: StepBins,
        settings: TrainSettings,
        out: str,
    ) -> None:
        micro = settings.batch // settings.micro_batches
        arguments = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=settings.micro_batches,
            num_train_epochs=1,
            learning_rate=0.0,
            lr_scheduler_type="cosine",
            bf16=settings.amp,
            use_cpu=settings.device == "cpu",
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            log_level="warning",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        super().__init__(model=model, args=arguments, train_dataset=rows, data_collator=_pad)
        self.remove_callback(PrinterCallback)
        self._sampler, self.steps = self._ordered(arm, rows, bins, settings)

    @staticmethod
    def _ordered(arm: str, rows: Any, bins: StepBins, settings: TrainSettings) -> tuple[Any, list[list[int]]]:
        """The sampler, and the samples of each step."""
        lengths = bins.lengths.tolist()
        if arm == "rebalanced":
            from transformers.trainer_pt_utils import BatchRebalanceSampler

            sampler = BatchRebalanceSampler(
                lengths=lengths, effective_batch_size=settings.batch, dp_size=1, grad_accum=settings.micro_batches
            )
            groups, accumulated = list(sampler), settings.micro_batches
            starts = range(0, len(groups), accumulated)
            steps = [[sample for group in groups[at : at + accumulated] for sample in group] for at in starts]
            return sampler, steps
        if arm == "grouped":
            generator = torch.Generator().manual_seed(0)
            order = list(LengthGroupedSampler(settings.batch, lengths=lengths, generator=generator))
        else:
            order = [int(i) for number in range(bins.steps) for i in bins.samples(0, number)]
        return order, [order[at : at + settings.batch] for at in range(0, len(order), settings.batch)]

    def _get_train_sampler(self, *_: Any) -> Any:
        return self._sampler

    def create_optimizer(self, model: Any = None) -> Any:
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, RATES, 0.0), fused=True)
        return self.optimizer


def _pad(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """To the longest, on the right, with an attention mask."""
    sequence = nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch = {
        "input_ids": sequence([row["input_ids"] for row in rows], batch_first=True),
        "labels": sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100),
        "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
    }
    for name in ("pixel_values", "image_sizes"):
        parts = [row[name] for row in rows if name in row]
        if parts:
            batch[name] = torch.cat(parts)
    return batch


def _step_memory(arm: str, part: Part, config: Config) -> float:
    """MiB that a step takes above model, gradients and AdamW's state, at the real vocabulary."""
    rows = draw(MIXTURES[part], config.samples)[: config.batch]
    model, settings = build(MIXTURES[part], config.device, QWEN_VOCABULARY), _settings(config)
    lengths = [len(row["input_ids"]) for row in rows]
    bins = StepBins(lengths, batch=config.batch, bins=settings.micro_batches, seed=0)
    before = _rest(config.device)
    with tempfile.TemporaryDirectory() as name:
        if arm == "ours":
            train(model, rows, lengths, settings=settings, groups=RATES, out=Path(name), progress=SilentProgress())
        else:
            _Padded(arm, model, rows, bins, settings, name).train()
    states = 3 * sum(value.numel() * value.element_size() for value in model.parameters()) / 2**20
    return _peak(config.device) - before - states


def loss(config: Config) -> dict[str, Any]:
    """Memory of head and loss: ours over transformers' on whole logits."""
    arms = ("ours", "whole")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = {arm: pool.apply(_loss_memory, (arm, config)) for arm in arms}
    values = [found[arm]["loss"] for arm in arms]
    apart = abs(values[0] - values[1]) / values[1]
    mib = {arm: found[arm]["mib"] for arm in arms}
    ratio = mib["ours"] / mib["whole"]
    return {
        "said": f"{ratio:.2f} of whole logits' memory: {mib['ours']:,.0f} of {mib['whole']:,.0f} MiB; "
        f"losses {apart:.1e} apart",
        "mib": mib,
        "ratio": ratio,
        "losses_apart": apart,
        "goal": LEANER,
        "meets": ratio <= LEANER and apart < AGREE,
    }


def _loss_memory(arm: str, config: Config) -> dict[str, float]:
    """Peak MiB above those of weight and hidden states, forward and backward; and the loss."""
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(config.width, QWEN_VOCABULARY, bias=False)
    with torch.no_grad():
        head.weight.normal_(0, 0.02, generator=generator)
    head = head.to(config.device)
    hidden_1TD = torch.randn(1, config.positions, config.width, generator=generator).to(config.device).requires_grad_()
    labels_1T = torch.randint(QWEN_VOCABULARY, (1, config.positions), generator=generator).to(config.device)
    labels_1T[:, : config.positions - config.answers] = -100
    before = _rest(config.device)
    if arm == "ours":
        keep_K = (labels_1T[0, 1:] >= 0).nonzero()[:, 0]
        value = AnswerLoss(head, head.forward)(logits=hidden_1TD[:, keep_K], labels=labels_1T[:, keep_K + 1])
    else:
        value = ForCausalLMLoss(head(hidden_1TD), labels_1T, QWEN_VOCABULARY)
    torch.autograd.backward(value)
    return {"mib": _peak(config.device) - before, "loss": value.item()}


def _rest(device: str) -> float:
    """Give freed memory back, forget the peak; MiB in use now."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return process_mib("VmRSS")


def _peak(device: str) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.startswith("cuda") else process_mib("VmHWM")


def _quantiles(lengths: Sequence[int]) -> dict[str, float]:
    """Of the real lengths: times the scale."""
    return {f"{share:.0%}": float(np.quantile(lengths, share)) * SCALE for share in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)}


def _padding(lengths: Sequence[int], config: Config) -> float:
    """Share of the padded arm's tokens that are padding."""
    bins = StepBins(lengths, batch=config.batch, bins=config.batch // config.micro, seed=0)
    order = np.concatenate([bins.samples(0, number) for number in range(bins.steps)])
    rows = bins.lengths[order[: len(order) // config.micro * config.micro]].reshape(-1, config.micro)
    return float(1 - rows.sum() / (rows.max(1) * config.micro).sum())


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
