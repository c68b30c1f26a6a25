"""Six commands of the suite on data of seconds, as jobs that may be killed."""

import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pile
import yaml
from kills import RICE, WARM, Job
from stored_results import put, put_knn

from rice.cli import main
from rice.data.pack import pack
from rice.data.world import WorldConfig, materialise

ENCODER = "mini-s8-128"
OF_TIME = frozenset(
    {"commit", "data_wait_s", "finished", "images_per_s", "memory", "peak_memory", "pictures_per_worker_second"}
    | {"seconds", "step_s", "tokens_per_s"}
)
"""Fields that tell when, how long, in how much memory and at which commit of this checkout."""


def content(name: str, path: Path) -> Any:
    """Bytes of a file; of JSON what does not tell times; of locks and logs nothing."""
    match path.suffix:
        case ".json":
            return _timeless(json.loads(path.read_text()))
        case ".jsonl":
            return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
        case ".lock" | ".log":
            return None
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _timeless(inner) for key, inner in value.items() if key not in OF_TIME}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def sweep(folder: Path) -> Job:
    """Two probes, each on a generated world of its own, on two encoders, with two seeds: eight results."""
    asked = {
        "name": "killed",
        "encoders": [ENCODER, {"encoder": ENCODER, "weights": "none", "name": "random"}],
        "datasets": {
            "scenes": {"world": {"kind": "scenes", "size": 64, "train": 12, "test": 4}},
            "crops": {"world": {"kind": "crops", "size": 64, "train": 48, "test": 24}},
        },
        "probes": [
            {"probe": "knn", "data": ["crops"]},
            {"probe": "dense", "data": ["scenes"], "updates": 3, "batch": 4, "learning_rates": [0.001]},
        ],
        "seeds": 2,
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(asked))
    return Job(
        name="sweep",
        command=lambda out: [*RICE, "sweep", str(file), "--out", str(out), "--gpus", "none"],
        content=content,
        kept=("results/*.json", "items/*.parquet", "worlds/**/*"),
    )


def curation(folder: Path) -> Job:
    """Eight pictures in shards of two, and two that are left out."""
    pictures = pile.write_scenes(folder / "pile", 6)
    pile.write_files(pictures, {"bad.jpg": b"<html>", "twice.jpg": (pictures / "00.jpg").read_bytes()})
    workers = "1" if WARM else "2"  # processes that the server of warm starts does not fork
    small = ["--encoder", ENCODER, "-k", "4", "--min-edge", "100", "--min-region", "24", "--per-shard", "2"]
    small += ["--workers", workers, "--device", "cpu"]
    return Job(
        name="curation",
        command=lambda out: [*RICE, "curate", str(pictures), "--out", str(out), *small],
        content=content,
        kept=("shards/*.tar", "embed/*.npy"),
    )


def training(folder: Path) -> Job:
    """Sixteen steps with a checkpoint after every second one, validated before and after; a process reads pictures."""
    world = materialise(WorldConfig(size=64, train=12, test=6), folder / "coco")
    for split, name in (("train", "train"), ("val", "val")):
        pack(world, out=folder / name, split=split)
    flags = ["--data", str(folder / "train"), "--val", str(folder / "val"), "--samples", "64", "--batch", "4"]
    flags += ["--stream.size", "32", "--stream.workers", "1", "--machine.save-every", "2", "--machine.log-every", "1"]
    return Job(
        name="training",
        command=lambda out: [*RICE, "train", "micro", *flags, "--out", str(out), "--machine.device", "cpu"],
        content=content,
        mark=_newest_step("checkpoints/step-*/manifest.json"),
    )


