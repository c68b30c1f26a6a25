"""LISA's training around one encoder: a LLaVA first, then language model and mask decoder learn to segment.

FOLDER/llava/                the LLaVA's training (mllm.llava.train), where it is not another's
FOLDER/prepared/SET_SPLIT/   the sets to segment, read and checked
FOLDER/segment/              metrics.jsonl; lengths.npz, the draws' tokens; checkpoints/ until it is done
FOLDER/model/                the trained model (mllm.lisa.model)
"""

import contextlib
import dataclasses
import gc
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import torch

from mllm.lisa.config import DECODER, LAYERS, PROMPT, LisaConfig, segmenter_place
from mllm.lisa.data import Kept, SegmentExamples
from mllm.lisa.facts import LisaFacts
from mllm.lisa.leaks import coco_numbers, without
from mllm.lisa.material import LisaMaterial
from mllm.lisa.mixture import KINDS, Kind, Mixture
from mllm.lisa.model import Lisa, Weights, add_seg, load_llava, save_lisa
from mllm.lisa.phrases import ABSENT, ANSWERS, EXPLAIN, QUESTIONS, SENTENCES, converse
from mllm.lisa.pictures import TABLE, Pictures
from mllm.lisa.segmenter import Segmenter, Size
from mllm.lisa.sets import DataSet
from mllm.lisa.trainer import LisaTrainer
from mllm.llava.config import MINI
from mllm.llava.data import Examples, Reading
from mllm.llava.facts import LlavaFacts, lm_digest
from mllm.llava.lora import add_adapters
from mllm.llava.loss import bare_model
from mllm.llava.model import LANGUAGE, PARTS, PROJECTOR, TOWER, Llava, set_learning
from mllm.llava.rows import Rows
from mllm.llava.settings import TrainSettings
from mllm.llava.tiling import Tiles
from mllm.llava.train import ALONE, MODEL, training_of
from mllm.llava.trainer import CHECKPOINTS, train
from probes.cache import weights_digest
from probes.heads import Tower
from probes.protocol import identity
from probes.provenance import versions
from rice.errors import RiceError
from rice.files import atomic_folder, leftovers, sha256_json
from rice.progress import Progress
from rice.train.world import World

LLAVA, SEGMENT, PREPARED, LENGTHS = "llava", "segment", "prepared", "lengths.npz"
_PLACES = {PROMPT: ("projection",), DECODER: ("segmenter.model.mask_decoder",)}
_SAMPLES = 4
"""Of a micro-batch, where nothing else is asked for."""


