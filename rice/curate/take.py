"""The first two stages: which of the pictures that were found are taken, and where they lie."""

from collections.abc import Sequence
from pathlib import Path

from rice.curate.config import CheckConfig
from rice.curate.decode import DecodeStage
from rice.curate.engine import Engine
from rice.curate.scan import ScanStage, duplicates
from rice.curate.sources import SourceShard
from rice.errors import RiceError
from rice.files import read_json, write_json
from rice.progress import Progress

PICTURES = "pictures.json"


def take_pictures(
    sources: Sequence[SourceShard], out: Path, check: CheckConfig, engine: Engine, progress: Progress
) -> dict[str, int]:
    """Scan and decode; the shards that have pictures, and how many."""
    by_name = {source.name: source for source in sources}
    scan = ScanStage(out, by_name, check)
    engine.run(scan, {source.name: source.count() for source in sources}, progress)
    found = {name: scan.manifest(name).counts["found"] for name in by_name}
    decode = DecodeStage(out, by_name, duplicates(out, list(by_name)))
    engine.run(decode, found, progress)
    pictures = {name: decode.manifest(name).counts["pictures"] for name in by_name}
    kept = {name: count for name, count in pictures.items() if count}
    write_json(out / PICTURES, list(kept.items()))
    return kept


def pictures_of(out: Path) -> dict[str, int]:
    """The shards of a curation that has its pictures. Errors: RiceError where it has not."""
    path = out / PICTURES
    if not path.is_file():
        raise RiceError(f"{out} has no {PICTURES}: begin with rice curate IMAGES --out {out} --until decode")
    return {str(name): int(count) for name, count in read_json(path)}
