"""The table of docs/licences.md: direct dependencies, their versions in requirements.lock, their licences.

    python tests/licences.py        writes the table anew

A licence is what the installed package's metadata states. `BY_HAND` has those whose metadata states none, or not all,
and those that `make install` does not bring. tests/test_licences.py fails where the page is behind.
"""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- dependencies: written by tests/licences.py -->", "<!-- end of dependencies -->"
BY_HAND = {
    "distance": "GPL (version 2 is its LICENSE)",
    "faster-coco-eval": "Apache-2.0 (its LICENSE)",
    "lvis": "BSD-2-Clause (its LICENSE)",
    "polygon3": "LGPL; the GPC inside: no commercial use without a licence of its own",
    "torchvision": "BSD-3-Clause (its LICENSE)",
    "faiss-gpu-cu12": "MIT (by its page; not installed here)",
    "fiftyone": "Apache-2.0 (by its page; not installed here)",
    "paddleocr": "Apache-2.0 (by its page; not installed here)",
    "paddlepaddle": "Apache-2.0 (by its page; not installed here)",
    "tensorboard": "Apache-2.0 (by its page; not installed here)",
}
_SPDX = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd license": "BSD-3-Clause",
    "freebsd": "BSD-2-Clause",
    "mit license": "MIT",
    "python software foundation license": "PSF-based",
}
"""Words of old metadata, small -> SPDX. The "BSD License" of our dependencies has three clauses."""
_LONGEST = 60
"""A longer text of a field is a licence itself, not its name."""


def key(requirement: str) -> str:
    """A package's name as all indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]).lower()


def direct() -> dict[str, list[str]]:
    """Package -> the extras that name it; none for the core."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, list[str]] = {key(line): [] for line in project["dependencies"]}
    for extra, lines in project["optional-dependencies"].items():
        for name in map(key, lines):
            if name != key(project["name"]) and found.get(name) != []:
                found.setdefault(name, []).append(extra)
    return found


def locked() -> dict[str, list[str]]:
    """Package -> its versions in requirements.lock, more than one where Pythons differ."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        found.setdefault(key(name), []).append(version)
    return found


def stated(metadata: Mapping[str, str], classifiers: list[str]) -> str | None:
    """The licence that a package's metadata states: the expression, else a known name, else the classifiers."""
    if metadata.get("License-Expression"):
        return metadata["License-Expression"]
    names = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: ")]
    text = metadata.get("License") or ""
    short = text not in ("", "UNKNOWN") and len(text) <= _LONGEST and "\n" not in text
    if text.lower() in _SPDX or (short and not names):  # which says more than "BSD License"
        names = [text]
    return ", ".join(_SPDX.get(name.lower(), name) for name in names) or None


def installed(name: str) -> tuple[str, str | None] | None:
    """Version and stated licence of a package here; None where it is not."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    fields = {field: metadata[field] for field in ("License-Expression", "License") if metadata[field] is not None}
    return metadata["Version"], stated(fields, metadata.get_all("Classifier") or [])


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Package, versions of the lock, licence, what it is for. Errors: ValueError for a package of unknown licence."""
    versions = locked()
    for name, extras in sorted(direct().items(), key=lambda item: (bool(item[1]), item[0])):
        found = installed(name)
        licence = BY_HAND.get(name) or (found[1] if found else None)
        if licence is None:
            raise ValueError(f"{name}: expected a licence in its metadata, found none; read it and put it into BY_HAND")
        yield name, ", ".join(versions[name]), licence, ", ".join(extras) or "the core"


def table() -> str:
    """Markdown."""
    lines = ["| Package | Locked | Licence | For |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows())])


def main() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
