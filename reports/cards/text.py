"""The words of a model card: what was measured, by which protocol, how to repeat it, and what is not known.

Texts of a result may be anybody's, so each is escaped wherever Markdown would read it as more than text.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from reports.cards.groups import Group, clean
from reports.grid import EMPTY
from reports.measurements import items_text

NOT_STATED = "not stated"
DECIMALS = 2

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$#@]|(?<=www)\.|:(?=//)")
_FACTS = ("name", "source", "revision", "paper", "patch", "width", "depth", "native_size", "note")
_FACT_NAMES = {"native_size": "native size", "patch": "patch size"}


def escape(text: str) -> str:
    """A cleaned text that Markdown shows as it is, in a paragraph, a heading or a table's cell."""
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", clean(text))


def body(label: str, found: Sequence[Group], licence: str) -> str:
    """The card below its metadata, Markdown. `licence`: the text to show for it."""
    documents = [document for group in found for document in group.documents]
    sections = [
        [f"# {escape(label)}", "", *_opening(documents, found)],
        ["## Results", "", *_results(found)],
        ["## The encoder", "", *_encoder(documents, licence)],
        *([f"## Measurement {i}", "", *_measurement(group)] for i, group in enumerate(found, 1)),
        ["## Versions", "", *_versions(documents)],
        ["## How to repeat", "", *_repeat(label, found)],
        ["## What is not known", "", *_unknown(documents, found, licence)],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _opening(documents: Sequence[dict[str, Any]], found: Sequence[Group]) -> list[str]:
    lines = [
        "How good is this vision encoder at dense work while it stays frozen? The numbers below were measured by "
        "rice-suite: nothing of the encoder was trained, only a probe's head on its features."
    ]
    elsewhere = [str(i) for i, group in enumerate(found, 1) if group.imported]
    if elsewhere:
        lines += [
            "",
            f"**Imported:** measurements {', '.join(elsewhere)} were made elsewhere, and are as reported there.",
        ]
    if not all(document["trained"] for document in documents):
        lines += ["", "**Untrained:** these are results of random weights, a floor for others to be compared with."]
    return lines


def _results(found: Sequence[Group]) -> list[str]:
    header = ("Measurement", "Probe", "Data", "Split", "Metric", "Unit", "Mean ± sd", "Seeds", "n")
    rows = [
        (
            str(i),
            *map(escape, (group.probe, group.dataset, one["split"], one["metric"], one.cell.shown_unit)),
            one.score.text(DECIMALS),
            str(one.score.seeds),
            items_text([one]).removeprefix("n = "),
        )
        for i, group in enumerate(found, 1)
        for one in group.scores
    ]
    lower = sorted({escape(one["metric"]) for group in found for one in group.scores if not one["higher_is_better"]})
    return [
        *_table(header, rows, numbers=3),
        "",
        "The mean and the standard deviation (ddof 1) are over seeds; n counts the items behind one seed's number. "
        "Fractions are in percent. Results that differ in anything but the seed are separate measurements, each "
        "described in full below." + (f" Lower is better for: {', '.join(lower)}." if lower else ""),
    ]


def _encoder(documents: Sequence[dict[str, Any]], licence: str) -> list[str]:
    lines = [f"- Reference: {escape(text)}" for text in sorted({document["reference"] for document in documents})]
    for fact in _FACTS:
        values = [document["encoder_spec"].get(fact) for document in documents]
        known = dict.fromkeys(escape(str(v)) for v in values if type(v) in (str, int) and str(v).strip())
        if known:
            lines.append(f"- {_FACT_NAMES.get(fact, fact).capitalize()}: {', '.join(known)}")
    return [*lines, f"- Licence: {escape(licence)}"]


def _measurement(group: Group) -> list[str]:
    identity, first = group.identity, group.documents[0]
    size = NOT_STATED if identity["size"] is None else f"{identity['size']} x {identity['size']} pixels"
    cost = [size]
    cost += [] if first["tokens"] is None else [f"{first['tokens']} patch tokens"]
    cost += [] if first["gflops"] is None else [f"{first['gflops']:.3g} GFLOPs an image"]
    layer = NOT_STATED if identity["layer"] is None else str(identity["layer"])
    columns = [
        f"{escape(one['metric'])} ({escape(one['split'])}, {escape(one.cell.shown_unit)})" for one in group.scores
    ]
    rows = []
    for document in group.documents:
        runs = [one.runs.get(document["seed"]) for one in group.scores]
        texts = [EMPTY if run is None else f"{run.value:.{DECIMALS}f}" for run in runs]
        rows.append((f"`{document['key']}`", str(document["seed"]), *texts))
    return [
        f"The probe {escape(group.probe)} on {escape(group.dataset)}.",
        "",
        f"- Input: {', '.join(cost)}",
        f"- Hidden state: {layer}; final norm: {escape(first['encoder_spec']['norm'])}",
        f"- Protocol version: {identity['protocol_version']}",
        *(
            f"- Protocol of {escape(one['metric'])} ({escape(one['split'])}): {escape(one['protocol'])}"
            for one in group.scores
        ),
        f"- Fingerprints: encoder `{_hash(identity['encoder_fingerprint'])}`, "
        f"data `{_hash(identity['dataset_fingerprint'])}`, all but the seed `{group.key}`",
        "",
        *_table(("Result", "Seed", *columns), rows, numbers=len(columns) + 1),
        "",
        "Settings that decide the numbers:",
        "",
        *_fence("json", json.dumps(identity["config"], indent=1, sort_keys=True)),
    ]


def _versions(documents: Sequence[dict[str, Any]]) -> list[str]:
    packages = sorted({name for document in documents for name in document["versions"]})
    rows = []
    for package in packages:
        values = dict.fromkeys(str(document["versions"].get(package) or "absent") for document in documents)
        rows.append((escape(package), ", ".join(map(escape, values))))
    commits = dict.fromkeys(document["commit"] or NOT_STATED for document in documents)
    devices = dict.fromkeys(document["device"] for document in documents)
    return [
        *_table(("Package", "Version"), rows, numbers=0),
        "",
        f"- Commit of rice-suite: {', '.join(map(escape, commits))}",
        f"- Device: {', '.join(map(escape, devices))}",
        f"- Finished: {escape(max(document['finished'] for document in documents))}",
    ]


def _repeat(label: str, found: Sequence[Group]) -> list[str]:
    """A sweep file of all measurements whose encoder is written alike; `path` and weights of one's own stay open."""
    found = [group for group in found if not group.imported]
    if not found:
        return ["All results were imported: repeat them where they were made."]
    first = found[0].documents[0]
    encoder = {"encoder": clean(first["reference"]), "name": clean(label)}
    if first["weights"] != "default":
        encoder["weights"] = "none" if not first["trained"] else "PATH"
    sweep = {
        "name": "card",
        "encoders": [encoder],
        "datasets": {group.dataset: {"path": None} for group in found},
        "probes": [
            {"probe": group.probe, "data": [group.dataset], **_overrides(group.identity["config"])}
            for group in found
            if clean(group.documents[0]["reference"]) == encoder["encoder"]
        ],
        "seeds": sorted({document["seed"] for group in found for document in group.documents}),
    }
    return [
        "Write this as `card.yaml`, name the folder of each dataset, and run the command below it. A result is the "
        "same measurement where the fingerprints above come out again.",
        "",
        *_fence("yaml", yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True, width=float("inf")).rstrip()),
        "",
        *_fence("", "rice sweep card.yaml --data NAME=PATH --out out\nrice report out --out site --card"),
    ]


