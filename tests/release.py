"""Builds what would be released, looks into it, and tries it in clean environments: `make release-check`.

    python tests/release.py --python python3.11 python3.12 python3.13 [--locked] [--keep FOLDER]

Wheel and sdist are built, and hold what git tracks, no more and no less; the sdist builds the same wheel. Then, for
each interpreter, a fresh environment gets the wheel and what it depends on from the package index (6 GB with CUDA's
libraries; it is removed before the next one is made). Outside the checkout it is asked for every verb's help, a tiny
sweep with its table and page, a clip written and read, a training's cost, all shipped encoders, and, for each extra,
the one line that names it where it is missing. `--locked` takes the versions of requirements.lock; without it come, as
users get them, the newest that pyproject.toml allows. Exit status 1 where anything is wrong; each line says what was
tried.

The checks of contents are tried on faulty archives by tests/test_release.py.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]
PACKAGES = tuple(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
LICENCES = tuple(PROJECT["project"]["license-files"])
BESIDE = ("README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", ".gitignore", *LICENCES)
"""What an sdist holds beside the packages. hatchling adds .gitignore, so that the wheel is built by the same rules."""
NEEDED = (
    *(f"rice/encoders/shipped/{name}-mini/model.safetensors" for name in ("rice", "mlcd", "unicom", "clip")),
    *(f"rice/encoders/shipped/{name}-mini/README.md" for name in ("rice", "mlcd", "unicom", "clip")),
    "rice/encoders/shipped/README.md",
    "rice/encoders/shipped/mini-s8-128/model.safetensors",
    "rice/encoders/shipped/mini-sam/model.safetensors",
    "rice/curate/text/tokenizer.json",
    "probes/sweeps/quickstart.yaml",
    *(f"probes/sweeps/table{table}.yaml" for table in ("1", "2", "3", "4", "5a", "5b", "5c", "5d")),
    *(f"{package}/recipe.py" for package in ("rice/train", "probes/detection", "tracking", "mllm/llava", "mllm/lisa")),
    *(f"reports/paper/table{table}.csv" for table in ("1", "2", "3", "4", "5a", "5b", "5c", "5d")),
    "reports/page/template/index.html.j2",
    "reports/miniature/template/summary.html.j2",
    "rice/curate/montage/template/index.html.j2",
    "rice/page/base.css",
)
"""Files without which an installation lacks a part: packages ship them by their own names, whatever git tracks."""
_INFO = f"rice_suite-{VERSION}.dist-info"
_STRANGE = re.compile(r"(^|/)(tests?|__pycache__|\.[^/]*cache|site|out|quickstart)/|\.(pyc|tmp|log)$")

HELP = """
import contextlib, io
from rice.cli import VERBS, main
for verb in VERBS:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            main([*verb.split(), "--help"])
        except SystemExit as end:
            assert not end.code, (verb, end.code)
    assert f"usage: rice {verb} " in said.getvalue(), (verb, said.getvalue()[:200])
print(len(VERBS), "verbs")
"""
ENCODERS = """
import rice, torch
for name in ("mini-s8-128", "rice-mini", "mlcd-mini", "unicom-mini", "clip-mini"):
    encoder = rice.load_encoder(name)
    assert encoder.trained and encoder.spec.licence == "apache-2.0", (name, encoder.spec.licence)
    size = encoder.spec.native_size
    found = encoder(torch.rand(1, 3, size, size)).patches
    assert found.isfinite().all() and found.std() > 0, name
