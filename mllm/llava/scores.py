"""lmms-eval's file about one task that was run here, as a result of ours: whose it is, how it was measured, its items.

The numbers are read as those of files from elsewhere are (`probes.import_formats.lmms_eval`).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.generation import Decoding
from mllm.llava.benchmarks import Task
from mllm.llava.items import read_samples, scores_of, write_items
from mllm.llava.lmms_run import RESULTS, SAMPLES
from mllm.llava.model_id import ModelId
from probes import provenance
from probes.import_formats.document import Document, read_document
from probes.import_formats.foreign import UNIT, Imported
from probes.import_formats.lmms_eval import COUNTED, PROBE, read_lmms_eval
from probes.import_formats.scales import LIVEXIV, LIVEXIV_VERSIONS, scale_of
from probes.protocol import Metric
from probes.results import Result
from rice.errors import RiceError
from rice.files import sha256_json, sha256_unchanged

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "rice llava eval"
"""In a result's configuration: it was measured here."""

_UNITS = ("fraction", "%", "points")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """A task's result, and its questions' scores where they make the task's."""

    result: Result
    items: "pd.DataFrame | None"

    def as_import(self) -> Imported:
        """To be stored by `probes.imports.plan`."""
        write = None if self.items is None else partial(write_items, tables=[self.items])
        return Imported(result=self.result, write_items=write)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """How the answers were made. `device`: its name; `dtype`, `batch_size` and `system_prompt` as they were asked."""

    device: str
    dtype: str
    batch_size: int
    system_prompt: str | None


def read_scores(folder: Path, task: Task, model: ModelId, label: str | None, setting: Setting) -> Scored:
    """The result of a task's folder. Errors: RiceError for what is no such file, or has no number for the task."""
    document = read_document(folder / RESULTS)
    whose = model.whose(label)
    found = {one.result.dataset: one.result for one in read_lmms_eval(document, whose, model.seed)}
    if task.name not in found:
        raise RiceError(f"{folder / RESULTS} has no number for {task.name}")
    samples = read_samples(folder / SAMPLES)
    plain = found[task.name]
    metrics = [_counted(_described(metric, task.name, document), samples) for metric in plain.metrics]
    result = _ours(plain, document, task, model, setting, samples)
    items = scores_of(task.name, samples, {metric.name: metric.value for metric in metrics})
    return Scored(result=dataclasses.replace(result, metrics=metrics), items=items)


def _ours(
    plain: Result, document: Document, task: Task, model: ModelId, setting: Setting, samples: Sequence[dict[str, Any]]
) -> Result:
    """What is known of a run on this machine, in the place of what a file from elsewhere does not say."""
    tokens, gflops = model.cost(model.whose(None))
    facts = model.facts or {}
    questions = _questions(samples)
    said = plain.identity.config | {"source": SOURCE, "task_hash": _task_hash(samples), "dtype": setting.dtype}
    if setting.system_prompt is not None:
        said["system_instruction_sha"] = hashlib.sha256(setting.system_prompt.encode()).hexdigest()
    identity = dataclasses.replace(
        plain.identity,
        encoder_fingerprint=model.fingerprint(),
        dataset_fingerprint=sha256_json([PROBE, task.name, said["task_version"], questions]),
        config=said | model.training(),
    )
    own = {"full_id": model.full, "sha256": model.digest, "encoder_fingerprint": facts.get("fingerprint")}
    settings = {
        "model": own | {"facts": model.facts},
        "lmms_eval_results": document.origin,
        "questions_sha256": questions,
        "data": [[path.name, sha256_unchanged(path)] for path in task.files],
        "generation_kwargs": plain.resolved_config.get("generation_kwargs"),
        "batch_size": setting.batch_size,
        "system_prompt": setting.system_prompt,
    }
    versions = provenance.versions() | {name: _version(name) for name in ("lmms-eval", "accelerate", "tokenizers")}
    return dataclasses.replace(
        plain,
        weights=str(facts.get("weights") or model.full),
        trained=bool(facts.get("trained", True)),
        identity=identity,
        tokens=tokens,
        gflops=gflops,
        resolved_config=identity.config | settings,
        versions=versions,
        commit=provenance.commit(),
        device=setting.device,
    )


