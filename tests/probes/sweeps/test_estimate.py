"""What `rice sweep --dry-run` says of disk and work: no more than a probe may take, nothing where nothing is known."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from probes.sweeps.estimate import print_estimate
from probes.sweeps.plan import Cell, plan
from probes.sweeps.sweepfile import read_sweep

_SWEEP = """
name: estimate
encoders: [mini-s8-128]
datasets:
  scenes: {{world: {{kind: scenes, size: 64, train: 200, test: 100}}}}
  clips: {{world: {{kind: clips, layout: lasot, size: 64, train: 4, test: 2}}}}
probes: [{probe}]
seeds: 1
"""


def told(folder: Path, probe: str, *, unknown: bool = False) -> tuple[list[Cell], str]:
    """The cells of a sweep of one probe, and what a dry run says of them."""
    file = folder / "sweep.yaml"
    file.write_text(_SWEEP.format(probe=probe), encoding="utf-8")
    sweep, said = read_sweep(str(file)), io.StringIO()
    cells = [dataclasses.replace(cell, images=lambda: None) if unknown else cell for cell in plan(sweep)]
    print_estimate(sweep, cells, cells, folder, len(cells), Console(file=said, width=200))
    return cells, said.getvalue()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", "18.8 MiB"),  # 300 pictures of 16 x 16 tokens of 128 channels in fp16
        (", cache_gb: 0.0001", "97.7 KiB"),
        (", cache_gb: 0", None),
    ],
)
def test_features_take_at_most_what_the_probe_may_keep(tmp_path: Path, settings: str, expected: str | None) -> None:
    _, said = told(tmp_path, f"{{probe: dense, data: [scenes]{settings}}}")
    assert (f"features of the largest cell take up to {expected}" in said) == (expected is not None)
    assert ("features of" in said) == (expected is not None)


def test_a_probe_that_keeps_no_features_promises_none(tmp_path: Path) -> None:
    """Tracking's pairs are other crops each time: its Table 4 was said to take terabytes."""
    cells, said = told(tmp_path, "{probe: tracking, data: [clips]}")
    assert cells[0].images()
    assert "features of" not in said


def test_work_that_nobody_can_count_is_not_called_none(tmp_path: Path) -> None:
    _, said = told(tmp_path, "{probe: dense, data: [scenes]}", unknown=True)
    assert "not counted: 1 cells" in said
    assert "forward passes" not in said
