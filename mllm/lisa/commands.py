"""The verb `rice lisa train`."""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mllm.lisa.config import DECODER, PROJECTOR, PROMPT, LisaConfig
from mllm.lisa.facts import FACTS as LISA_FACTS
from mllm.lisa.recipe import RECIPES
from mllm.llava.facts import FACTS as LLAVA_FACTS
from mllm.llava.facts import LlavaFacts, lm_digest
from rice.errors import RiceError, require
from rice.progress import bars_if
from rice.recipes import choice

if TYPE_CHECKING:
    from mllm.lisa.material import LisaMaterial
    from mllm.lisa.train import LisaTraining
    from probes.heads import Tower


def train(
    recipe: Annotated[LisaConfig, choice(RECIPES)],
    *,
    data: Path,
    out: Path,
    encoder: str | None = None,
    weights: str = "default",
    llava: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 4,
    dry_run: bool = False,
) -> None:
    """Train LISA around an encoder by a recipe whose every field is a flag: a LLaVA that answers with masks.

    rice lisa train RECIPE --help lists the flags. First a LLaVA is trained, as by rice llava train; then it gets a
    token [SEG], whose prediction prompts the mask decoder of a SAM, and learns on a mixture of semantic classes,
    referring expressions, visual questions and reasoning. Killed at any instant, the same command goes on. Several
    GPUs: accelerate launch --config_file FSDP.yaml -m rice.cli lisa train RECIPE ...

    OUT/model: a folder for transformers (rice llava chat takes it, too), with the segmenter beside it; OUT/segment:
    metrics.jsonl, course.png; OUT/prepared: the sets as they were read; OUT/llava: the LLaVA's own training.

    ROOT is LISA's tree: pretrain and instruct (as for rice llava train), refer_seg/{refcoco,refcoco+,refcocog},
    ade20k, cocostuff with coco, mapillary, vlpart, reason_seg; what is not there is left out of the mixture.

    Example: rice lisa train next --encoder rice-l14-336 --weights PATH --data ROOT --out out/rice

    On a laptop: rice world scenes --layout refer --size 96 --train 3000 --out WORLD, then

    rice lisa train mini --encoder mini-s8-128@48 --data WORLD --out out/mini

    Args:
        data: folder with rows and sets; rice data check says what is found in it.
        out: folder to write; the same one resumes.
        encoder: as in rice encoders; NAME@SIZE is the tile's edge, NAME,layer=-3 another hidden state than --layer.
        weights: of the encoder: default (the published ones), none (random), or a path.
        llava: a model of rice llava train to begin with, instead of an encoder: its language model, tiling and prompt
            are kept, and stages 1 and 2 are left out.
        seed: initialisation, order of rows, draws of the mixture.
        device: auto, cpu or cuda.
        workers: processes that read pictures, for each rank; on a CPU one, beside the threads that train.
        dry_run: say what would run, and write nothing.
    """
    from mllm.lisa.material import LisaMaterial

    if (encoder is None) == (llava is None):
        raise RiceError(
            "expected an encoder to train around, --encoder NAME, or a model to begin with, --llava MODEL, got "
            + ("neither" if encoder is None else "both; leave one out")
        )
    material = LisaMaterial(data)
    config = recipe if llava is None else _as_begun(recipe, llava)
    if encoder is not None:
        config = _layer(config, encoder, weights)
        material.rows(config.llava())
    material.training()
    if dry_run:
        print(_plan(config, material, encoder or str(llava)))  # noqa: T201
        return
    _train(config, material, encoder, weights, llava, seed, out, device, workers)


def _as_begun(config: LisaConfig, llava: Path) -> LisaConfig:
    """With what the model to begin with has fixed. Errors: RiceError for what rice llava train did not write."""
    from probes.heads import config_from

    if not (llava / LLAVA_FACTS).is_file():
        raise RiceError(f"expected a model of rice llava train, found no {llava / LLAVA_FACTS}")
    if (llava / LISA_FACTS).is_file():
        raise RiceError(
            f"expected a model of rice llava train, {llava} holds one that has learnt to segment; give what it began "
            "with, or an --encoder"
        )
    facts = LlavaFacts.read(llava)
    first = config_from(type(config.llava()), facts.config)
    names = ("lm", "tiling", "prompt", "layer", "stage1", "stage2", "lm_epochs", "lm_rate")
    return dataclasses.replace(config, **{name: getattr(first, name) for name in names})