"""
SWEEP = """
name: tiny
encoders: [rice-mini, {encoder: rice-mini, weights: none, name: untrained}]
datasets: {scenes: {path: world}}
probes: [{probe: dense, data: [scenes], updates: 20, batch: 4}]
seeds: 1
"""
_CURATE = "curate world/train --out c --encoder mini-s8-128 --min-edge 16 --min-region 8 -k 2"
JOBS: tuple[tuple[str, str], ...] = (
    ("--help", ""),
    ("encoders", ""),
    ("doctor", ""),
    ("world scenes --size 96 --train 12 --test 8 --easy --out world", "world/annotations/instances_train.json"),
    ("world scenes --layout refer --size 96 --train 8 --test 4 --out chat", "chat/world.json"),
    ("world scenes --layout lvis --size 96 --train 4 --test 4 --out lvis", "lvis/world.json"),
    ("world clips --size 96 --frames 8 --train 1 --test 1 --out clips", "clips/world.json"),
    ("data check world --decode", ""),
    ("sweep tiny.yaml --out out --dry-run", ""),
    ("sweep tiny.yaml --out out", "out/sweep.json"),
    ("tables out", ""),
    ("tables --paper --table 3", ""),
    ("report out --out site", "site/index.html"),
    ("pack world --min-edge 8 --out shards", "shards/dataset.json"),
    ("train tiny --data shards --out t --dry-run", ""),
    ("pca world/val --encoder mini-s8-128 --size 96 --out pca", "pca/pca.mp4"),
    ("pca pca/pca.mp4 --encoder mini-s8-128 --size 96 --out again", "again/pca.mp4"),
)
"""What a plain installation does: the command, and a file that it leaves."""
EXTRAS: tuple[tuple[str, str], ...] = (
    ("samples", "quickstart --out q"),
    ("page", "tsne world --encoders mini-s8-128 --out tsne"),
    ("slurm", "sweep tiny.yaml --out s --executor slurm"),
    ("train", "train tiny --data shards --out t --machine.tensorboard"),
    ("train", "train tiny --data shards --out t --machine.wandb offline"),
    ("curate", f"{_CURATE} --reader none"),
    ("curate", f"{_CURATE} --proposals boxes"),
    ("ray", f"{_CURATE} --proposals boxes --reader none --engine ray"),
    ("paddle", f"{_CURATE} --proposals boxes --reader paddle"),
    ("mllm", "llava train mini --encoder mini-s8-128@48 --data chat --out l"),
    ("mllm", "lisa train mini --encoder mini-s8-128@48 --data chat --out l"),
    ("mllm", "llava eval nothing --tasks table1 --out l"),
    ("lvis", "detect train mini --encoder mini-s8-128 --data lvis --out d --evaluator lvis --dry-run"),
)
"""What needs an extra: without it, one line that names it. (`rice view` without `fiftyone` writes its page.)"""


_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""What would let an environment see the checkout, or another environment."""


def tracked(packages: Sequence[str] = PACKAGES) -> set[str]:
    """Files that git tracks in the packages."""
    said = subprocess.run(["git", "ls-files", "-z", *packages], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(filter(None, said.stdout.split("\0")))


def wheel_faults(names: Iterable[str], expected: Iterable[str]) -> list[str]:
    """What is wrong with the files of a wheel, `expected` being those of the packages."""
    licences = {f"{_INFO}/licenses/{name}" for name in LICENCES}
    wanted = {
        *expected,
        *licences,
        *(f"{_INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")),
    }
    return _faults(set(names), wanted)


def sdist_faults(names: Iterable[str], expected: Iterable[str]) -> list[str]:
    """The same of an sdist, whose names begin with its folder."""
    folder = f"rice_suite-{VERSION}/"
    return _faults({name.removeprefix(folder) for name in names}, {*expected, *BESIDE, "PKG-INFO"})


def _faults(found: set[str], wanted: set[str]) -> list[str]:
    return [
        *(f"lacks {name}" for name in sorted((wanted | set(NEEDED)) - found)),
        *(f"holds {name}, which is not tracked" for name in sorted(found - wanted)),
        *(f"holds {name}, which nobody needs who installs" for name in sorted(found & wanted) if _STRANGE.search(name)),
    ]


def line_faults(said: str, code: int, extra: str) -> list[str]:
    """What is wrong with how a command ended that lacks `extra`: status 2, one line that holds the pip install."""
    last = (said.strip().splitlines() or [""])[-1]
    named = f"pip install 'rice-suite[{extra}]'" in last
    return [
        *([f"status {code}, not 2"] if code != 2 else []),
        *(["a traceback"] if "Traceback (most recent call last)" in said else []),
        *([f"no line that names {extra}: {last}"] if not named else []),
    ]


def build(folder: Path) -> tuple[Path, list[str]]:
    """The wheel, and the faults of wheel and sdist."""
    _uv("build", "--quiet", "--sdist", "--out-dir", folder, ROOT)
    _uv("build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    _uv("build", "--quiet", "--wheel", "--out-dir", folder / "again", sdist)
    (again,) = (folder / "again").glob("*.whl")
    known = tracked()
    with zipfile.ZipFile(wheel) as archive:
        faults = [f"wheel {fault}" for fault in wheel_faults(archive.namelist(), known)]
    with tarfile.open(sdist) as archive:
        faults += [f"sdist {fault}" for fault in sdist_faults(archive.getnames(), known)]
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, again)}
    faults += ["the sdist builds another wheel than the checkout"] if len(digests) > 1 else []
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in (wheel, sdist))
    print(f"built {sizes}")
    return wheel, faults


