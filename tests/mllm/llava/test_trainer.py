"""Training: the same optimisation as padded training, resumable at any instant."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import two_ranks
from safetensors.torch import load_file, save_file
from tiny_llava import example, lengths_of, llava, pad
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

from mllm.llava import checkpoints
from mllm.llava.checkpoints import MARK
from mllm.llava.lora import OTHERS, add_adapters
from mllm.llava.model import LANGUAGE, PROJECTOR, TOWER
from mllm.llava.packing import StepBins
from mllm.llava.settings import TrainSettings
from mllm.llava.trainer import TrainOutcome, parameter_groups, plain_name, train
from rice.errors import RiceError
from rice.progress import SilentProgress

RATES = {"model.vision_tower": 2e-4, "model.multi_modal_projector": 1e-3, "model": 5e-4, "lm_head": 5e-4}
SETTINGS = TrainSettings(batch=6, micro_batches=2, epochs=2, amp=False, workers=0, device="cpu", save_every=0)


def run(
    model: PreTrainedModel, data: Any, out: Path, settings: TrainSettings = SETTINGS, **options: Any
) -> TrainOutcome:
    options = {"groups": RATES, **options}
    lengths = options.pop("lengths", None) or lengths_of(data)
    return train(model, data, lengths, settings=settings, out=out, progress=SilentProgress(), **options)


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


class PaddedTrainer(Trainer):
    """transformers' own, given our order of samples and our groups: padded rows, whole logits, its own loss."""

    def __init__(self, order: list[int], groups: Any, **options: Any) -> None:
        super().__init__(**options)
        self.order, self.named = order, groups

    def _get_train_sampler(self, *_: Any) -> list[int]:
        return self.order

    def create_optimizer(self, model: Any = None) -> Any:
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, self.named, self.args.weight_decay))
        return self.optimizer


def padded(model: PreTrainedModel, data: list[dict[str, Tensor]], settings: TrainSettings, out: Path) -> None:
    """The same steps by transformers' Trainer, one epoch after the other, 3 samples a micro-batch."""
    bins = StepBins(lengths_of(data), batch=settings.batch, bins=settings.micro_batches, seed=settings.seed)
    assert len(data) % settings.batch == 0
    steps = [(epoch, step) for epoch in range(settings.epochs) for step in range(bins.steps)]
    order = [int(sample) for where in steps for sample in bins.samples(*where)]
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=settings.batch // settings.micro_batches,
        gradient_accumulation_steps=settings.micro_batches,
        max_steps=len(steps),
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    PaddedTrainer(order, RATES, model=model, args=arguments, train_dataset=data, data_collator=pad).train()


@pytest.mark.parametrize("kind", ["llava_next", "llava", "llava_onevision"])
def test_weights_equal_those_of_padded_training_in_float64(kind: str, tmp_path: Path) -> None:
    data = [example(i, kind, images=min(i % 3, 1), dtype=torch.float64) for i in range(12)]
    settings = dataclasses.replace(SETTINGS, weight_decay=0.1, clip=0.5)
    ours, theirs = llava(kind).double(), llava(kind).double()
    start = weights(ours)
    run(ours, data, tmp_path / "ours", settings)
    if kind == "llava":
        for one in data:
            one.pop("image_sizes", None)
    padded(theirs, data, settings, tmp_path / "theirs")
    assert apart(weights(ours), start) > 1e-3
    assert apart(weights(ours), weights(theirs)) < 1e-7  # transformers norms in fp32 inside


@pytest.mark.parametrize(("stop", "tied"), [(1, False), (3, True), (4, False)])
def test_a_run_that_was_cut_off_ends_with_the_same_weights_bit_by_bit(
    stop: int, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [example(i, images=i % 2) for i in range(12)]
    settings = dataclasses.replace(SETTINGS, save_every=1)
    unbroken, broken = llava(tied=tied), llava(tied=tied)
    run(unbroken, data, tmp_path / "unbroken", dataclasses.replace(settings, save_every=0))

    def killed(folder: Path, step: int, record: Any) -> None:
        if step == stop + 1:
            (folder / "model.safetensors").write_bytes(b"half")
            raise KeyboardInterrupt
        mark_whole(folder, step, record)

    mark_whole = checkpoints.mark_whole
    monkeypatch.setattr("mllm.llava.trainer.mark_whole", killed)
    if stop < 4:
        with pytest.raises(KeyboardInterrupt):
            run(broken, data, tmp_path / "broken", settings)
        assert not (tmp_path / "broken/checkpoints" / f"checkpoint-{stop + 1}" / MARK).exists()
    else:
        run(broken, data, tmp_path / "broken", settings)
    monkeypatch.undo()
    again = llava(tied=tied, seed=1)
    outcome = run(again, data, tmp_path / "broken", settings)
    assert (outcome.start, outcome.steps) == (stop, 4)
    assert apart(weights(again), weights(unbroken)) == 0.0
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("unbroken", "broken")
    ]
    assert [line["step"] for line in lines[1]] == [0, 1, 2, 3]
    assert [line["loss"] for line in lines[1]] == [line["loss"] for line in lines[0]]
    assert [path.name for path in (tmp_path / "broken/checkpoints").iterdir()] == ["checkpoint-4"]


