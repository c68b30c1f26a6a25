"""Kills a command again and again, and holds what it leaves against a run that nobody touched.

A *life* is one start of the command. It is killed by SIGKILL: the main process alone, whose workers then have to
notice it, or the whole process group, as a terminal or a scheduler does it. The next life starts at once. There are
three kinds of instants, in turn: while it *starts*, while it *works*, and while it *writes*: as soon as a temporary
file appears. The last two begin at a point of the way, and the points are spread over all of it. A life that ends by
itself is compared, and the next one begins anew, so that there are always as many kills as were asked for.

After each kill: no file under its final name is half-written, what was finished is as it was, and sooner or later none
of the life's processes is left. At the end: the names and contents of an untouched run, no file more, no file less, and
nobody holds a lock.
"""

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

import filelock
import psutil
from reading import is_temporary, read_whole
from warm_starts import Server, Started

KILLS = int(os.environ.get("RICE_KILLS", "3"))
MINUTES = float(os.environ.get("RICE_KILLS_MINUTES", "inf"))
WARM = bool(os.environ.get("RICE_KILLS_WARM"))
RICE = (sys.executable, "-m", "rice.cli")
ONE_CORE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
MARK = "RICE_TEST_LIFE"
PATIENCE_S = 60.0
"""In which orphans have to end; DataLoader's look for their parent every five seconds, on a busy machine later."""

