"""Model cards in the format of the Hugging Face hub: a README.md per encoder, whose metadata its tools read.

The metadata says what the results say, and no more: a licence, a base model or a revision that is not known is left
out, never guessed. Imports huggingface_hub (which transformers brings) only when a card is written.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.cards.groups import Group, clean, groups
from reports.cards.text import NOT_STATED, body
from rice.errors import RiceError
from rice.files import atomic_write, remove_leftovers, safe_join

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

CARDS = "cards"
PIPELINE = "image-feature-extraction"

# The hub's task for each probe; it has none for tracking, and knows no probe of others.
_TASKS = {
    "dense": "image-segmentation", "detection": "object-detection", "knn": "image-classification",
    "text": "image-to-text",
}  # fmt: skip
_LIBRARIES = {
    "hf": "transformers", "open_clip": "open_clip", "timm": "timm", "rice": "rice-suite", "own": "rice-suite",
}  # fmt: skip
_LICENCES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigscience-openrail-m", "bsd",
    "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "cc", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "creativeml-openrail-m", "ecl-2.0",
    "epl-2.0", "gemma", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "llama2", "llama3", "mit",
    "mpl-2.0", "ms-pl", "openrail", "unlicense", "wtfpl", "zlib",
})  # fmt: skip
_PLAIN_FOLDER = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_HASH_LENGTH = 16
_HASHED_FOLDER = re.compile(rf".*-[0-9a-f]{{{_HASH_LENGTH}}}")


def write_cards(documents: Iterable[dict[str, Any]], out: Path) -> list[Path]:
    """Write OUT/cards/FOLDER/README.md for each encoder of the results; returns the files, in the labels' order.

    `documents` are results as `probes.results.documents` yields them. FOLDER is the encoder's label where that is a
    plain name in lower case, and else what is plain of it with a hash: different labels never share a folder. Nothing
    is written where one card cannot be made. Errors: RiceError, OSError.
    """
    by_label: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        by_label.setdefault(document["encoder"], []).append(document)
    folders = {label: folder_name(label) for label in sorted(by_label)}
    if len(set(folders.values())) < len(folders):
        raise RiceError("two encoders have labels that end in the same folder name; rename one of them in the sweep")
    cards = {
        safe_join(out / CARDS, folder) / "README.md": str(card(label, by_label[label]))
        for label, folder in folders.items()
    }
    for path, text in cards.items():
        with atomic_write(path) as file:
            file.write(text)
        remove_leftovers(path.parent)
    return list(cards)


def card(label: str, documents: Sequence[dict[str, Any]]) -> "ModelCard":
    """The card of one encoder from all its results. Its `data` is the metadata, its `text` the rest."""
    from huggingface_hub import ModelCard, ModelCardData

    found = groups(documents)
    licence = _licence(documents)
    identifier, name = _hub_licence(licence)
    data = ModelCardData(
        license=identifier,
        license_name=name,
        library_name=_library(documents),
        pipeline_tag=PIPELINE,
        tags=["frozen-encoder", "probing", "rice-suite", *sorted({slug(group.probe) for group in found})],
        base_model=_base_model(documents),
        model_name=clean(label),
        eval_results=[result for group in found for result in _eval_results(group)],
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body(label, found, licence)}")


def folder_name(label: str) -> str:
    """A file name for an encoder's label, which is untrusted: of lower-case letters, digits, '.', '_' and '-'.

    A label that is such a name, and does not look like one with a hash, stays as it is.
    """
    if _PLAIN_FOLDER.fullmatch(label) and not _HASHED_FOLDER.fullmatch(label):
        return label
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug(label)[:48]}-{digest[:_HASH_LENGTH]}"


def slug(text: str) -> str:
    """'knn top-1' -> 'knn-top-1': lower-case letters, digits, '.' and '-'; 'unnamed' where nothing is left."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"


def _eval_results(group: Group) -> list["EvalResult"]:
    from huggingface_hub import EvalResult

    identity = group.identity
    return [
        EvalResult(
            task_type=_TASKS.get(group.probe, PIPELINE),
            dataset_type=group.dataset,
            dataset_name=group.dataset,
            dataset_split=clean(one["split"]),
            dataset_revision=clean(identity["dataset_fingerprint"]),
            metric_type=slug(one["metric"]),
            metric_name=f"{clean(one['metric'])} ({group.probe})",
            metric_value=float(f"{one.score.mean:.6g}"),
            metric_args={"measurement": group.key, "size": identity["size"], "layer": identity["layer"]},
        )
        for one in group.scores
    ]


def _licence(documents: Sequence[dict[str, Any]]) -> str:
    """What the encoder's spec states, in its words; several that differ are all shown."""
    stated = [document["encoder_spec"].get("licence") for document in documents]
    return (
        ", ".join(dict.fromkeys(clean(text) for text in stated if isinstance(text, str) and text.strip())) or NOT_STATED
    )


def _hub_licence(licence: str) -> tuple[str | None, str | None]:
    """The hub's own identifier where it has one; `other` and the name where not; nothing where none is stated."""
    if licence == NOT_STATED:
        return None, None
    known = licence.lower()
    return (known, None) if known in _LICENCES else ("other", slug(licence))


def _library(documents: Sequence[dict[str, Any]]) -> str | None:
    """The library that the encoder is loaded by; None where it is not known."""
    sources = {str(document["encoder_spec"].get("source")).partition(":")[0] for document in documents}
    return _LIBRARIES.get(sources.pop()) if len(sources) == 1 else None


def _base_model(documents: Sequence[dict[str, Any]]) -> str | None:
    """The repository of published weights, for encoders of the zoo; None where it is not known for sure."""
    from rice.encoders.zoo import ZOO

    repos = set()
    for document in documents:
        entry = ZOO.get(re.split("[@,]", document["reference"])[0])  # NAME@SIZE,layer=K
        repos.add(entry.repo if entry is not None and document["weights"] == "default" else None)
    return repos.pop() if len(repos) == 1 else None
