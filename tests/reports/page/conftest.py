"""Results as a sweep would store them; a site of them, and a browser to look at it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.protocol import Metric
from probes.results import Identity, Result, store
from reports.page.build import INLINE_BYTES
from reports.page.command import report
from reports.reading import read
from rice.encoders.spec import EncoderSpec

TOWERS = ("rice-b16-512", "mlcd-b16-512", "dinov2-b14-518")
LARGE = INLINE_BYTES + 1
SPEC = EncoderSpec(name="vit", source="fake:vit", patch=16, size_multiple=16, width=8, depth=2, native_size=64)
Put = Callable[..., Path]
Make = Callable[..., Result]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def result(encoder: str, seed: int, scores: dict[str, float], **changes: Any) -> Result:
    """`changes`: fields of the result, its identity, its spec or its metrics, by name."""
    fields: dict[str, Any] = {
        "encoder": encoder,
        "reference": encoder.lower(),
        "weights": "default",
        "trained": True,
        "seed": seed,
        "dataset": "scenes",
        "tokens": 16,
        "gflops": 0.5,
        "images_per_s": 100.0,
        "versions": {"torch": "2.15.0"},
        "commit": "c0ffee",
        "device": "a processor",
        "seconds": 12.5,
        "peak_memory": {"host": 1 << 30},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    identity: dict[str, Any] = {
        "encoder_fingerprint": digest(encoder),
        "size": 64,
        "layer": -1,
        "probe": "dense",
        "protocol_version": 1,
        "dataset_fingerprint": "",
        "config": {"grid": "native", "heads": {"channels": 256}},
    }
    metric: dict[str, Any] = {
        "n": 200,
        "unit": "fraction",
        "higher_is_better": True,
        "split": "val",
        "stderr": 0.01,
        "protocol": "a linear layer",
    }
    spec = dataclasses.asdict(SPEC)
    identity["dataset_fingerprint"] = digest(changes.get("dataset", "scenes"))
    for name, value in changes.items():
        places = [place for place in (fields, identity, metric, spec) if name in place]
        places[0][name] = value
    metrics: Sequence[Metric] = [Metric(name=name, value=value, **metric) for name, value in scores.items()]
    settings = {"resolved_config": identity["config"] | {"workers": 4}, "encoder_spec": spec, "metrics": metrics}
    return Result(**fields, **settings, identity=Identity(**identity))


@pytest.fixture(scope="session")
def make() -> Callable[..., Result]:
    """A result that is not stored."""
    return result


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Store a result under tmp_path/sweep (or `place`); its file."""

    def put(encoder: str, seed: int, scores: dict[str, float], place: str = "sweep", **changes: Any) -> Path:
        return store(tmp_path / place, result(encoder, seed, scores, **changes))

    return put


class Board:
    """A visit to the site, and what its leaderboard shows."""

    def __init__(self, visit: Any) -> None:
        self.page, self.said, self.asked, self.until = visit.page, visit.said, visit.asked, visit.until

    def rows(self) -> list[str]:
        """Encoders in the order of the leaderboard."""
        found: list[str] = self.page.locator("table.board tbody th a").all_inner_texts()
        return found

    def values(self, metric: str) -> list[str]:
        """A column's means in order; a dash where there is none."""
        heads = self.page.locator("table.board thead tr:last-child th button").all_inner_texts()
        column = next(i for i, head in enumerate(heads) if head.startswith(metric))
        cells = self.page.locator(f"table.board tbody td:nth-child({column + 2})")
        return [text.split()[0] for text in cells.all_inner_texts()]


@pytest.fixture
def visit(visit: Callable[..., Any]) -> Callable[..., Board]:
    """Open a page of the report."""
    return lambda *arguments, **context: Board(visit(*arguments, **context))


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory, make: Make) -> Path:
    """Three encoders of the paper, an untrained one, two seeds where others have three, a gap, files that are none."""
    folder = tmp_path_factory.mktemp("page") / "sweep"
    coco = {"probe": "detection", "dataset": "coco", "split": "val2017", "n": 5000, "protocol": "a | b_c & 100%"}
    for number, tower in enumerate(TOWERS):
        for seed in range(2 if number == 1 else 3):
            box = 0.39 - number * 0.05 + seed * 0.00123
            store(folder, make(f"Tower {10 - number}", seed, {"box AP": box, "mask AP": 0.3}, reference=tower, **coco))
    scores = {"error": 3.25, "mIoU": 0.5}
    for encoder, trained, factor in (("Tower 10", True, 1), ("floor", False, 2)):
        values = {name: value * factor for name, value in scores.items()}
        changes = {"trained": trained, "unit": "px", "higher_is_better": False}
        store(folder, make(encoder, 0, {"error": values["error"]}, dataset="depth", **changes))
        store(folder, make(encoder, 0, {"mIoU": values["mIoU"] / factor**2}, trained=trained))
    (folder / "results" / "cut.json").write_text("{")
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, sweep: Path) -> Path:
    out = tmp_path_factory.mktemp("out") / "site"
    figures = tmp_path_factory.mktemp("figures")
    fingerprint = read([sweep])[0][0]["identity"]["encoder_fingerprint"]
    _write_pca(figures / "small", fingerprint, frames=24)
    _write_pca(figures / "large", "0" * 64, frames=24)
    with (figures / "large" / "pca.mp4").open("ab") as file:
        file.write(b"\0\0\0\x08free" * (LARGE // 8))
    report((sweep,), out=out, figures=(figures,), title="A page")
    return out


def _write_pca(folder: Path, fingerprint: str, frames: int) -> None:
    from PIL import Image

    from rice.data.video import write_video

    folder.mkdir()
    images = [np.full((32, 64, 3), i * 10, np.uint8) for i in range(frames)]
    write_video(folder / "pca.mp4", images, Fraction(12))
    Image.fromarray(images[0]).save(folder / "strip.png")
    facts = {"encoder": {"encoder": "tower", "fingerprint": fingerprint}, "source": {"name": folder.name}}
    (folder / "pca.json").write_text(json.dumps(facts))


@pytest.fixture(scope="session")
def write_pca() -> Callable[..., None]:
    """What `rice pca` would have left in a folder: (folder, encoder's fingerprint, frames)."""
    return _write_pca
