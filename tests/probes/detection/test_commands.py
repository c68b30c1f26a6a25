"""`rice detect train`, `eval` and `predict`, run as a user would."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from worlds import CONFIG, ENCODER, FLAGS, config, world

from probes.detection import commands
from rice.errors import RiceError

ENVIRONMENT = os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "rice.cli", "detect", *map(str, words)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, env=ENVIRONMENT)


def train(root: Path, out: Path, **changes: object) -> None:
    commands.train(config(**changes), encoder=ENCODER, data=root, out=out, device="cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return world(tmp_path / "scenes")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data, out) of one training."""
    folder = tmp_path_factory.mktemp("trained")
    root = world(folder / "scenes")
    commands.train(config(evaluate_every=1), encoder=ENCODER, data=root, out=folder / "out", device="cpu")
    return root, folder / "out"


def test_a_training_leaves_what_its_help_says(trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, out = trained
    names = {path.name for path in out.iterdir()}
    assert names >= {"last.safetensors", "best.safetensors", "scores.json", "results.json", "metrics.jsonl"}
    assert names >= {"course.png", "preview.png"}
    evaluations = json.loads((out / "evaluations.json").read_text())
    assert [entry["done"] for entry in evaluations] == [3, 6]
    assert json.loads((out / "scores.json").read_text())["bbox"]["AP"] == evaluations[-1]["box AP"]
    for name in ("course.png", "preview.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100


def test_judging_the_trained_detector_again_gives_its_scores(trained: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = trained
    commands.evaluate(out / "last.safetensors", data=root, out=tmp_path, device="cpu", evaluator="pycocotools")
    again, first = (json.loads((folder / "scores.json").read_text()) for folder in (tmp_path, out))
    for kind in ("bbox", "segm"):
        assert again[kind]["AP"] == pytest.approx(first[kind]["AP"], abs=1e-9)
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads((out / "results.json").read_text())


def test_predicting_draws_every_picture_at_its_own_size(trained: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = trained
    generator = np.random.default_rng(0)
    sizes = {"wide.png": (90, 40), "tall.png": (33, 120), "wide.jpg": (64, 64)}
    (tmp_path / "photos").mkdir()
    for name, size in sizes.items():
        Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    commands.predict((tmp_path / "photos",), model=out / "last.safetensors", out=tmp_path / "out", device="cpu")
    drawn = {}
    for path in (tmp_path / "out").glob("*.png"):
        with Image.open(path) as picture:
            drawn[path.name] = picture.size
    assert drawn == {"tall.png": (33, 120), "wide.png": (64, 64), "wide-2.png": (90, 40)}
    images = {entry["id"]: entry["file_name"] for entry in json.loads((tmp_path / "out/images.json").read_text())}
    assert [Path(images[k]).name for k in (1, 2, 3)] == ["tall.png", "wide.jpg", "wide.png"]
    for result in json.loads((tmp_path / "out/results.json").read_text()):
        left, top, width, height = result["bbox"]
        limit = sizes[Path(images[result["image_id"]]).name]
        assert left >= 0
        assert top >= 0
        assert left + width <= limit[0] + 1e-6
        assert top + height <= limit[1] + 1e-6
        assert result["segmentation"]["size"] == [limit[1], limit[0]]


def test_a_picture_that_lies_on_its_side_is_found_and_drawn_upright(trained: tuple[Path, Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 40)).save(tmp_path / "phone.jpg", exif=exif)
    commands.predict(
        (tmp_path / "phone.jpg",), model=trained[1] / "last.safetensors", out=tmp_path / "out", device="cpu"
    )
    with Image.open(tmp_path / "out" / "phone.png") as picture:
        assert picture.size == (40, 90)
    for result in json.loads((tmp_path / "out/results.json").read_text()):
        assert result["segmentation"]["size"] == [90, 40]


def test_no_picture_is_replaced_by_a_drawn_one(trained: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a-2.jpg"):
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(RiceError, match=r"a\.png would be replaced.*another --out"):
        commands.predict((tmp_path,), model=trained[1] / "last.safetensors", out=tmp_path, device="cpu")
    assert (tmp_path / "a.png").read_bytes() == before
    commands.predict((tmp_path,), model=trained[1] / "last.safetensors", out=tmp_path / "out", device="cpu")
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_an_evaluator_of_another_protocol_is_told_before_anything_is_trained(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="LVIS's protocol only, and this is COCO's; use --evaluator faster"):
        commands.train(CONFIG, encoder=ENCODER, data=root, out=tmp_path / "out", evaluator="lvis", dry_run=True)
    assert not (tmp_path / "out").exists()


def test_judging_into_a_trainings_folder_is_refused(trained: tuple[Path, Path]) -> None:
    root, out = trained
    before = (out / "results.json").read_bytes()
    with pytest.raises(RiceError, match="holds a training.*name another --out"):
        commands.evaluate(out / "best.safetensors", data=root, out=out, device="cpu")
    assert (out / "results.json").read_bytes() == before


def test_another_runs_folder_is_refused_and_kept(trained: tuple[Path, Path]) -> None:
    root, out = trained
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(RiceError, match=r"holds another run: its config .*name another --out"):
        train(root, out, learning_rate=0.5)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_dry_run_says_steps_and_cache_and_writes_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.train(CONFIG, encoder=ENCODER, data=root, out=tmp_path / "out", dry_run=True, device="cpu")
    said = capsys.readouterr().out
    assert "6 of 4: 24 images, 2 epochs" in said
    assert "480.0 KiB of frozen features" in said  # (12 + 12 mirrored + 6) pictures x 64 tokens x 128 x 2 bytes
    assert not (tmp_path / "out").exists()


def test_a_changed_encoder_is_told(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from probes.detection.checkpoint import DetectorFacts
    from probes.detection.checkpoint import load_detector as load
    from probes.heads import save_heads
    from rice.encoders.load import load_encoder

    root, out = trained
    facts = DetectorFacts.read(out / "last.safetensors")
    detector = load(out / "last.safetensors", load_encoder(ENCODER))
    changed = facts.__class__(**vars(facts) | {"fingerprint": "0" * 64})
    save_heads(tmp_path / "old.safetensors", detector, changed)
    with pytest.raises(RiceError, match="was trained on other weights of mini-s8-128@64"):
        commands.evaluate(tmp_path / "old.safetensors", data=root, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


BAD = {
    "cut json": (lambda root: cut(root / "annotations/instances_train.json"), "is not valid JSON"),
    "missing image": (lambda root: next((root / "train").iterdir()).unlink(), "no file"),
    "no data": (lambda root: (root / "annotations/instances_train.json").unlink(), "expected a train split"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", BAD)
def test_bad_data_ends_in_one_line_before_anything_is_written(root: Path, tmp_path: Path, name: str) -> None:
    spoil, message = BAD[name]
    spoil(root)
    result = run("train", "small", "--encoder", ENCODER, "--data", root, "--out", tmp_path / "out", *FLAGS)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_corrupt_picture_is_named(root: Path, tmp_path: Path) -> None:
    picture = sorted((root / "train").iterdir())[3]
    cut(picture)
    with pytest.raises(RiceError, match=f"cannot read the image .*{picture.name}"):
        train(root, tmp_path / "out")


def test_a_missing_folder_and_a_foreign_file_are_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected a dataset folder|expected a folder of datasets"):
        train(root / "nowhere", tmp_path / "out")
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"nothing")
    with pytest.raises(RiceError, match="expected a detector at"):
        commands.predict((root / "val",), model=foreign, out=tmp_path / "out", device="cpu")


@pytest.mark.slow
def test_killed_at_any_instant_the_same_command_finishes_with_the_same_scores(root: Path, tmp_path: Path) -> None:
    words = ("train", "small", "--encoder", ENCODER, "--data", root, "--device", "cpu", "--evaluate-every", "1", *FLAGS)
    whole = run(*words, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "killed"
    for wait in (0.5, 2.5):
        process = subprocess.Popen(
            command(*words, "--out", out), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        began = time.monotonic()
        while not (out / "run.json").exists() and time.monotonic() - began < 60:
            time.sleep(0.05)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run(*words, "--out", out).returncode == 0
    left, right = (json.loads((folder / "scores.json").read_text()) for folder in (tmp_path / "whole", out))
    assert left == right


@pytest.mark.slow
def test_two_ranks_train_together_and_one_goes_on(root: Path, tmp_path: Path) -> None:
    """By torchrun on the CPU; every test picture is judged once, whoever does it."""
    words = ["detect", "train", "small", "--encoder", ENCODER, "--data", root, "--out", tmp_path / "out", *FLAGS]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "rice.cli"]
    low = ["--heads.score-threshold=0.0001", "--device=cpu"]
    together = subprocess.run(
        [*launch, *map(str, words), *low], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert together.returncode == 0, together.stderr[-2000:]
    results = json.loads((tmp_path / "out/results.json").read_text())
    ids = [result["image_id"] for result in results]
    assert ids == sorted(ids)
    assert set(ids) == {1, 2, 3, 4, 5, 6}
    alone = run(*words[1:], *low)  # finished: nothing is trained again
    assert alone.returncode == 0, alone.stderr
    assert json.loads((tmp_path / "out/results.json").read_text()) == results