def _layer(config: LisaConfig, encoder: str, weights: str) -> LisaConfig:
    from rice.encoders.load import describe
    from rice.encoders.spec import EncoderReference
    from rice.encoders.weights import plain

    reference = EncoderReference.parse(encoder)
    spec = describe(reference, plain(weights))
    spec.check_size(spec.native_size, spec.native_size)
    return config if reference.layer is None else dataclasses.replace(config, layer=reference.layer)


def _train(
    config: LisaConfig,
    material: "LisaMaterial",
    encoder: str | None,
    weights: str,
    llava: Path | None,
    seed: int,
    out: Path,
    device: str,
    workers: int,
) -> None:
    from mllm.lisa.train import LisaTraining
    from mllm.llava.train import ranks
    from probes.heads import Tower
    from probes.protocol import identity
    from rice.device import pick_device
    from rice.encoders.weights import plain
    from rice.runs import alone, same_run

    require("accelerate", "mllm")
    tower = None if encoder is None else Tower.load(encoder, plain(weights), pick_device("cpu"))
    name = next((name for name, (known, _) in RECIPES.items() if known == config), "own")
    facts: dict[str, object] = {
        "begins": _begins(tower, llava),
        "data": material.fingerprint(),
        "config": identity(config),
    }
    facts |= {"seed": seed, "lm": lm_digest(config.lm), "segmenter": lm_digest(config.segmenter)}
    with ranks(device) as world:
        if world.leads:
            same_run(out, facts)
        world.wait()
        training = LisaTraining(
            tower=tower,
            start=llava,
            material=material,
            config=config,
            seed=seed,
            folder=out,
            recipe=name,
            device=device,
            workers=workers,
            world=world,
        )
        with alone(out, ".train.lock", "training into") if world.leads else contextlib.nullcontext():
            made = training.run(bars_if(world.leads))
        if world.leads:
            _report(training, made, out)


def _begins(tower: "Tower | None", llava: Path | None) -> str:
    """A digest of what the training begins with."""
    if tower is not None:
        return f"{tower.fingerprint} at {tower.encoder.spec.native_size}"
    assert llava is not None
    return str(lm_digest(str(llava)))


def _report(training: "LisaTraining", made: Path, out: Path) -> None:
    from mllm.lisa.train import SEGMENT
    from mllm.llava.commands import draw_stage
    from mllm.llava.train import STAGE1, STAGE2

    for stage in (out / "llava" / STAGE1, out / "llava" / STAGE2, out / SEGMENT):
        draw_stage(stage)
    for line in training.refused():
        print(line)  # noqa: T201
    print(f"{made}\nnext: rice lisa eval {made} --data {training.material.root} --out {out}")  # noqa: T201


def _plan(config: LisaConfig, material: "LisaMaterial", begins: str) -> str:
    from mllm.lisa.mixture import KINDS  # which imports torch

    stage = config.segment
    samples = stage.steps * stage.batch
    there = {one.kind for one in material.training()} | ({"vqa"} if material.llava is not None else set())
    named = zip(KINDS, stage.mixture, ("classes", "expressions", "questions", "reasoning"), strict=True)
    shares = {name: share for kind, share, name in named if share and kind in there}
    kinds = ", ".join(f"{share / sum(shares.values()):.0%} {name}" for name, share in shares.items())
    learns = f"adapters of rank {stage.lora} on {stage.lora_layers}, token tables" if stage.lora else "all of it"
    return "\n".join(
        [
            f"begins    {begins}, {config.arch} in tiles {config.tiling} with {config.lm}",
            f"data      {material.describe()}",
            f"stage 1   {config.stage1.epochs} x all captions, stage 2 {config.stage2.epochs} x all conversations",
            f"segment   {stage.steps:,} steps of {stage.batch}, {samples:,} samples: {kinds}",
            f"learns    language model: {learns} at {stage.learning_rate:g}; tower at {stage.tower_rate:g}; "
            f"projector at {stage.rate(PROJECTOR):g}; prompts at {stage.rate(PROMPT):g}; "
            f"mask decoder of {config.segmenter} at {stage.rate(DECODER):g}",
        ]
    )
