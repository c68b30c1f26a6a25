"""The referring segmentation probe (paper, section 4.1, Table 2): a LISA is trained around the encoder, and judged."""

import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mllm.lisa.config import LisaProbeConfig
from mllm.lisa.material import LisaMaterial
from mllm.llava.facts import lm_digest
from probes.protocol import Metric, Probe, Resampling
from rice.files import sha256_json
from rice.progress import Progress

if TYPE_CHECKING:
    from rice.encoders.base import Encoder

_TRAINING, _EVALUATION = "training", "evaluation"


class LisaProbe(Probe):
    """A LLaVA around the encoder that learns to prompt a SAM, then cIoU and its relatives of every split.

    The data root is LISA's tree: see `mllm.lisa.material`. `items.parquet`: each expression's intersection and union.
    `kept/`: nothing; the model is as large as its language model (`rice lisa train` keeps it).
    """

    name, version, Config = "refseg", 1, LisaProbeConfig
    config: LisaProbeConfig

    @cached_property
    def material(self) -> LisaMaterial:
        """The data root's parts."""
        return LisaMaterial(self.data)

    def inspect(self) -> str:
        """One line on what would be learnt and judged. Errors: NotThisLayoutError; RiceError, also for splits that are
        not there."""
        self.material.training()
        self.material.rows(self.config.llava())
        judged = self.material.judged(self.config.splits)
        return f"{self.material.describe()}; here on {len(judged)} splits"

    def fingerprint(self) -> str:
        """SHA-256 of rows, sets, and a local language model and segmenter."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        local = [lm_digest(self.config.lm), lm_digest(self.config.segmenter)]
        return sha256_json([self.material.fingerprint(), local])

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterable[Metric]:
        """Train and judge; see `probes.protocol.Probe.run`."""
        from mllm.lisa.asked import Asked
        from mllm.lisa.evaluate import evaluate_splits
        from mllm.lisa.items import write_items
        from mllm.lisa.model import Trained
        from mllm.lisa.train import LisaTraining
        from probes.heads import Tower

        folder = workdir / f"seed{seed}"
        for other in workdir.glob("seed*"):  # of seeds that are stored: each holds a model
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        training = LisaTraining(
            tower=Tower.of(encoder),
            start=None,
            material=self.material,
            config=self.config.training(),
            seed=seed,
            folder=folder / _TRAINING,
            device="cpu" if encoder.device.type == "cpu" else "auto",
        )
        model = training.run(progress)
        trained = Trained.load(model, device=encoder.device.type)
        asked = Asked(limit=self.config.limit, together=self.config.eval_batch)
        judged = list(
            evaluate_splits(
                trained, self.material, self.config.splits, folder / _EVALUATION, asked=asked, progress=progress
            )
        )
        write_items(workdir / "items.parquet", [one.items for one in judged])
        for one in judged:
            yield from one.metrics(named=True)

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`; each split's pictures are drawn on their own."""
        from mllm.lisa.items import resampling

        return resampling(items)
