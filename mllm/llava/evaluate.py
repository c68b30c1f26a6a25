"""Runs lmms-eval on a model in a process of its own, and puts each task's score into the store of results.

    evaluate("out/mini/model", "table1", Path("out"), batch_size=8)

OUT/lmms/TASK/KEY/: results.json and samples.jsonl as lmms-eval writes them; KEY says of which model and settings, so
that a task that is done is not run again. OUT/lmms-eval.log: all that lmms-eval said. OUT/results and OUT/items: the
store.
"""

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.llava.benchmarks import Task, find_tasks
from mllm.llava.lmms_run import FAILURE, RESULTS
from mllm.llava.model_id import ModelId
from mllm.llava.scores import Scored, Setting, livexiv_mean, read_scores
from probes import provenance
from probes.imports import plan
from probes.protocol import Metric
from probes.sweeps.lifeline import kill_group
from rice.errors import RiceError
from rice.files import make_folder, sha256_json, write_json
from rice.runs import alone

VERSION = 2
"""Of how answers are made: raised whenever a change of code changes them."""

LOG = "lmms-eval.log"
_FOLDER = "lmms"
_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_POLL_S = 0.2

Done = Callable[[Scored], None]
"""Is told of each task when its score is there."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What changes how answers are made. batch_size: questions at a time, of each of `processes`; limit: only the first
    questions of a task."""

    batch_size: int = 1
    device: str = "auto"
    dtype: str = "auto"
    limit: int | None = None
    system_prompt: str | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        for name, value in (("batch_size", self.batch_size), ("processes", self.processes), ("limit", self.limit)):
            if value is not None and value < 1:
                raise RiceError(f"expected --{name.replace('_', '-')} of at least 1, got {value}")


def evaluate(model: str | Path, tasks: str, out: Path, *, done: Done | None = None, **how: Any) -> list[Scored]:
    """As `run_tasks`, and store each score in `out` as soon as it is there. Of a task that failed nothing is stored."""

    def keep(scored: Scored) -> None:
        for planned in plan(out, [scored.as_import()], overwrite=True):
            planned.store(out)
        if done is not None:
            done(scored)

    return run_tasks(model, tasks, out, done=keep, **how)


def run_tasks(
    model: str | Path,
    tasks: str,
    out: Path,
    *,
    data: Path | None = None,
    include: Sequence[Path] = (),
    name: str | None = None,
    done: Done | None = None,
    **settings: Any,
) -> list[Scored]:
    """Score a model on tasks, LiveXiv's mean among them; returns all, in the tasks' order, and stores nothing: a probe
    has `metrics_of` and `items` of what comes back.

    model: a folder or hub id. tasks, data, include: see `find_tasks`. name: of the encoder in tables. settings: of
    `Evaluation`. Errors: RiceError in one line: as `find_tasks`; where the process failed, with what it said last.
    """
    how = Evaluation(**settings)
    found = find_tasks(tasks, data=data, include=include)
    known = ModelId.of(str(model))
    known.whose(name)  # a name that is none must not cost an evaluation
    make_folder(out)
    with alone(out, ".lmms.lock", "evaluating into"):
        run = _Run(model=known, tasks=found, out=out.resolve(), include=include, how=_resolved(how), name=name)
        scored: list[Scored] = []
        for one in run.scores():
            scored.append(one)
            if done is not None:
                done(one)
    mean = livexiv_mean(scored)
    if mean is not None:
        scored.append(mean)
        if done is not None:
            done(mean)
    return scored