Kind = Literal["starts", "works", "writes"]
Harm = Literal["lost", "made again", "half-written", "left over", "different"]
State = dict[str, tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that can be killed.

    command: for a folder to write. content: of a file by its path inside the folder, without what differs from run to
    run, as times; None: not compared. kept: patterns of files that, once there, are never written again. mark: a
    number that never falls, as the newest checkpoint's step. resumes: whether a life goes on where the last one was
    killed; the way of a command that begins anew is what this life has written.
    """

    name: str
    command: Callable[[Path], Sequence[str]]
    content: Callable[[str, Path], Any]
    kept: Sequence[str] = ()
    mark: Callable[[Path], int] = lambda out: 0
    resumes: bool = True
    allowed_half: Callable[[str], bool] = lambda name: False


@dataclass(frozen=True)
class Hit:
    """A kill that found the command running. share: of the way; inside: a write was under way, its file is left."""

    kind: Kind
    group: bool
    share: float
    inside: bool


@dataclass
class Figures:
    """What came of it. harm: file by file, by its kind; none may be done."""

    job: str
    hits: list[Hit] = field(default_factory=list)
    lives: int = 0
    rounds: int = 0
    orphans_s: float = 0.0
    seconds: float = 0.0
    harm: dict[Harm, list[str]] = field(default_factory=lambda: {kind: [] for kind in get_args(Harm)})

    def line(self) -> str:
        """For the screen."""
        shares = sorted(hit.share for hit in self.hits)
        kinds = ", ".join(f"{sum(hit.kind == kind for hit in self.hits)} as it {kind}" for kind in get_args(Kind))
        tenths = len({min(int(10 * share), 9) for share in shares})
        harm = ", ".join(f"{kind} {len(files)}" for kind, files in self.harm.items())
        return (
            f"{self.job}: {len(self.hits)} kills hit in {self.lives} lives ({kinds}; "
            f"{sum(hit.group for hit in self.hits)} of the group; {sum(hit.inside for hit in self.hits)} left a "
            f"temporary), at {shares[0]:.0%} to {shares[-1]:.0%} of the way, median {shares[len(shares) // 2]:.0%}, in "
            f"{tenths} of its 10 parts; {self.rounds} ended; {harm}; orphans gone within {self.orphans_s:.1f} s; "
            f"{self.seconds:.0f} s"
        )

    def harmed(self, kind: Harm, files: Iterable[str]) -> None:
        """Note it."""
        self.harm[kind] += files


def kind_of(number: int) -> Kind:
    """Of the end of life `number`: a fifth as it starts, a third of the others as it writes."""
    return "starts" if number % 5 == 0 else "writes" if number % 3 == 1 else "works"


class Life:
    """One start of a job's command."""

    def __init__(self, job: Job, out: Path) -> None:
        self.job, self.out, self.mark = job, out, f"{job.name}-{uuid.uuid4()}"
        self.before = scan(out)
        self.said = out.with_name(f"{out.name}.said")
        self.process = self._start(list(job.command(out)))
        self.began = time.monotonic()

    def _start(self, command: list[str]) -> "subprocess.Popen[bytes] | Started":
        """In a process group of its own, to be killed at once."""
        if WARM and tuple(command[: len(RICE)]) == RICE:
            return server().start(command[len(RICE) :], self.said)
        environment = os.environ | ONE_CORE | {MARK: self.mark}
        with self.said.open("wb") as said:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened to the test, the command does not go on alone."""
        if self.runs:
            self.kill(group=True)

    @property
    def runs(self) -> bool:
        """Whether the main process does."""
        return self.process.poll() is None

    @property
    def age(self) -> float:
        """Seconds."""
        return time.monotonic() - self.began

    def way(self, now: State) -> int:
        """How much is done: files and lines of logs, of all lives or of this one. Half-written ones count while they
        grow, those of earlier lives do not."""
        old = self.before if not self.job.resumes else {k: v for k, v in self.before.items() if is_temporary(k)}
        new = [name for name, state in now.items() if old.get(name) != state]
        return len(new) + sum(_lines(self.out / name) for name in new if name.endswith(".jsonl"))

    def fresh_temporary(self, now: State) -> bool:
        """Whether this life is writing a file."""
        return any(is_temporary(name) and name not in self.before for name in now)

    def kill(self, group: bool) -> bool:
        """Whether it was still running."""
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                os.kill(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def processes(self) -> list[psutil.Process]:
        """All that carry its mark or are of its group, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                ours = os.getpgid(process.pid) == self.process.pid or process.environ().get(MARK) == self.mark
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def bury(self) -> float:
        """Wait until none of its processes is left; the seconds that it took."""
        began = time.monotonic()
        while left := self.processes():
            assert time.monotonic() - began < PATIENCE_S, f"{self.job.name}: left alive: {left}"
            time.sleep(0.1)
        return time.monotonic() - began

    def words(self) -> str:
        """The end of what it said."""
        return self.said.read_text(errors="replace")[-2000:]


@functools.cache
def server() -> Server:
    """See `warm_starts`."""
    os.environ |= ONE_CORE
    return Server()


@dataclass(frozen=True)
class Untouched:
    """A run that nobody touched. starting: seconds until its first file; way: its length; contents: by path."""

    seconds: float
    starting: float
    way: int
    contents: Mapping[str, Any]


def untouched(job: Job, out: Path) -> Untouched:
    """Run it, and look on."""
    way, starting = 0, 0.0
    with Life(job, out) as life:
        while life.runs:
            looked, now = time.monotonic(), scan(out)
            way, starting = max(way, life.way(now)), starting or (life.age if now else 0.0)
            rest(looked)
    assert life.process.returncode == 0, life.words()
    found = Untouched(life.age, starting, max(way, life.way(scan(out))), contents(job, out))
    put_aside(out)
    return found


def put_aside(out: Path) -> None:
    """What the next run shall not find. All runs write to one place: names may be hashes of it."""
    beside = sum(1 for _ in out.parent.glob(f"{out.name}-*"))
    out.rename(out.with_name(f"{out.name}-{beside}"))


def kill_again_and_again(job: Job, folder: Path, kills: int = KILLS) -> Figures:
    """See the module. The harm that was done stands in the figures; a command that does not go on is an error."""
    out, figures, dice = folder / "out", Figures(job.name), random.Random(job.name)
    whole = untouched(job, out)
    began = time.monotonic()
    done, dead = Done(job), list[Life]()
    while True:
        number = len(figures.hits)
        if time.monotonic() - began > 60 * MINUTES:
            kills = number
        assert figures.lives <= 2 * max(kills, number) + 5, f"{job.name} ends before it is killed: {figures.hits}"
        with Life(job, out) as life:
            if number < kills:
                strike(life, number, kills, whole, dice, figures)
            status = life.process.wait()
        figures.lives += 1
        figures.harmed("made again", done.again(out))
        if status == -signal.SIGKILL:
            if number % 4 == 1:
                figures.orphans_s = max(figures.orphans_s, life.bury())
            else:  # whoever is left of this life meets the next one
                dead.append(life)
            continue
        assert status == 0, f"{job.name} did not go on after a kill: {life.words()}"
        for earlier in (*dead, life):
            earlier.bury()
        compare(job, whole, out, figures)
        figures.rounds += 1
        if number >= kills:
            break
        put_aside(out)
        done, dead = Done(job), []
    figures.seconds = time.monotonic() - began
    return figures


def strike(life: Life, number: int, kills: int, whole: Untouched, dice: random.Random, figures: Figures) -> None:
    """Kill it, if it runs until it is to be; look at what is there then."""
    kind, group = kind_of(figures.lives), number % 2 == 0
    share = wait_for_the_instant(life, kind, whole, number / kills, dice)
    if not life.kill(group):
        return
    hit = Hit(kind, group, share, inside=life.fresh_temporary(scan(life.out)))
    figures.hits.append(hit)
    figures.harmed("half-written", half_written(life.job, life.out))
    with life.out.with_name("hits.txt").open("a") as file:  # to be looked at meanwhile
        file.write(f"{number + 1} of {kills}: {hit}\n")


def wait_for_the_instant(life: Life, kind: Kind, whole: Untouched, share: float, dice: random.Random) -> float:
    """Until it is to be killed, or has ended. Returns the share of the way that was done."""
    goal, late = share * whole.way, dice.uniform(0, 1)
    pause = late * (whole.seconds - whole.starting) / max(whole.way, 1)
    way, reached = 0, 0.0
    while life.runs:
        looked, now = time.monotonic(), scan(life.out)
        way = life.way(now)
        if kind == "starts":
            if life.age >= late * whole.starting:
                break
        elif reached or (way >= goal and now != life.before):  # at work, not only started
            reached = reached or time.monotonic()
            if life.fresh_temporary(now) if kind == "writes" else time.monotonic() >= reached + pause:
                break
        if not (reached and kind == "writes"):
            rest(looked)
    return min(way / max(whole.way, 1), 1.0)


def rest(looked: float) -> None:
    """Sleep nine times as long as it took to look: who looks on must not slow what it sees."""
    time.sleep(9 * (time.monotonic() - looked))


class Done:
    """What one folder's lives have finished, to be found again as it was."""

    def __init__(self, job: Job) -> None:
        self.job, self.mark, self.files = job, 0, dict[str, bytes]()

    def again(self, out: Path) -> list[str]:
        """After a life: files that were finished before it and are lost or others now, and a step back."""
        found = {path: path.read_bytes() for pattern in self.job.kept for path in out.glob(pattern) if path.is_file()}
        now = {str(path.relative_to(out)): content for path, content in found.items() if not _hidden(path, out)}
        again = sorted(name for name, content in self.files.items() if now.get(name) != content)
        mark = self.job.mark(out)
        if mark < self.mark:
            again.append(f"from {self.mark} back to {mark}")
        self.files, self.mark = now, mark
        return again


def scan(out: Path) -> State:
    """Every file under a folder that somebody writes: path inside it -> inode, time, size."""
    found: State = {}
    folders = [str(out)]
    while folders:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        status = entry.stat(follow_symlinks=False)
                        name = os.path.relpath(entry.path, out)
                        found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def contents(job: Job, out: Path) -> dict[str, Any]:
    """Of all files; of one that cannot be read, why."""
    found: dict[str, Any] = {}
    for name in sorted(scan(out)):
        try:
            found[name] = job.content(name, out / name)
        except Exception as error:  # whatever the kind's reader raises
            found[name] = error
    return found


def half_written(job: Job, out: Path) -> Iterator[str]:
    """Files under their final names that cannot be read to their ends."""
    for name in scan(out):
        if not is_temporary(name) and not job.allowed_half(name):
            try:
                read_whole(out / name)
            except FileNotFoundError:
                continue  # an orphan is still at work
            except Exception as error:  # whatever the kind's reader raises
                yield f"{name}: {error!r}"


def compare(job: Job, whole: Untouched, out: Path, figures: Figures) -> None:
    """With the untouched run, file by file; nobody may hold a lock."""
    expected, found = whole.contents, contents(job, out)
    figures.harmed("lost", sorted(expected.keys() - found.keys()))
    figures.harmed("left over", sorted(found.keys() - expected.keys()))
    shared = sorted(found.keys() & expected.keys())
    figures.harmed("different", [name for name in shared if found[name] != expected[name]])
    for path in out.rglob("*.lock"):
        with filelock.FileLock(path, timeout=PATIENCE_S):
            pass


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _hidden(path: Path, out: Path) -> bool:
    return is_temporary(str(path.relative_to(out)))
