from pathlib import Path
from typing import Any

import pytest

from probes.results import load
from probes.sweeps.slurm import SlurmHost, device_of, parse_options
from rice.errors import RiceError

pytest.importorskip("submitit")

IN_PROCESS = """
import sys
from pathlib import Path
from probes.sweeps.plan import plan
from probes.sweeps.pool import Pool
from probes.sweeps.slurm import SlurmHost
from probes.sweeps.sweepfile import read_sweep

class Board:
    def start(self, cell): pass
    def step(self, *report): pass
    def finish(self, outcome): print(outcome.cell.encoder.label, outcome.state, outcome.reason)

out = Path(sys.argv[2])
host = SlurmHost(out, 2, "cpu", {}, cluster="local")
Pool(host, out, {}).run(plan(read_sweep(sys.argv[1])), Board())
"""


def test_jobs_of_submitit_store_results_and_tell_failures(room: Any) -> None:
    probe = room.probe(fault="raise", fault_encoder="b", fault_seed=1)
    file = room.write(room.document(probes=[probe]))
    said = room.python("-c", IN_PROCESS, str(file), str(room.out))
    assert "fake-a done None" in said
    assert "fake-b failed ValueError: the fake probe raises" in said
    assert len(load(room.out)) == 6 // 2


def test_a_job_that_dies_without_a_word_is_a_failed_cell(room: Any) -> None:
    file = room.write(room.document(encoders=["fake-a"], probes=[room.probe(fault="kill")]))
    assert "fake-a failed the process was killed by SIGKILL" in room.python("-c", IN_PROCESS, str(file), str(room.out))


def test_options_are_name_value() -> None:
    assert parse_options(["timeout_min=240", "slurm_partition=gpu"]) == {"timeout_min": 240, "slurm_partition": "gpu"}
    for word in ("timeout", "=3", "a b=3", "a="):
        with pytest.raises(RiceError, match="NAME=VALUE"):
            parse_options([word])


@pytest.mark.parametrize(
    ("gpus", "options", "device"),
    [
        ("auto", {"gpus_per_node": 1}, "cuda:0"),
        ("auto", {"slurm_gres": "gpu:1"}, "cuda:0"),
        ("auto", {"slurm_partition": "gpu"}, "cpu"),
        ("none", {"gpus_per_node": 1}, "cpu"),
    ],
)
def test_a_job_uses_the_gpu_that_it_asks_for(gpus: str, options: dict[str, Any], device: str) -> None:
    assert device_of(gpus, options) == device


def test_options_that_submitit_refuses_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="SLURM by submitit"):
        SlurmHost(tmp_path, 1, "cpu", {"no_such_option": 1}, cluster="local")
