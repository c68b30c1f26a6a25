"""DocVQA's own JSON as the Parquet file that lmms-eval's task docvqa_val reads, so that it runs without the hub.

Columns are those of the data set lmms-lab/DocVQA. Imports no torch.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mllm.llava.json_stream import rows_of_json
from mllm.llava.pictures import header
from rice.data.picture import DECODER_ERRORS
from rice.errors import RiceError
from rice.files import atomic_path, safe_join

_AT_ONCE = 64
"""Rows of a group; each holds its page."""

_TEXT = {"dtype": "string", "_type": "Value"}
_TEXTS = {"feature": _TEXT, "_type": "Sequence"}
_FEATURES: dict[str, dict[str, Any]] = {
    "questionId": _TEXT,
    "question": _TEXT,
    "question_types": _TEXTS,
    "image": {"_type": "Image"},
    "docId": {"dtype": "int64", "_type": "Value"},
    "ucsf_document_id": _TEXT,
    "ucsf_document_page_no": _TEXT,
    "answers": _TEXTS,
    "data_split": _TEXT,
}
"""As the library `datasets` writes them into a file; without them it would not make a picture of `image`."""

_KINDS = {
    "string": pa.string(),
    "int64": pa.int64(),
    "Sequence": pa.list_(pa.string()),
    "Image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
}

SCHEMA = pa.schema(
    [(name, _KINDS[feature.get("dtype", feature["_type"])]) for name, feature in _FEATURES.items()],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def docvqa_parquet(annotations: Path, out: Path, images: Path | None = None) -> int:
    """Write `out` from e.g. val_v1.0.json; returns how many questions it holds. Nothing is left out: it is a benchmark.

    images: the folder that image paths start from; None: the one of the annotations.
    Errors: RiceError naming the question: its page is missing or no picture, a field is missing; no question at all.
    """
    root = images if images is not None else annotations.parent
    count = 0
    with atomic_path(out) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="none") as file:
        rows = _rows(annotations, root)
        while batch := list(itertools.islice(rows, _AT_ONCE)):
            file.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
            count += len(batch)
        if not count:
            raise RiceError(f"expected questions in {annotations}, found none")
    return count


def _rows(annotations: Path, root: Path) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows_of_json(annotations)):
        try:
            yield _row(row, root)
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise RiceError(f"{annotations}: row {number} is no question of DocVQA: {wrong}") from error


def _row(row: Any, root: Path) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise TypeError(type(row).__name__)
    answers = row.get("answers") or []  # the test split has none
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise TypeError(f"answers {answers!r}")
    return {
        "questionId": str(row["questionId"]),
        "question": str(row["question"]),
        "question_types": list(map(str, row.get("question_types") or [])),
        "image": {"bytes": _page(root, row["image"]), "path": Path(row["image"]).name},
        "docId": int(row["docId"]),
        "ucsf_document_id": str(row["ucsf_document_id"]),
        "ucsf_document_page_no": str(row["ucsf_document_page_no"]),
        "answers": answers,
        "data_split": str(row["data_split"]),
    }


def _page(root: Path, name: str) -> bytes:
    path = safe_join(root, name)
    try:
        with path.open("rb") as file:
            header(file)
            file.seek(0)
            return file.read()
    except DECODER_ERRORS as error:
        raise RiceError(f"cannot read the page {path}: {error}; replace it") from error