def attempt(wheel: Path, interpreter: str, *, locked: bool) -> Iterator[str]:
    """Install into a fresh environment outside the checkout and try it; yields faults."""
    with tempfile.TemporaryDirectory(prefix="rice-release-", ignore_cleanup_errors=True) as made:
        folder, started = Path(made), time.monotonic()
        _uv("venv", "--quiet", "--python", interpreter, folder / "env")
        python, place = folder / "env" / "bin" / "python", folder / "place"
        limits = ("--constraint", ROOT / "requirements.lock") if locked else ()
        _uv("pip", "install", "--quiet", "--python", python, *limits, wheel)
        frozen = _uv("pip", "freeze", "--python", python)
        yield from _too_much(frozen)
        seconds = time.monotonic() - started
        print(f"{_version(python)}: {len(frozen.splitlines())} packages in {seconds:.0f} s", flush=True)
        place.mkdir()
        (place / "tiny.yaml").write_text(SWEEP, encoding="utf-8")
        yield from _tried(python, place)
        if subprocess.run([_uv_path(), "pip", "check", "--quiet", "--python", python], check=False).returncode:
            yield "pip check: packages do not fit"


def _too_much(frozen: str) -> Iterator[str]:
    """Packages of extras that a plain installation brings."""
    named = PROJECT["project"]
    core = {_name(line) for line in named["dependencies"]}
    of_extras = {_name(line) for lines in named["optional-dependencies"].values() for line in lines}
    for name in sorted({_name(line) for line in frozen.splitlines()} & (of_extras - core) - {"rice-suite"}):
        yield f"a plain installation brings {name}, which is an extra's"


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def _tried(python: Path, place: Path) -> Iterator[str]:
    rice = python.with_name("rice")
    code, said = _run([rice, "--version"], place)
    if code or said.strip() != f"rice {VERSION}":
        yield f"rice --version: {said.strip()}"
    for name, text in (("every verb's help", HELP), ("shipped encoders", ENCODERS)):
        code, said = _run([python, "-c", text], place)
        print(f"  {name}: {'ok' if not code else 'FAILED'}", flush=True)
        if code:
            yield f"{name}: {said.strip()[-800:]}"
    for line, left in JOBS:
        code, said = _run([rice, *line.split()], place)
        lacking = left and not (place / left).is_file()
        print(f"  rice {line}: {'FAILED' if code or lacking else 'ok'}", flush=True)
        if code or lacking:
            yield f"rice {line}: status {code}{f', no {left}' if lacking else ''}: {said.strip()[-800:]}"
    for extra, line in EXTRAS:
        code, said = _run([rice, *line.split()], place)
        faults = line_faults(said, code, extra)
        print(f"  without {extra}: rice {line}: {'FAILED' if faults else 'one line'}", flush=True)
        if faults:
            yield f"without {extra}: rice {line}: {', '.join(faults)}"


def _run(words: Sequence[str | Path], place: Path) -> tuple[int, str]:
    """Status and all that was said, of a command that knows nothing of the checkout or of other environments."""
    clean = {name: value for name, value in os.environ.items() if name not in _OURS}
    done = subprocess.run(
        words,
        cwd=place,
        env=clean | {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def _version(python: Path) -> str:
    return _run([python, "-VV"], python.parent)[1].split(" (")[0].strip()


def _uv_path() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        sys.exit("release: needs uv, which make install brings")
    return found


def _uv(*words: str | Path) -> str:
    return subprocess.run([_uv_path(), *map(str, words)], stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> int:
    """Build, look, try. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--python", nargs="*", default=[], help="interpreters to try; none: build and look only")
    parser.add_argument("--locked", action="store_true", help="versions of requirements.lock instead of the newest")
    parser.add_argument("--keep", type=Path, help="folder for wheel and sdist, where all is well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rice-build-") as made:
        wheel, faults = build(Path(made))
        for interpreter in given.python:
            faults += [f"{interpreter}: {fault}" for fault in attempt(wheel, interpreter, locked=given.locked)]
        if given.keep and not faults:
            given.keep.mkdir(parents=True, exist_ok=True)
            for path in (wheel, *Path(made).glob("*.tar.gz")):
                shutil.copy2(path, given.keep)
    print("\n".join(faults) or f"rice-suite {VERSION}: nothing is wrong")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
