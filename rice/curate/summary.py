"""What became of the pictures and regions of a curation, with the rates at which it was done: OUT/report.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rice
from rice.curate.cluster import REPORT as CLUSTER_REPORT
from rice.curate.stage import PAGE, REPORT, totals
from rice.files import read_object, write_json
from rice.runs import RUN

_STAGES = ("scan", "decode", "propose", "embed", "ocr", "label")


def write_report(out: Path, shards: Sequence[str], clusters: Path) -> dict[str, Any]:
    """Of all that is done so far. What is left out and what is kept add up to what was found."""
    found = {stage: totals(out, stage, shards) for stage in _STAGES}
    pictures, proposed = {**found["scan"].counts, **found["decode"].counts}, found["propose"].counts
    report: dict[str, Any] = {
        "pictures": _line(pictures, "found", "pictures", found["decode"].drops or found["scan"].drops),
        "notes": _notes(found["decode"].counts) | _notes(found["propose"].counts),
        "regions": _line(proposed, "proposed", "regions", found["propose"].drops),
        "text": _line(found["ocr"].counts, "read", "regions", found["ocr"].drops),
        "labels": {"counts": dict(found["label"].counts), "left out": _some(found["label"].drops)},
        "pictures_per_worker_second": {
            stage: round(pictures["found" if stage in ("scan", "decode") else "pictures"] / done.seconds, 2)
            for stage, done in found.items()
            if done.seconds
        },
        "settings": {
            path.parent.name: read_object(path)
            for path in sorted(out.glob(f"*/{RUN}"))
            if path.parent.name != PAGE  # made of the report, and there before it only where that run was killed
        },
        "versions": {"rice-suite": rice.__version__},
    }
    of_clusters = clusters / CLUSTER_REPORT
    report["clusters"] = read_object(of_clusters) if of_clusters.is_file() else None
    write_json(out / REPORT, report)
    return report


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report to print."""
    text = [_said(name, report[name]) for name in ("pictures", "regions", "text") if report[name]["found"]]
    if notes := report["notes"]:
        text.append("notes     " + ", ".join(f"{count:,} {what}" for what, count in notes.items()))
    if report["clusters"]:
        found = report["clusters"]
        text.append(f"clusters  {found['clusters']:,} of {found['rows']:,} regions, {found['empty']:,} empty")
    if labels := report["labels"]["counts"]:
        bare = labels.get("pictures without a region", 0)
        text.append(
            f"labels    {labels['objects']:,} objects and {labels['texts']:,} texts; {bare:,} pictures have none"
            + _reasons(report["labels"]["left out"])
        )
    rates = ", ".join(f"{stage} {rate:,.3g}" for stage, rate in report["pictures_per_worker_second"].items())
    return [*text, f"pictures a second and worker: {rates}"]


def _line(counts: Mapping[str, int], found: str, kept: str, drops: Mapping[str, int]) -> dict[str, Any]:
    return {"found": counts.get(found, 0), "kept": counts.get(kept, 0), "left out": _some(drops)}


def _notes(counts: Mapping[str, int]) -> dict[str, int]:
    """What happened to pictures that were not left out."""
    return {name: n for name, n in counts.items() if n and (name.startswith("converted") or "annotations" in name)}


def _some(drops: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(drops.items(), key=lambda item: -item[1]) if count}


def _said(name: str, line: Mapping[str, Any]) -> str:
    return f"{name:<9} {line['kept']:,} of {line['found']:,}{_reasons(line['left out'])}"


def _reasons(drops: Mapping[str, int]) -> str:
    return "; left out: " + ", ".join(f"{count:,} {reason}" for reason, count in drops.items()) if drops else ""
