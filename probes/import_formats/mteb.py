"""mteb's results, `TASK.json` beside a `model_meta.json`: one result a task and split.

Read from mteb 2.26 (`results/task_result.py`, `cache/result_cache.py`), and its own reader of files from before 1.11:

    task_name, dataset_revision, mteb_version, scores{SPLIT: [{main_score, hf_subset, languages, NUMBERS ...}]},
    evaluation_time
    before 1.11: mteb_dataset_name, dataset_revision, mteb_version, SPLIT{NUMBERS ... or SUBSET{NUMBERS ...}}
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.import_formats.document import Document, fact, label, number, read_document, seconds, table
from probes.import_formats.foreign import UNIT, Imported, Whose, make_result
from probes.protocol import Metric
from probes.results import Result
from rice.errors import RiceError
from rice.files import sha256_json

PROBE, MAIN, META = "mteb", "main_score", "model_meta.json"

_OLD_NAME, _OLD_FACTS = "mteb_dataset_name", {"mteb_dataset_name", "dataset_revision", "mteb_version"}
_NOT_SCORES = {"hf_subset", "languages", "mteb_version", "evaluation_time"}
_SIMILARITIES = {
    "cos_sim": "cosine",
    **{name: name for name in ("euclidean", "manhattan", "dot", "max", "similarity")},
}
"""Objects of scores before 1.11, and the prefixes that they have become. Up to 1.12.48 pair classification had objects,
too, whose own names are the prefixes."""

_NO_SUBSETS = {*_SIMILARITIES, "v_measures"}

Subsets = list[tuple[str, dict[str, Any]]]


def recognises(value: Any) -> bool:
    """A result, of today's form or of before 1.11."""
    return isinstance(value, dict) and (_OLD_NAME in value or ("task_name" in value and "scores" in value))


def recognises_meta(value: Any) -> bool:
    """The description of a model that lies beside its results."""
    return isinstance(value, dict) and {"name", "revision", "loader", "framework"} <= value.keys()


def read_mteb(document: Document, whose: Whose | None, seed: int) -> Iterator[Imported]:
    """One result for each split; `whose`: None for the model that the file beside it names.

    Errors: RiceError: another form, names that are none, a main score that is no finite number, no model's name.
    """
    model = _model(document.path.parent / META)
    if whose is None:
        if model is None:
            raise RiceError(f"expected a {META} beside it that names the model, found none; say whose it is: --encoder")
        whose = Whose.unknown(model[0])
    old = _OLD_NAME in document.value
    name = label(document.value[_OLD_NAME if old else "task_name"], "the task's name", identifier=True)
    task = _Task(document=document, name=name, whose=whose, model=model, seed=seed)
    splits = _old_splits(document.value) if old else _splits(document.value)
    if not splits:
        raise RiceError(f"expected a split with scores of {name}, found none")
    for split, subsets in splits.items():
        yield task.imported(label(split, f"a split of {name}"), subsets)


