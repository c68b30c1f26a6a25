"""From a recipe and folders to a run, and from a run to the folder that others use."""

import dataclasses
import platform
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rice.data.stream import RegionStream
from rice.errors import RiceError
from rice.files import format_bytes, remove_leftovers, sha256_file, sha256_json, write_json
from rice.loss import CenterBank
from rice.train.config import TrainConfig
from rice.train.cost import classifier_gflops, forward_gflops
from rice.train.final import load_centers, load_tower, new_tower, write_final
from rice.train.learner import Learner, Tower, uses_bf16
from rice.train.loop import CHECKPOINTS, METRICS, Run, resume
from rice.train.metrics import read_lines
from rice.train.picture import draw_course
from rice.train.sinks import open_log
from rice.train.state import Checkpoints
from rice.train.world import World, join

FINAL, RUN, PICTURE = "final", "run.json", "course.png"
PATIENCE = timedelta(minutes=30)
"""For which ranks wait for one another. No rank has more to do by itself: one that takes longer hangs."""


def bank_classes(config: TrainConfig, stream: RegionStream) -> dict[str, int]:
    """The banks of centres that this data calls for, and their numbers of classes.

    Errors: RiceError where the data has no labels for the target, or another K than the recipe asks for.
    """
    if config.target == "captions":
        if not stream.captioned():
            raise RiceError("the data has no captions: nothing to learn; see rice.data.shards.Annotations.captions")
        return {}
    found = {"object": stream.object_classes, "ocr": stream.ocr_classes}
    if config.target == "image":
        found = {"image": stream.object_classes}
    if config.classes is not None and stream.object_classes != config.classes:
        raise RiceError(
            f"the recipe asks for {config.classes:,} object classes, the data has {stream.object_classes:,}; "
            "cluster the data anew, or pass --classes"
        )
    found = {name: count for name, count in found.items() if count > 0}
    if config.target == "regions" and not stream.regions:
        raise RiceError("the data has no region: nothing to learn; pack it with a smaller --min-edge")
    if not found:
        raise RiceError("the data has neither object nor OCR classes: nothing to learn; see rice pack --help")
    return found


def plan(config: TrainConfig, data: Path, out: Path, val: Path | None, init: Path | None) -> str:
    """What a run would do and cost, as text. Errors: RiceError for what is wrong with the input, as in a run."""
    stream = RegionStream.open(data, config.stream, seed=config.seed)
    classes = bank_classes(config, stream)
    if init is not None:
        load_tower(config, init)
    if val is not None:
        _validation(val, config, stream)
    vit, tower_gf, classifier_gf = config.vit, forward_gflops(config), classifier_gflops(config, classes)
    centre_bytes = sum(classes.values()) * vit.width * 12
    exaflops = 3 * (tower_gf + classifier_gf) * config.samples / 1e9
    lines = [
        f"tower     {config.tower}: {vit.depth} blocks of {vit.width}, {config.size} px, {vit.tokens} tokens",
        f"learns    {config.target}, {_told(config)}",
        *(f"classes   {name}: {count:,}" for name, count in classes.items()),
        f"data      {data}: {stream.samples:,} images; {config.samples:,} seen, "
        f"{config.samples / stream.samples:,.1f} epochs",
        f"steps     {config.steps:,} of {config.batch:,} images",
        f"start     {init if init is not None else 'random weights'}",
        f"cost      {tower_gf:.2f} + {classifier_gf:.2f} GFLOPs forward per image "
        f"({'tower' if classes else 'towers'} + classifier), {exaflops:,.3g} EFLOPs in all",
        *([f"centres   {format_bytes(centre_bytes)} with their moments, over all ranks"] if classes else []),
        f"writes    {out / METRICS}, {out / CHECKPOINTS}, {out / FINAL}",
    ]
    if val is not None:
        lines.append(f"validates on {val}")
    return "\n".join(lines)


def _told(config: TrainConfig) -> str:
    """The loss."""
    loss, text = config.loss, config.text
    if config.target == "captions":
        return (
            f"CLIP's loss; text tower of {text.layers} blocks of {text.width}, captions of up to {text.context} tokens"
        )
    return f"{loss.form} loss, {loss.margin_type} margin {loss.margin}, scale {loss.scale:g}"


