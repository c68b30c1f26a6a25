"""Scores of lmms-eval reach the store as its file has them, with what they were measured on; errors store nothing."""

import dataclasses
import importlib.util
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_model import installed, picture, save_model, write_task

from mllm.llava.benchmarks import SETS, find_tasks, read_definition
from mllm.llava.evaluate import LOG, evaluate, metrics_of, run_tasks
from mllm.llava.items import resampling, scores_of, write_items
from mllm.llava.model_id import FACTS, ModelId
from mllm.llava.scores import Scored, livexiv_mean, printed_scale
from probes.import_formats.lmms_eval import COUNTED
from probes.import_formats.scales import LIVEXIV, LIVEXIV_VERSIONS, TABLE_1
from probes.imports import read_results
from probes.protocol import Metric
from probes.results import documents, items_path, load, rows_of
from rice.errors import RiceError

OF_OCRBENCH_V2 = ("apted", "distance", "editdistance", "jieba", "Levenshtein", "Polygon")
"""What lmms-eval's scorer of OCRBench v2 imports, and lmms-eval does not bring."""
DOCVQA = Path(__file__).resolve().parents[4] / "shared" / "data" / "docvqa"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of ours that looks through CLIP's encoder, and a local task."""
    room = tmp_path_factory.mktemp("room")
    save_model(room / "mini" / "model")
    (room / "mini" / "model" / FACTS).write_text(json.dumps(facts()))
    write_task(room / "tasks")
    return room


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "encoder": "clip-l14-336", "weights": "default", "fingerprint": "f" * 64, "trained": True,
        "layer": -2, "patch": 14, "size": 336, "tiling": "2x2+1", "lm": "Qwen/Qwen2.5-7B", "recipe": "paper", "seed": 3,
        "blind": False, "config": {"learning_rate": 1e-5}, "versions": {},
    } | changes  # fmt: skip


GUARD = """
import os, socket, sys
def refuse(self, address, *rest):
    if isinstance(address, tuple):
        print(f"failed: network: {address}", file=sys.stderr, flush=True)
        os._exit(9)
    return plain(self, address, *rest)
plain, socket.socket.connect = socket.socket.connect, refuse
def look_up(host, *rest, **more):
    if host not in (None, "localhost", "127.0.0.1", "::1"):
        refuse(None, (host,))
    return names(host, *rest, **more)
names, socket.getaddrinfo = socket.getaddrinfo, look_up
"""


