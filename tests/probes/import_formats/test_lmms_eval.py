"""lmms-eval's aggregated results become ours with their numbers, units and identity."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from import_samples import LMMS, changed, read, refusal

from probes.import_formats.foreign import Whose
from probes.import_formats.scales import SCALES, TABLE_1
from rice.encoders.identity import fingerprint
from rice.encoders.spec import EncoderReference
from rice.encoders.zoo import ZOO
from rice.errors import RiceError


def test_a_task_of_lmms_eval_is_a_result_with_its_numbers(tmp_path: Path) -> None:
    imports = read(tmp_path, LMMS)
    assert list(imports) == ["tiny", "tiny_b", "tiny_c", "tiny_val"]
    result = imports["tiny_val"].result
    shown = [(m.name, m.value, m.n, m.stderr, m.higher_is_better, m.split, m.unit) for m in result.metrics]
    assert shown == [
        ("exact_match", 0.6666666666666666, 12, 0.1421338109037403, True, "test", "as reported"),
        ("tiny_score", 133.33333333333334, 12, None, True, "test", "as reported"),
        ("errors", 0.3333333333333333, 12, None, False, "test", "as reported"),
    ]
    assert (result.encoder, result.weights, result.trained) == ("org/tiny", "org/tiny", True)
    assert (result.identity.probe, result.identity.size, result.identity.layer, result.tokens) == (
        *("lmms-eval", None, None),
        None,
    )
    assert (result.commit, result.device, result.seconds) == (None, "unknown (imported)", 1.1071265680000124)
    assert result.versions["lmms_eval"] == "main@75571cfe"
    assert result.versions["rice-suite"]
    notes = [note for imported in imports.values() for note in imported.notes]
    assert notes == [
        f"{t}: nothing, submission left out, not a finite number" for t in ("tiny_b", "tiny_c", "tiny_val")
    ]


def test_a_group_counts_the_samples_of_its_tasks_and_a_heading_is_no_result(tmp_path: Path) -> None:
    imports = read(tmp_path, LMMS)
    (metric,) = imports["tiny"].result.metrics
    assert (metric.value, metric.n, metric.stderr) == (0.6666666666666666, 24, 0.1005)
    assert "plain_tiny" not in imports
    assert (
        read(tmp_path, changed(LMMS, "group_subtasks", "tiny", to=["tiny", "tiny_b"]))["tiny"].result.metrics[0].n == 12
    )


def test_groups_that_hold_each_other_many_times_over_are_counted_once_and_at_once(tmp_path: Path) -> None:
    deep = {f"g{k}": [f"g{k + 1}", f"g{k + 1}", "tiny"] for k in range(5000)} | {"tiny": ["g0", "tiny_b"]}
    assert read(tmp_path, changed(LMMS, "group_subtasks", to=deep))["tiny"].result.metrics[0].n == 12


@pytest.mark.parametrize(
    ("counts", "n"),
    [
        ({"original": 12, "effective": 5}, 5),
        ({"original": 12, "effective": 0.35}, 5),
        ({"original": 12, "effective": -1}, 12),
        ({"original": 12, "effective": None}, 0),
        (None, 0),
        ("12", 0),
    ],
)
def test_samples_are_those_that_were_judged(tmp_path: Path, counts: Any, n: int) -> None:
    metric = read(tmp_path, changed(LMMS, "n-samples", "tiny_b", to=counts))["tiny_b"].result.metrics[0]
    assert metric.n == n
    assert ("n is not in the file" in metric.protocol) is (n == 0)


def test_a_filter_is_part_of_the_metric_s_name(tmp_path: Path) -> None:
    entry = {"exact_match,none": 0.25, "exact_match,flexible-extract": 0.5, "exact_match_stderr,flexible-extract": 0.1}
    result = read(tmp_path, changed(LMMS, "results", to={"ai2d": entry}) | {"groups": None})["ai2d"].result
    assert [(m.name, m.value, m.stderr, m.unit) for m in result.metrics] == [
        ("exact_match", 0.25, None, "fraction"),
        ("exact_match,flexible-extract", 0.5, 0.1, "fraction"),
    ]
    assert result.identity.config["filters"] == ["flexible-extract", "none"]


def test_what_the_file_does_not_say_of_a_direction_is_said_in_the_protocol(tmp_path: Path) -> None:
    entry = {"exact_match,none": 0.5, "exact_match_internal_variance,none": 0.1, "errors,none": 0.2}
    better = {"errors": False}
    value = changed(changed(LMMS, "results", "tiny_b", to=entry), "higher_is_better", "tiny_b", to=better)
    metrics = {m.name: m for m in read(tmp_path, value)["tiny_b"].result.metrics}
    assert {name: m.higher_is_better for name, m in metrics.items()} == {
        **{"exact_match": True, "exact_match_internal_variance": False},
        "errors": False,
    }
    assert {name: "does not say" in m.protocol for name, m in metrics.items()} == {
        **{"exact_match": True, "exact_match_internal_variance": True},
        "errors": False,
    }


@pytest.mark.parametrize(
    ("column", "task", "value", "unit", "printed"),
    [  # the paper's RICE-336px row, and what lmms-eval gave for it
        ("InfoVQA", "infovqa_val", 0.4523, "fraction", 45.23),
        ("OCRBench", "ocrbench", 0.575, "fraction", 575),
        ("OCRBenchV2", "ocrbench_v2", 0.2414, "fraction", 24.14),
        ("AI2D", "ai2d", 0.7788, "fraction", 77.88),
        ("MMB^EN", "mmbench_en_dev", 76.55, "%", 76.55),
        ("MME^Cog", "mme", 437.0, "points", 437),
        ("MME^Per", "mme", 1613.0, "points", 1613),
        ("MMStar", "mmstar", 0.5175, "fraction", 51.75),
    ],
)
def test_table_1_scores_carry_the_unit_that_lmms_eval_gives_them(
    tmp_path: Path, column: str, task: str, value: float, unit: str, printed: float
) -> None:
    stored = TABLE_1[column][task]
    key = stored if "," in stored else f"{stored},none"
    result = read(tmp_path, LMMS | {"results": {task: {key: value}}, "groups": {}})[task].result
    assert [(m.name, m.value, m.unit) for m in result.metrics] == [(stored, value, unit)]
    scale = SCALES[task][stored.partition(",")[0]]
    assert value * scale.printed == pytest.approx(printed)
    too_much = LMMS | {"results": {task: {key: scale.largest * 1.01}}, "groups": {}}
    assert f"from 0 to {scale.largest:g}" in refusal(tmp_path, too_much)
    assert f"from 0 to {scale.largest:g}" in refusal(tmp_path, LMMS | {"results": {task: {key: -0.1}}, "groups": {}})


def test_every_cell_of_table_1_has_a_scale() -> None:
    for tasks in TABLE_1.values():
        assert tasks
        for task, metric in tasks.items():
            assert SCALES[task][metric.partition(",")[0]].largest > 0


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("versions", "tiny_b"), 1.6),
        (("task_hashes", "tiny_b"), "ffff"),
        (("task_hashes",), {}),
        (("n-shot", "tiny_b"), 5),
        (("n-samples", "tiny_b", "effective"), 11),
        (("config", "gen_kwargs"), "temperature=1"),
        (("system_instruction_sha",), "abc"),
        (("config", "model"), "llava_hf"),
        (("config", "model_args"), "response=no,pretrained=org/tiny"),
        (("model_name",), "elsewhere/org/tiny"),
    ],
)
def test_whatever_makes_another_measurement_changes_the_key(tmp_path: Path, path: tuple[Any, ...], to: Any) -> None:
    before, after = (read(tmp_path, value)["tiny_b"].result for value in (LMMS, changed(LMMS, *path, to=to)))
    assert before.key != after.key
    of_model = path[-1] in ("model", "model_args", "model_name")
    assert (before.identity.encoder_fingerprint != after.identity.encoder_fingerprint) is of_model
    of_data = path[0] in ("versions", "task_hashes")
    assert (before.identity.dataset_fingerprint != after.identity.dataset_fingerprint) is of_data


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("date",), "20270101_000000"),
        (("git_hash",), None),
        (("lmms_eval_version",), "unknown@unknown"),
        (("total_evaluation_time_seconds",), "nan"),
        (("results", "tiny_c", "exact_match,none"), 0.1),
        (("config", "batch_size"), 64),
    ],
)
def test_what_does_not_make_another_measurement_keeps_the_key(tmp_path: Path, path: tuple[Any, ...], to: Any) -> None:
    before = read(tmp_path / "a", LMMS)["tiny_b"].result
    assert read(tmp_path / "b", changed(LMMS, *path, to=to), "mine")["tiny_b"].result.key == before.key


def test_an_older_file_names_its_model_in_the_arguments(tmp_path: Path) -> None:
    old = changed(LMMS, "model_name", to=...)
    assert read(tmp_path, old)["tiny"].result.encoder == "org/tiny"
    assert read(tmp_path, changed(old, "config", "model_args", to={"a": 1}))["tiny"].result.encoder == "dummy"


def test_nothing_of_the_machine_but_the_file_s_own_name_and_hash_is_kept(tmp_path: Path) -> None:
    result = read(tmp_path, LMMS)["tiny_b"].result
    assert set(result.resolved_config["imported_from"]) == {"name", "sha256"}
    text = json.dumps(dataclasses.asdict(result))
    assert str(tmp_path) not in text
    assert "somebody's folder" not in text
    assert result.resolved_config["generation_kwargs"] == {"max_new_tokens": 4, "until": ["</s>"]}


def test_a_zoo_name_brings_its_spec_and_another_name_brings_nothing(tmp_path: Path) -> None:
    result = read(tmp_path, LMMS, "mini-s8-128")["tiny_b"].result
    assert result.encoder_spec == dataclasses.asdict(ZOO["mini-s8-128"].spec)
    assert (result.encoder, result.reference, result.identity.size) == ("mini-s8-128", "mini-s8-128", None)
    assert result.identity.encoder_fingerprint != fingerprint(EncoderReference("mini-s8-128"))
    assert result.weights == "org/tiny"
    sized = read(tmp_path, LMMS, "mini-s8-128@256,layer=-2")["tiny_b"].result
    assert (sized.identity.size, sized.identity.layer) == (256, -2)
    spec = read(tmp_path, LMMS, "my own @ model")["tiny_b"].result.encoder_spec
    assert {name: value for name, value in spec.items() if value is not None} == {
        **{"name": "my own @ model", "source": "imported"},
        "norm": "none",
    }
    named_alike = read(tmp_path, changed(LMMS, "model_name", to="mini-s8-128@"))["tiny_b"].result
    assert named_alike.encoder_spec["source"] == "imported"
    with pytest.raises(RiceError, match="native size"):
        Whose.named("mini-s8-128@123")
