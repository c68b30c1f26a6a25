"""`rice data check ROOT`: is this data root sound, and what would each probe find in it?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from probes.protocol import NotThisLayoutError, probe_class, probe_names
from rice.errors import RiceError

EXIT_UNUSABLE = 2

_MARKS = {"usable": "ok", "foreign": "-", "broken": "BROKEN"}


@dataclass(frozen=True)
class Finding:
    """What one probe says of a data root. "foreign": another layout, or no split to train or test on."""

    probe: str
    state: Literal["usable", "foreign", "broken"]
    text: str


def examine(root: Path) -> list[Finding]:
    """Ask every registered probe, with its default config."""
    return [_ask(name, root) for name in probe_names()]


def _ask(name: str, root: Path) -> Finding:
    cls = probe_class(name)
    try:
        return Finding(name, "usable", cls(cls.Config(), root).inspect())
    except NotThisLayoutError as error:
        return Finding(name, "foreign", str(error))
    except RiceError as error:
        return Finding(name, "broken", str(error))


def check(root: Annotated[Path, tyro.conf.Positional]) -> int:
    """Validate a data root and say what each probe would find in it.

    One line per probe: `ok` with splits, images, annotations and classes; `-` when the data is not for this probe;
    `BROKEN` with the first thing that is wrong: a missing image, a file name outside the folder, a box that is not
    finite, an unknown id. Exit status 2 when something is broken or no probe can use the root.

    Example: rice data check datasets/coco

    Args:
        root: folder of a dataset: COCO's or Roboflow's layout (annotations/instances_SPLIT.json with SPLIT/, or
            SPLIT/_annotations.coco.json), or classified pictures (train/CLASS/* with test/CLASS/*, or CLASS/*).
    """
    if not root.is_dir():
        raise RiceError(f"expected a dataset folder, found none at {root}")
    findings = examine(root)
    width = max(len(finding.probe) for finding in findings)
    for finding in findings:
        print(f"{finding.probe:<{width}}  {_MARKS[finding.state]:<6}  {finding.text}")  # noqa: T201
    states = {finding.state for finding in findings}
    return EXIT_UNUSABLE if "broken" in states or "usable" not in states else 0
