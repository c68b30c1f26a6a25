"""The training run: steps until the end, a checkpoint now and then, and nothing lost when it is killed in between."""

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

from rice.data.stream import Batch, RegionStream
from rice.errors import RiceError
from rice.files import atomic_write, write_json
from rice.train.agree import gather
from rice.train.config import TrainConfig
from rice.train.cost import classifier_gflops, forward_gflops
from rice.train.learner import Learner
from rice.train.metrics import MetricsLog, StepRate, peak_flops
from rice.train.retrieval import Retrieval
from rice.train.state import Checkpoints, Saved
from rice.train.validate import validate
from rice.train.world import Later

CHECKPOINTS, METRICS, QUARANTINE = "checkpoints", "metrics.jsonl", "quarantine.jsonl"
_SHOWN_SAMPLES = 5


class _Done(NamedTuple):
    """A step whose numbers are still on their way. `speed`: None where the step is not logged."""

    values: Later
    samples: list[int]
    facts: dict[str, Any]
    speed: Mapping[str, float | None] | None


def resume(checkpoints: Checkpoints, learner: Learner) -> Saved | None:
    """Take over the newest checkpoint of the run's own folder, if there is one.

    Errors: RiceError for a checkpoint of another run, or a damaged one.
    """
    saved = checkpoints.latest()
    if saved is not None:
        state = learner.state()
        checkpoints.load(saved, state)
        learner.restore(state)
    return saved


class Run:
    """One training run on this rank: everything is built, `go` does it."""

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        stream: RegionStream,
        validation: RegionStream | None,
        out: Path,
        checkpoints: Checkpoints,
        log: MetricsLog,
    ) -> None:
        self.config, self.learner, self.stream, self.validation = config, learner, stream, validation
        self.world, self.out, self.checkpoints, self.log = learner.world, out, checkpoints, log
        device, dtype = self.world.device, torch.bfloat16 if learner.bf16 else torch.float32
        classes = {name: bank.classes for name, bank in learner.banks.items()}
        self._rate = StepRate(
            config.batch,
            device,
            flops=3e9 * (forward_gflops(config) + classifier_gflops(config, classes)),
            peak=peak_flops(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else None,
            ranks=self.world.size,
        )
        self._corrupt = 0.0
        self._pending: _Done | None = None

    def go(self, saved: Saved | None) -> None:
        """From the step after `saved`, or the first, to the last one.

        Errors: RiceError for a loss that is not finite (the newest checkpoint is from before it), and whatever the
        data raises. KeyboardInterrupt after SIGINT or SIGTERM, once the state is saved.
        """
        start = saved.step if saved else 0
        self._corrupt = saved.facts["corrupt"] if saved else 0.0
        if saved is None:
            self._validate(0)
        batches = self.stream.batches(start, batch=self.config.batch, rank=self.world.rank, world=self.world.size)
        with _stop_signals() as stopped:
            for step in range(start, self.config.steps):
                stop = self._step(step, batches, stop=bool(stopped))
                self._after(step + 1, stop=stop)
                if stop:
                    raise KeyboardInterrupt

    def _step(self, step: int, batches: Iterator[Batch], *, stop: bool) -> bool:
        """One update; whether any rank was told to stop."""
        waiting = time.perf_counter()
        batch = next(batches)
        waited_s = time.perf_counter() - waiting
        regions, corrupt, stops = self.world.total(self.learner.labelled(batch), int(batch.corrupt.sum()), stop)
        values = Later(self.learner.step(batch, step, regions))
        if corrupt:
            self._corrupt += corrupt
            self._quarantine(batch)
        self._settle()  # of the step before: one step late, so that the device is never waited for
        facts = {
            "step": step,
            "samples": (step + 1) * self.config.batch,
            "epoch": (step + 1) * self.config.batch / self.stream.samples,
            "learning_rate": self.config.optimiser.rate(step, self.config.steps),
            "regions": regions,
            "corrupt": self._corrupt,
            "data_wait_s": waited_s,
        }
        speed = None
        if step % self.config.machine.log_every == 0 or step + 1 == self.config.steps:
            speed = self._rate.measure()
        else:
            self._rate.count()
        self._pending = _Done(values, batch.samples.tolist(), facts, speed)
        return stops > 0

    def _after(self, done: int, *, stop: bool) -> None:
        """Between steps: validation and checkpoints where they are due."""
        machine, final = self.config.machine, done == self.config.steps
        self.checkpoints.poll()
        saves = stop or final or done % machine.save_every == 0
        validates = final or (machine.validate_every > 0 and done % machine.validate_every == 0)
        if saves or validates:
            self._settle()  # never save what was not seen to be finite
        if validates:
            self._validate(done)
        if saves:
            facts = {"corrupt": self._corrupt, "samples": done * self.config.batch}
            self.checkpoints.save(done, self.learner.state(), facts)
        if stop or final:
            self.checkpoints.finish()

    def _settle(self) -> None:
        """Look at the numbers of the step that is still pending, and log them."""
        done, self._pending = self._pending, None
        if done is None:
            return
        total, *shares, norm = done.values.read()
        if not all(map(math.isfinite, (total, *shares, norm))):
            self._refuse(done, total, norm)
        if done.speed is not None:
            losses = {f"loss_{name}": share for name, share in zip(self.learner.terms, shares, strict=True)}
            self.log.write({**done.facts, "loss": total, **losses, "grad_norm": norm, **done.speed})

    def _refuse(self, done: _Done, total: float, norm: float) -> None:
        """Errors: RiceError naming step and samples, on every rank alike."""
        step = done.facts["step"]
        samples = [index for part in gather(lambda: done.samples) for index in part]
        keys = self.stream.keys(samples)
        listing = self.out / f"not-finite-step-{step}.json"
        if self.world.leads:
            write_json(listing, {"step": step, "loss": repr(total), "grad_norm": repr(norm), "samples": keys})
        self.checkpoints.finish()
        saved = self.checkpoints.latest()
        kept = f"the checkpoint of step {saved.step} is kept" if saved else "there is no checkpoint yet"
        raise RiceError(
            f"step {step}: loss {total}, gradient norm {norm}; its samples are {', '.join(keys[:_SHOWN_SAMPLES])}"
            f"{', ...' if len(keys) > _SHOWN_SAMPLES else ''} (all {len(keys)} in {listing}); {kept}: "
            "lower --optimiser.learning-rate, or drop the samples"
        )

    def _validate(self, done: int) -> None:
        if self.validation is None:
            return
        with self._rate.paused():
            score = validate(self.learner, self.validation)
        self.log.write({"step": max(done - 1, 0), "steps_done": done, **_metrics(score)})

    def _quarantine(self, batch: Batch) -> None:
        """Add the pictures that could not be decoded, and why, to the list, each once. On every rank alike."""
        found = zip(self.stream.keys(batch.samples[batch.corrupt]), batch.reasons, strict=True)
        gathered = gather(lambda: list(found))
        listing = self.out / QUARANTINE
        if not self.world.leads:
            return
        known = listing.read_text(encoding="utf-8") if listing.exists() else ""
        lines = {json.dumps({"sample": key, "reason": why}) for part in gathered for key, why in part}
        with atomic_write(listing) as file:
            file.write("".join([known, *(f"{line}\n" for line in sorted(lines) if line not in known)]))


def _metrics(score: Retrieval) -> dict[str, float]:
    return {"retrieval_top1": score.top1, "retrieval_map": score.mean_ap, "retrieval_n": score.n}


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted, to be acted on between steps; a second one interrupts at once."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
