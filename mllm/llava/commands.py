"""The verbs `rice llava train`, `rice llava chat` and `rice llava merge`."""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from mllm.llava.config import LlavaConfig
from mllm.llava.facts import FACTS, LlavaFacts, lm_digest
from mllm.llava.recipe import RECIPES
from probes.training_config import wait_passively
from rice.errors import RiceError, require
from rice.progress import bars_if
from rice.recipes import choice

if TYPE_CHECKING:
    from mllm.llava.material import Material
    from mllm.llava.tiling import Tiles
    from mllm.llava.train import Training
    from rice.encoders.spec import EncoderSpec

_TEXT, _ANSWERS = 300, 100
"""Tokens of a conversation beside its picture's, and those that are learnt, where a cost is told."""


def train(
    recipe: Annotated[LlavaConfig, choice(RECIPES)],
    *,
    encoder: str,
    data: Path,
    out: Path,
    weights: str = "default",
    seed: int = 0,
    device: str = "auto",
    workers: int = 4,
    dry_run: bool = False,
) -> None:
    """Train a LLaVA around an encoder, in two stages, by a recipe whose every field is a flag.

    rice llava train RECIPE --help lists the flags. Stage 1: the projector learns captions, one tile a picture. Stage 2:
    projector, language model and tower learn conversations, each with its own learning rate. Before each stage it is
    checked that processor, model and tower agree. Killed at any instant, the same command goes on. Several GPUs:
    accelerate launch --config_file FSDP.yaml -m rice.cli llava train RECIPE ...

    OUT/model: a folder for transformers (with low-rank adapters OUT/adapter instead, for rice llava merge);
    OUT/stage1, OUT/stage2: metrics.jsonl, course.png; OUT/prepared: rows that were not prepared before.

    ROOT has pretrain and instruct: folders of rice llava prepare, or .json, .jsonl or .parquet files with the pictures
    in ROOT/images.

    Example: rice llava train next --encoder rice-l14-560 --data ROOT --out out/rice

    On a laptop: rice world scenes --layout llava --out WORLD, then

    rice llava train mini --encoder mini-s8-128@64 --data WORLD --out out/mini

    Args:
        encoder: as in rice encoders; NAME@SIZE is the tile's edge, NAME,layer=-3 another hidden state than --layer.
        data: folder with the rows of both stages.
        out: folder to write; the same one resumes.
        weights: default (the published ones), none (random), or a path.
        seed: projector's initialisation, order of the rows.
        device: auto, cpu or cuda.
        workers: processes that read pictures, for each rank; on a CPU one, beside the threads that train.
        dry_run: say what would run and what it would take, and write nothing.
    """
    # No wait_passively() here: on a CPU this training is 1.4 times as fast with threads that spin, and one reader.
    from mllm.llava.material import Material
    from rice.encoders.load import describe
    from rice.encoders.spec import EncoderReference
    from rice.encoders.weights import plain

    material, reference = Material.at(data), EncoderReference.parse(encoder)
    if reference.layer is not None:  # also -1, which a spec does not tell from none
        recipe = dataclasses.replace(recipe, layer=reference.layer)
    spec = describe(reference, plain(weights))
    spec.check_size(spec.native_size, spec.native_size)
    if dry_run:
        print(_plan(recipe, material, encoder, spec))  # noqa: T201
        return
    _train(recipe, material, encoder, plain(weights), seed, out, device, workers)


def _train(
    config: LlavaConfig,
    material: "Material",
    encoder: str,
    weights: str | None,
    seed: int,
    out: Path,
    device: str,
    workers: int,
) -> None:
    from mllm.llava.train import ranks, training_of
    from probes.heads import Tower
    from probes.protocol import identity
    from rice.device import pick_device
    from rice.runs import alone, same_run

    require("accelerate", "mllm")
    tower = Tower.load(encoder, weights, pick_device("cpu"))
    recipe = next((name for name, (known, _) in RECIPES.items() if known == config), "own")
    facts = {"encoder": tower.fingerprint, "size": tower.encoder.spec.native_size, "data": material.fingerprint()}
    facts |= {"config": identity(config), "seed": seed, "lm": lm_digest(config.lm)}
    with ranks(device) as world:
        progress = bars_if(world.leads)
        how = {"recipe": recipe, "device": device, "workers": workers, "world": world}
        with world.leader_first():  # who prepares the rows
            if world.leads:
                same_run(out, facts)
                training_of(material, config, tower, seed=seed, folder=out, progress=progress, **how)
        with alone(out, ".train.lock", "training into") if world.leads else contextlib.nullcontext():
            training = training_of(material, config, tower, seed=seed, folder=out, progress=progress, **how)
            if world.leads:
                _say_refused(training)
            made = training.run(progress)
        if world.leads:
            _report(made, out, config)


def _say_refused(training: "Training") -> None:
    """Rows that were left out in preparing, by reason."""
    for rows in (training.pretrain, training.instruct):
        refused = {} if rows is None else rows.prepared["refused"]
        for reason, found in refused.items():
            named = ", ".join(str(row["id"] if isinstance(row, dict) else row) for row in found["rows"][:3])
            print(f"refused: {reason}: {found['count']:,} ({named})")  # noqa: T201