def _described(metric: Metric, task: str, document: Document) -> Metric:
    """With the unit and the printed scale, and how the answers came about, in the protocol's text."""
    config = document.value["configs"].get(task) or {}
    scale, unit = scale_of(task, metric.name), metric.unit
    if scale is None:
        unit = next((one["unit"] for one in _metadata(config) if one.get("unit") in _UNITS), unit)
    decoding = Decoding.of(config.get("generation_kwargs") or {})
    how = f"{decoding}; at most {decoding.max_new_tokens} new tokens"
    return dataclasses.replace(
        metric, unit=unit, protocol=f"{metric.protocol}; {printed_scale(task, metric.name, unit)}; {how}"
    )


def _counted(metric: Metric, samples: Sequence[Mapping[str, Any]]) -> Metric:
    """With the number of its own questions: a task may judge each by some of its metrics alone (MME by perception or
    cognition). What no sample has is of the whole task."""
    name = metric.name.partition(",")[0]
    count = len({sample["doc_id"] for sample in samples if sample.get(name) is not None})
    if count in (0, metric.n):
        return metric
    protocol = metric.protocol.replace(COUNTED, "n: samples that the metric judges")
    return dataclasses.replace(metric, n=count, protocol=protocol)


def _metadata(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a task's definition, which holds an object or a list of them."""
    said = config.get("metadata")
    return [one for one in (said if isinstance(said, list) else [said]) if isinstance(one, dict)]


def printed_scale(task: str, metric: str, unit: str) -> str:
    """In words: how the paper prints a score of this task."""
    scale = scale_of(task, metric)
    if scale is None:
        return (
            "a fraction, shown times 100"
            if unit == "fraction"
            else "shown as it is"
            if unit != UNIT
            else "of no known scale"
        )
    if scale.unit != "fraction":
        return f"{'percent' if scale.unit == '%' else f'points out of {scale.largest:g}'}, printed as it is"
    return f"a fraction, printed {'out of 1000' if scale.printed == 1000 else f'times {scale.printed:g}'}"


def livexiv_mean(scored: Sequence[Scored]) -> Scored | None:
    """The mean of LiveXiv's six versions, each weighing the same; None where one of them is not there."""
    parts = {one.result.dataset: one for one in scored if one.result.dataset in LIVEXIV_VERSIONS}
    if len(parts) < len(LIVEXIV_VERSIONS):
        return None
    versions = [parts[name] for name in LIVEXIV_VERSIONS]
    metrics = [next(m for m in one.result.metrics if m.name == LIVEXIV) for one in versions]
    errors = [metric.stderr for metric in metrics]
    known = [error for error in errors if error is not None]
    first, count = versions[0].result, len(versions)
    metric = dataclasses.replace(
        metrics[0],
        value=math.fsum(metric.value for metric in metrics) / count,
        n=sum(metric.n for metric in metrics),
        stderr=math.sqrt(math.fsum(error**2 for error in known)) / count if len(known) == count else None,
        protocol="mean of livexiv_vqa_v1 to livexiv_vqa_v6, each weighing the same (the paper does not say which "
        f"versions its number holds); {metrics[0].protocol.replace(LIVEXIV_VERSIONS[0], 'each')}",
    )
    whole = [one.result.identity for one in versions]
    hashes = {"task_hash": sha256_json([identity.config["task_hash"] for identity in whole]), "samples": metric.n}
    hashes["samples_there"] = sum(identity.config["samples_there"] for identity in whole)
    data = sha256_json([identity.dataset_fingerprint for identity in whole])
    config = first.identity.config | hashes
    result = dataclasses.replace(
        first,
        dataset=LIVEXIV,
        identity=dataclasses.replace(first.identity, dataset_fingerprint=data, config=config),
        resolved_config=first.resolved_config | hashes,
        metrics=[metric],
        seconds=math.fsum(one.result.seconds for one in versions),
    )
    return Scored(result=result, items=_together(versions))


def _together(versions: Sequence[Scored]) -> "pd.DataFrame | None":
    import pandas as pd

    tables = [one.items for one in versions]
    return None if any(table is None for table in tables) else pd.concat(tables, ignore_index=True)


def _task_hash(samples: Sequence[Mapping[str, Any]]) -> str:
    """As lmms-eval's, over samples in the order of the questions, so that it does not depend on how many processes
    shared them. In release 0.7.3 a sample's own hash does not depend on the question: `_questions` does."""
    text = "".join(f"sample_{index}{sample['doc_hash']}" for index, sample in enumerate(samples))
    return hashlib.sha256(text.encode()).hexdigest()


def _questions(samples: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of numbers, texts and true answers."""
    asked = [[sample["doc_id"], sample.get("input"), sample.get("target")] for sample in samples]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()


def _version(package: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