def forbid_network(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Whatever opens a connection dies of it, in this process's children."""
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    path = os.pathsep.join(filter(None, (str(folder / "guard"), os.environ.get("PYTHONPATH"))))
    patch.setenv("PYTHONPATH", path)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        patch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def done(room: Path) -> Path:
    """The local task, evaluated, with no network there."""
    out = room / "out"
    with pytest.MonkeyPatch.context() as patch:
        forbid_network(room, patch)
        evaluate(room / "mini/model", "squares", out, include=[room / "tasks"], batch_size=3, device="cpu")
    return out


@pytest.mark.slow
def test_scores_of_lmms_eval_s_file_are_those_of_the_store_and_a_task_that_is_done_is_not_run_again(
    room: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    (file,) = (out / "lmms" / "squares").rglob("results.json")
    said = json.loads(file.read_text())
    (stored,) = documents(out)
    (metric,) = stored["metrics"]
    samples = [json.loads(line) for line in (file.parent / "samples.jsonl").read_text().splitlines()]
    lengths = [sample["length"] for sample in samples]
    assert metric["value"] == said["results"]["squares"]["length,none"] == pytest.approx(statistics.fmean(lengths))
    assert metric["stderr"] == said["results"]["squares"]["length_stderr,none"]
    assert metric["stderr"] == pytest.approx(statistics.stdev(lengths) / math.sqrt(7))
    assert lengths == [min(len(sample["filtered_resps"]), 9) / 9 for sample in samples]
    assert (metric["n"], metric["split"], stored["dataset"], stored["identity"]["probe"]) == (
        7,
        "test",
        "squares",
        "lmms-eval",
    )
    assert stored["identity"]["config"]["task_version"] == 1.5
    assert stored["identity"]["config"]["task_hash"] == said["task_hashes"]["squares"]
    assert "greedy; at most 4 new tokens" in metric["protocol"]
    assert (stored["encoder"], stored["reference"], stored["seed"]) == ("clip-l14-336", "clip-l14-336", 3)
    assert (stored["identity"]["size"], stored["identity"]["layer"], stored["tokens"]) == (336, -2, 576)
    assert stored["encoder_spec"]["width"] == 1024
    assert stored["resolved_config"]["model"]["full_id"] == ModelId.of(str(room / "mini/model")).full
    assert str(room) not in json.dumps(stored)
    (group,) = resampling(items_path(out, stored["key"]), named=False)
    import numpy as np

    assert group.scores(np.ones((1, 7)))["length"] == pytest.approx(metric["value"])

    monkeypatch.setattr("mllm.llava.evaluate.sys.executable", "/nowhere")
    shutil.rmtree(out / "results")
    evaluate(room / "mini/model", "squares", out, include=[room / "tasks"], batch_size=7, device="cpu")
    (again,) = documents(out)
    assert (again["key"], again["metrics"]) == (stored["key"], stored["metrics"])
    blind = tmp_path / "mini" / "model"
    shutil.copytree(room / "mini/model", blind)
    (blind / FACTS).write_text(json.dumps(facts(blind=True)))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate(blind, "squares", out, include=[room / "tasks"], device="cpu")


def test_a_task_that_needs_another_package_says_so_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mllm.llava import lmms_run

    tasks = write_task(tmp_path / "tasks", name="fancy")
    (tasks / "fancy_parts.py").write_text("import no_such_scorer\n")
    spec = {"include": [str(tasks)], "tasks": [{"name": "fancy", "yaml": None, "folder": str(tmp_path / "done")}]}
    monkeypatch.setattr("mllm.lmms_model.RiceLlava", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(RiceError, match="task fancy needs the package no_such_scorer"):
        lmms_run.run(spec)


@pytest.mark.slow
def test_local_files_take_the_place_of_the_hub_s_and_lmms_eval_s_own_scorer_judges(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docvqa_val with truths that are near, half near and far from what the model answers; ANLS from its definition."""
    from datasets import Dataset, Features, Sequence, Value
    from datasets import Image as Picture

    from mllm.generation import Conversation, Decoding, Speaker

    speaker, said = Speaker(str(room / "mini/model"), device="cpu"), []
    for i in range(4):
        text = f"count {i}\nAnswer the question using a single word or phrase."
        content = [{"type": "image"}, {"type": "text", "text": text}]
        one = Conversation(messages=({"role": "user", "content": content},), images=(picture(i),))
        said.append(speaker.answer([one], Decoding(max_new_tokens=32))[0].text.strip())
    truths = [[said[0], "x"], [said[1][:-2] + "##", "x"], ["x", said[2][: len(said[2]) // 3]], ["nothing of the kind"]]
    rows = [
        {"questionId": str(i), "question": f"count {i}", "answers": truths[i], "image": picture(i)} for i in range(4)
    ]
    features = {"questionId": Value("string"), "question": Value("string"), "answers": Sequence(Value("string"))}
    root = tmp_path / "data"
    (root / "docvqa_val").mkdir(parents=True)
    table = Dataset.from_list(rows, features=Features(features | {"image": Picture()}))
    table.to_parquet(root / "docvqa_val" / "validation-00000-of-00001.parquet")
    table.select([0]).to_parquet(root / "docvqa_val" / "test-00000-of-00001.parquet")
    out = tmp_path / "out"
    forbid_network(tmp_path, monkeypatch)
    (scored,) = evaluate(room / "mini/model", "docvqa_val", out, data=root, batch_size=4)
    (metric,) = scored.result.metrics
    (file,) = (out / "lmms").rglob("samples.jsonl")
    answers = [json.loads(line)["filtered_resps"] for line in file.read_text().splitlines()]
    scores = [anls(answer, true) for answer, true in zip(answers, truths, strict=True)]
    assert metric.value == pytest.approx(statistics.fmean(scores))
    assert scores[0] == 1
    assert 0.5 < scores[1] < 1
    assert scores[2:] == [0, 0]
    assert (metric.name, metric.n, metric.unit, metric.split) == ("anls", 4, "fraction", "validation")
    assert "task docvqa_val of version" in metric.protocol
    assert "a fraction, printed times 100; greedy; at most 32 new tokens" in metric.protocol


def benchmark_rows(task: str) -> list[dict[str, Any]]:
    """Two questions with the columns that the task has on the hub."""
    every = {
        "questionId": "1",
        "question_id": "a",
        "index": 1,
        "options": ["red", "blue"],
        "hint": "nan",
        "source": "x",
    }
    every |= {"A": "red", "B": "blue", "C": "one", "D": "two", "option_a": "red", "option_b": "blue", "option_c": "one"}
    every |= {"option_d": "two", "gt": "A", "split": "dev", "L2-category": "x", "l2_category": "object counting"}
    every |= {"type": "human_test", "dataset": "HME100k", "question_type": "Doc-oriented VQA", "ocr_tokens": ["a"]}
    every |= {"answers": ["red", "blue"], "answer": "A", "eval": "", "category": "fine-grained perception"}
    own = {
        "mme": [{"answer": yes, "category": kind} for kind in ("count", "code_reasoning") for yes in ("Yes", "No")],
        "pope": [{"answer": "yes"}, {"answer": "no"}],
        "ai2d": [{"answer": "0"}, {"answer": "1"}],
        "ocrbench_v2": [{"type": "cognition VQA en"}, {"type": "cognition VQA cn"}],
        "mmbench_en_dev_static": [{"index": 1}, {"index": 2}],
    }
    rows = own.get(task, [{}, {"type": "augmented"}])
    return [every | {"image": picture(i), "question": f"is it {i}"} | changes for i, changes in enumerate(rows)]


@pytest.mark.slow
def test_every_column_of_table_1_is_filled_from_local_files_alone(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset

    from reports.measurements import measurements
    from reports.paper.beside import beside

    absent = [name for name in OF_OCRBENCH_V2 if importlib.util.find_spec(name) is None]
    asked = [task for task in find_tasks("table1") if task.name != "ocrbench_v2" or not absent]
    real = DOCVQA.is_dir()
    if real:
        docvqa_parquet(tmp_path / "data")
    for task in asked:
        folder = tmp_path / "data" / task.name
        if folder.is_dir():
            continue
        folder.mkdir(parents=True)
        Dataset.from_list(benchmark_rows(task.name)).to_parquet(folder / f"{task.split}-00000-of-00001.parquet")
    out = tmp_path / "out"
    forbid_network(tmp_path, monkeypatch)
    names = "table1" if not absent else ",".join(task.name for task in asked)
    scored = evaluate(room / "mini/model", names, out, data=tmp_path / "data", batch_size=8, limit=4)
    assert [one.result.dataset for one in scored] == [*(task.name for task in asked), LIVEXIV]
    cells = [cell for cell in beside(measurements(rows_of(documents(out)))) if cell.table == "1"]
    assert [cell.column for cell in cells] == [c for c in TABLE_1 if c != "OCRBenchV2" or not absent]
    assert {cell.row for cell in cells} == {"CLIP ViT-L-14-336px Qwen2.5-7B"}
    assert not any("recorded" in text for cell in cells for text in cell.differs)
    counts = {(one.result.dataset, metric.name): metric.n for one in scored for metric in one.result.metrics}
    assert counts["docvqa_val", "anls"] == (4 if real else 2)
    parts = ("mme_cognition_score", "mme_perception_score"), ("relaxed_human_split", "relaxed_augmented_split")
    assert [counts["mme", name] for name in parts[0]] == [2, 2]
    assert [counts["chartqa", name] for name in (*parts[1], "relaxed_overall")] == [1, 1, 2]
    with_items = {one.result.dataset for one in scored if one.items is not None}
    assert with_items >= {"infovqa_val", "chartqa", "textvqa_val", "ai2d", "pope", "realworldqa", *LIVEXIV_VERSIONS}


def anls(answer: str, truths: list[str]) -> float:
    """Average normalised Levenshtein similarity of one answer (Biten et al., 2019), by the textbook's recursion."""

    def distance(a: str, b: str) -> int:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            before, row[0] = row[0], i
            for j, y in enumerate(b, 1):
                before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
        return row[-1]

    best = 0.0
    for truth in truths:
        a, b = (" ".join(text.lower().split()) for text in (answer, truth))
        apart = distance(a, b) / max(len(answer), len(truth), 1)  # lmms-eval's: before spaces are put together
        best = max(best, 1 - apart if apart < 0.5 else 0.0)
    return best


def docvqa_parquet(root: Path) -> Path:
    """The samples beside the checkout with the columns of lmms-lab's DocVQA: more than four."""
    from datasets import Dataset, Features, Sequence, Value
    from datasets import Image as Picture

    questions = json.loads((DOCVQA / "val_v1.0.json").read_text())["data"]
    rows = [
        {
            "questionId": str(one["questionId"]),
            "question": one["question"],
            "answers": one["answers"],
            "image": str(DOCVQA / one["image"]),
        }
        for one in questions
    ]
    text = {name: Value("string") for name in ("questionId", "question")}
    features = Features(text | {"answers": Sequence(Value("string")), "image": Picture()})
    (root / "docvqa_val").mkdir(parents=True)
    Dataset.from_list(rows, features=features).to_parquet(root / "docvqa_val" / "validation.parquet")
    return root


@pytest.mark.slow
def test_lmms_eval_s_own_command_gives_the_same_score_and_its_file_can_be_imported(
    room: Path, done: Path, tmp_path: Path
) -> None:
    arguments = ["--model", "rice_llava", "--model_args", f"pretrained={room / 'mini/model'},device=cpu"]
    arguments += ["--tasks", "squares", "--include_path", str(room / "tasks"), "--batch_size", "2", "--log_samples"]
    arguments += ["--output_path", str(tmp_path / "logs"), "--verbosity", "DEBUG"]  # DEBUG: an error is its status
    environment = dict(os.environ) | {"PYTHONPATH": installed(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lmms_eval", "eval", *arguments]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True)
    (file,) = (tmp_path / "logs").rglob("*_results.json")
    (ours,) = documents(done)
    (imported,) = read_results(file)
    (metric,), (own,) = imported.result.metrics, ours["metrics"]
    assert (metric.value, metric.stderr, metric.n) == (own["value"], own["stderr"], own["n"])
    assert imported.result.identity.config["task_hash"] == ours["identity"]["config"]["task_hash"]
    assert imported.result.device == "unknown (imported)"


@pytest.mark.slow
def test_two_processes_give_the_scores_and_the_task_hash_of_one(room: Path, done: Path, tmp_path: Path) -> None:
    include = [room / "tasks"]
    (one,) = run_tasks(room / "mini/model", "squares", done, include=include, device="cpu")
    (two,) = run_tasks(room / "mini/model", "squares", tmp_path / "two", include=include, device="cpu", processes=2)
    assert two.result.metrics[0].value == pytest.approx(one.result.metrics[0].value)
    assert two.result.identity == one.result.identity
    assert one.items is not None
    assert two.items is not None
    assert two.items.equals(one.items)


@pytest.mark.slow
def test_all_processes_die_with_a_killed_parent(room: Path, tmp_path: Path) -> None:
    import psutil

    def ranks() -> list[psutil.Process]:
        found = [p for p in psutil.process_iter(["cmdline", "status"]) if spec in (p.info["cmdline"] or ())]
        return [p for p in found if p.info["status"] != psutil.STATUS_ZOMBIE and "--tied" not in p.info["cmdline"]]

    def wait_until(there: int) -> None:
        end = time.monotonic() + 120
        while len(ranks()) != there:
            assert time.monotonic() < end
            assert there == 0 or parent.poll() is None
            time.sleep(0.05)

    out = tmp_path / "out"
    spec = str(out.resolve() / "lmms" / "spec.json")
    asked = f"{str(room / 'mini/model')!r}, 'squares', Path({str(out)!r}), include=[Path({str(room / 'tasks')!r})]"
    code = f"from pathlib import Path\nfrom mllm.llava.evaluate import run_tasks\nrun_tasks({asked}, processes=2)"
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        wait_until(2)
        parent.kill()
    wait_until(0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("docvqa_vall", "Did you mean docvqa_val"),
        ("table2", "Did you mean table1"),
        ("", "table1, table5d"),
        ("squares", "got 'squares'"),
        ("hellaswag", "rice_llava only answers"),
    ],
)
def test_a_wrong_task_is_named_before_anything_is_loaded(room: Path, tmp_path: Path, asked: str, said: str) -> None:
    with pytest.raises(RiceError, match=said):
        evaluate("no/such-model", asked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_sets_are_the_paper_s_columns_with_the_free_task_for_mmbench() -> None:
    found = find_tasks("table1")
    assert [task.name for task in found] == list(SETS["table1"])
    for tasks in TABLE_1.values():
        assert tasks.keys() & set(SETS["table1"])
    assert "mmbench_en_dev_static" in SETS["table1"]
    assert "mmbench_en_dev" not in SETS["table1"]
    assert {task.name for task in find_tasks("table5d")} == {"docvqa_val", "chartqa", "infovqa_val", "ocrbench"}
    assert [task.name for task in find_tasks("livexiv_vqa")] == list(LIVEXIV_VERSIONS)


def test_definitions_are_put_together_as_lmms_eval_puts_them_together() -> None:
    from lmms_eval.utils import load_yaml_config

    for task in find_tasks("table1"):
        theirs = load_yaml_config(yaml_path=str(task.definition), mode="simple")
        ours = read_definition(task.definition)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if "!function" not in str(value):
                assert value == theirs[key]


def test_data_is_asked_for_where_it_lies_and_changes_the_identity(room: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match=r"docvqa_val.*parquet.*found none"):
        find_tasks("docvqa_val", data=tmp_path)
    folder = tmp_path / "docvqa_val"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("{}\n")
    (first,) = find_tasks("docvqa_val", data=tmp_path)
    before = first.identity()
    assert first.replaces["dataset_path"] == "json"
    path = first.write(tmp_path / "yaml")
    assert path is not None
    merged = read_definition(path)
    assert merged["dataset_kwargs"] == {"data_files": {"validation": [str(folder / "rows.jsonl")]}}
    assert merged["metric_list"] == read_definition(first.definition)["metric_list"]
    (folder / "rows.jsonl").write_text("{} \n")
    assert find_tasks("docvqa_val", data=tmp_path)[0].identity() != before
    parts = [folder / part / "rows.jsonl" for part in ("a", "b")]
    for path in parts:
        path.parent.mkdir()
        path.write_text("{}\n")
    before = find_tasks("docvqa_val", data=tmp_path)[0].identity()
    for path in parts:
        path.write_text("{} \n")
        after = find_tasks("docvqa_val", data=tmp_path)[0].identity()
        assert after != before, "files of one name in several folders"
        before = after
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.yaml").write_text("task: mme\n")
    with pytest.raises(RiceError, match="name of lmms-eval's own"):
        find_tasks("mme", include=[tmp_path / "mine"])


def test_a_model_is_known_by_its_content_and_never_by_its_place(room: Path, tmp_path: Path) -> None:
    """lmms-eval's own folders keep the last two parts of a path."""
    first = ModelId.of(str(room / "mini/model"))
    shutil.copytree(room / "mini/model", tmp_path / "mini/model")
    assert ModelId.of(str(tmp_path / "mini/model")) == type(first)(**vars(first) | {"folder": tmp_path / "mini/model"})
    save_model(tmp_path / "mini/model", seed=1)
    other = ModelId.of(str(tmp_path / "mini/model"))
    assert (other.name, other.digest == first.digest, other.fingerprint() == first.fingerprint()) == (
        first.name,
        False,
        False,
    )
    with pytest.raises(RiceError, match="no such_model"):
        ModelId.of("such_model")


def test_a_model_of_the_hub_s_cache_is_not_asked_of_the_hub(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any, **__: Any) -> None:
        raise OSError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.repo_info", asked)
    place = tmp_path / "models--some--model"
    snapshot = place / "snapshots" / ("0" * 40)
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(snapshot.name)
    shutil.copytree(room / "mini/model", snapshot)
    known = ModelId.of("some/model")
    assert (known.name, known.folder.name) == ("some/model", snapshot.name)
    for weights in snapshot.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(RiceError, match="some/model"):
        ModelId.of("some/model")
    with pytest.raises(RiceError, match="cannot fetch the model another/model"):
        ModelId.of("another/model")


def test_of_a_model_on_the_hub_no_second_copy_is_fetched(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    calls: list[list[str]] = []

    def fetch(model: str, *, ignore_patterns: list[str], local_files_only: bool = False) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not there")
        names = ["config.json", "model.safetensors", "original/x.pth", "x.pth", "a/b.gguf", "onnx/model.onnx"]
        calls.append(list(filter_repo_objects(names, ignore_patterns=ignore_patterns)))
        return str(room / "mini/model")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert ModelId.of("some/model").folder == room / "mini/model"
    assert calls == [["config.json", "model.safetensors"]]


def test_where_a_language_model_lay_is_no_part_of_what_was_measured(room: Path, tmp_path: Path) -> None:
    def known(place: str, **changes: Any) -> ModelId:
        folder = tmp_path / "some" / "model"
        if not folder.is_dir():
            shutil.copytree(room / "mini/model", folder)
        own = {"lm": "qwen", "lm_digest": "ab", "config": {"lm": place, "lora": 0}, "weights": f"{place}/tower.pt"}
        (folder / FACTS).write_text(json.dumps(facts(**own | changes)))
        return ModelId.of(str(folder))

    first, second = (known(place) for place in ("/here/qwen", "/there/qwen"))
    assert first == second
    assert first.training()["training"] == {"lm": "qwen", "lora": 0}
    assert "here" not in json.dumps(first.facts)
    assert known("/here/qwen", lm_digest="cd").training() != first.training()
    hub = known("Qwen/Qwen2.5-7B", lm="Qwen/Qwen2.5-7B", lm_digest=None).training()
    assert (hub["language_model"], hub["training"]["lm"]) == ("Qwen/Qwen2.5-7B",) * 2


def test_a_blind_model_and_an_own_encoder_are_called_so(room: Path) -> None:
    def whose(**changes: Any) -> Any:
        return ModelId(folder=room, name="a/b", digest="0" * 64, facts=facts(**changes)).whose(None)

    assert whose(blind=True).label == "clip-l14-336, blind"
    assert whose().label == "clip-l14-336"
    own = whose(encoder="my.towers:tower")
    assert (own.reference, own.spec["source"], own.spec["width"], own.spec["patch"]) == (
        "my.towers:tower",
        "own",
        None,
        14,
    )
    stranger = ModelId(folder=room, name="a/b", digest="0" * 64, facts=None)
    assert (stranger.whose(None).label, stranger.whose("mine").label) == ("a/b", "mine")
    assert stranger.training()["training"] is None


def test_items_are_kept_only_where_their_mean_is_the_score(tmp_path: Path) -> None:
    import numpy as np

    samples = [
        {"doc_id": i, "acc": float(i % 2), "pairs": {"question_id": i, "score": 1.0}, "part": 1.0 if i < 2 else None}
        for i in range(4)
    ]
    table = scores_of("t", samples, {"acc": 0.5, "pairs": 100.0, "part": 1.0, "absent": 0.0})
    assert table is not None
    assert list(table.columns) == ["id", "task", "acc", "part"]
    assert scores_of("t", samples, {"pairs": 100.0}) is None
    assert scores_of("t", [*samples, samples[0]], {"acc": 0.5}) is None
    write_items(tmp_path / "items.parquet", [table, scores_of("u", samples, {"acc": 0.5})])  # type: ignore[list-item]
    groups = resampling(tmp_path / "items.parquet", named=True)
    assert [sorted(group.scores(np.ones((1, 4)))) for group in groups] == [["t acc", "t part"], ["u acc"]]
    weights_RN = np.array([[2.0, 1, 0, 1], [0, 0, 3, 1]])
    found = groups[0].scores(weights_RN)
    assert found["t acc"].tolist() == [0.5, 0.25]
    assert found["t part"][0] == 1.0
    assert math.isnan(found["t part"][1])


def test_a_metric_of_some_questions_counts_those() -> None:
    from mllm.llava.scores import _counted

    metric = Metric(
        name="part,none", value=1.0, n=3, unit="fraction", higher_is_better=True, split="test", protocol=f"x; {COUNTED}"
    )
    samples: list[dict[str, Any]] = [
        {"doc_id": i, "all": 1.0} | ({"part": {"score": 0}} if i else {}) for i in range(3)
    ]
    counted = _counted(metric, samples)
    assert (counted.n, counted.protocol) == (2, "x; n: samples that the metric judges")
    for name in ("all", "of the group"):
        whole = dataclasses.replace(metric, name=name)
        assert _counted(whole, samples) == whole


def test_livexiv_is_the_mean_of_its_six_versions(room: Path, tmp_path: Path) -> None:
    import numpy as np

    scored = [livexiv(version, count=version + 1) for version in range(1, 7)]
    assert livexiv_mean(scored[:5]) is None
    mean = livexiv_mean([scored[3], *scored[:3], *scored[4:]])
    assert mean is not None
    (metric,) = mean.result.metrics
    values = [one.result.metrics[0].value for one in scored]
    assert (metric.value, metric.n) == (pytest.approx(statistics.fmean(values)), sum(range(2, 8)))
    assert metric.stderr == pytest.approx(math.sqrt(sum((0.01 * v) ** 2 for v in range(1, 7))) / 6)
    assert mean.result.dataset == LIVEXIV
    assert "mean of livexiv_vqa_v1 to livexiv_vqa_v6" in metric.protocol
    assert "printed times 100" in metric.protocol
    write_items(tmp_path / "items.parquet", [mean.items])  # type: ignore[list-item]
    (group,) = resampling(tmp_path / "items.parquet", named=False)
    assert group.scores(np.ones((1, 27)))[LIVEXIV] == pytest.approx(metric.value)
    *_, whole = resampling(tmp_path / "items.parquet", named=True)
    assert whole.scores(np.ones((1, 27)))[f"{LIVEXIV} {LIVEXIV}"] == pytest.approx(metric.value)
    assert [metric.name for metric in metrics_of([mean])] == [f"{LIVEXIV} {LIVEXIV}"]


def livexiv(version: int, count: int) -> Scored:
    """As `read_scores` gives it: `count` questions of which the first is right."""
    from mllm.llava.scores import SOURCE
    from probes.import_formats.foreign import Whose, make_result

    name = f"{LIVEXIV}_v{version}"
    metric = Metric(
        name=LIVEXIV, value=1 / count, n=count, unit="fraction", higher_is_better=True, split="test",
        stderr=0.01 * version, protocol=f"lmms-eval, task {name} of version Yaml; a fraction, printed times 100",
    )  # fmt: skip
    result = make_result(
        whose=Whose.unknown("x"), model=["x"], weights="x", probe="lmms-eval", dataset=name, data=str(version),
        config={"source": SOURCE, "task_hash": str(version), "samples": count, "samples_there": count}, settings={},
        metrics=[metric], versions={}, seconds=1.0, seed=0,
    )  # fmt: skip
    samples = [{"doc_id": i, LIVEXIV: {"score": float(i == 0)}} for i in range(count)]
    return Scored(result=result, items=scores_of(name, samples, {LIVEXIV: 1 / count}))


def test_stored_items_give_intervals_and_comparisons_over_questions(tmp_path: Path) -> None:
    """`rice compare` and `rice report` look for what knows a result's items by its probe's name."""
    from probes.imports import plan
    from reports.compare.resample import Resampler
    from reports.measurements import measurements
    from rice.progress import SilentProgress

    scored = [livexiv(version, count=9) for version in range(1, 7)]
    mean = livexiv_mean(scored)
    assert mean is not None
    for planned in plan(tmp_path, [one.as_import() for one in (*scored, mean)]):
        planned.store(tmp_path)
    found = measurements(rows_of(documents(tmp_path)))
    resampler = Resampler(tmp_path, 200)
    resampler.prepare([("lmms-eval", one["key"]) for one in found], SilentProgress())
    drawn = {one["dataset"]: resampler.summary(one.cell, list(one.runs.values())) for one in found}
    assert not resampler.notes
    assert len(drawn) == 7
    assert {estimate.items for estimate in drawn.values()} == {9, 54}
    low, high = drawn[LIVEXIV].interval
    assert low < 100 / 9 < high


def test_items_of_a_sweep_s_cell_have_each_question_once_and_are_drawn_for_the_mean_too(tmp_path: Path) -> None:
    from probes.import_formats.foreign import Imported
    from probes.imports import plan
    from reports.compare.resample import Resampler
    from reports.measurements import measurements
    from rice.progress import SilentProgress

    scored = [livexiv(version, count=9) for version in range(1, 7)]
    mean = livexiv_mean(scored)
    assert mean is not None
    together = [*scored, mean]
    cell = dataclasses.replace(
        mean.result,
        identity=dataclasses.replace(mean.result.identity, probe="llava"),
        metrics=list(metrics_of(together)),
    )
    tables = [one.items for one in together if one.items is not None]
    (planned,) = plan(tmp_path, [Imported(result=cell, write_items=partial(write_items, tables=tables))])
    planned.store(tmp_path)
    found = measurements(rows_of(documents(tmp_path)))
    resampler = Resampler(tmp_path, 200)
    resampler.prepare([("llava", one["key"]) for one in found], SilentProgress())
    drawn = {one["metric"]: resampler.summary(one.cell, list(one.runs.values())) for one in found}
    assert not resampler.notes
    assert {estimate.items for estimate in drawn.values()} == {9, 54}
    low, high = drawn[f"{LIVEXIV} {LIVEXIV}"].interval
    assert low < 100 / 9 < high


@pytest.mark.slow
def test_the_verb_prints_a_line_a_score_and_a_task_that_raises_is_one_line_and_stores_nothing(
    room: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rice import cli

    tasks = write_task(tmp_path / "tasks", name="shares", count=3)
    yaml = (
        (tasks / "shares.yaml")
        .read_text()
        .replace("metadata: {version: 1.5}", "metadata: {version: 2.0, unit: fraction}")
    )
    (tasks / "shares.yaml").write_text(yaml)
    broken = write_task(tmp_path / "broken", name="broken")
    (broken / "broken_parts.py").write_text(
        "def visual(doc):\n    raise OSError('a picture\\nis damaged')\n\n\nscore = visual\n"
    )
    out = tmp_path / "out"
    shutil.copytree(done, out)
    words = ["llava", "eval", str(room / "mini/model"), "--out", str(out), "--device", "cpu", "--batch-size", "4"]
    words += ["--include", str(room / "tasks"), str(tasks), str(broken)]
    capsys.readouterr()  # the library datasets wrote here
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--tasks", "squares,shares,broken"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "rice: error: broken failed, nothing of it is stored: OSError: a picture is damaged (all of it: "
    )
    assert set(load(out)["dataset"]) == {"squares", "shares"}
    assert not list((out / "lmms" / "broken").rglob("results.json"))
    assert "Traceback" in (out / LOG).read_text()
    cli.main([*words, "--tasks", "squares,shares"])
    first, second, last = capsys.readouterr().out.splitlines()
    values = {one["dataset"]: one["metrics"][0] for one in documents(out)}
    squares, shares = values["squares"], values["shares"]
    assert first == (f"clip-l14-336  squares (test, n = 7)  length {squares['value']:.2f} ± {squares['stderr']:.2f}")
    assert second == (
        f"clip-l14-336  shares (test, n = 3)  length {100 * shares['value']:.2f} ± {100 * shares['stderr']:.2f} %"
    )
    assert "rice tables" in last
    assert "a fraction, shown times 100" in shares["protocol"]
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--tasks", "no_such_task"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("rice: error: expected --tasks table1, table5d or names")


@pytest.mark.parametrize(
    ("task", "metric", "said"),
    [
        ("ocrbench", "ocrbench_accuracy", "a fraction, printed out of 1000"),
        ("docvqa_val", "anls", "a fraction, printed times 100"),
        ("mmbench_en_dev_static", "gpt_eval_score", "percent, printed as it is"),
        ("mme", "mme_perception_score", "points out of 2000, printed as it is"),
        ("ai2d", "exact_match,flexible-extract", "a fraction, printed times 100"),
        ("squares", "length", "of no known scale"),
    ],
)
def test_the_printed_scale_is_said(task: str, metric: str, said: str) -> None:
    assert printed_scale(task, metric, "as reported") == said


def test_samples_of_several_processes_come_back_in_the_questions_order(tmp_path: Path) -> None:
    from mllm.llava.items import read_samples

    lines = [json.dumps({"doc_id": number}) for number in (0, 2, 4, 1, 3)]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    assert [sample["doc_id"] for sample in read_samples(tmp_path / "samples.jsonl")] == [0, 1, 2, 3, 4]
