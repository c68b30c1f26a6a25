"""Checkpoints of a run: written while it goes on, whole or absent, verified when read, at any number of ranks.

Layout of the run's checkpoint folder:

    step-00002000/            complete: renamed into place after every file was on disk
        manifest.json         step, identity, facts, plain values, where each tensor's rows lie, SHA-256 of every file
        rank-00000.safetensors, ...
    .step-00003000.*.tmp/     being written, or left by a killed run; the next start removes it
    .lock                     held by the first rank while the run lives

Resumption reads this folder and no other.
"""

import fcntl
import shutil
from collections.abc import Mapping, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from rice.errors import NO_ROOM, NoRoomError, RiceError, os_errors_as
from rice.files import publish_folder, remove_folder, temporary_folder
from rice.train import manifest
from rice.train.agree import gather, lead, settle
from rice.train.storage import Contents, SafetensorsReader, SafetensorsWriter
from rice.train.tree import Split, as_json, mismatch, put, split

_PREFIX = "step-"


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint: the step it was taken after, what the run noted with it, and its folder."""

    step: int
    facts: Mapping[str, Any]
    path: Path


@dataclass(frozen=True)
class _Pending:
    """A save on its way."""

    saved: Saved
    temporary: Path
    written: "Future[Any]"


class Checkpoints:
    """The checkpoints of one run, in `folder`, which all ranks see. Every method is collective.

    identity: JSON that must be the same in the run that resumes: model, number of classes, data, seed.
    keep: how many of the last checkpoints stay.
    Errors: RiceError where `folder` cannot be written or another run holds it.
    """

    def __init__(self, folder: Path, *, identity: Mapping[str, Any], keep: int = 3) -> None:
        if keep < 1:
            raise RiceError(f"expected to keep at least 1 checkpoint, got {keep}")
        self.folder = folder
        self._identity: dict[str, Any] = as_json(identity, "the run's identity")
        self._keep = keep
        # Two groups of their own: what the writing thread sends never meets the loop's messages, nor those of training.
        ranks = dist.get_process_group_ranks(dist.group.WORLD)
        self._group, self._writers = (cast(dist.ProcessGroup, dist.new_group(ranks, backend="gloo")) for _ in range(2))
        self._rank, self._world = dist.get_rank(self._group), dist.get_world_size(self._group)
        self._pending: _Pending | None = None
        self._lock: IO[str] | None = None
        lead(self._open, self._group)

    def save(self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Copy `state` to the host and begin to write it; a save still on its way is finished first.

        state: nested mappings of tensors, DTensors (on any device) and plain JSON values; plain tensors and values are
        the same on every rank. A step that is already there is left alone. facts: JSON, taken from the first rank.
        Errors: RiceError, the same on every rank: the earlier save's, a value that cannot be saved, no folder.
        """
        self.finish()
        tensors, plain = settle(lambda: split(state), self._group)
        noted = settle(lambda: as_json(facts, "the facts of a checkpoint"), self._group)
        record = {"step": step, "identity": self._identity, "facts": noted, "plain": plain}
        path = self.folder / f"{_PREFIX}{step:08d}"
        temporary = lead(lambda: self._begin(step, path), self._group)
        if temporary is None:
            return

        def publish(contents: Contents) -> None:
            manifest.write(temporary, {**contents, **record})
            publish_folder(temporary, path)
            for old in self._complete()[: -self._keep]:
                remove_folder(old)

        writer = SafetensorsWriter(temporary, self._rank, publish)
        planner = DefaultSavePlanner(flatten_state_dict=False)
        written = settle(
            lambda: async_save(tensors, storage_writer=writer, planner=planner, process_group=self._writers),
            self._group,
        )
        self._pending = _Pending(Saved(step, noted, path), temporary, cast("Future[Any]", written))

    def poll(self) -> Saved | None:
        """At a step's end: finish the save on its way if every rank's part is done, else return None at once.

        Errors: as `finish`.
        """
        if self._pending is None:
            return None
        done = torch.tensor(self._pending.written.done(), dtype=torch.uint8)
        dist.all_reduce(done, dist.ReduceOp.MIN, self._group)
        return self.finish() if done else None

    def finish(self) -> Saved | None:
        """Wait for the save on its way, if any, and return what is now complete.

        Errors: RiceError where it could not be written (disk full): older checkpoints are as they were.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        try:
            settle(lambda: self._outcome(pending), self._group)
        except Exception:
            if self._rank == 0:  # every rank's thread has ended by now
                shutil.rmtree(pending.temporary, ignore_errors=True)
            raise
        return pending.saved

    def latest(self) -> Saved | None:
        """The last complete checkpoint, or None. Unfinished ones do not count.

        Errors: RiceError where its manifest is damaged, naming an older one that could be used.
        """
        return lead(self._newest, self._group)

    def load(self, saved: Saved, state: MutableMapping[str, Any]) -> None:
        """Fill `state` in place from `saved`, whatever number of ranks wrote it: tensors' rows, and plain values.

        Nothing is changed unless every byte of the checkpoint is as it was written.
        Errors: RiceError: another identity (the field, both values), other tensors, a damaged or truncated file (its
        name, and the older checkpoint that could be used).
        """
        record = lead(lambda: self._agreeing(saved.path), self._group)
        tensors, _ = settle(lambda: self._matching(saved, record, state), self._group)
        self._verify(saved.path, record["files"])
        reader = SafetensorsReader(saved.path, record)
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        try:
            load(tensors, storage_reader=reader, planner=planner, process_group=self._group)
        except CheckpointException as error:
            raise _plainly(error, f"cannot read checkpoint {saved.path}", "the file system") from error
        put(state, record["plain"])

    def _open(self) -> None:
        with os_errors_as(f"cannot write checkpoints in {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            # A record lock, not flock: data workers forked later do not inherit it, so that it ends with this process.
            self._lock = (self.folder / ".lock").open("w")
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise RiceError(
                    f"another run writes checkpoints in {self.folder}; wait for its end, or write to another folder"
                ) from error
            for unfinished in self.folder.glob(f".{_PREFIX}*.tmp"):
                shutil.rmtree(unfinished)

    def _begin(self, step: int, path: Path) -> Path | None:
        complete = self._complete()
        if path in complete:
            return None
        if complete and _step(complete[-1]) > step:
            raise RiceError(f"step {step} cannot be saved after {complete[-1]}, which is of a later step; remove that")
        with os_errors_as(f"cannot write checkpoints in {self.folder}"):
            return temporary_folder(path)

    def _outcome(self, pending: _Pending) -> None:
        try:
            pending.written.result()
        except CheckpointException as error:
            before = self._complete()
            kept = f"{before[-1]} is intact" if before else "no earlier one exists"
            what = f"cannot save the checkpoint of step {pending.saved.step} in {self.folder}"
            raise _plainly(error, what, f"{kept}; make room, then resume") from error

    def _complete(self) -> list[Path]:
        found = [path for path in self.folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
        return sorted(found, key=_step)

    def _newest(self) -> Saved | None:
        complete = self._complete()
        if not complete:
            return None
        record = self._read(complete[-1])
        return Saved(record["step"], record["facts"], complete[-1])

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return manifest.read(path)
        except RiceError as error:
            raise RiceError(f"{error}; {self._instead_of(path)}") from error

    def _agreeing(self, path: Path) -> dict[str, Any]:
        if path.parent != self.folder:
            raise RiceError(f"expected a checkpoint of {self.folder}, got {path}; a run resumes from its own only")
        record = self._read(path)
        if (differs := manifest.difference(record["identity"], self._identity)) is not None:
            raise RiceError(f"{path} belongs to another run: {differs}; use that value, or write to another folder")
        return record

    def _matching(self, saved: Saved, record: Mapping[str, Any], state: Mapping[str, Any]) -> Split:
        tensors, plain = split(state)
        found = mismatch(record["tensors"], tensors)
        if found is None and (odd := sorted(record["plain"].keys() ^ plain.keys())):
            found = f"entry {odd[0]!r} is {'missing from it' if odd[0] in plain else 'in it, but not in this run'}"
        if found is not None:
            raise RiceError(f"{saved.path} does not fit this run: {found}; use the version and settings that wrote it")
        return tensors, plain

    def _verify(self, path: Path, files: Mapping[str, Any]) -> None:
        mine = sorted(files)[self._rank :: self._world]  # each file is read through once, not once per rank
        found = gather(lambda: [manifest.damage(path, name, files[name]) for name in mine], self._group)
        damaged = [words for of_rank in found for words in of_rank if words is not None]

        def refuse() -> None:
            if damaged:
                raise RiceError(f"{damaged[0]}; {self._instead_of(path)}")

        lead(refuse, self._group)

    def _instead_of(self, path: Path) -> str:
        older = [other for other in self._complete() if _step(other) < _step(path)]
        usable = next((other for other in reversed(older) if manifest.intact(other)), None)
        if usable is None:
            return f"no older checkpoint is whole: remove {self.folder} to start anew"
        return f"{usable} is whole: remove {path} to resume from there"


def _step(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _plainly(error: CheckpointException, what: str, advice: str) -> Exception:
    """A RiceError for what the file system refused on any rank; the library's own account of anything else."""
    rank, (cause, _) = min(error.failures.items())
    if isinstance(cause, OSError | RiceError):
        full = isinstance(cause, NoRoomError)
        said = NO_ROOM.partition(";")[0] if full else getattr(cause, "strerror", None) or cause
        return RiceError(f"{what}: {said} (rank {rank}); {advice}")
    return RuntimeError(f"{what}: {error}")