def test_adapters_that_were_cut_off_resume_with_projector_newline_and_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    rates = {TOWER: 2e-4, PROJECTOR: 1e-3, LANGUAGE: 5e-4}

    def adapted() -> Any:
        return add_adapters(llava(), 2, 4, rates)

    data = [example(i, images=i % 2) for i in range(12)]
    settings = dataclasses.replace(SETTINGS, epochs=3, save_every=1)
    unbroken, broken, again = adapted(), adapted(), adapted()
    start = weights(unbroken)
    run(unbroken, data, tmp_path / "unbroken", dataclasses.replace(settings, save_every=0))

    def killed(folder: Path, step: int, record: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt
        mark_whole(folder, step, record)

    mark_whole = checkpoints.mark_whole
    monkeypatch.setattr("mllm.llava.trainer.mark_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        run(broken, data, tmp_path / "broken", settings)
    monkeypatch.undo()
    outcome = run(again, data, tmp_path / "broken", settings)
    assert (outcome.start, outcome.steps) == (3, 6)
    assert apart(weights(again), weights(unbroken)) == 0.0
    moved = {name for name, value in weights(again).items() if not torch.equal(value, start[name])}
    for part in ("lora_B", "vision_tower", "multi_modal_projector", "image_newline"):
        assert any(part in name for name in moved)
    others = tmp_path / "broken/checkpoints/checkpoint-6" / OTHERS
    kept = load_file(others)
    save_file({name: value for name, value in kept.items() if "newline" not in name}, others)
    with pytest.raises(RiceError, match="image_newline and 0 more"):
        run(adapted(), data, tmp_path / "broken", settings)


def test_resuming_reads_no_sample_of_the_steps_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [example(i, images=0) for i in range(12)]
    settings = dataclasses.replace(SETTINGS, save_every=1)
    monkeypatch.setattr("mllm.llava.trainer.keep_only", lambda folder: None)
    run(llava(), data, tmp_path, settings)
    shutil.rmtree(tmp_path / "checkpoints/checkpoint-4")

    class Counted(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return super().__getitem__(index)

    read: list[int] = []
    run(llava(), Counted(data), tmp_path, settings, lengths=lengths_of(data))
    last = StepBins(lengths_of(data), batch=6, bins=2, seed=0).samples(1, 1)
    assert sorted(read) == sorted(last.tolist())


def test_a_checkpoint_of_another_training_is_refused_by_what_differs(tmp_path: Path) -> None:
    data = [example(i, images=0) for i in range(12)]
    settings = dataclasses.replace(SETTINGS, save_every=2)
    run(llava(), data, tmp_path, settings)
    with pytest.raises(RiceError, match="clip was 1.0, is 0.5"):
        run(llava(), data, tmp_path, dataclasses.replace(settings, clip=0.5))
    with pytest.raises(RiceError, match="lengths was"):
        run(llava(), [example(i + 1, images=0) for i in range(12)], tmp_path, settings)


def test_a_run_may_go_on_with_smaller_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [example(i) for i in range(12)]
    settings = dataclasses.replace(SETTINGS, save_every=1)
    whole, halved = llava(), llava(seed=1)
    monkeypatch.setattr("mllm.llava.trainer.keep_only", lambda folder: None)
    run(whole, data, tmp_path, settings)
    for step in (3, 4):
        shutil.rmtree(tmp_path / f"checkpoints/checkpoint-{step}")
    assert run(halved, data, tmp_path, dataclasses.replace(settings, micro_batches=6)).start == 2
    assert 0 < apart(weights(halved), weights(whole)) < 1e-6


def test_the_model_is_as_before_apart_from_its_weights(tmp_path: Path) -> None:
    model = llava()
    before = model.config.to_dict(), model.loss_function, model.config.text_config._attn_implementation
    run(model, [example(i) for i in range(6)], tmp_path)
    assert before == (model.config.to_dict(), model.loss_function, model.config.text_config._attn_implementation)
    assert "forward" not in model.lm_head.__dict__
    batch = pad([example(0)])
    assert model.eval()(**batch).logits.shape == (*batch["input_ids"].shape, 64)
    assert model.generate(**{k: v for k, v in batch.items() if k != "labels"}, max_new_tokens=2).shape[1] > 2


def test_frozen_parts_stay_and_each_part_has_its_own_rate(tmp_path: Path) -> None:
    model = llava()
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    model.model.image_newline.requires_grad_(True)
    before = weights(model)
    run(model, [example(i) for i in range(6)], tmp_path, groups={"model": 1e-3})
    moved = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert moved
    assert all("projector" in name or "newline" in name for name in moved)
    model.requires_grad_(True)
    groups = parameter_groups(model, RATES, 0.1)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (1e-3, 0.1), (1e-3, 0.0), (5e-4, 0.1), (5e-4, 0.0), (2e-4, 0.1), (2e-4, 0.0),
    ]  # fmt: skip
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert all((value.ndim > 1) == (group["weight_decay"] > 0) for group in groups for value in group["params"])
    tower = {id(value) for value in model.model.vision_tower.parameters()}
    assert {id(value) for group in groups[4:] for value in group["params"]} == tower


def test_a_trained_parameter_without_a_rate_is_named(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match=r"lm_head\.weight"):
        run(llava(), [example(i) for i in range(6)], tmp_path, groups={"model": 1e-3})


def test_names_lose_what_wrappers_add() -> None:
    bare = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert plain_name(bare) == bare
    assert plain_name(f"module.{bare}") == bare
    assert plain_name(f"base_model.model.{bare}") == bare
    assert plain_name(f"module.base_model.model.{bare}") == bare
    assert (
        plain_name("_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module.mlp.weight") == "model.layers.0.mlp.weight"
    )
    assert plain_name("model.layers.0._checkpoint_wrapped_module.mlp.weight") == "model.layers.0.mlp.weight"
    kept = "base_model.model.model.multi_modal_projector.modules_to_save.default.linear_1.weight"
    assert plain_name(kept) == "model.multi_modal_projector.linear_1.weight"


@pytest.mark.parametrize("saved", [(), ("multi_modal_projector", "lm_head")])
def test_lora_trains_its_own_parameters_alone(saved: tuple[str, ...], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = llava()
    before = weights(model)
    config = peft.LoraConfig(
        r=2, target_modules=r".*language_model.*(q_proj|v_proj)", modules_to_save=list(saved) or None, lora_alpha=4
    )
    wrapped = peft.get_peft_model(model, config)
    start = weights(wrapped)
    run(wrapped, [example(i) for i in range(12)], tmp_path)
    moved = {name for name, value in weights(wrapped).items() if not torch.equal(value, start[name])}
    assert any("lora_B" in name for name in moved)
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    assert any("lm_head" in name for name in moved) == bool(saved)
    settings = dataclasses.replace(SETTINGS, save_every=2)
    again = peft.get_peft_model(llava(), config)
    run(again, [example(i) for i in range(12)], tmp_path / "again", settings)
    fresh = peft.get_peft_model(llava(), config)
    assert run(fresh, [example(i) for i in range(12)], tmp_path / "again", settings).start == 4
    assert apart(weights(fresh), weights(again)) == 0.0
    assert torch.equal(
        wrapped.unload().model.vision_tower.state_dict()[PATCHES], before[f"model.vision_tower.{PATCHES}"]
    )


PATCHES = "embeddings.patch_embedding.weight"


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    data = [example(i) for i in range(12)]
    plain, recomputed = llava(), llava()
    run(plain, data, tmp_path / "plain")
    run(recomputed, data, tmp_path / "recomputed", dataclasses.replace(SETTINGS, checkpointing=True))
    assert apart(weights(plain), weights(recomputed)) < 1e-6


def test_bf16_follows_fp32(tmp_path: Path) -> None:
    data = [example(i) for i in range(12)]
    exact, narrow = llava(), llava()
    first = run(exact, data, tmp_path / "exact")
    second = run(narrow, data, tmp_path / "narrow", dataclasses.replace(SETTINGS, amp=True))
    assert second.loss == pytest.approx(first.loss, rel=1e-2)
    assert {value.dtype for value in narrow.parameters()} == {torch.float32}


def test_a_step_without_any_answer_moves_nothing_and_a_step_of_text_alone_runs(tmp_path: Path) -> None:
    mute = [example(i) for i in range(6)]
    for one in mute:
        one["labels"].fill_(-100)
    model = llava()
    before = weights(model)
    assert run(model, mute, tmp_path / "mute").loss == 0.0
    assert apart(weights(model), before) == 0.0
    text = [example(i, images=0) for i in range(6)]
    run(model, text, tmp_path / "text")
    tower = {name for name in before if "vision_tower" in name or "projector" in name}
    assert all(torch.equal(weights(model)[name], before[name]) for name in tower)
    assert apart(weights(model), before) > 0


class Unreadable(list[Any]):
    def __getitem__(self, index: Any) -> Any:
        raise RiceError("expected a picture, got a text: a.png; mend it")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_row_is_one_line_whichever_process_reads_it(workers: int, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, workers=workers)
    with pytest.raises(RiceError) as error:
        run(llava(), Unreadable([0] * 6), tmp_path, settings, lengths=[5] * 6)
    assert str(error.value) == "expected a picture, got a text: a.png; mend it"


def test_a_loss_that_is_no_number_ends_the_training_before_it_is_kept(tmp_path: Path) -> None:
    model = llava()
    model.lm_head.weight.data[3, 3] = torch.inf
    with pytest.raises(RiceError, match="the loss of step 0 is nan"):
        run(model, [example(i) for i in range(6)], tmp_path, dataclasses.replace(SETTINGS, save_every=1))
    assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_gradient_that_is_no_number_ends_the_training_before_it_is_kept(wrong: float, tmp_path: Path) -> None:
    model = llava()
    model.lm_head.weight.register_hook(lambda gradient: torch.full_like(gradient, wrong))
    with pytest.raises(RiceError, match=f"the gradient norm of step 0 is {wrong}"):
        run(model, [example(i) for i in range(6)], tmp_path, dataclasses.replace(SETTINGS, save_every=1))
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_learning_lowers_the_loss_and_the_log_can_be_drawn(tmp_path: Path) -> None:
    from rice.train.picture import draw_course

    data = [example(i % 3) for i in range(12)]
    settings = dataclasses.replace(SETTINGS, epochs=15)
    outcome = run(llava(), data, tmp_path, settings, groups={"model": 1e-2, "lm_head": 1e-2})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(30))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[0].keys() == {"step", "loss", "grad_norm", "learning_rate", "tokens_per_s", "step_s", "memory"}
    assert lines[1]["learning_rate"] == pytest.approx(1e-2)  # a warm-up of one step: from 0
    assert outcome.tokens == 15 * sum(lengths_of(data))
    draw_course(tmp_path / "metrics.jsonl", tmp_path / "course.png")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(RiceError, match="micro_batches=0"):
        TrainSettings(batch=8, micro_batches=0)
    with pytest.raises(RiceError, match="0 samples"):
        run(llava(), [], Path("unused"))


@pytest.mark.parametrize("count", [1, 8])
def test_micro_batches_change_neither_steps_nor_weights(count: int, tmp_path: Path) -> None:
    data = [example(i, images=i % 2) for i in range(count)]
    few, many = llava(), llava()
    settings = dataclasses.replace(SETTINGS, micro_batches=1)
    outcome = run(few, data, tmp_path / "few", settings)
    other = run(many, data, tmp_path / "many", dataclasses.replace(settings, micro_batches=9))
    assert (outcome.steps, outcome.tokens) == (other.steps, other.tokens)
    assert outcome.steps == 2 * (1 + (count > 6))
    assert apart(weights(few), weights(llava())) > 1e-4
    assert apart(weights(few), weights(many)) < 1e-6


@pytest.mark.slow
def test_two_ranks_train_as_one_also_where_bins_have_no_image_or_no_sample(tmp_path: Path) -> None:
    script = str(Path(two_ranks.__file__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ranks = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    subprocess.run([*ranks, script, str(tmp_path)], env=environment, check=True, timeout=300)
    one = two_ranks.trained(tmp_path / "one")
    assert apart(one, weights(llava())) > 1e-4
    for name in ("plain", "recompute"):
        assert apart(one, load_file(tmp_path / f"{name}.safetensors")) < 1e-6


def test_several_ranks_need_to_know_which_rows_have_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _: 2))
    with pytest.raises(RiceError, match="number of images"):
        run(llava(), [example(i) for i in range(6)], tmp_path)
    with pytest.raises(RiceError, match="divide by the 2 ranks, got 3"):
        run(llava(), [example(i) for i in range(6)], tmp_path, dataclasses.replace(SETTINGS, micro_batches=3))