@dataclass(kw_only=True)
class LisaTraining:
    """One training. `tower`: the encoder, None where the LLaVA is there already; `start`: its folder; `recipe`: its
    name, for the record; `workers`: processes that read pictures."""

    tower: Tower | None
    start: Path | None
    material: LisaMaterial
    config: LisaConfig
    seed: int
    folder: Path
    recipe: str = "own"
    device: str = "auto"
    workers: int = 4
    world: World = ALONE
    _sets: dict[Kind, list[Pictures]] = field(default_factory=dict)
    _rows: Rows | None = None

    def run(self, progress: Progress) -> Path:
        """The folder of the trained model. Killed at any instant, it goes on.

        Errors: RiceError for data that is not there or does not fit, a checkpoint of another training. What can be
        known of data and segmenter is said before anything is trained.
        """
        out = self.folder / MODEL
        if self.world.leads:  # what a killed run was writing, as large as a model
            for leftover in leftovers(out):
                shutil.rmtree(leftover, ignore_errors=True)
        if not self._is_there(out):
            self._check()
            with self.world.leader_first():
                self._sets = self._read_sets(progress)
            self._check_lengths()
            start = self._llava(progress)
            self._segment(start, out, progress)
            gc.collect()  # whoever is asked next needs the memory; a model and its optimiser hold each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if self.world.leads:
            shutil.rmtree(self.folder / SEGMENT / CHECKPOINTS, ignore_errors=True)
        return out

    def _is_there(self, path: Path) -> bool:
        with self.world.leader_first():
            found = path.exists()
        self.world.wait()
        return found

    def _check(self) -> None:
        """Errors: RiceError for rows or a segmenter that are not there: else the LLaVA would be trained first."""
        if self.start is None:
            self.material.rows(self.config.llava())
        self._training_sets()
        if self.world.leads:
            Segmenter.load(segmenter_place(self.config.segmenter))

    def _check_lengths(self) -> None:
        """Errors: RiceError where a picture alone has more tokens than a conversation may have."""
        sizes = {size for found in self._sets.values() for pictures in found for size in _sizes(pictures)}
        if self.start is not None:
            tiles = LlavaFacts.read(self.start).tiles()
        else:
            assert self.tower is not None
            spec = self.tower.encoder.spec
            tiles = Tiles(tiling=self.config.tiling, edge=spec.native_size, side=spec.native_size // spec.patch)
        count, (height, width) = max((tiles.tokens(size), size) for size in sizes)
        if count >= self.config.max_length:
            raise RiceError(
                f"a picture of {width} x {height} has {count:,} tokens, of {self.config.max_length:,} that fit with "
                "its questions; raise --max-length, or take another --tiling"
            )

    def _training_sets(self) -> list[DataSet]:
        """Those with a share of the mixture. Errors: RiceError where there are none."""
        sets = self.material.training()
        shares = dict(zip(KINDS, self.config.segment.mixture, strict=True))
        found = [one for one in sets if shares[one.kind]]
        if not found:
            named = ", ".join(f"{one.full_name} ({one.kind})" for one in sets)
            raise RiceError(
                f"expected sets to segment with a share of the mixture, got {named} and the shares {shares}, which "
                "leave visual questions alone; give --segment.mixture others"
            )
        return found

    def _read_sets(self, progress: Progress) -> dict[Kind, list[Pictures]]:
        found: dict[Kind, list[Pictures]] = defaultdict(list)
        sets = self._training_sets()
        if self.config.segment.exclude_judged:
            judged = self.material.pictures(self.material.judged("all"), self.folder / PREPARED, progress)
            numbers = coco_numbers(judged)
            sets = [without(one, numbers) for one in sets]
        for one, pictures in zip(sets, self.material.pictures(sets, self.folder / PREPARED, progress), strict=True):
            found[one.kind].append(pictures)
        return dict(found)

    def _llava(self, progress: Progress) -> Path:
        """The LLaVA to begin with."""
        if self.start is not None:
            return self.start
        if self.tower is None:
            raise RiceError("expected an encoder to train around or a model to begin with, got neither")
        config = self.config.llava()
        with self.world.leader_first():  # who prepares the rows
            training = training_of(
                self.material.rows(config),
                config,
                self.tower,
                seed=self.seed,
                folder=self.folder / LLAVA,
                progress=progress,
                recipe=f"lisa-{self.recipe}",
                device=self.device,
                workers=self.workers,
                world=self.world,
                further=list(self._texts()),
            )
        return training.finish(progress)

    def _texts(self) -> Iterator[str]:
        """What a tiny language model shall have tokens for: the conversations that it will have."""
        dice, varied = Random(self.seed), self.config.segment.varied
        for pictures in (one for sets in self._sets.values() for one in sets) if self.config.lm == MINI else ():
            for picture in pictures:
                for target in picture.targets:
                    yield from (part for text in target.texts for part in converse(target, text, dice, varied=varied))

    def _segment(self, start: Path, out: Path, progress: Progress) -> None:
        """The stage itself."""
        lisa, llava, digest = self._build(start)
        examples = self._examples(lisa, llava, progress)
        outcome = train(
            lisa,
            examples,
            examples.lengths,
            settings=self._settings(),
            groups=self._groups(),
            out=self.folder / SEGMENT,
            progress=progress,
            images=examples.images,
            kind=LisaTrainer,
        )
        if self.world.leads:
            if outcome.state is not None:  # FSDP kept it in parts, of which the leader has gathered all
                lisa, llava, _ = self._build(start)
                with torch.no_grad():
                    for name, value in lisa.learning().items():
                        value.copy_(outcome.state[name])
            lisa.to("cpu").eval()
            with atomic_folder(out) as folder:
                merged = lisa.llava.merge_and_unload() if self.config.segment.lora else llava.model
                save_lisa(lisa, dataclasses.replace(llava, model=merged), folder)
                LlavaFacts.read(start).write(folder)
                self._facts(start, digest, examples).write(folder)
        self.world.wait()

    def _build(self, start: Path) -> tuple[Lisa, Llava, str]:
        """The model, what of it learns switched on; its Llava; the digest of the segmenter's values."""
        config = self.config.segment
        llava = load_llava(start, torch.bfloat16 if self.config.dtype == "bf16" else torch.float32)
        with _seeded(self.seed):
            seg_id = add_seg(llava.model, llava.tokenizer)
        segmenter = Segmenter.load(segmenter_place(self.config.segmenter))
        digest = weights_digest(segmenter.model)
        rates = self.rates()
        bare = rates | ({LANGUAGE: 0.0} if config.lora else {})
        set_learning(llava.model, bare)
        model: Any = llava.model
        if config.lora:
            layers = LAYERS[config.lora_layers]
            with _seeded(self.seed):
                model = add_adapters(llava.model, config.lora, config.lora_alpha, rates, layers=layers)
            for table in (bare_model(model).get_input_embeddings(), bare_model(model).get_output_embeddings()):
                table.weight.requires_grad_(True)  # the new token's rows, as in LISA
        with _seeded(self.seed):
            lisa = Lisa(model, segmenter, seg_id, Weights(ce=config.ce, bce=config.bce, dice=config.dice))
        if rates[DECODER] == 0:
            segmenter.requires_grad_(False)
        return lisa, llava, digest

    def rates(self) -> dict[str, float]:
        """Part -> learning rate; 0: it stays as it is."""
        config = self.config.segment
        others = {part: config.rate(part) for part in (PROJECTOR, PROMPT, DECODER)}
        return {LANGUAGE: config.learning_rate, TOWER: config.tower_rate, **others}

    def _groups(self) -> dict[str, float]:
        rates = self.rates()
        names = {part: [f"llava.{prefix.rstrip('.')}" for prefix in prefixes] for part, prefixes in PARTS.items()}
        places = {**names, **_PLACES}
        return {name: rates[part] for part, found in places.items() if rates[part] > 0 for name in found}

    def _examples(self, lisa: Lisa, llava: Llava, progress: Progress) -> SegmentExamples:
        config = self.config.segment
        prompt: Any = self.config.prompt
        reading = Reading.of(llava, prompt, max_length=self.config.max_length)
        sets: dict[Kind, Sequence[Any]] = dict(self._sets)
        if config.mixture[2] and (material := self.material.llava) is not None:
            with self.world.leader_first():  # who prepares them
                self._rows = material.rows(material.instruct, self.folder / LLAVA / PREPARED, progress)
            sets["vqa"] = [Examples(self._rows, reading, progress)]
        rates = {kind: rate for kind, rate in zip(KINDS, config.mixture, strict=True) if rate}
        parts = {kind: sets[kind] for kind in KINDS if kind in sets and kind in rates}
        with self.world.leader_first():  # who counts
            return SegmentExamples(
                parts,
                Mixture(parts, rates, seed=self.seed),
                reading,
                lisa.segmenter.frame,
                progress,
                count=config.steps * config.batch,
                expressions=config.expressions,
                shuffled=self.config.shuffled,
                unseen=config.unseen,
                varied=config.varied,
                kept=Kept(self.folder / SEGMENT / LENGTHS, self._drawn_from(llava)),
            )

    def _drawn_from(self, llava: Llava) -> str:
        """SHA-256 of what decides how many tokens each draw has."""
        return sha256_json(
            {
                "config": identity(self.config),
                "seed": self.seed,
                "sets": self._sources(),
                "tokenizer": sorted(llava.tokenizer.get_vocab().items()),
                "tiles": dataclasses.asdict(llava.tiles),
                "phrases": [*QUESTIONS, *SENTENCES, *EXPLAIN, *ANSWERS, ABSENT],
                "version": versions()["rice-suite"],
            }
        )

    def _settings(self) -> TrainSettings:
        config, ranks = self.config.segment, self.world.size
        on_gpu = torch.cuda.is_available() and self.device != "cpu"
        parts = self.config.micro_batches or -(-config.batch // (_SAMPLES * ranks))
        return TrainSettings(
            batch=config.batch,
            micro_batches=parts * ranks,
            warmup=config.warmup,
            weight_decay=config.weight_decay,
            clip=config.clip or 0.0,
            beta2=config.beta2,
            decay=config.decay,
            seed=self.seed,
            amp=on_gpu,
            checkpointing=self.config.checkpointing,
            save_every=self.config.save_every,
            workers=min(self.workers, len(os.sched_getaffinity(0)) if on_gpu else 1),
            device="cpu" if self.device == "cpu" else "auto",
        )

    def refused(self) -> list[str]:
        """A line for each reason for which a set's items were left out."""
        return [
            f"{pictures.folder.name}: left out: {reason}: {found['count']:,} ({', '.join(found['first'][:3])})"
            for sets in self._sets.values()
            for pictures in sets
            for reason, found in pictures.about["refused"].items()
        ]

    def _sources(self) -> dict[str, dict[str, Any]]:
        """What the mixture draws from: name -> fingerprint and counts."""
        found: dict[str, dict[str, Any]] = {
            pictures.folder.name: {"fingerprint": pictures.fingerprint(), **pictures.about["counts"]}
            for sets in self._sets.values()
            for pictures in sets
        }
        if self._rows is not None:
            found["vqa"] = {"fingerprint": self._rows.fingerprint(), "rows": len(self._rows)}
        return found

    def _facts(self, start: Path, digest: str, examples: SegmentExamples) -> LisaFacts:
        return LisaFacts(
            recipe=self.recipe,
            segmenter=self.config.segmenter,
            segmenter_digest=digest,
            start=str(lm_digest(str(start))),
            shuffled=self.config.shuffled,
            seed=self.seed,
            steps=self.config.segment.steps,
            drawn=examples.drawn,
            sets=self._sources(),
            config=identity(self.config),
            versions=versions(),
        )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """What begins at random begins alike in every run, on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _sizes(pictures: Pictures) -> set[Size]:
    """Of all pictures, without decoding their targets."""
    table = pq.read_table(pictures.folder / TABLE, columns=["height", "width"], memory_map=True)
    return set(zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True))
