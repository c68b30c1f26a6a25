"""Files as other tools write them, and how tests change and read them.

LMMS is what lmms-eval 0.7.3 wrote for a group of two small tasks and a task of an older form, run with its `dummy`
model (`python -m lmms_eval --log_samples`); MTEB and META are what mteb 2.26's `TaskResult.to_disk` and
`ModelMeta.to_dict` wrote; all are shortened. OLD_MTEB is in the form of mteb's own test files from before 1.11.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from probes.import_formats.foreign import Imported, Whose
from probes.imports import read_results
from rice.errors import RiceError

Json = dict[str, Any]
NAN = float("nan")

TASK = {
    "alias": " - tiny_val",
    "exact_match,none": 0.6666666666666666,
    "exact_match_stderr,none": 0.1421338109037403,
    "exact_match_stderr_clt,none": 0.2,
    "exact_match_stderr_clustered,none": "N/A",
    "tiny_score,none": 133.33333333333334,
    "tiny_score_stderr,none": "N/A",
    "tiny_score_stderr_clt,none": 0.1421338109037403,
    "errors,none": 0.3333333333333333,
    "errors_stderr,none": [],
    "nothing,none": NAN,
    "nothing_stderr,none": "N/A",
    "submission,none": None,
    "submission_stderr,none": "N/A",
}
BETTER = {"exact_match": True, "tiny_score": True, "errors": False, "nothing": True, "submission": True}
LMMS: Json = {
    "results": {
        "plain_tiny": {" ": " ", "alias": "plain_tiny"},
        "tiny_c": TASK,
        "tiny": {"exact_match,none": 0.6666666666666666, "exact_match_stderr,none": 0.1005, "alias": "tiny"},
        "tiny_b": TASK,
        "tiny_val": TASK,
    },
    "groups": {"tiny": {"exact_match,none": 0.6666666666666666, "exact_match_stderr,none": 0.1005, "alias": "tiny"}},
    "group_subtasks": {"plain_tiny": ["tiny_c"], "tiny": ["tiny_val", "tiny_b"]},
    "configs": {
        name: {"task": name, "test_split": "test", "generation_kwargs": {"max_new_tokens": 4, "until": ["</s>"]}}
        for name in ("tiny_b", "tiny_c", "tiny_val")
    },
    "versions": {"tiny": 0.3, "tiny_b": 1.5, "tiny_c": "Yaml", "tiny_val": 1.5},
    "n-shot": {"tiny_b": 0, "tiny_c": 0, "tiny_val": 0},
    "higher_is_better": dict.fromkeys(("plain_tiny", "tiny", "tiny_b", "tiny_c", "tiny_val"), BETTER),
    "n-samples": {name: {"original": 12, "effective": 12} for name in ("tiny_val", "tiny_b", "tiny_c")},
    "config": {
        "model": "dummy",
        "model_args": "response=yes,pretrained=org/tiny",
        "batch_size": "1",
        "limit": None,
        "gen_kwargs": "",
        "random_seed": 0,
        "resolved_cli_args": {"output_path": "somebody's folder"},
    },
    "git_hash": "75571cfe",
    "lmms_eval_version": "main@75571cfe",
    "date": "20261129_032721",
    "usage": {},
    "task_hashes": dict.fromkeys(("tiny_val", "tiny_b", "tiny_c"), "42aa8c15"),
    "model_source": "dummy",
    "model_name": "org/tiny",
    "model_name_sanitized": "org__tiny",
    "system_instruction": None,
    "system_instruction_sha": None,
    "chat_template_sha": None,
    "start_time": 1357.879207271,
    "total_evaluation_time_seconds": "1.1071265680000124",
}
MTEB: Json = {
    "dataset_revision": "de9d86b3",
    "task_name": "STS22",
    "mteb_version": "2.26.24",
    "scores": {
        "test": [
            {
                "cosine_spearman": 0.62,
                "main_score": 0.61,
                "precision": NAN,
                "scores_per_experiment": [{"a": 1.0}],
                "hf_subset": "en",
                "languages": ["eng-Latn"],
                "mteb_version": "2.26.24",
            },
            {
                "cosine_spearman": -0.02,
                "main_score": -0.03,
                "hf_subset": "de-en",
                "languages": ["deu-Latn", "eng-Latn"],
                "mteb_version": "2.26.24",
            },
        ],
        "train": [{"cosine_spearman": 0.7, "main_score": 0.71, "hf_subset": "en", "languages": ["eng-Latn"]}],
    },
    "evaluation_time": 1.5,
    "kg_co2_emissions": None,
    "date": None,
    "evaluation_phases": None,
}
META: Json = {
    "name": "openai/clip-vit-large-patch14",
    "revision": "32bd6428",
    "max_tokens": float("inf"),
    "framework": ["PyTorch"],
    "loader": "CLIPModel",
}
OLD_MTEB: Json = {
    "test": {
        "ar": {"cos_sim": {"pearson": 0.05, "spearman": 0.22}, "euclidean": {"pearson": 0.13}},
        "evaluation_time": "2.5",
        "de": {"cos_sim": {"pearson": 0.26, "spearman": 0.31}},
    },
    "mteb_version": "0.0.2",
    "mteb_dataset_name": "STS22",
    "dataset_revision": "2de6ce8c",
}


def changed(base: Json, *path: Any, to: Any) -> Json:
    """A copy with another value at `path`; `...` as `to` removes it."""
    whole: Json = json.loads(json.dumps(base))
    place = whole
    for step in path[:-1]:
        place = place[step]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return whole


def write(folder: Path, value: Any, name: str = "a_results.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def read(folder: Path, value: Any, encoder: str | None = None, seed: int = 0) -> dict[str, Imported]:
    whose = None if encoder is None else Whose.named(encoder)
    return {f"{i.result.dataset}": i for i in read_results(write(folder, value), whose, seed)}


def refusal(folder: Path, value: Any, encoder: str | None = "mine") -> str:
    with pytest.raises(RiceError) as caught:
        read(folder, value, encoder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder / "a_results.json") in message
    return message
