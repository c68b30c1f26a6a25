"""LLaVA's two stages around one encoder (section 4.1): the projector learns captions, then everything learns to answer.

FOLDER/stage1/projector.safetensors, metrics.jsonl     stage 1; checkpoints/ until it is done
FOLDER/stage2/metrics.jsonl                            stage 2
FOLDER/model/                                          the trained model, for transformers, with rice_llava.json
FOLDER/adapter/                                        instead of it, where low-rank adapters were trained
"""

import contextlib
import copy
import dataclasses
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from mllm.llava.check import check_packing, preflight
from mllm.llava.config import MINI, LlavaConfig, StageConfig
from mllm.llava.data import Examples, Reading
from mllm.llava.facts import LlavaFacts, lm_digest
from mllm.llava.lora import add_adapters, merge, save_adapters
from mllm.llava.material import Material
from mllm.llava.mini import write_mini_lm
from mllm.llava.model import (
    LANGUAGE,
    PARTS,
    PROJECTOR,
    TOWER,
    BuiltLlava,
    LanguageModel,
    build,
    projector_state,
    set_learning,
)
from mllm.llava.prompts import Prompt
from mllm.llava.rows import Rows
from mllm.llava.settings import TrainSettings
from mllm.llava.trainer import CHECKPOINTS, train
from probes.heads import Tower, config_from
from probes.protocol import identity
from probes.provenance import versions
from rice.device import pick_device
from rice.encoders.hf import quiet
from rice.encoders.hub import cached_revision
from rice.errors import RiceError
from rice.files import atomic_folder, atomic_path, read_object, remove_leftovers, write_json
from rice.progress import Progress
from rice.train.world import World, join

if TYPE_CHECKING:
    from rice.encoders.base import Encoder

