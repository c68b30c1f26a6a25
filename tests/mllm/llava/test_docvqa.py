"""DocVQA's JSON as Parquet is what lmms-eval's own task reads."""

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mllm.llava.docvqa import docvqa_parquet
from rice.errors import RiceError


def question(**other: Any) -> dict[str, Any]:
    return {
        "questionId": 5,
        "question": "Whose page?",
        "image": "documents/a.png",
        "docId": 9,
        "ucsf_document_id": "abcd",
        "ucsf_document_page_no": "3",
        "answers": ["ITC", "itc"],
        "data_split": "val",
    } | other


def write(root: Path, *questions: Any) -> Path:
    (root / "documents").mkdir(exist_ok=True)
    Image.new("L", (30, 40), 200).save(root / "documents" / "a.png")
    (root / "val.json").write_text(json.dumps({"dataset_name": "docvqa", "data": questions}))
    return root / "val.json"


def lmms_eval_utils() -> dict[str, Any]:
    """The functions of lmms-eval's task, without importing lmms-eval: that takes long, and makes Pillow forgive files
    that are cut off, in the whole process."""
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or spec.origin is None:
        pytest.skip("needs lmms-eval")
    source = (Path(spec.origin).parent / "tasks" / "docvqa" / "utils.py").read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    found: dict[str, Any] = {}
    exec(compile(ast.Module(functions, []), "utils.py", "exec"), found)
    return found


def load(path: Path, cache: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset(
        "parquet", data_files={"validation": str(path)}, split="validation", cache_dir=str(cache)
    )


def test_lmms_evals_task_sees_picture_question_and_answers(tmp_path: Path) -> None:
    utils = lmms_eval_utils()
    rows = [question(), question(questionId=6, answers=None, question_types=["layout"])]
    assert docvqa_parquet(write(tmp_path, *rows), tmp_path / "val.parquet") == 2
    docs = load(tmp_path / "val.parquet", tmp_path / "cache")
    (picture,) = utils["docvqa_doc_to_visual"](docs[0])
    assert (picture.size, picture.mode, picture.getpixel((3, 3))) == ((30, 40), "RGB", (200, 200, 200))
    post = {"pre_prompt": "", "post_prompt": "\nAnswer briefly."}
    assert utils["docvqa_doc_to_text"](docs[0], post) == "Whose page?\nAnswer briefly."
    assert [doc["answers"] for doc in docs] == [["ITC", "itc"], []]
    assert [doc["question_types"] for doc in docs] == [[], ["layout"]]
    assert (docs[1]["questionId"], docs[1]["docId"]) == ("6", 9)


def test_a_question_that_cannot_be_asked_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    incomplete = question()
    del incomplete["docId"]
    for wrong, says in (
        (question(image="documents/none.png"), "cannot read the page .*none.png"),
        (question(image="../a.png"), "expected a file name inside"),
        (question(image="val.json"), "cannot read the page .*val.json"),
        (incomplete, "row 1 is no question of DocVQA: no 'docId'"),
        (question(answers="ITC"), "row 1 is no question of DocVQA: answers 'ITC'"),
        ("text", "row 1 is no question of DocVQA"),
    ):
        with pytest.raises(RiceError, match=says):
            docvqa_parquet(write(tmp_path, question(), wrong), tmp_path / "val.parquet")
        assert not (tmp_path / "val.parquet").exists()
    with pytest.raises(RiceError, match="expected questions in .*val.json, found none"):
        docvqa_parquet(write(tmp_path), tmp_path / "val.parquet")


@pytest.mark.data
def test_real_questions_are_all_there_with_their_pages(shared_data: Path, tmp_path: Path) -> None:
    annotations = shared_data / "docvqa" / "val_v1.0.json"
    assert docvqa_parquet(annotations, tmp_path / "val.parquet") == 12
    docs = load(tmp_path / "val.parquet", tmp_path / "cache")
    truth = json.loads(annotations.read_text())["data"]
    for doc, row in zip(docs, truth, strict=True):
        assert (doc["questionId"], doc["question"], doc["answers"]) == (
            str(row["questionId"]),
            row["question"],
            row["answers"],
        )
        assert doc["image"].tobytes() == Image.open(annotations.parent / row["image"]).tobytes()
