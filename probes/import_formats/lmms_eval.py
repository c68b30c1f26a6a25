"""lmms-eval's aggregated results, `DATE_results.json`: one result a task or group.

Read from release 0.7.3 (`evaluator.py`, `evaluator_utils.consolidate_results`, `loggers/evaluation_tracker.py`):

    results[TASK]["METRIC,FILTER"], results[TASK]["METRIC_stderr,FILTER"]   a number, or NaN, null, [], "N/A", an object
    versions, n-shot, higher_is_better[TASK][METRIC], n-samples[TASK]{original, effective}, group_subtasks[GROUP]
    config{model, model_args, ...}, model_name, task_hashes[TASK] (with --log_samples only), git_hash, ...

Known gap: a task's hash depends on the order of its samples, and so on the number of processes that shared them.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from probes.import_formats.document import Document, fact, label, number, seconds, table
from probes.import_formats.foreign import UNIT, Imported, Whose, make_result
from probes.import_formats.scales import scale_of
from probes.protocol import Metric
from probes.results import Result
from rice.errors import RiceError
from rice.files import sha256_json

PROBE = "lmms-eval"
UNSAID = "as reported"
"""The split, where the file does not name it."""
COUNTED = "n: samples of the task"
"""In a protocol: the file has no counts of single metrics."""

_PARTS = ("results", "configs", "versions", "n-shot")
_SETTINGS = ("model", "model_args", "model_backend", "batch_size", "limit", "offset", "gen_kwargs", "random_seed")
_RUN = ("git_hash", "date", "chat_template_sha")
_ERRORS = ("_stderr", "_stderr_clt", "_stderr_clustered")
_LOWER_IS_BETTER = "_internal_variance"
"""The one stability measure of `calculate_stability_metrics` of which less is better; the file has no word on them."""


def recognises(value: Any) -> bool:
    """lm-evaluation-harness has the same layout and says its name."""
    return isinstance(value, dict) and "lm_eval_version" not in value and all(part in value for part in _PARTS)


def read_lmms_eval(document: Document, whose: Whose | None, seed: int) -> list[Imported]:
    """One result for each task or group that has a number; `whose`: None for the file's own model.

    Errors: RiceError: a part of another form, names that are none, a known score beyond its scale, no number at all.
    """
    parts = document.value
    for part in _PARTS:
        table(parts[part], part)
    entries = table(parts.get("groups") or {}, "groups") | parts["results"]  # a group's own scores stand in both
    config = table(parts.get("config") or {}, "config")
    model = label(_model(parts, config), "the model's name")
    imports: list[Imported] = []
    notes: list[str] = []
    for name, entry in sorted(entries.items()):
        task = _Task(document=document, config=config, name=label(name, "a task's name", identifier=True))
        metrics, left_out = task.metrics(table(entry, f"the results of {name}"))
        if left_out:
            notes.append(f"{name}: {', '.join(left_out)} left out, not a finite number")
        if metrics:
            imports.append(Imported(result=task.result(metrics, model, whose or Whose.unknown(model), seed)))
    if not imports:
        raise RiceError("expected a number in lmms-eval's results, found none")
    return [dataclasses.replace(imports[0], notes=tuple(notes)), *imports[1:]]


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A task or group of a file, whose `config` is of the run."""

    document: Document
    config: dict[str, Any]
    name: str

    def said(self, part: str, task: str | None = None) -> Any:
        """What an optional part of the file says of a task. Errors: RiceError where the part is no object."""
        return table(self.document.value.get(part) or {}, part).get(task or self.name)

    def metrics(self, entry: Mapping[str, Any]) -> tuple[list[Metric], list[str]]:
        """Metrics in the file's order, and the names of those that have no finite number."""
        metrics, left_out = [], []
        for key, value in entry.items():
            bare, comma, filter_ = key.rpartition(",")
            if not comma or bare.endswith(_ERRORS):
                continue
            name = label(bare if filter_ == "none" else key, f"a metric of {self.name}")
            if (score := number(value)) is None:
                left_out.append(name)
            else:
                metrics.append(self._metric(name, bare, score, number(entry.get(f"{bare}_stderr,{filter_}"))))
        return metrics, left_out

    def _metric(self, name: str, bare: str, value: float, stderr: float | None) -> Metric:
        scale = scale_of(self.name, bare)
        if scale and not 0 <= value <= scale.largest * (1 + 1e-9):
            raise RiceError(
                f"expected {name} of {self.name} from 0 to {scale.largest:g}, as lmms-eval has it, got {value:g}"
            )
        said = table(self.said("higher_is_better") or {}, "higher_is_better").get(bare)
        higher = said if isinstance(said, bool) else not bare.endswith(_LOWER_IS_BETTER)
        direction = (
            ""
            if isinstance(said, bool)
            else f"; {'higher' if higher else 'lower'} is better, which the file does not say"
        )
        count, _ = self._samples()
        version, shots = fact(self.said("versions"), "a version"), fact(self.said("n-shot"), "n-shot")
        shots = "" if shots is None else f", {shots}-shot"
        return Metric(
            name=name,
            value=value,
            n=count,
            unit=scale.unit if scale else UNIT,
            higher_is_better=higher,
            split=self._split(),
            stderr=None if stderr is None or stderr < 0 else stderr,
            protocol=f"lmms-eval, task {self.name} of version {version}{shots}; "
            f"{COUNTED if count else 'n is not in the file'}{direction}",
        )

    def _split(self) -> str:
        config = self.said("configs")
        split = config.get("test_split") if isinstance(config, dict) else None
        return label(split, f"the split of {self.name}") if split else UNSAID

    def _samples(self) -> tuple[int, int]:
        """(judged, there are), 0 where it is not known; of a group: of its tasks together."""
        counts = [_counts(self.said("n-samples", task)) for task in self._leaves()]
        return sum(judged for judged, _ in counts), sum(there for _, there in counts)

    def _leaves(self) -> Iterator[str]:
        """The tasks of a group, however deep; of a task itself."""
        waiting, seen = [self.name], {self.name}
        while waiting:
            name = waiting.pop()
            below = self.said("group_subtasks", name)
            if not isinstance(below, list) or not below:
                yield name
                continue
            new = {task for task in below if isinstance(task, str)} - seen
            seen |= new
            waiting += sorted(new)

    def result(self, metrics: list[Metric], model: str, whose: Whose, seed: int) -> Result:
        """The task's result. What makes the measurement is its identity, whatever else is known its settings."""
        document, task_config = self.document.value, self.said("configs")
        version, task_hash = (fact(self.said(part), part) for part in ("versions", "task_hashes"))
        judged, there = self._samples()
        identity = {
            "source": PROBE,
            "task_version": version,
            "task_hash": task_hash,
            "n_shot": self.said("n-shot"),
            "filters": sorted({metric.name.rpartition(",")[2] if "," in metric.name else "none" for metric in metrics}),
            "samples": judged,
            "samples_there": there,
            "gen_kwargs": self.config.get("gen_kwargs") or None,
            "system_instruction_sha": document.get("system_instruction_sha"),
        }
        settings = {
            "imported_from": self.document.origin,
            "run": {key: self.config.get(key) for key in _SETTINGS} | {key: document.get(key) for key in _RUN},
            "generation_kwargs": task_config.get("generation_kwargs") if isinstance(task_config, dict) else None,
            "seconds_are": "of the whole run, all tasks together",
        }
        release = document.get("lmms_eval_version")
        return make_result(
            whose=whose,
            model=[PROBE, *(fact(self.config.get(key), key) for key in ("model", "model_args")), model],
            weights=model,
            probe=PROBE,
            dataset=self.name,
            data=sha256_json([PROBE, self.name, version, task_hash]),
            config=fact(identity, f"the settings of {self.name}"),
            settings=fact(settings, f"the settings of {self.name}"),
            metrics=metrics,
            versions={"lmms_eval": release if isinstance(release, str) else None},
            seconds=seconds(document.get("total_evaluation_time_seconds")),
            seed=seed,
        )


def _counts(said: Any) -> tuple[int, int]:
    """Samples of a task: judged, there are. Older releases give the limit as asked: a share, or -1 for all."""
    said = said if isinstance(said, dict) else {}
    there, judged = max(number(said.get("original")) or 0.0, 0.0), number(said.get("effective")) or 0.0
    if judged < 0:
        judged = there
    elif judged < 1:
        judged = math.ceil(judged * there)
    return int(judged), int(there)


def _model(parts: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """The model's id or path; before the file had `model_name`, it stood in `model_args` only."""
    arguments = config.get("model_args")
    pattern = r"(?:^|,)(?:pretrained|model|model_version)=([^,]+)"
    found = re.search(pattern, arguments) if isinstance(arguments, str) else None
    return parts.get("model_name") or (found and found[1]) or config.get("model") or parts.get("model_source")
