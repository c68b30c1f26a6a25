"""What a parent tells the process of one cell: a JSON file under OUT/cells/, and the places that both agree on."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.results import Identity
from probes.sweeps.plan import Cell, Measurement
from probes.sweeps.sweepfile import DatasetEntry, EncoderEntry
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError
from rice.files import read_json, sha256_json, write_json

DONE, FAILED, BUSY = 0, 1, 75
"""Exit statuses of a cell. BUSY (EX_TEMPFAIL): another process is on the same cell."""

FAILURE_PREFIX = "cell failed: "
WORK = "work"


@dataclass(frozen=True, kw_only=True)
class Job(Measurement):
    """A cell to compute. `seeds` with a result that is not one of `redo` are left alone: see `plan.missing_seeds`."""

    out: Path
    redo: Mapping[str, str]
    device: str

    @property
    def log(self) -> Path:
        """Everything that the cell prints, attempt after attempt."""
        return self.out / "logs" / f"{self.key}.log"

    @property
    def lock(self) -> Path:
        """Held by the one process that computes the cell."""
        return self.out / "locks" / f"{self.key}.lock"

    @property
    def workdir(self) -> Path:
        """The probe's own folder, until all seeds are finished."""
        return self.out / WORK / self.key


def job_of(cell: Cell, out: Path, *, redo: Mapping[str, str], device: str) -> Job:
    """The job of computing a cell on a device ("cpu", "cuda:0")."""
    planned = {field.name: getattr(cell, field.name) for field in dataclasses.fields(Measurement)}
    keys = [cell.identity.result_key(seed) for seed in cell.seeds]
    mine = {key: redo[key] for key in keys if key in redo}
    return Job(**planned, out=out.absolute(), redo=mine, device=device)


def write_job(job: Job) -> Path:
    """Write the job for `python -m probes.sweeps.cell`; two parents with different seeds or devices get two files."""
    document = dataclasses.asdict(job)
    document["out"] = str(job.out)
    document["dataset"]["path"] = None if job.dataset.path is None else str(job.dataset.path)
    path = job.out / "cells" / f"{sha256_json(document)}.json"
    if not path.exists():  # its name is the hash of its content
        write_json(path, document)
    return path


def read_job(path: Path) -> Job:
    """Errors: RiceError naming the file that no sweep of this version wrote."""
    document = read_json(path)
    try:
        return Job(**(document | _typed(document)))
    except (TypeError, KeyError, AttributeError) as error:
        raise RiceError(f"{path} is not a cell of rice sweep ({error}); run the sweep again") from error


def _typed(document: dict[str, Any]) -> dict[str, Any]:
    encoder, dataset = document["encoder"], document["dataset"]
    path = None if dataset["path"] is None else Path(dataset["path"])
    return {
        "out": Path(document["out"]),
        "encoder": EncoderEntry(**(encoder | {"reference": EncoderReference(**encoder["reference"])})),
        "dataset": DatasetEntry(**(dataset | {"path": path})),
        "identity": Identity(**document["identity"]),
        "words": tuple(document["words"]),
        "seeds": tuple(document["seeds"]),
    }
