"""What the kills would show is shown: commands with each fault are found out, and a sound one is not."""

import sys
from pathlib import Path
from typing import Any

import kills
import pytest
from killed_jobs import content
from kills import Figures, Job, kill_again_and_again

pytestmark = pytest.mark.alone

SCRIPT = """
import json, os, subprocess, sys, time
from pathlib import Path

out, fault = Path(sys.argv[1]), sys.argv[2]
out.mkdir(exist_ok=True)
if fault != "left over":
    for path in out.glob(".*.tmp"):
        path.unlink()
if fault == "orphan":
    subprocess.Popen(["sleep", "600"], start_new_session=True)
listed = out / "listed.txt"
known = listed.read_text().split() if listed.exists() else []
for number in range(12):
    path, text = out / f"{number}.json", json.dumps({"number": number, "seconds": time.time()})
    if (path.exists() or str(number) in known) and fault != "made again":
        continue
    if fault == "lost":
        with listed.open("a") as file:
            file.write(f"{number}\\\\n")
    if fault == "different":
        with (out / "log.jsonl").open("a") as file:
            file.write(text + "\\\\n")
    part = path if fault == "half-written" else out / f".{number}.json.{os.getpid():08}.tmp"
    with part.open("w") as file:
        for half in (text[:5], text[5:]):
            file.write(half)
            file.flush()
            time.sleep(0.04)
    part.rename(path)
"""


def tried(folder: Path, fault: str) -> Figures:
    folder.mkdir(exist_ok=True)
    script = folder / "command.py"
    script.write_text(SCRIPT.replace("\\\\", "\\"))

    def without_lists(name: str, path: Path) -> Any:
        return None if path.name == "listed.txt" else content(name, path)

    job = Job(
        name=fault,
        command=lambda out: [sys.executable, str(script), str(out), fault],
        content=without_lists,
        kept=("*.json",) if fault != "half-written" else (),
    )
    return kill_again_and_again(job, folder, 10)


def test_a_sound_command_is_hit_all_along_its_way_and_nothing_is_found(tmp_path: Path) -> None:
    figures = tried(tmp_path, "none")
    assert not any(figures.harm.values())
    assert len(figures.hits) == 10
    assert {hit.kind for hit in figures.hits} == {"starts", "works", "writes"}
    assert {hit.group for hit in figures.hits} == {True, False}
    assert max(hit.share for hit in figures.hits) > 0.6
    assert any(hit.inside for hit in figures.hits)
    assert "10 kills hit" in figures.line()


@pytest.mark.parametrize("fault", ["half-written", "left over", "made again", "lost", "different"])
def test_each_fault_is_found_and_no_other(tmp_path: Path, fault: str) -> None:
    harm = tried(tmp_path, fault).harm
    assert {kind for kind, files in harm.items() if files} - {"different" if fault == "half-written" else ""} == {fault}


def test_who_outlives_a_killed_command_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "PATIENCE_S", 1.0)
    started: list[kills.Life] = []
    begin = kills.Life.__init__

    def noted(self: kills.Life, *arguments: Any) -> None:
        begin(self, *arguments)
        started.append(self)

    monkeypatch.setattr(kills.Life, "__init__", noted)
    try:
        with pytest.raises(AssertionError, match="left alive"):
            tried(tmp_path, "orphan")
    finally:
        for process in [process for life in started for process in life.processes()]:
            process.kill()