STAGE0, STAGE1, STAGE2, MODEL, ADAPTER, LANGUAGE_MODEL = "stage0", "stage1", "stage2", "model", "adapter", "lm"
_PROJECTOR, _PREPARED, _COUNTS = "projector.safetensors", "prepared", "rows.json"
_UNTAUGHT = f"{LANGUAGE_MODEL}-untaught"
_CONVERSATIONS = 4
"""Of a micro-batch, where nothing else is asked for: 4 x 2,000 tokens keep a GPU busy."""
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@dataclass(kw_only=True)
class Training:
    """One training. `tower`: the encoder, which stays as it is: each stage trains a copy. `pretrain`: rows of stage 1,
    None where it is left out; `recipe`: its name, for the record; `workers`: processes that read pictures;
    `further`: texts that a tiny language model shall have tokens for, besides those of the rows."""

    tower: Tower
    pretrain: Rows | None
    instruct: Rows
    config: LlavaConfig
    seed: int
    folder: Path
    recipe: str = "own"
    device: str = "auto"
    workers: int = 4
    world: World = ALONE
    further: Sequence[str] = ()

    def run(self, progress: Progress) -> Path:
        """The folder of the trained model (of its adapters, with `lora`). Killed at any instant, it goes on.

        Errors: RiceError for a tower or language model that does not fit, rows that no model of this length can learn
        from, a checkpoint of another training.
        """
        out = self.folder / (ADAPTER if self.config.lora else MODEL)
        if self.world.leads:  # what a killed run was writing, as large as a model
            stages = [self.folder / stage for stage in (STAGE0, STAGE1, STAGE2)]
            remove_leftovers(self.folder, self.folder / _PREPARED, *stages)
            if (self.folder / LANGUAGE_MODEL).exists():
                shutil.rmtree(self.folder / _UNTAUGHT, ignore_errors=True)
        if not self._is_there(out):
            self._write_mini(progress)
            projector = self._stage1(progress)
            self._stage2(projector, out, progress)
        if self.world.leads:
            for stage in (STAGE0, STAGE1, STAGE2):
                shutil.rmtree(self.folder / stage / CHECKPOINTS, ignore_errors=True)
        return out

    def _write_mini(self, progress: Progress) -> None:
        """The tiny language model, with a tokenizer of the rows' own texts, made where it was asked for and taught the
        texts alone, without pictures. A random one that stays as it is could teach the projector nothing."""
        config, folder = self.config, self.folder / LANGUAGE_MODEL
        if config.lm != MINI or self._is_there(folder):
            return
        fresh = self.folder / _UNTAUGHT
        if self.world.leads:
            shutil.rmtree(fresh, ignore_errors=True)
            write_mini_lm(fresh, self._texts(), seed=self.seed)
        self.world.wait()
        language = LanguageModel.load(str(fresh), config.prompt)
        if config.lm_epochs:
            llava = build(self._copy(), language, config, tiling="one", arch="llava", seed=self.seed)
            stage = StageConfig(batch=config.stage1.batch, epochs=config.lm_epochs, learning_rate=config.lm_rate)
            self._learn(llava, self.instruct, stage, STAGE0, config.prompt, progress, blind=True)
        if self.world.leads:
            with atomic_folder(folder) as temporary, quiet():
                language.model.to("cpu").save_pretrained(temporary)
                language.tokenizer.save_pretrained(temporary)
            shutil.rmtree(fresh)
        self.world.wait()

    def _texts(self) -> Iterator[str]:
        there = [rows for rows in (self.pretrain, self.instruct) if rows is not None]
        of_rows = (turn.text for rows in there for row in rows for turn in row.turns)
        return itertools.chain(of_rows, self.further)

    def _is_there(self, path: Path) -> bool:
        """The same on every rank: none writes before all have looked."""
        with self.world.leader_first():
            found = path.exists()
        self.world.wait()
        return found

    def finish(self, progress: Progress) -> Path:
        """As `run`; the folder of a model that transformers loads, with the adapters merged into it."""
        out = self.run(progress)
        if not self.config.lora:
            return out
        merged = self.folder / MODEL
        if self.world.leads and not merged.exists():
            merge_into(out, merged, self._copy())
        self.world.wait()
        return merged

    def _stage1(self, progress: Progress) -> Path | None:
        """The projector alone, on whole pictures and plain captions. None where there is no such stage."""
        config, path = self.config, self.folder / STAGE1 / _PROJECTOR
        if self.pretrain is None or not config.stage1.epochs or config.blind:
            return None
        if not self._is_there(path):
            llava = build(self._copy(), self._language(), config, tiling="one", arch="llava", seed=self.seed)
            _, state = self._learn(llava, self.pretrain, config.stage1, STAGE1, "plain", progress)
            if self.world.leads:
                values = projector_state(llava.model, state)
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as file:
                    save_file({name: value.float().cpu().contiguous() for name, value in values.items()}, file)
            self.world.wait()
        return path

    def _stage2(self, projector: Path | None, out: Path, progress: Progress) -> None:
        """Everything that has a learning rate, on tiled pictures and conversations."""
        config = self.config
        llava = build(self._copy(), self._language(), config, tiling=config.tiling, arch=config.arch, seed=self.seed)
        if projector is not None:
            self._fill(llava, projector)
        trained, state = llava.model, None
        if config.stage2.epochs:
            trained, state = self._learn(llava, self.instruct, config.stage2, STAGE2, config.prompt, progress)
        if self.world.leads:
            with atomic_folder(out) as folder:
                if config.lora:
                    save_adapters(trained, folder, state)
                else:
                    llava.save(folder, state)
                self._facts(llava).write(folder)
        self.world.wait()

    def _learn(
        self,
        llava: BuiltLlava,
        rows: Rows,
        stage: StageConfig,
        name: str,
        prompt: Prompt,
        progress: Progress,
        *,
        blind: bool = False,
    ) -> tuple[Any, Mapping[str, torch.Tensor] | None]:
        """The trained model: that of `llava`, wrapped by peft where adapters were trained; its values, where FSDP keeps
        them in parts."""
        config = self.config
        blind = blind or config.blind
        rates = rates_of(stage, projector_only=name == STAGE1, blind=blind)
        adapted = config.lora > 0 and name == STAGE2
        bare = rates | ({LANGUAGE: 0.0} if adapted else {})  # before adapters are put in
        set_learning(llava.model, bare)
        check_packing(llava)
        if not blind:
            preflight(llava, self.tower.encoder, bare)
        reading = Reading.of(llava, prompt, max_length=config.max_length, blind=blind, most=stage.rows)
        examples = Examples(rows, reading, progress)
        if self.world.leads:
            counts = {"examples": len(examples), "left_out": examples.left_out, "too_long": examples.too_long}
            write_json(self.folder / name / _COUNTS, counts)
        model: Any = self._adapted(llava.model, rates) if adapted else llava.model
        outcome = train(
            model,
            examples,
            examples.lengths,
            settings=self._settings(stage, len(examples)),
            groups={
                prefix.rstrip("."): rates[part]
                for part, prefixes in PARTS.items()
                if rates[part] > 0
                for prefix in prefixes
            },
            out=self.folder / name,
            progress=progress,
            images=examples.images,
        )
        if outcome.state is not None:
            return model, outcome.state
        model.to("cpu").eval()
        if torch.cuda.is_available():  # whoever is asked next needs the memory
            torch.cuda.empty_cache()
        return model, None

    def _adapted(self, model: Any, rates: Mapping[str, float]) -> Any:
        """With adapters that begin alike in every run, on every rank."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return add_adapters(model, self.config.lora, self.config.lora_alpha, rates)

    def _settings(self, stage: StageConfig, examples: int) -> TrainSettings:
        batch, ranks = min(stage.batch, examples), self.world.size
        on_gpu = torch.cuda.is_available() and self.device != "cpu"
        parts = self.config.micro_batches or -(-batch // (_CONVERSATIONS * ranks))
        return TrainSettings(
            batch=batch,
            micro_batches=parts * ranks,
            epochs=stage.epochs,
            warmup=stage.warmup,
            weight_decay=stage.weight_decay,
            clip=stage.clip or 0.0,
            seed=self.seed,
            amp=on_gpu,
            checkpointing=self.config.checkpointing,
            save_every=self.config.save_every,
            workers=min(self.workers, len(os.sched_getaffinity(0)) if on_gpu else 1),  # beside the threads that train
            device="cpu" if self.device == "cpu" else "auto",
        )

    def _copy(self) -> "Encoder":
        return copy.deepcopy(self.tower.encoder).cpu()

    def _language(self) -> LanguageModel:
        dtype = torch.bfloat16 if self.config.dtype == "bf16" else torch.float32
        return LanguageModel.load(self._language_name(), self.config.prompt, dtype=dtype)

    def _language_name(self) -> str:
        return str(self.folder / LANGUAGE_MODEL) if self.config.lm == MINI else self.config.lm

    def _counts(self, what: str) -> dict[str, int]:
        """By stage, from the files that each stage left."""
        places = {stage: self.folder / stage / _COUNTS for stage in (STAGE1, STAGE2)}
        return {stage: read_object(place)[what] for stage, place in places.items() if place.is_file()}

    def _fill(self, llava: BuiltLlava, projector: Path) -> None:
        """Errors: RiceError where the file holds another model's."""
        own, found = projector_state(llava.model), load_file(projector)
        for name, value in own.items():
            if name in found and found[name].shape == value.shape:
                value.copy_(found[name])
            elif not name.endswith("image_newline"):  # which stage 1 has none of
                raise RiceError(f"{projector} does not hold {name} of this model's shape; delete it to train it anew")

    def _facts(self, llava: BuiltLlava) -> LlavaFacts:
        tower, config = self.tower, self.config
        spec = tower.encoder.spec
        lm = self._language_name()
        return LlavaFacts(
            encoder=tower.reference,
            weights=tower.weights,
            fingerprint=tower.fingerprint,
            trained=tower.encoder.trained,
            spec=dataclasses.asdict(spec),
            layer=llava.tower.asked,
            patch=spec.patch,
            size=llava.tiles.edge,
            tiling=llava.tiles.tiling,
            arch=llava.arch,
            lm=Path(lm).name if Path(lm).is_dir() else lm,
            lm_digest=lm_digest(lm),
            recipe=self.recipe,
            blind=config.blind,
            lora=config.lora,
            seed=self.seed,
            examples=self._counts("examples"),
            left_out=self._counts("left_out"),
            refused={
                name: {reason: found["count"] for reason, found in rows.prepared["refused"].items()}
                for name, rows in ((STAGE1, self.pretrain), (STAGE2, self.instruct))
                if rows is not None
            },
            config=identity(config),
            data=self.fingerprint(),
            versions=versions() | ({} if Path(lm).is_dir() else {lm: cached_revision(lm)}),
        )

    def fingerprint(self) -> str:
        """Of both stages' rows."""
        return ",".join(rows.fingerprint()[:16] for rows in (self.pretrain, self.instruct) if rows is not None)