def llava(folder: Path) -> Job:
    """The tiny language model, then three stages of four steps, with a checkpoint after each step."""
    world = materialise(WorldConfig(layout="llava", size=64, train=16, test=2), folder / "world")
    flags = ["--encoder", f"{ENCODER}@32", "--data", str(world), "--device", "cpu", "--tiling", "one"]
    flags += ["--lm-epochs", "1", "--save-every", "1", "--workers", "1"]
    for stage in ("stage1", "stage2"):
        flags += [f"--{stage}.rows", "16", f"--{stage}.batch", "4"]
    stages = ("stage0", "stage1", "stage2")

    def mark(out: Path) -> int:
        """Steps that are kept: of stages that are done, and of the newest whole checkpoint."""
        done = sum((out / made).exists() for made in ("lm", "stage1/projector.safetensors", "model"))
        steps = [_newest_step(f"{stage}/checkpoints/checkpoint-*/whole.json")(out) for stage in stages[done:]]
        return 100 * done + max(steps, default=0)

    return Job(
        name="LLaVA training",
        command=lambda out: [*RICE, "llava", "train", "mini", *flags, "--out", str(out)],
        content=content,
        kept=("lm/*", "stage1/projector.safetensors", "model/*", "prepared/*/rows.parquet"),
        mark=mark,
        allowed_half=lambda name: fnmatch(name, "stage?/checkpoints/*") or name.startswith("lm-untaught/"),
    )


def _newest_step(pattern: str) -> Callable[[Path], int]:
    """The number behind the last dash of the newest checkpoint's folder; 0 where there is none."""
    return lambda out: max((int(path.parent.name.rpartition("-")[2]) for path in out.glob(pattern)), default=0)


def tracking(folder: Path) -> Job:
    """A tracker that was hardly trained follows eight clips, two at a time."""
    clips = {"kind": "clips", "layout": "lasot", "size": 64, "frames": 8, "objects": (1, 2), "seed": 3}
    data = materialise(WorldConfig(**clips, train=4, test=8), folder / "clips")
    flags = ["--epochs=1", "--epoch-pairs=8", "--batch=4", "--warmup=0", "--template-size=16", "--search-size=32"]
    flags += ["--least-frames=6", "--heads.channels=8", "--heads.head-dim=32", "--device=cpu"]
    head = folder / "head"
    main(["track", "train", "mini", "--encoder", ENCODER, "--data", str(data), "--out", str(head), *flags])
    words = ["track", "eval", str(head / "last.safetensors"), "--data", str(data), "--device", "cpu", "--at-once", "2"]

    def tracks(name: str, path: Path) -> Any:
        """Boxes are equal to rounding: sums depend on which clips are followed together."""
        if name.startswith("times/"):
            return len(path.read_text().splitlines())
        if name.startswith("tracks/"):
            return np.loadtxt(path, delimiter=",", ndmin=2).round(3).tolist()
        return content(name, path)

    return Job(
        name="tracking evaluation",
        command=lambda out: [*RICE, *words, "--out", str(out)],
        content=tracks,
        kept=("tracks/**/*.txt",),  # a clip is done with its boxes, which come after its times
    )


def report(folder: Path) -> Job:
    """A page of made-up results with cards, clips beside it, and a picture inside."""
    from reports.page.build import INLINE_BYTES

    results = folder / "results"
    for encoder in "abcdefgh":
        put_knn(results, encoder, [True, False], [True, True])
        put(results, encoder, {"mIoU": 0.5})
    for number in range(8):
        clip = folder / "figures" / str(number)
        clip.mkdir(parents=True)
        (clip / "pca.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes([number]) * (INLINE_BYTES + 1))
        (clip / "pca.json").write_text(json.dumps({"encoder": {"encoder": "tower"}, "source": {"name": str(number)}}))
    words = ["report", str(results), "--figures", str(folder / "figures"), "--card"]
    return Job(
        name="report build",
        command=lambda out: [*RICE, *words, "--out", str(out)],
        content=content,
        resumes=False,
    )


JOBS: Mapping[str, Callable[[Path], Job]] = {
    "sweep": sweep,
    "curation": curation,
    "training": training,
    "llava": llava,
    "tracking": tracking,
    "report": report,
}
