"""What a Ray cluster cannot do is one line; a defect of a stage keeps its traceback. Without a cluster: Ray is asked by
its own names, and answers what the test says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_targets import Counting

from rice.curate.config import EngineConfig
from rice.curate.ray_engine import on_ray
from rice.errors import RiceError

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")


class Answer:
    """Of Ray Data: rows, or an error in their place."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def map(self, *_: Any, **__: Any) -> "Answer":
        return self

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        if self.error is not None:
            raise self.error
        yield {"pictures": 2, "error": ""}


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    given = Answer(None)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(ray.data, "from_items", lambda *_, **__: given)
    return given


def run(out: Path, **config: Any) -> int:
    return sum(1 for _ in on_ray(Counting(out), ["a"], EngineConfig(engine="ray", **config)))


@pytest.mark.parametrize("workers", [0, 3])
def test_pictures_are_counted(answer: Answer, tmp_path: Path, workers: int) -> None:
    assert run(tmp_path, workers=workers) == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ray.exceptions.ActorUnschedulableError("worker startup failed.\nSee raylet.err"), "worker startup failed"),
        (ray.exceptions.LocalRayletDiedError(), "raylet died"),
    ],
)
def test_a_cluster_that_cannot_go_on_is_one_line(answer: Answer, tmp_path: Path, error: Exception, words: str) -> None:
    answer.error = error
    with pytest.raises(RiceError, match=f"Ray: .*{words}.*the same command resumes") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_defect_of_a_stage_keeps_its_traceback(answer: Answer, tmp_path: Path) -> None:
    answer.error = ray.exceptions.RayTaskError("submit", "Traceback: line 3", ZeroDivisionError("division by zero"))
    with pytest.raises(ray.exceptions.RayTaskError, match="line 3"):
        run(tmp_path)


def test_a_cluster_without_a_processor_is_one_line_unless_workers_are_to_come(
    answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"memory": 1e9})
    with pytest.raises(RiceError, match="the Ray cluster has no processor; add a machine, or say by --workers"):
        run(tmp_path)
    assert run(tmp_path, workers=2) == 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_an_address_without_a_cluster_is_one_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    def nowhere(**_: Any) -> None:
        assert address == "auto", "Ray asks the address for minutes"
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nowhere)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RiceError, match=f"no Ray cluster answers at {address}: (Connection refused|Could not find)"):
        run(tmp_path)
