"""`rice track train` and `rice track eval`, as a user would run them; `run` is in test_video.py."""

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_tracker import ENCODER, FLAGS, config, lasot_score, scores_of, tracks_of, walk, write_clip

from probes.heads import save_heads
from rice.cli import main
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.runs import alone
from tracking import commands
from tracking import train as train_module
from tracking.checkpoint import TrackerFacts, load_tracker


def train(root: Path, out: Path, **changes: Any) -> None:
    commands.train(config(**changes), encoder=ENCODER, data=root, out=out, device="cpu")


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command that refuses its input says: one line, status 2."""
    with pytest.raises(SystemExit) as caught:
        main(["track", *map(str, words)])
    assert caught.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.strip())
    return line


def test_a_training_leaves_what_its_help_says(trained: tuple[Path, Path]) -> None:
    root, out = trained
    names = {path.name for path in out.iterdir()}
    assert names >= {"last.safetensors", "best.safetensors", "scores.json", "tracks", "metrics.jsonl"}
    assert names >= {"course.png", "preview.png"}
    assert not list(out.glob("submission-*"))
    evaluations = json.loads((out / "evaluations.json").read_text())
    assert [entry["done"] for entry in evaluations] == [2, 4]
    for name in ("success", "precision", "norm_precision"):
        assert scores_of(out)["lasot"][name] == evaluations[-1][f"lasot {name}"]
    listed = (root / "testing_set.txt").read_text().split()
    assert sorted(tracks_of(out)) == sorted(f"tracks/lasot/{name}.txt" for name in listed)
    for name in ("course.png", "preview.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100


def test_the_stored_tracks_scored_from_the_benchmarks_own_files_give_the_stored_scores(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = trained
    again, stored = lasot_score(root, out / "tracks/lasot", tmp_path, capsys), scores_of(out)["lasot"]
    for name in ("success", "precision", "norm_precision"):
        assert again[name] == pytest.approx(stored[name], abs=1e-9)
    assert again["sequences"] == stored["sequences"] == 3
    assert 0 < stored["success"] < 100


def test_first_boxes_are_the_benchmarks_own(trained: tuple[Path, Path]) -> None:
    """LaSOT's pixels count from 1, in its files and in ours."""
    root, out = trained
    for path in (out / "tracks/lasot").glob("*.txt"):
        truth = (root / path.stem.rpartition("-")[0] / path.stem / "groundtruth.txt").read_text().split()
        assert [float(v) for v in path.read_text().split()[0].split(",")] == [float(v) for v in truth[0].split(",")]
        assert len(path.read_text().splitlines()) == len(truth)


