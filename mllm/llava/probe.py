"""The multimodal probe (paper, section 4.1, Table 1): a LLaVA-NeXT is trained around the encoder, and questioned."""

import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mllm.llava.config import LlavaProbeConfig
from mllm.llava.facts import lm_digest
from mllm.llava.material import Material
from probes.protocol import Metric, Probe, Resampling
from rice.files import sha256_json
from rice.progress import Progress

if TYPE_CHECKING:
    from rice.encoders.base import Encoder

_TRAINING, _EVALUATION = "training", "evaluation"


class LlavaProbe(Probe):
    """Projector on captions, then tower, projector and language model on conversations, then lmms-eval's tasks.

    The data root has the rows of both stages and, where lmms-eval shall not ask the hub, the questions: see
    `mllm.llava.material`. `items.parquet`: each question's score. `kept/`: nothing; the model is as large as its
    language model (`rice llava train` keeps it).
    """

    name, version, Config = "llava", 1, LlavaProbeConfig
    config: LlavaProbeConfig

    @cached_property
    def material(self) -> Material:
        """The data root's parts. Errors: NotThisLayoutError; RiceError."""
        return Material.at(self.data)

    def inspect(self) -> str:
        """One line on what would train and ask. Errors: RiceError also for tasks that cannot be asked."""
        from mllm.llava.benchmarks import find_tasks

        material = self.material
        include = [material.tasks] if material.tasks else []
        tasks = find_tasks(self.config.tasks, data=material.benchmarks, include=include)
        local = "" if material.benchmarks is None else ", questions on this machine"
        return f"{material.describe()}; asks {len(tasks)} tasks{local}"

    def fingerprint(self) -> str:
        """SHA-256 of rows, names and sizes of their pictures, questions, and a local language model."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return sha256_json([self.material.fingerprint(), lm_digest(self.config.lm)])

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterable[Metric]:
        """Train and ask; see `probes.protocol.Probe.run`."""
        from mllm.llava.evaluate import metrics_of, run_tasks
        from mllm.llava.items import write_items
        from mllm.llava.train import training_of
        from probes.heads import Tower

        folder = workdir / f"seed{seed}"
        for other in workdir.glob("seed*"):  # of seeds that are stored: each holds a model
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        tower, place = Tower.of(encoder), folder / _TRAINING
        training = training_of(self.material, self.config.training(), tower, seed=seed, folder=place, progress=progress)
        model = training.finish(progress)
        scored = run_tasks(
            model,
            self.config.tasks,
            folder / _EVALUATION,
            data=self.material.benchmarks,
            include=[self.material.tasks] if self.material.tasks else [],
            limit=self.config.limit,
            batch_size=self.config.eval_batch,
            device=encoder.device.type,
        )
        tables = [one.items for one in scored if one.items is not None]
        if tables:
            write_items(workdir / "items.parquet", tables)
        yield from metrics_of(scored)

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`; each task's questions are drawn on their own."""
        from mllm.llava.items import resampling

        return resampling(items, named=True)