def _report(made: Path, out: Path, config: LlavaConfig) -> None:
    from mllm.llava.train import MODEL, STAGE1, STAGE2

    for stage in (STAGE1, STAGE2):
        draw_stage(out / stage)
    facts = LlavaFacts.read(made)
    for stage, count in facts.left_out.items():
        if count:
            print(f"{stage}: {count:,} rows left out: longer than {config.max_length:,} tokens")  # noqa: T201
    step = (
        f"rice llava merge {made} --out {out / MODEL}"
        if facts.lora
        else f"rice llava eval {made} --tasks table1 --out {out}"
    )
    print(f"{made}\nnext: {step}")  # noqa: T201


def draw_stage(stage: Path) -> None:
    """The course of a stage as a picture beside its log, where there is one."""
    from mllm.llava.trainer import METRICS
    from rice.train.picture import draw_course

    if (stage / METRICS).is_file():
        draw_course(stage / METRICS, stage / "course.png", {})


def _plan(config: LlavaConfig, material: "Material", encoder: str, spec: "EncoderSpec") -> str:
    """What a training would do and take, as text."""
    from mllm.llava.tiling import Tiles

    tiles = Tiles(tiling=config.tiling, edge=spec.native_size, side=spec.native_size // spec.patch)
    shapes = [("square", (1000, 1000)), ("4:3", (768, 1024)), ("A4", (1414, 1000))]
    counts = ", ".join(f"{name} {tiles.tokens(size):,} in {tiles.count(size)} tiles" for name, size in shapes)
    stages = [
        f"{name}   {stage.epochs} x all rows in steps of {stage.batch}, learning rate {stage.learning_rate:g}"
        for name, stage in (("stage 1", config.stage1), ("stage 2", config.stage2))
    ]
    lines = [
        f"encoder   {encoder}, hidden state {config.layer}, tiles of {tiles.edge} px",
        f"tokens    {counts}",
        f"model     {config.arch} with {config.lm}",
        f"data      {material.describe()}",
        *stages,
        f"cost      {_cost(config, spec, tiles)}",
    ]
    return "\n".join(lines)


def _cost(config: LlavaConfig, spec: "EncoderSpec", tiles: "Tiles") -> str:
    from mllm.llava.cost import UTILISATION, Language, price

    language = Language.of(config.lm)
    if language is None:
        return f"not known: nothing here says how large {config.lm} is"
    one = price(language, spec, tiles, (480, 640), text=_TEXT, answers=_ANSWERS)
    return (
        f"stage 2 {one.total / 1e12:,.3g} TFLOPs for a 4:3 picture with {_TEXT} tokens of text; 740,000 of them "
        f"{one.hours(740_000):,.3g} hours of an H200 at {UTILISATION:.0%} of its peak"
    )


def chat(
    model: Annotated[str, tyro.conf.Positional],
    question: Annotated[str | None, tyro.conf.Positional] = None,
    *,
    image: tuple[Path, ...] = (),
    max_new_tokens: int = 512,
    device: str = "auto",
) -> None:
    """Ask a model about pictures: one question, or a conversation where none is given (an empty line ends it).

    Example: rice llava chat out/rice/model "What does the sign say?" --image street.jpg

    Args:
        model: a folder of rice llava train, or any image-text-to-text model of transformers.
        question: what to ask.
        image: pictures that the first question is about.
        max_new_tokens: longest answer.
        device: auto, cpu or cuda.
    """
    wait_passively()
    from mllm.llava.talk import Talk

    talk = Talk.load(_model_folder(model), image, device=device, most=max_new_tokens)
    if question is not None:
        talk.ask(question, print_)
        return
    while line := _line():
        talk.ask(line, print_)


def print_(text: str) -> None:
    """A piece of an answer as it comes."""
    print(text, end="", flush=True)  # noqa: T201


def _line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _model_folder(model: str) -> str:
    if (Path(model) / FACTS).is_file() and LlavaFacts.read(Path(model)).lora:
        raise RiceError(f"{model} holds adapters; make a model of them first: rice llava merge {model} --out MODEL")
    return model


def merge(
    adapter: Annotated[Path, tyro.conf.Positional], *, out: Path, encoder: str | None = None, weights: str | None = None
) -> None:
    """Merge low-rank adapters into their language model: a plain folder for transformers, as if all had been trained.

    Example: rice llava merge out/lora/adapter --out out/lora/model

    Args:
        adapter: OUT/adapter of rice llava train lora.
        out: folder to write.
        encoder: the tower that was trained with, where its name has changed since.
        weights: its values, where they lie elsewhere now: none (random) or a path.
    """
    wait_passively()
    from mllm.llava.train import merge_into
    from probes.heads import Tower
    from rice.device import pick_device
    from rice.encoders.weights import plain

    facts = LlavaFacts.read(adapter)
    if out.exists():
        raise RiceError(f"expected a new folder as --out, {out} exists; name another one or remove it")
    given: Any = facts.weights if weights is None else plain(weights)
    tower = Tower.load(encoder or facts.encoder, given, pick_device("cpu"))
    if tower.fingerprint != facts.fingerprint:
        raise RiceError(f"{adapter} was trained with other weights of {facts.encoder} than these; name them: --weights")
    merge_into(adapter, out, tower.encoder)
    print(out)  # noqa: T201
