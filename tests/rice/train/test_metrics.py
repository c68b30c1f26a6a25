"""Lines of metrics survive kills and resumption, and no figure is invented."""

import json
import math
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rice.errors import RiceError
from rice.train.metrics import JsonLines, StepRate, peak_flops


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_run_writes_each_step_once_whatever_the_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonLines(path, 0)
    for step in range(8):
        first.write({"step": step, "loss": 1.0})
    first.close()
    with path.open("a") as file:
        file.write('{"step": 8, "lo')  # killed inside a line
    second = JsonLines(path, 5)
    assert [line["step"] for line in lines(path)] == [0, 1, 2, 3, 4]
    for step in range(5, 7):
        second.write({"step": step, "loss": 2.0})
    second.close()
    assert [(line["step"], line["loss"]) for line in lines(path)] == [(k, 1.0 if k < 5 else 2.0) for k in range(7)]
    assert list(tmp_path.iterdir()) == [path]


@given(kept=st.integers(0, 9), cut=st.integers(0, 400))
def test_a_file_cut_at_any_byte_keeps_every_whole_line_before_the_resumed_step(kept: int, cut: int) -> None:
    import tempfile

    whole = [json.dumps({"step": step, "note": "é" * step}, ensure_ascii=False) + "\n" for step in range(10)]
    data = "".join(whole).encode()[:cut]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        path.write_bytes(data)
        JsonLines(path, kept).close()
        ends = [len("".join(whole[: k + 1]).encode()) for k in range(10)]
        assert path.read_text() == "".join(whole[k] for k in range(kept) if ends[k] <= cut)


def test_a_file_that_is_no_log_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nmy notes\n')
    with pytest.raises(RiceError, match=r"line 2 of .*metrics\.jsonl"):
        JsonLines(path, 1)
    assert path.read_text() == '{"step": 1}\nmy notes\n'


def test_numbers_that_json_lacks_are_named_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path, 0)
    log.write({"step": 0, "a": math.nan, "b": -math.inf, "c": 0.1})
    log.close()
    (line,) = lines(path)
    assert math.isnan(float(str(line["a"])))
    assert float(str(line["b"])) == -math.inf
    assert line["c"] == 0.1


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl", 0)
    log._file.close()
    log._file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(RiceError, match="No space left on device"):
        log.write({"step": 0})


def test_rate_and_mfu_follow_their_definitions_and_leave_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    rate = StepRate(32, flops=5e9, peak=1e12, ranks=4)
    now[0] += 3
    rate.count()
    with rate.paused():
        now[0] += 50
    now[0] += 1
    measured = rate.measure()
    assert measured["images_per_s"] == pytest.approx(64 / 4)
    assert measured["step_s"] == pytest.approx(2)
    assert measured["mfu"] == pytest.approx(16 * 5e9 / 4e12)
    now[0] += 2
    assert rate.measure()["images_per_s"] == pytest.approx(16)


def test_an_unknown_device_has_no_mfu() -> None:
    assert peak_flops("NVIDIA H100 PCIe", torch.bfloat16) == 756e12
    assert peak_flops("NVIDIA H100 80GB HBM3", torch.bfloat16) == 989e12
    assert peak_flops("NVIDIA H200", torch.bfloat16) == 989e12
    assert peak_flops("NVIDIA H200 NVL", torch.bfloat16) == 835e12
    assert peak_flops("NVIDIA L4", torch.bfloat16) == 121e12
    assert peak_flops("NVIDIA L40S", torch.bfloat16) == 362e12
    assert peak_flops("NVIDIA H200", torch.float32) is None
    assert peak_flops("Some Device 9000", torch.bfloat16) is None
    assert StepRate(8, flops=1e9, peak=None).measure()["mfu"] is None
