"""`rice data check ROOT`: is this data root sound, and what would each probe find in it?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from probes.protocol import DecodesAll, NotThisLayoutError, probe_class, probe_names
from rice.errors import MissingExtraError, RiceError
from rice.progress import BarProgress, Progress, SilentProgress

EXIT_UNUSABLE = 2

_MARKS = {"usable": "ok", "foreign": "-", "broken": "BROKEN"}


@dataclass(frozen=True)
class Finding:
    """What one probe says of a data root. "foreign": another layout, no split to train or test on, or a probe that
    cannot look as one of its packages is not installed."""

    probe: str
    state: Literal["usable", "foreign", "broken"]
    text: str


def examine(root: Path, *, decode: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Ask every registered probe, with its default config; with `decode`, those that can read all of their data do."""
    return [_ask(name, root, decode, progress or SilentProgress()) for name in probe_names()]


def _ask(name: str, root: Path, decode: bool, progress: Progress) -> Finding:
    cls = probe_class(name)
    try:
        probe = cls(cls.Config(), root)
        text = probe.inspect()
        if decode and isinstance(probe, DecodesAll):
            probe.decode_all(progress)
        return Finding(name, "usable", text)
    except (NotThisLayoutError, MissingExtraError) as error:
        return Finding(name, "foreign", str(error))
    except RiceError as error:
        return Finding(name, "broken", str(error))


def check(root: Annotated[Path, tyro.conf.Positional], *, decode: bool = False) -> int:
    """Validate a data root and say what each probe would find in it.

    One line per probe: `ok` with splits, images, annotations and classes; `-` when the data is not for this probe;
    `BROKEN` with the first thing that is wrong: a missing image, a file name outside the folder, a box that is not
    finite, an unknown id. Pictures and masks are listed, not opened, unless --decode asks for it. Exit status 2 when
    something is broken or no probe can use the root.

    Example: rice data check datasets/coco

    Args:
        root: folder of a dataset: COCO's or LVIS's layout (annotations/instances_SPLIT.json with SPLIT/), Roboflow's
            (SPLIT/_annotations.coco.json), Pascal VOC's, a folder of such datasets (Roboflow100, RF100-VL), classified
            pictures (train/CLASS/* with test/CLASS/*, or CLASS/*), words with transcriptions (ICDAR 2015, SROIE), or a
            tracking benchmark (GOT-10k, LaSOT, TrackingNet, TNL2K).
        decode: also decode every picture and mask (minutes for COCO).
    """
    if not root.is_dir():
        raise RiceError(f"expected a dataset folder, found none at {root}")
    findings = examine(root, decode=decode, progress=BarProgress())
    width = max(len(finding.probe) for finding in findings)
    for finding in findings:
        print(f"{finding.probe:<{width}}  {_MARKS[finding.state]:<6}  {finding.text}")  # noqa: T201
    states = {finding.state for finding in findings}
    return EXIT_UNUSABLE if "broken" in states or "usable" not in states else 0