def _overrides(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config as a sweep file writes it: `dotted.name: value`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        path = prefix + clean(name)
        flat |= _overrides(value, f"{path}.") if isinstance(value, dict) else {path: _plain(value)}
    return flat


def _plain(value: Any) -> Any:
    """A setting's value; lists in lists in one list, as a flag takes them."""
    if isinstance(value, list):
        items = [_plain(item) for item in value]
        return [part for item in items for part in (item if isinstance(item, list) else [item])]
    return clean(value) if isinstance(value, str) and value else value


def _unknown(documents: Sequence[dict[str, Any]], found: Sequence[Group], licence: str) -> list[str]:
    lines = ["Whether the encoder saw pictures of these datasets while it was trained."]
    if licence == NOT_STATED:
        lines.append("The licence of the weights: the results do not state it.")
    if not any(document["encoder_spec"].get("revision") for document in documents):
        lines.append("The revision of the weights; their fingerprint is above.")
    if any(document["commit"] is None for document in documents):
        lines.append("The commit of rice-suite, for results that were not computed in a checkout.")
    if any(one.score.spread is None for group in found for one in group.scores):
        lines.append("The spread over seeds, where there is one seed.")
    if len({document["reference"] for document in documents}) > 1:
        lines.append("Which of the references above the name means: several go by it.")
    return [f"- {line}" for line in lines]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> list[str]:
    """A pipe table of escaped cells whose last `numbers` columns are aligned to the right."""
    rule = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def _fence(language: str, text: str) -> list[str]:
    """Lines that hold no newline but their own cannot close a fence: JSON and YAML quote what starts with one."""
    return [f"```{language}", *text.split("\n"), "```"]


def _hash(text: str) -> str:
    """A fingerprint for a code span, which knows no escapes."""
    return re.sub(r"[^0-9A-Za-z:._-]", "�", text) or NOT_STATED
