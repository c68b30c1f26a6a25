"""Captions of a split in COCO's layout: annotations/captions_SPLIT.json beside its instances, as COCO has them."""

from pathlib import Path

from rice.data.splits import SplitFiles
from rice.errors import RiceError
from rice.files import read_object


def captions_file(files: SplitFiles) -> Path | None:
    """Where they lie, if anywhere."""
    path = files.annotations.parent / f"captions_{files.name}.json"
    return path if path.is_file() else None


def read_captions(path: Path) -> dict[int, list[str]]:
    """Picture's id -> its captions, in the file's order. Errors: RiceError naming the record that is none."""
    records = read_object(path).get("annotations")
    if not isinstance(records, list):
        raise RiceError(f"{path}: expected a list as annotations, got {type(records).__name__}")
    found: dict[int, list[str]] = {}
    for position, record in enumerate(records):
        image, text = (record.get(key) for key in ("image_id", "caption")) if isinstance(record, dict) else (None, None)
        if type(image) is not int or not isinstance(text, str):
            raise RiceError(f"{path}: expected image_id and caption in record {position}, got {str(record)[:80]}")
        found.setdefault(image, []).append(text)
    return found
