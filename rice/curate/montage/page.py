"""Shards to a page of their regions that opens without a server.

    OUT/run.json                whose the folder is
    OUT/sheets/IDENTITY/        a sheet for each cluster that is shown, crops of text
    OUT/index.html              the page
    OUT/montage.json            what the page was made from, and its totals; written last

IDENTITY: of the shards, the settings and this version. Sheets are made beside and renamed when all are there, the page
changes to them in one step, and those of the page before go last: whenever it is killed, the page that is there works.
"""

import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rice
from rice.curate.montage.choose import Choice, Chosen, choose
from rice.curate.montage.config import MontageConfig
from rice.curate.montage.content import page_data
from rice.curate.montage.regions import Collection
from rice.curate.montage.sheets import TextCrop, Thumbnails, save_sheet, save_texts, sheet_name, sources
from rice.data.shard_reader import fingerprint
from rice.files import atomic_folder, atomic_write, make_folder, read_object, remove_leftovers, sha256_json, write_json
from rice.page.single import INDEX, render
from rice.progress import Progress
from rice.runs import RUN, alone, refuse_other, same_run

SHEETS, REPORT = "sheets", "montage.json"
_TEMPLATE = Path(__file__).parent / "template"
_FACTS = {"kind": "view of regions"}


def build_montage(
    shards: Path, out: Path, config: MontageConfig, progress: Progress, *, report: Path | None = None
) -> Path:
    """Write the page of a folder of shards, or replace it; returns its index.html. Nothing is done where it is there.

    shards: or what holds them under a URL. report: of the curation that made them; the page says what that left out.
    Errors: RiceError where `out` holds anything else, or another process is at work in it.
    """
    collection = Collection(shards)
    facts = {
        "shards": fingerprint([collection.info]),
        "settings": asdict(config),
        "left_out": left_out(report) if report else {},
        "version": rice.__version__,
    }
    with claimed(out):
        remove_leftovers(out, out / SHEETS)
        if not _finished(out, facts):
            _build(collection, out, config, facts, progress)
    return out / INDEX


def left_out(report: Path) -> dict[str, int]:
    """What a curation's report.json says was left out: "pictures: REASON" and so on -> how many."""
    found = read_object(report)
    sections = {name: found.get(name) for name in ("pictures", "regions", "text", "labels")}
    return {
        f"{name}: {reason}": int(number)
        for name, section in sections.items()
        for reason, number in (section or {}).get("left out", {}).items()
    }


def claimed(out: Path) -> AbstractContextManager[None]:
    """The folder is ours, and nobody else builds in it meanwhile. Errors: RiceError."""
    refuse_other(out, _FACTS, RUN)
    make_folder(out)
    same_run(out, _FACTS)
    return alone(out, ".view.lock", "building a page in")


def _finished(out: Path, facts: dict[str, Any]) -> bool:
    report = out / REPORT
    return report.is_file() and (out / INDEX).is_file() and read_object(report).get("made_from") == facts


def _build(collection: Collection, out: Path, config: MontageConfig, facts: dict[str, Any], progress: Progress) -> None:
    identity = sha256_json(facts)[:16]
    folder = out / SHEETS / identity
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed before its page was there
    choice = choose(collection, config, progress)
    with atomic_folder(folder) as temporary:
        keys, damaged = _write_sheets(collection, choice, config.tile, temporary, progress)
        texts = _write_texts(collection, choice.texts, temporary, progress)
    data = page_data(collection, choice, config, keys, damaged, texts, facts["left_out"])
    with atomic_write(out / INDEX, "wb") as file:
        file.write(_render(data | {"folder": f"{SHEETS}/{identity}"}))
    write_json(out / REPORT, {"totals": dict(data["totals"]), "made_from": facts})
    for path in (out / SHEETS).iterdir():
        if path != folder:
            shutil.rmtree(path)


def _render(data: dict[str, Any]) -> bytes:
    scripts = [_TEMPLATE / f"{name}.js" for name in ("numbers", "cards", "montage")]
    styles = [_TEMPLATE / "montage.css"]
    return render(_TEMPLATE / "index.html.j2", "view", data, styles=styles, scripts=scripts, title=data["title"])


def _write_sheets(
    collection: Collection, choice: Choice, tile: int, folder: Path, progress: Progress
) -> tuple[list[str], list[bool]]:
    """Of each shown region: its picture's key, and whether that is damaged."""
    thumbnails = Thumbnails(folder / "thumbnails", choice.regions, tile)
    for source in sources(collection, choice.regions, progress, "cut regions out"):
        thumbnails.take(source)
    sheets = list(zip(choice.clusters.tolist(), choice.slices(), strict=True))
    for cluster, which in progress.track(sheets, "write sheets"):
        save_sheet(thumbnails.sheet(which), folder / sheet_name(cluster))
    thumbnails.close()
    return thumbnails.keys, thumbnails.damaged.tolist()


def _write_texts(collection: Collection, chosen: Chosen, folder: Path, progress: Progress) -> list[TextCrop]:
    found = [
        crop
        for source in sources(collection, chosen, progress, "cut texts out")
        for crop in save_texts(source, chosen, folder)
    ]
    return sorted(found, key=lambda crop: crop.number)
