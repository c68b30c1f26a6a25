"""The course of a run as a picture: losses, gradient norm and learning rate, and how validation went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from rice.files import atomic_path
from rice.train.metrics import read_lines

RETRIEVAL = {"retrieval_top1": "top-1", "retrieval_map": "mean AP"}

_MANY = 4
_SMOOTH = 50
"""Points that a thick line averages over at most."""


def draw_course(
    metrics: Path, picture: Path, judged: Mapping[str, str] = RETRIEVAL, title: str = "region retrieval, %"
) -> None:
    """Draw the lines of `metrics` (a run's metrics.jsonl) into `picture`, PNG.

    `judged`: keys of the lines that say how validation went -> their labels; `title` is above them.
    """
    lines = read_lines(metrics)
    steps = [line for line in lines if "loss" in line]
    validations = [line for line in lines if any(name in line for name in judged)]
    figure, panels = plt.subplots(1, 3 if validations else 2, figsize=(11 if validations else 8, 3.2))
    parts = sorted({key for line in steps for key in line if key.startswith("loss_")})
    for name in ["loss", *(parts if len(parts) > 1 else [])]:
        _line(panels[0], steps, name)
    panels[0].set(title="loss", xlabel="step")
    if len(parts) > _MANY:  # room for their names above the lines
        panels[0].set_ylim(top=1.5 * panels[0].get_ylim()[1])
    panels[0].legend(frameon=False, **({"fontsize": 7, "ncols": 2, "loc": "upper right"} if len(parts) > _MANY else {}))
    rates = panels[1]
    rates.set(title="learning rate", xlabel="step")
    if any("grad_norm" in line for line in steps):
        _line(panels[1], steps, "grad_norm")
        panels[1].set(title="gradient norm, rate (dashed)")
        rates = panels[1].twinx()
    rates.plot([line["step"] for line in steps], [line["learning_rate"] for line in steps], "--", color="0.6")
    rates.set_ylim(bottom=0)
    if validations:
        for name, label in judged.items():
            found = [(line["steps_done"], float(line[name])) for line in validations if name in line]
            if found:
                panels[2].plot(*zip(*found, strict=True), "o-", label=label)
        panels[2].set(title=title, xlabel="steps done")
        panels[2].set_ylim(bottom=0)
        panels[2].legend(frameon=False)
    figure.tight_layout()
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def _line(panel: Any, lines: Sequence[dict[str, Any]], name: str) -> None:
    """Thin as measured, thick as a running mean."""
    found = [(line["step"], float(line[name])) for line in lines if name in line]
    half = min(_SMOOTH, len(found) // 10) // 2
    steps, values = [step for step, _ in found], [value for _, value in found]
    (thin,) = panel.plot(steps, values, linewidth=0.6, alpha=0.4)
    around = [values[max(i - half, 0) : i + half + 1] for i in range(len(values))]
    means = [sum(near) / len(near) for near in around]
    panel.plot(steps, means, linewidth=1.8, color=thin.get_color(), label=name.replace("_", " "))