def metrics_of(scored: Sequence[Scored]) -> Iterator[Metric]:
    """All metrics of all tasks as those of one result: called TASK METRIC."""
    for one in scored:
        for metric in one.result.metrics:
            yield dataclasses.replace(metric, name=f"{one.result.dataset} {metric.name}")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One call, settings resolved; `out`: absolute."""

    model: ModelId
    tasks: Sequence[Task]
    out: Path
    include: Sequence[Path]
    how: Evaluation
    name: str | None

    def scores(self) -> Iterator[Scored]:
        """Of each task as soon as it is there. Errors: RiceError where the process ended without one."""
        waiting = list(self.tasks)
        missing = [task for task in waiting if not self._is_done(task)]
        with (
            _Child(self.out, self._spec(missing), self._environment()) if missing else contextlib.nullcontext() as child
        ):
            while waiting:
                running = child is not None and child.running()  # asked first: what it wrote by then is there
                while waiting and self._is_done(waiting[0]):
                    yield self._read(waiting.pop(0))
                if waiting and not running:
                    reason = "" if child is None else child.reason()
                    raise RiceError(
                        f"{waiting[0].name} failed, nothing of it is stored: {reason} (all of it: {self.out / LOG})"
                    )
                if waiting:
                    time.sleep(_POLL_S)

    def _folder(self, task: Task) -> Path:
        how = {"limit": self.how.limit, "dtype": self.how.dtype, "system_prompt": self.how.system_prompt}
        own = {
            "model": self.model.digest,
            "blind": self.model.blind,
        }  # the digest leaves out what says that it is blind
        key = task.identity() | how | own | {"version": VERSION, "lmms_eval": _release()}
        return self.out / _FOLDER / task.name / sha256_json(key)[:16]

    def _is_done(self, task: Task) -> bool:
        return (self._folder(task) / RESULTS).is_file()

    def _read(self, task: Task) -> Scored:
        how = self.how
        setting = Setting(
            device=provenance.device_name(how.device),
            dtype=how.dtype,
            batch_size=how.batch_size,
            system_prompt=how.system_prompt,
        )
        return read_scores(self._folder(task), task, self.model, self.name, setting)

    def _spec(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """Of `lmms_run`."""
        yamls = self.out / _FOLDER / "definitions"
        entries = [(task, task.write(yamls)) for task in tasks]
        return dataclasses.asdict(self.how) | {
            "model": str(self.model.folder.resolve()),
            "name": self.model.name,
            "include": [str(folder.resolve()) for folder in self.include],
            "tasks": [
                {"name": task.name, "yaml": path and str(path), "folder": str(self._folder(task))}
                for task, path in entries
            ],
        }

    def _environment(self) -> dict[str, str]:
        """No telemetry; no network where all questions are on this machine."""
        code = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
        local = all(task.files for task in self.tasks)
        return dict(os.environ) | _QUIET | (_OFFLINE if local else {}) | {"PYTHONPATH": path}


class _Child:
    """The process that evaluates; it and all that it started die with this one, and when the block is left."""

    def __init__(self, out: Path, spec: dict[str, Any], environment: dict[str, str]) -> None:
        self._spec, self._log, self._environment = out / _FOLDER / "spec.json", out / LOG, environment
        write_json(self._spec, spec)

    def __enter__(self) -> "_Child":
        with self._log.open("ab") as log:
            self._start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mllm.llava.lmms_run", "--tied", str(self._spec)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._log.parent,  # lmms-eval takes the version of a checkout here for its own
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        kill_group(self._process.pid)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def running(self) -> bool:
        """Whether it is still at work."""
        return self._process.poll() is None

    def reason(self) -> str:
        """Why it failed: the line that it says so in, else the last one."""
        with self._log.open("rb") as log:
            log.seek(self._start)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        said = [line.removeprefix(FAILURE) for line in lines if line.startswith(FAILURE)]
        status = self._process.returncode
        killed = f"killed by signal {-status}" if status is not None and status < 0 else "ended without a score"
        return said[0] if said else f"{killed}; it said last: {lines[-1] if lines else 'nothing'}"


def _resolved(how: Evaluation) -> Evaluation:
    """With the device and number format that `auto` means here."""
    from mllm.generation import pick_dtype
    from rice.device import pick_device

    device = pick_device(how.device)
    dtype = str(pick_dtype(how.dtype, device)).removeprefix("torch.")
    return dataclasses.replace(how, device=str(device), dtype=dtype)


def _release() -> str:
    from importlib.metadata import version

    return version("lmms-eval")
