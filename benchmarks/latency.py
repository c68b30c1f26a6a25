"""How long a person waits for: the help, a plan of 1,000 cells, a table of 10,000 stored results.

    python benchmarks/latency.py [--rounds 5] [--json FILE]

Baselines of the same work, alternating with ours: a bare `python -c pass`; the interpreter that has only imported
torch (which planning must not need); and `json.loads` over the same files (what no reader of the store can beat).
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.timing import alternate, begin, finish, shown, spread
from probes.protocol import Metric
from probes.results import RESULTS, Identity, Result, load, store

STORED = 10_000
LIMITS_S = {"help": 0.5, "plan": 3.0, "table": 3.0}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        rounds: Alternating rounds; medians count.
        json: Write the figures here, too.
    """

    rounds: int = 5
    json: Path | None = None


def main(config: Config) -> int:
    """Measure, print, say what holds; 0 where every figure does."""
    report = begin(config)
    with tempfile.TemporaryDirectory() as folder:
        places = Path(folder)
        _write_sweep(places)
        _write_results(places / "stored")
        plan = _command("-m", "rice.cli", "sweep", str(places / "plan.yaml"), "--out", str(places / "x"), "--dry-run")
        stored = places / "stored"
        pairs: dict[str, dict[str, Callable[[], None]]] = {
            "help": {"ours": _command("-m", "rice.cli", "--help"), "baseline": _command("-c", "pass")},
            "plan": {"ours": plan, "baseline": _command("-c", "import torch")},
            "table": {"ours": lambda: _table(stored), "baseline": lambda: _parse(stored)},
        }
        figures = {
            name: {side: spread(values) for side, values in alternate(pair, config.rounds).items()}
            for name, pair in pairs.items()
        }
    holds = {name: figure["ours"]["median"] < LIMITS_S[name] for name, figure in figures.items()}
    for name, figure in figures.items():
        print(
            f"{name:<6} {shown(figure['ours'], '.2f')} s, baseline {figure['baseline']['median']:.2f} s, "
            f"limit {LIMITS_S[name]} s: {'holds' if holds[name] else 'FAILS'}"
        )
    return finish(report | {"seconds": figures}, config.json, holds=all(holds.values()))


def _command(*arguments: str) -> Callable[[], None]:
    def run() -> None:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    return run


def _table(folder: Path) -> None:
    from reports.formats import write_table
    from reports.tables import build

    table = build(load(folder), ["encoder"], ["probe", "dataset", "metric"], ["tokens", "gflops"])
    if sum(cell.score.seeds for cell in table.cells.values()) != 2 * STORED:
        raise SystemExit("the table does not hold every stored result")
    write_table(table, "markdown", 2)


def _parse(folder: Path) -> None:
    for path in (folder / RESULTS).iterdir():
        json.loads(path.read_bytes())


def _write_sweep(folder: Path) -> None:
    """25 encoders x 20 datasets x 2 configurations of `dense`."""
    datasets = "\n".join(f"  d{i}: {{world: {{kind: scenes, seed: {i}}}}}" for i in range(20))
    encoders = "\n".join(f"  - {{encoder: 'rice-b16-512@{16 * (8 + i)}', weights: none}}" for i in range(25))
    names = ", ".join(f"d{i}" for i in range(20))
    probes = f"  - {{probe: dense, data: [{names}]}}\n  - {{probe: dense, data: [{names}], updates: 100}}"
    text = f"name: plan\nencoders:\n{encoders}\ndatasets:\n{datasets}\nprobes:\n{probes}\nseeds: 3\n"
    (folder / "plan.yaml").write_text(text)


def _write_results(folder: Path) -> None:
    """100 encoders x 2 probes x 10 datasets x 5 seeds, two metrics each."""
    metrics = [
        Metric(name=n, value=0.5, n=100, unit="fraction", higher_is_better=True, split="val", protocol=n) for n in "ab"
    ]
    for index in range(STORED):
        encoder, rest = divmod(index, 100)
        probe, rest = divmod(rest, 50)
        dataset, seed = divmod(rest, 5)
        identity = Identity(
            encoder_fingerprint=f"{encoder:064d}",
            size=224,
            layer=-1,
            probe=f"probe{probe}",
            protocol_version=1,
            dataset_fingerprint=f"{dataset:064d}",
            config={"grid": "native", "updates": 2000, "batch": 16},
        )
        store(folder, _result(identity, f"encoder{encoder}", f"dataset{dataset}", seed, metrics))


def _result(identity: Identity, encoder: str, dataset: str, seed: int, metrics: list[Metric]) -> Result:
    return Result(
        encoder=encoder,
        reference=encoder,
        weights="default",
        trained=True,
        encoder_spec={"norm": "none", "name": encoder, "patch": 16},
        identity=identity,
        seed=seed,
        dataset=dataset,
        tokens=196,
        gflops=35.0,
        images_per_s=10.0,
        resolved_config=identity.config,
        metrics=metrics,
        versions={},
        commit=None,
        device="cpu",
        seconds=1.0,
        peak_memory={},
        finished="2026-01-01T00:00:00+00:00",
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