def training_of(
    material: Material,
    config: LlavaConfig,
    tower: Tower,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    **how: Any,
) -> Training:
    """A training on a data root that writes under `folder`, where the root's rows are prepared if they are not yet.

    `how`: further fields of `Training`. Errors: RiceError, as `rice llava prepare`.
    """
    if config.stage1.epochs and not config.blind:
        material.expect_pretrain()
    prepared = folder / _PREPARED
    first = None if material.pretrain is None else material.rows(material.pretrain, prepared, progress)
    second = material.rows(material.instruct, prepared, progress)
    device = "cpu" if tower.encoder.device.type == "cpu" else "auto"
    facts = {"device": device} | how
    return Training(tower=tower, pretrain=first, instruct=second, config=config, seed=seed, folder=folder, **facts)


@contextlib.contextmanager
def ranks(device: str) -> Iterator[World]:
    """The ranks of accelerate launch or torchrun; this process alone where there are none."""
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with join(device) as world:
            yield world
    else:
        yield dataclasses.replace(ALONE, device=pick_device(device))


def merge_into(adapters: Path, out: Path, encoder: "Encoder") -> None:
    """Write the plain model of a folder of adapters. `encoder`: what they were trained with, which is taken over.

    Errors: RiceError where the encoder or the language model is another one.
    """
    facts = LlavaFacts.read(adapters)
    if not facts.lora:
        raise RiceError(f"{adapters} holds a whole model, which has nothing to merge; use it as it is")
    config = config_from(LlavaConfig, facts.config)
    name = str(adapters.parent / LANGUAGE_MODEL) if config.lm == MINI else config.lm
    if facts.lm_digest != lm_digest(name):
        raise RiceError(f"{adapters} was trained with other values of the language model than {name} holds now")
    language = LanguageModel.load(name, config.prompt)
    llava = build(encoder, language, config, tiling=config.tiling, arch=config.arch, seed=facts.seed)
    merged = merge(llava, adapters)
    with atomic_folder(out) as folder:
        merged.save(folder)
        dataclasses.replace(facts, lora=0).write(folder)


def rates_of(stage: StageConfig, *, projector_only: bool, blind: bool = False) -> dict[str, float]:
    """Part -> learning rate; 0: it stays as it is."""
    projector = stage.projector_rate or stage.learning_rate
    seen = 0.0 if blind else 1.0
    if projector_only:
        return {TOWER: 0.0, PROJECTOR: projector * seen, LANGUAGE: 0.0}
    return {TOWER: stage.tower_rate * seen, PROJECTOR: projector * seen, LANGUAGE: stage.learning_rate}
