from pathlib import Path

import pytest

from rice.errors import RiceError
from rice.runs import same_run


@pytest.mark.parametrize("text", ["[]", "[1, 2]", '"a run"', "null", "3"])
def test_a_run_json_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RiceError, match=r"run\.json"):
        same_run(tmp_path, {"seed": 0})
    assert (tmp_path / "run.json").read_text() == text


def test_another_run_is_refused_and_the_same_one_goes_on(tmp_path: Path) -> None:
    same_run(tmp_path, {"seed": 0, "encoder": "a"})
    same_run(tmp_path, {"seed": 0, "encoder": "a"})
    with pytest.raises(RiceError, match="its seed is 0, not 1"):
        same_run(tmp_path, {"seed": 1, "encoder": "a"})


def test_facts_are_compared_as_they_are_read(tmp_path: Path) -> None:
    for _ in range(2):
        same_run(tmp_path, {"probes": ({"betas": (0.9, 0.98)},)})
    with pytest.raises(RiceError, match="its probes is"):
        same_run(tmp_path, {"probes": ({"betas": (0.9, 0.99)},)})
