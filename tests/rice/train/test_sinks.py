"""The live line says what the lines say; other services get every number once."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rice.errors import MissingExtraError
from rice.train.sinks import LiveLine, TensorBoard, WeightsAndBiases, describe, open_log

LINE = {
    "step": 119,
    "loss": 3.21,
    "grad_norm": 0.5,
    "learning_rate": 1e-3,
    "images_per_s": 812.04,
    "step_s": 2.0,
    "mfu": 0.41,
    "memory": 3 * 2**30,
    "parallel": "ddp",
}


def test_the_line_for_the_eye_counts_from_one_and_tells_the_time_left() -> None:
    text = describe(LINE, 1000)
    for part in ("step 120/1000", "loss 3.2100", "images 812.0/s", "MFU 41 %", "3.0 GiB", "0:29:20 left"):
        assert part in text
    assert "MFU" not in describe(LINE | {"mfu": None}, 1000)


def test_without_a_terminal_each_report_is_one_plain_line() -> None:
    stream = io.StringIO()
    live = LiveLine(1000, stream)
    live.write(LINE)
    live.write({"step": 119, "validation": True, "retrieval_top1": 0.25})
    live.close()
    first, second = stream.getvalue().splitlines()
    assert first == describe(LINE, 1000)
    assert second == "step 120/1000  retrieval top1 0.25"


def test_only_the_leading_rank_writes(tmp_path: Path) -> None:
    with open_log(tmp_path / "metrics.jsonl", start=0, steps=9, leads=False, tensorboard=True, wandb="x") as log:
        log.write(LINE)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_service_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rice-suite\[train\]'"):
        open_log(tmp_path / "metrics.jsonl", start=0, steps=9, wandb="project")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_holds_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, loss in ((0, 3.0), (4, 2.0)):  # killed after step 5, resumed at 4
        board = TensorBoard(tmp_path, start)
        for step in range(start, 6):
            board.write({"step": step, "loss": loss, "validation": True, "mfu": None})
        board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        *((step, 3.0) for step in range(4)),
        *((step, 2.0) for step in range(4, 6)),
    ]
    assert sorted(events.Tags()["scalars"]) == ["loss", "step"]


def test_a_resumed_run_is_the_same_run_at_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    sent: list[tuple[dict[str, float], int]] = []

    def init(**options: Any) -> SimpleNamespace:
        started.append(options)
        return SimpleNamespace(log=lambda values, step: sent.append((values, step)), finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for _ in range(2):
        run = WeightsAndBiases("project", tmp_path, {"seed": 1})
        run.write(LINE)
        run.close()
    assert started[0]["id"] == started[1]["id"]
    assert sent[0] == ({name: value for name, value in LINE.items() if name != "parallel"}, 119)
