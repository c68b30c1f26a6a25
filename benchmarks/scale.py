"""What a study of many encoders takes that nobody has run yet, and which step hurts first. Exits 1 over a limit.

    python benchmarks/scale.py [--parts plan tables page] [--divide 100] [--json FILE]

plan     `rice sweep --dry-run` of 100,000 cells of three seeds: the file, every cell's key, what is there already
tables   `rice tables` of 100,000 results of two metrics, a file each as the store has them; a million is derived
page     `rice report` of the same: 50,000 cells; then Chromium opens it, draws all of it and sorts it

Every figure is of a process of its own: seconds of its processor (what others run beside it is not in them) and of the
clock, and the peak of its memory. Each part is measured at a tenth of its size, too: `x` is how many times as long the
whole takes; 10 is linear. Files are as warm as writing left them. Sizes of a training: benchmarks/scale_train.py.
"""

import dataclasses
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.timing import Figures, Stages, apart, begin, sizes, whole_of

Part = Literal["plan", "tables", "page"]

STORED = 100_000
SEEDS, PROBES, DATASETS = 4, 2, 25
PATIENCE_MS = 1_200_000
LIMITS = {
    "plan": {"cpu_s": 60.0, "peak_mib": 4096.0},
    "tables": {"cpu_s": 300.0, "peak_mib": 8192.0},  # of a million, derived
    "page": {"cpu_s": 120.0, "peak_mib": 8192.0},
    "open": {"seconds": 30.0},
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        parts: These only.
        divide: All sizes by this, to try it. Limits are not judged then.
        work: Where to write; 100,000 results take 0.6 GB. Default: the temporary folder.
        json: Write the figures here, too.
    """

    parts: tuple[Part, ...] = ("plan", "tables", "page")
    divide: int = 1
    work: Path | None = None
    json: Path | None = None


def main(config: Config) -> int:
    """Run the parts; 0 where every limit is kept."""
    report = begin(config)
    with tempfile.TemporaryDirectory(dir=config.work) as folder:
        rows = (row for part in config.parts for row in PARTS[part](Path(folder), config.divide))
        return sizes(rows, report, config.json, judged=config.divide == 1)


def plan_part(folder: Path, divide: int) -> Iterator[Figures]:
    """Ten times the encoders, and ten times the tasks."""
    datasets = 100 // divide
    base, *larger = ((50, datasets), (500, datasets), (50, 10 * datasets))
    small = apart(planned, write_sweep(folder, *base))
    for name, shape in zip(("encoders", "tasks"), larger, strict=True):
        whole = apart(planned, write_sweep(folder, *shape))
        yield whole_of(f"plan: {whole['cells']:,} cells, many {name}", small, whole, limits=LIMITS["plan"])


def write_sweep(folder: Path, encoders: int, datasets: int) -> Path:
    """Encoders that differ in size x worlds that differ in seed x two configurations of `dense`."""
    worlds = "\n".join(f"  d{i}: {{world: {{kind: scenes, seed: {i}}}}}" for i in range(datasets))
    towers = "\n".join(f"  - {{encoder: 'rice-b16-512@{16 * (8 + i)}', weights: none}}" for i in range(encoders))
    names = ", ".join(f"d{i}" for i in range(datasets))
    probes = f"  - {{probe: dense, data: [{names}]}}\n  - {{probe: dense, data: [{names}], updates: 100}}"
    path = folder / f"{encoders}-{datasets}.yaml"
    path.write_text(f"name: plan\nencoders:\n{towers}\ndatasets:\n{worlds}\nprobes:\n{probes}\nseeds: 3\n")
    return path


def planned(path: Path) -> Figures:
    """As `rice sweep FILE --out NEW --dry-run`."""
    from rich.console import Console

    from probes.sweeps.estimate import print_estimate
    from probes.sweeps.plan import missing_seeds, plan
    from probes.sweeps.sweepfile import read_sweep

    stages, out = Stages(), path.parent / "new"
    with stages.step("reading the file"):
        sweep = read_sweep(str(path))
    with stages.step("cells"):
        cells = plan(sweep)
    with stages.step("what is there"):
        absent = {cell.key: missing_seeds(out, cell.identity, cell.seeds, {}) for cell in cells}
    with stages.step("estimate"):
        missing = [cell for cell in cells if absent[cell.key]]
        print_estimate(sweep, cells, missing, out, sum(map(len, absent.values())), Console())
    return {"cells": len(cells), "bytes": path.stat().st_size, "stages": stages}


def tables_part(folder: Path, divide: int) -> Iterator[Figures]:
    """What is measured, and a million by the line through both sizes."""
    places = {count: stored(folder, count) for count in (STORED // divide // 10, STORED // divide)}
    small, whole = (apart(tabled, place) for place in places.values())
    few, many = places
    yield whole_of(f"tables: {many:,} results", small, whole)
    names = ("cpu_s", "seconds", "peak_mib", "bytes")
    slopes = {name: (whole[name] - small[name]) / (many - few) for name in names}
    derived = {name: whole[name] + slopes[name] * 9 * many for name in names}
    yield {"what": f"tables: {10 * many:,} results, derived", "limits": LIMITS["tables"], **derived}


def stored(folder: Path, count: int) -> Path:
    """`count` results as a sweep of `dense` stores them, on disk once; encoders are as many as it takes."""
    from probes.dense.probe import DenseProbe
    from probes.protocol import identity
    from probes.provenance import versions
    from probes.results import Identity
    from rice.encoders.load import describe
    from rice.encoders.spec import EncoderReference

    out = folder / f"stored-{count}"
    if out.exists():
        return out
    (out / "results").mkdir(parents=True)
    spec = dataclasses.asdict(describe(EncoderReference.parse("rice-b16-512"), None))
    config = DenseProbe.Config()
    shape = (max(1, count // (PROBES * DATASETS * SEEDS)), PROBES, DATASETS, SEEDS)
    places = itertools.product(*map(range, shape))
    for number, (encoder, probe, dataset, seed) in enumerate(places):
        facts = Identity(
            encoder_fingerprint=f"{encoder:064x}",
            size=512,
            layer=-1,
            probe=f"probe{probe}",
            protocol_version=1,
            dataset_fingerprint=f"{dataset:064x}",
            config=identity(config),
        )
        value = (number * 7919 % 10_007) / 10_007
        metric = {"n": 500, "unit": "fraction", "higher_is_better": True, "split": "val", "stderr": 0.01}
        document = {
            "schema": 1, "key": facts.result_key(seed), "encoder": f"encoder {encoder}", "reference": "rice-b16-512",
            "weights": "default", "trained": True, "encoder_spec": spec, "identity": vars(facts), "seed": seed,
            "dataset": f"dataset{dataset}", "tokens": 1024, "gflops": 212.5, "images_per_s": 10.0 + value,
            "resolved_config": dataclasses.asdict(config), "versions": versions(), "commit": "0" * 40,
            "metrics": [{"name": name, "value": value, "protocol": f"{name} of all pixels"} | metric for name in "ab"],
            "device": "a processor", "seconds": 100.0 + value, "peak_memory": {"host": 10**9 + number},
            "finished": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        # Not by `store`, which waits for the disk after each.
        (out / "results" / f"{document['key']}.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return out


def tabled(out: Path) -> Figures:
    """As `rice tables OUT`."""
    from reports.formats import write_table
    from reports.reading import read_frame
    from reports.tables import build

    stages = Stages()
    with stages.step("reading"):
        frame, _ = read_frame(out)
    with stages.step("table"):
        table = build(frame, ["encoder"], ["probe", "dataset", "metric"])
    with stages.step("text"):
        text = write_table(table, "markdown", 2)
    return {"bytes": len(text), "stages": stages}


def page_part(folder: Path, divide: int) -> Iterator[Figures]:
    """The page, and what a browser makes of it."""
    places = [stored(folder, count) for count in (STORED // divide // 10, STORED // divide)]
    small, whole = (apart(paged, place) for place in places)
    cells = whole["cells"]
    yield whole_of(f"page: {cells:,} cells", small, whole, limits=LIMITS["page"])
    small, whole = (apart(opened, place / "site" / "index.html") for place in places)
    yield whole_of(f"page: {cells:,} cells in Chromium", small, whole, "seconds", limits=LIMITS["open"])


def paged(out: Path) -> Figures:
    """As `rice report OUT --out OUT/site`."""
    from reports.page.command import report

    report((out,), out=out / "site")
    page = out / "site" / "index.html"
    found = json.loads(page.read_text().partition('<script type="application/json" id="data">')[2].partition("</")[0])
    return {"cells": len(found["cells"]), "bytes": page.stat().st_size}


def opened(page: Path) -> Figures:
    """Seconds of the clock: Chromium's work is in other processes."""
    from playwright.sync_api import sync_playwright

    lines = "document.querySelectorAll('table.board tbody tr').length"
    stages: dict[str, float] = {}
    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"], timeout=PATIENCE_MS)
        view = browser.new_page()
        view.set_default_timeout(PATIENCE_MS)
        began = time.perf_counter()
        view.goto(page.as_uri(), timeout=PATIENCE_MS)
        view.wait_for_selector("body[data-ready]")
        stages["first rows"] = time.perf_counter() - began
        rows = view.evaluate("JSON.parse(document.getElementById('data').textContent).rows.length")
        while view.evaluate(lines) < rows:  # the page's policy forbids Playwright's own way to wait
            time.sleep(0.05)
        stages["all rows"] = time.perf_counter() - began - stages["first rows"]
        began = time.perf_counter()
        view.evaluate("document.querySelectorAll('table.board thead tr:last-child th button')[0].click()")
        stages["sorting"] = time.perf_counter() - began
        heap = view.evaluate("performance.memory.usedJSHeapSize")
        browser.close()
    return {"seconds": sum(stages.values()), "bytes": heap, "stages": stages}


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("the part page needs chromium or google-chrome on the path; leave it out: --parts plan ...")
    return found


PARTS: dict[Part, Callable[[Path, int], Iterator[Figures]]] = {
    "plan": plan_part,
    "tables": tables_part,
    "page": page_part,
}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