def test_judging_again_gives_the_same_tracks_and_scores(trained: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = trained
    commands.evaluate(out / "last.safetensors", data=root, out=tmp_path, device="cpu", at_once=3)
    assert tracks_of(tmp_path) == tracks_of(out)
    assert scores_of(tmp_path) == scores_of(out)
    assert {path.name for path in tmp_path.iterdir()} >= {"success.png", "precision.pdf", "preview.png"}


def test_an_evaluation_removes_what_a_killed_one_left_half_written(trained: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = trained
    left = [tmp_path / place / ".clip.txt.abcdefgh.tmp" for place in ("", "tracks/lasot", "times/lasot")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1,2,")
    (tmp_path / "tracks.json").write_text((out / "tracks.json").read_text())
    commands.evaluate(out / "last.safetensors", data=root, out=tmp_path, device="cpu", at_once=3)
    assert not [path for path in left if path.exists()]
    assert tracks_of(tmp_path) == tracks_of(out)


def test_two_evaluations_do_not_write_one_folder(trained: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = trained
    with alone(tmp_path, ".track.lock", "evaluating into"), pytest.raises(RiceError, match="another process"):
        commands.evaluate(out / "last.safetensors", data=root, out=tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == [".track.lock"]


def test_a_finished_training_is_not_trained_again(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = trained
    shutil.copytree(out, tmp_path / "out")
    monkeypatch.setattr(train_module, "_losses", lambda *_: pytest.fail("it is trained again"))
    train(root, tmp_path / "out", evaluate_every=1)
    assert scores_of(tmp_path / "out") == scores_of(out)
    assert tracks_of(tmp_path / "out") == tracks_of(out)
    assert "LaSOT test  success" in capsys.readouterr().out


def test_another_runs_folder_is_refused_and_kept(trained: tuple[Path, Path]) -> None:
    root, out = trained
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(RiceError, match=r"holds another run: its config .*name another --out"):
        train(root, out, learning_rate=0.5)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_dry_run_says_the_work_and_writes_nothing(
    roots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--encoder", ENCODER, "--data", roots / "got10k", "--out", tmp_path / "out", "--dry-run", *FLAGS]
    main(["track", "train", "mini", *map(str, words)])
    said = capsys.readouterr().out
    assert "template 16 px, search 32 px, 4 + 16 tokens" in said
    assert "4 of 4: 2 x 8 pairs" in said
    assert "24 frames" in said
    assert not (tmp_path / "out").exists()


def test_by_the_command_line_from_training_to_the_servers_zips(
    roots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GOT-10k and TrackingNet together; then GOT-10k's own test."""
    out, words = tmp_path / "out", ["--train", "got10k", "--test", "got10k", "trackingnet"]
    main(["track", "train", "mini", "--encoder", ENCODER, "--data", str(roots), "--out", str(out), *FLAGS, *words])
    said = capsys.readouterr().out
    assert "GOT-10k val  ao " in said
    assert f"TrackingNet test: the truth is on a server; see {out}/submission-trackingnet.zip" in said
    assert scores_of(out).keys() == {"got10k"}
    assert scores_of(out)["got10k"].keys() >= {"ao", "sr_0.5", "sr_0.75"}
    with zipfile.ZipFile(out / "submission-trackingnet.zip") as archive:
        truths = {path.name: path.read_text() for path in (roots / "trackingnet/truth").iterdir()}
        assert sorted(archive.namelist()) == sorted(truths)
        for name, truth in truths.items():
            lines = archive.read(name).decode().splitlines()
            assert len(lines) == len(truth.splitlines())
            assert lines[0] == truth.splitlines()[0]
    words = ["--data", str(roots / "got10k"), "--split", "test", "--out", str(tmp_path / "judged"), "--device", "cpu"]
    main(["track", "eval", str(out / "last.safetensors"), *words])
    assert "submission-got10k.zip" in capsys.readouterr().out
    names = (roots / "got10k/test/list.txt").read_text().split()
    with zipfile.ZipFile(tmp_path / "judged/submission-got10k.zip") as archive:
        expected = [f"{name}/{name}_{kind}.txt" for name in names for kind in ("001", "time")]
        assert sorted(archive.namelist()) == sorted(expected)
        for name in expected:
            assert len(archive.read(name).decode().splitlines()) == 8
    assert json.loads((tmp_path / "judged/scores.json").read_text()) == {}


def test_a_clip_of_which_only_the_first_box_is_known_is_followed_and_not_judged(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "mine"
    for name, lines in (("known", 6), ("first", 1)):
        clip = write_clip(root / name, walk(6, (20, 12, 12, 10), (2, 1)))
        rows = [" ".join(f"{value:g}" for value in box) for box in clip.boxes.tolist()]
        (root / name / "groundtruth.txt").write_text("\n".join(rows[:lines]) + "\n")
    model = trained[1] / "last.safetensors"
    commands.evaluate(model, data=root, out=tmp_path / "both", device="cpu")
    assert sorted(tracks_of(tmp_path / "both")) == ["tracks/folder/first.txt", "tracks/folder/known.txt"]
    found = scores_of(tmp_path / "both")["folder"]
    assert list(found["per_sequence"]) == ["known"]
    commands.evaluate(model, data=root / "known", out=tmp_path / "one", device="cpu")
    assert scores_of(tmp_path / "one")["folder"]["success"] == found["success"]
    capsys.readouterr()
    commands.evaluate(model, data=root / "first", out=tmp_path / "none", device="cpu")
    assert scores_of(tmp_path / "none") == {}
    assert "clips test: only first boxes are known" in capsys.readouterr().out


def test_another_protocol_gives_other_scores_of_the_same_tracks(trained: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = trained
    commands.evaluate(
        out / "last.safetensors", data=root, out=tmp_path, device="cpu", at_once=3, protocol="got10k-lasot"
    )
    assert scores_of(tmp_path)["lasot"]["protocol"] == "got10k-lasot"
    assert tracks_of(tmp_path) == tracks_of(out)


def test_a_changed_encoder_is_told(trained: tuple[Path, Path], encoder: Encoder, tmp_path: Path) -> None:
    root, out = trained
    facts = TrackerFacts.read(out / "last.safetensors")
    tracker = load_tracker(out / "last.safetensors", encoder)
    save_heads(tmp_path / "old.safetensors", tracker.head, type(facts)(**vars(facts) | {"fingerprint": "0" * 64}))
    with pytest.raises(RiceError, match=f"was trained on other weights of {ENCODER}"):
        commands.evaluate(tmp_path / "old.safetensors", data=root, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_bad_input_of_a_training_is_one_line_and_nothing_is_written(
    roots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(roots / "got10k", tmp_path / "bare", ignore=shutil.ignore_patterns("train"))
    shutil.copytree(roots / "got10k", tmp_path / "broken")
    next((tmp_path / "broken/val").glob("*/00000003.jpg")).unlink()
    out = tmp_path / "out"
    cases: list[tuple[list[object], str]] = [
        (["--encoder", ENCODER, "--data", tmp_path / "bare", *FLAGS], "nothing to learn from: got10k with val, test"),
        (["--encoder", ENCODER, "--data", tmp_path / "nowhere", *FLAGS], "found none at"),
        (["--encoder", ENCODER, "--data", tmp_path / "broken", *FLAGS], "expected 00000003.jpg, there is none"),
        (["--encoder", f"{ENCODER}@64", "--data", roots / "got10k", *FLAGS], "has 32 pixels, but @64 was asked"),
        (["--encoder", "mini-s9", "--data", roots / "got10k", *FLAGS], "unknown encoder 'mini-s9'"),
        (["--encoder", ENCODER, "--data", roots / "got10k", *FLAGS, "--batch=0"], "batch=0 is out of range"),
        (["--encoder", ENCODER, "--data", roots / "got10k", *FLAGS, "--search-size=8"], "template_size=16"),
        (["--encoder", ENCODER, "--data", roots, *FLAGS, "--train", "vot", "--test", "lasot"], "none at .*vot"),
    ]
    for words, message in cases:
        line = fails(capsys, "train", "mini", *words, "--out", out)
        assert re.search(message, line), line
        assert not out.exists()


def test_bad_input_of_a_judgement_is_one_line(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = trained
    model, to = out / "last.safetensors", ["--out", tmp_path / "out", "--device=cpu"]
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"nothing")
    assert "expected a tracker at" in fails(capsys, "eval", tmp_path / "no.safetensors", "--data", root, *to)
    assert "expected a tracker at" in fails(capsys, "eval", foreign, "--data", root, *to)
    assert "expected a folder of tracking data" in fails(capsys, "eval", model, "--data", tmp_path / "nowhere", *to)
    assert "no split 'val'" in fails(capsys, "eval", model, "--data", root, "--split=val", *to)
    assert "unknown benchmark 'lasto'" in fails(capsys, "eval", model, "--data", root, "--benchmark=lasto", *to)
    assert not (tmp_path / "out").exists()


def test_a_trainings_folder_is_not_evaluated_into(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = trained
    before = (out / "tracks.json").read_bytes()
    said = fails(capsys, "eval", out / "last.safetensors", "--data", root, "--out", out, "--device=cpu")
    assert "holds a training" in said
    assert (out / "tracks.json").read_bytes() == before