def run(config: TrainConfig, data: Path, out: Path, val: Path | None, init: Path | None) -> None:
    """Train to the end, from the newest checkpoint of `out` where there is one, and write `out`/final.

    Errors: RiceError for anything wrong with the input, before anything is written.
    """
    with join(config.machine.device, PATIENCE) as world:
        config = _for_device(config, world.device)
        stream = RegionStream.open(data, config.stream, seed=config.seed)
        classes = bank_classes(config, stream)
        validation = None if val is None else _validation(val, config, stream)
        _check_batches(config, data, world, new=not out.exists())
        learner = Learner(config, world, *start(config, classes, init, world))
        identity = {
            "config": config.identity(),
            "classes": classes,
            "data": stream.fingerprint,
            "init": None if init is None else _fingerprint(init),
        }
        checkpoints = Checkpoints(out / CHECKPOINTS, identity=identity, keep=config.machine.keep)
        saved = resume(checkpoints, learner)
        if world.leads:
            remove_leftovers(out)  # the checkpoints' lock is ours
            write_json(out / RUN, identity | {"machine": dataclasses.asdict(config.machine), **_versions(world)})
        log = open_log(
            out / METRICS,
            start=saved.step if saved else 0,
            steps=config.steps,
            leads=world.leads,
            tensorboard=config.machine.tensorboard,
            wandb=config.machine.wandb,
            config=identity,
        )
        with log:
            Run(config, learner, stream, validation, out, checkpoints, log).go(saved)
        write_final(learner, out / FINAL)
        if world.leads:
            draw_course(out / METRICS, out / PICTURE)
            print(report(out))  # noqa: T201


def report(out: Path) -> str:
    """What a finished run has to say: how validation went, and where things are."""
    lines = read_lines(out / METRICS)
    losses = [line["loss"] for line in lines if "loss" in line]
    said = [f"loss {losses[0]:.4f} -> {losses[-1]:.4f}"] if losses else []
    validations = [line for line in lines if "retrieval_map" in line]
    if len(validations) > 1:
        for name, words in (("retrieval_top1", "top-1"), ("retrieval_map", "mean AP")):
            first, last = float(validations[0][name]), float(validations[-1][name])  # NaN is written as its name
            said.append(f"region retrieval, {words}: {first:.2f} % -> {last:.2f} %")
    return "\n".join([*said, f"encoder: rice:{out / FINAL}", f"course:  {out / PICTURE}"])


def start(
    config: TrainConfig, classes: Mapping[str, int], init: Path | None, world: World
) -> tuple[Tower, dict[str, CenterBank]]:
    """Tower and banks before the first step: random by the seed, the same on every rank, or those of `init`.

    Errors: RiceError where `init` is another tower, or has centres of other classes.
    """
    optimiser = config.optimiser
    banks = {
        name: CenterBank(
            count,
            config.vit.width,
            rho=config.rho_of(name),
            loss=config.loss,
            seed=config.seed,
            name=name,
            device=world.device,
            bf16=uses_bf16(config, world.device),
            keep_gradients=not config.machine.recompute_centers,
            betas=optimiser.betas,
            eps=optimiser.eps,
            weight_decay=optimiser.weight_decay,
        )
        for name, count in classes.items()
    }
    if init is not None:
        for bank in banks.values():
            load_centers(bank, init)
        return load_tower(config, init), banks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return new_tower(config), banks


def _for_device(config: TrainConfig, device: torch.device) -> TrainConfig:
    stream = dataclasses.replace(config.stream, pin_memory=device.type == "cuda")
    return dataclasses.replace(config, stream=stream)


def _validation(val: Path, config: TrainConfig, stream: RegionStream) -> RegionStream:
    """Errors: RiceError where its classes are not those of the training data."""
    found = RegionStream.open(val, config.stream, seed=config.seed)
    if found.classes != stream.classes:
        raise RiceError(
            f"{val} has other classes than the training data; pack both from folders of the same categories"
        )
    return found


def _check_batches(config: TrainConfig, data: Path, world: World, *, new: bool) -> None:
    """Errors: RiceError for a batch that the ranks cannot share, and, before a new run has a folder, for shards whose
    first batch cannot be made."""
    stream = RegionStream.open(data, dataclasses.replace(config.stream, workers=0, pin_memory=False), seed=config.seed)
    batches = stream.batches(batch=config.batch, rank=world.rank, world=world.size)
    if new:
        next(batches)


def _fingerprint(folder: Path) -> str:
    """Of the safetensors files that a run starts from."""
    return sha256_json({file.name: sha256_file(file) for file in sorted(folder.glob("*.safetensors"))})


def _versions(world: World) -> dict[str, Any]:
    device = world.device
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("rice-suite", "torch")},
        "ranks": world.size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
    }