@dataclass(frozen=True, kw_only=True)
class _Task:
    document: Document
    name: str
    whose: Whose
    model: tuple[str, str | None] | None
    seed: int

    def imported(self, split: str, subsets: Subsets) -> Imported:
        """The metrics of a split: the main scores of all subsets first, then the other numbers."""
        metrics, left_out = [], []
        for name, value, is_main in self._scores(subsets):
            if (score := number(value)) is not None:
                metrics.append(self._metric(name, score, split, is_main))
            elif is_main:
                raise RiceError(f"expected a finite number as {name} of {self.name} {split}, got {value!r:.40}")
            else:
                left_out.append(name)
        if not metrics:
            raise RiceError(f"expected a number among the scores of {self.name} {split}, found none")
        notes = (f"{self.name} {split}: {', '.join(left_out)} left out, not a finite number",) if left_out else ()
        return Imported(result=self._result(split, [subset for subset, _ in subsets], metrics), notes=notes)

    def _scores(self, subsets: Subsets) -> Iterator[tuple[str, Any, bool]]:
        """(name, value, whether it is the main score); texts, lists and objects are no scores."""
        for is_main in (True, False):
            for subset, scores in subsets:
                suffix = f" ({subset})" if len(subsets) > 1 else ""
                for key, value in scores.items():
                    if (key == MAIN) is is_main and key not in _NOT_SCORES and not isinstance(value, str | list | dict):
                        yield label(f"{key}{suffix}", f"a metric of {self.name}"), value, is_main

    def _metric(self, name: str, value: float, split: str, is_main: bool) -> Metric:
        direction = "" if is_main else "; higher is better, which the file does not say"
        return Metric(
            name=name,
            value=value,
            n=0,
            unit=UNIT,
            higher_is_better=True,
            split=split,
            protocol=f"mteb's task {self.name}; n is not in the file{direction}",
        )

    def _result(self, split: str, subsets: list[str], metrics: list[Metric]) -> Result:
        facts = self.document.value
        revision, version = fact(facts.get("dataset_revision"), "a revision"), facts.get("mteb_version")
        name, model_revision = self.model or (self.whose.label, None)
        return make_result(
            whose=self.whose,
            model=[PROBE, name, model_revision],
            weights=name if model_revision is None else f"{name}@{model_revision}",
            probe=PROBE,
            dataset=self.name,
            data=sha256_json([PROBE, self.name, revision]),
            config={"source": PROBE, "dataset_revision": revision, "split": split, "subsets": sorted(subsets)},
            settings={"imported_from": self.document.origin, "seconds_are": "of all splits together"},
            metrics=metrics,
            versions={"mteb": version if isinstance(version, str) else None},
            seconds=_seconds(facts),
            seed=self.seed,
        )


def _splits(facts: Mapping[str, Any]) -> dict[str, Subsets]:
    splits: dict[str, Subsets] = {}
    for split, entries in table(facts["scores"], "scores").items():
        if not isinstance(entries, list):
            raise RiceError(f"expected a list of subsets as scores of {split!r:.40}")
        rows = [table(entry, f"scores of {split!r:.40}") for entry in entries]
        splits[split] = [(label(row.get("hf_subset"), "hf_subset"), _flat(row, {})) for row in rows]
        if any(MAIN not in row for row in rows):
            raise RiceError(f"expected a {MAIN} for each subset of {split!r:.40}")
    return splits


def _old_splits(facts: Mapping[str, Any]) -> dict[str, Subsets]:
    """Objects are subsets, unless they are the scores by one similarity."""
    splits: dict[str, Subsets] = {}
    for split, scores in facts.items():
        if split in _OLD_FACTS or not isinstance(scores, dict):
            continue
        subsets = {k: v for k, v in scores.items() if isinstance(v, dict) and k not in _NO_SUBSETS} or {
            "default": scores
        }
        splits[split] = [(label(name, "a subset"), _flat(values, _SIMILARITIES)) for name, values in subsets.items()]
    return splits


def _flat(scores: Mapping[str, Any], prefixes: Mapping[str, str]) -> dict[str, Any]:
    """{"cos_sim": {"pearson": 0.1}} -> {"cosine_pearson": 0.1}, as mteb does; a prefix that is not given stays."""
    flat: dict[str, Any] = {}
    for key, value in scores.items():
        if isinstance(value, dict):
            flat |= {f"{prefixes.get(key, key)}_{name}": score for name, score in value.items()}
        else:
            flat[key] = value
    return flat


def _seconds(facts: Mapping[str, Any]) -> float:
    old = [part.get("evaluation_time") for part in facts.values() if isinstance(part, dict)]
    return seconds(facts["evaluation_time"]) if "evaluation_time" in facts else sum(map(seconds, old))


def _model(path: Path) -> tuple[str, str | None] | None:
    """(name, revision) from a model's description. Errors: RiceError where there is one that cannot be read."""
    if not path.exists():
        return None
    described = table(read_document(path).value, META)
    if described.get("name") is None:
        return None
    revision = described.get("revision")
    return label(described["name"], f"the name in {META}"), label(revision, "its revision") if revision else None
