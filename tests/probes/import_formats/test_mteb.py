"""mteb's results, of today and of before 1.11, become ours."""

from pathlib import Path
from typing import Any

import pytest
from import_samples import META, MTEB, OLD_MTEB, changed, read, refusal, write

from probes.import_formats.foreign import Whose
from probes.imports import read_results


def test_a_split_of_mteb_is_a_result_with_its_main_scores_first(tmp_path: Path) -> None:
    write(tmp_path, META, "model_meta.json")
    test, train = read_results(write(tmp_path, MTEB))
    assert [(m.name, m.value, m.split) for m in test.result.metrics] == [
        ("main_score (en)", 0.61, "test"),
        ("main_score (de-en)", -0.03, "test"),
        ("cosine_spearman (en)", 0.62, "test"),
        ("cosine_spearman (de-en)", -0.02, "test"),
    ]
    assert test.notes == ("STS22 test: precision (en) left out, not a finite number",)
    assert [(m.name, m.value, m.split) for m in train.result.metrics] == [
        ("main_score", 0.71, "train"),
        ("cosine_spearman", 0.7, "train"),
    ]
    result = test.result
    assert (result.encoder, result.weights) == (META["name"], f"{META['name']}@32bd6428")
    assert (result.identity.probe, result.dataset, result.seconds) == ("mteb", "STS22", 1.5)
    assert result.versions["mteb"] == "2.26.24"
    assert len({test.result.key, train.result.key}) == 2


@pytest.mark.parametrize(
    ("path", "to"), [(("dataset_revision",), "other"), (("scores", "train"), MTEB["scores"]["test"])]
)
def test_another_revision_or_subset_of_mteb_is_another_measurement(
    tmp_path: Path, path: tuple[Any, ...], to: Any
) -> None:
    keys = [
        {m.result.metrics[0].split: m.result.key for m in read_results(write(tmp_path, value), Whose.named("x"))}
        for value in (MTEB, changed(MTEB, *path, to=to))
    ]
    assert keys[0]["train"] != keys[1]["train"]
    assert all(len(set(of_file.values())) == 2 for of_file in keys)  # though both splits may have the same subsets


def test_files_of_mteb_before_1_11_are_read_as_mteb_reads_them(tmp_path: Path) -> None:
    (imported,) = read_results(write(tmp_path, OLD_MTEB), Whose.named("mine"))
    assert [(m.name, m.value) for m in imported.result.metrics] == [
        ("cosine_pearson (ar)", 0.05),
        ("cosine_spearman (ar)", 0.22),
        ("euclidean_pearson (ar)", 0.13),
        ("cosine_pearson (de)", 0.26),
        ("cosine_spearman (de)", 0.31),
    ]
    assert imported.result.seconds == 2.5
    plain = {"mteb_dataset_name": "AJGT", "train": {"evaluation_time": 35.8, "accuracy": 0.7, "main_score": 0.75}}
    (imported,) = read_results(write(tmp_path, plain), Whose.named("mine"))
    assert [(m.name, m.value) for m in imported.result.metrics] == [("main_score", 0.75), ("accuracy", 0.7)]


def test_objects_of_scores_are_read_as_mteb_reads_them(tmp_path: Path) -> None:
    entry = {"main_score": 0.79, "max": {"ap": 0.79, "f1": 0.75}, "v_measures": {"Level 0": [0.1]}, "hf_subset": "en"}
    value = changed(MTEB, "scores", to={"test": [entry]})
    (imported,) = read_results(write(tmp_path, value), Whose.named("mine"))
    assert [(m.name, m.value) for m in imported.result.metrics] == [
        ("main_score", 0.79),
        ("max_ap", 0.79),
        ("max_f1", 0.75),
    ]


def test_a_description_of_a_model_has_no_results(tmp_path: Path) -> None:
    assert read_results(write(tmp_path, META)) == []


def test_mteb_without_a_model_beside_it_must_be_told_whose_it_is(tmp_path: Path) -> None:
    assert "--encoder" in refusal(tmp_path, MTEB, None)
    write(tmp_path, changed(META, "name", to=None), "model_meta.json")
    assert "--encoder" in refusal(tmp_path, MTEB, None)
    assert "STS22" in read(tmp_path, MTEB, "mine")
