"""What `rice` can be asked to write, small: inputs that are made once, and a command for each verb."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from small_disk import SmallDisk

ENCODER = ("--encoder", "mini-s8-128")
DETECT = ("--batch=4", "--epochs=2", "--warmup=2", "--milestones", "--learning-rate=0.001", "--heads.channels=8")
DETECT += ("--heads.hidden=16", "--heads.proposals=20", "--heads.rpn-convs=1", "--heads.box-convs=1")
DETECT += ("--heads.mask-convs=1", "--heads.rpn-samples=32", "--heads.roi-samples=16", "--heads.rpn-top", "60", "40")
TRACK = ("--epochs=2", "--epoch-pairs=8", "--batch=4", "--learning-rate=0.001", "--warmup=0", "--template-size=16")
TRACK += ("--search-size=32", "--least-frames=6", "--heads.channels=8", "--heads.head-dim=32")
LM = ("--lm-epochs", "1", "--stage1.rows", "8", "--workers", "0")

SWEEP = """name: small
encoders: [mini-s8-128]
datasets: {crops: {world: {kind: crops, size: 64, train: 30, test: 10}}}
probes: [{probe: knn, data: [crops]}]
seeds: 1
"""


@dataclass(frozen=True)
class Job:
    """`words` are the verb and its flags but --out, made from the folder of inputs; `out` is a file's name, where it is
    no folder. `varies`: patterns of files that tell times. `failed`: its exit statuses on a full disk."""

    words: Callable[[Path], list[object]]
    out: str = "out"
    varies: tuple[str, ...] = ()
    failed: tuple[int, ...] = (2,)
    quick: bool = False


def _world(*flags: str) -> Callable[[Path], list[object]]:
    return lambda _: ["world", *flags, "--size", "64"]


SMALL = ("--train", "12", "--test", "6")
CLIPS = ("clips", "--layout", "lasot", "--train", "4", "--test", "3", "--frames", "8")
INPUTS: dict[str, Callable[[Path], list[object]]] = {
    "scenes": _world("scenes", *SMALL),
    "clips": _world(*CLIPS),
    "chat": _world("scenes", "--layout", "llava", *SMALL),
    "refer": _world("scenes", "--layout", "refer", *SMALL),
    "shards": lambda at: ["pack", at / "scenes"],
    "sweep": lambda at: ["sweep", at / "sweep.yaml"],
    "detect": lambda at: JOBS["detect train"].words(at),
    "track": lambda at: JOBS["track train"].words(at),
    "lisa": lambda at: JOBS["lisa train"].words(at),
}
"""In the order in which they are made."""
NEEDS = {
    "pack": ("scenes",),
    "curate": ("scenes",),
    "view": ("scenes", "shards"),
    "train": ("scenes", "shards"),
    "sweep": (),
    "tables": ("sweep",),
    "compare": ("sweep",),
    "report": ("sweep",),
    "detect train": ("scenes",),
    "detect eval": ("scenes", "detect"),
    "detect predict": ("scenes", "detect"),
    "detect score": ("scenes", "detect"),
    "track train": ("clips",),
    "track eval": ("clips", "track"),
    "track run": ("clips", "track"),
    "track score": ("clips", "track"),
    "llava prepare": ("chat",),
    "llava train": ("chat",),
    "lisa train": ("refer",),
    "lisa eval": ("refer", "lisa"),
    "lisa segment": ("refer", "lisa"),
    "pca": ("clips",),
    "tsne": ("scenes",),
    "tokens": ("scenes",),
}


def clip(at: Path) -> Path:
    """One of the generated clips."""
    return next(path.parent for path in sorted((at / "clips").rglob("groundtruth.txt")))


def picture(at: Path) -> Path:
    """One of the pictures that are referred to."""
    return min(path for path in (at / "refer").rglob("*.png"))


JOBS: dict[str, Job] = {
    "world": Job(_world("scenes", *SMALL), quick=True),
    "world clips": Job(_world(*CLIPS)),
    "world llava": Job(_world("scenes", "--layout", "llava", *SMALL)),
    "world refer": Job(_world("scenes", "--layout", "refer", *SMALL)),
    "pack": Job(lambda at: ["pack", at / "scenes", "--samples-per-shard", "3"], quick=True),
    "curate": Job(
        lambda at: [
            *("curate", at / "scenes/train", "-k", "5", *ENCODER, "--min-edge", "30", "--min-region", "12"),
            *("--per-shard", "4", "--device", "cpu"),
        ],
        varies=("*/*.json", "report.json"),
    ),
    "view": Job(lambda at: ["view", at / "shards", "--page"], quick=True),
    "train": Job(
        lambda at: [
            *("train", "micro", "--data", at / "shards", "--samples", "64", "--batch", "8"),
            *("--machine.device", "cpu", "--machine.save-every", "3"),
        ],
        varies=("metrics.jsonl", "course.png"),
        quick=True,
    ),
    "sweep": Job(  # 2 where it cannot begin, 1 where cells failed
        lambda at: ["sweep", at / "sweep.yaml"], varies=("results/*", "logs/*", "items/*"), failed=(1, 2)
    ),
    "tables": Job(lambda at: ["tables", at / "sweep"], out="table.md", quick=True),
    "tables of the paper": Job(lambda _: ["tables", "--paper"], quick=True),
    "compare": Job(lambda at: ["compare", at / "sweep"], out="compare.md"),
    "report": Job(lambda at: ["report", at / "sweep", "--card"], quick=True),
    "export": Job(lambda _: ["export", "mini-s8-128"], quick=True),
    "detect train": Job(
        lambda at: [
            *("detect", "train", "mini", "--encoder", "mini-s8-128@64", "--data", at / "scenes", "--device", "cpu"),
            *DETECT,
        ],
        varies=("metrics.jsonl",),
    ),
    "detect eval": Job(
        lambda at: ["detect", "eval", at / "detect/last.safetensors", "--data", at / "scenes", "--device", "cpu"]
    ),
    "detect predict": Job(
        lambda at: [
            *("detect", "predict", at / "scenes/val", "--model", at / "detect/last.safetensors", "--device", "cpu")
        ]
    ),
    "detect score": Job(
        lambda at: [
            *("detect", "score", "--gt", at / "scenes/annotations/instances_val.json"),
            *("--pred", at / "detect/results.json"),
        ]
    ),
    "track train": Job(
        lambda at: ["track", "train", "mini", *ENCODER, "--data", at / "clips", "--device", "cpu", *TRACK],
        varies=("metrics.jsonl", "*.json", "times/*/*"),
    ),
    "track eval": Job(
        lambda at: ["track", "eval", at / "track/last.safetensors", "--data", at / "clips", "--device", "cpu"],
        varies=("*.json", "times/*/*"),
    ),
    "track run": Job(
        lambda at: ["track", "run", clip(at), "--model", at / "track/last.safetensors", "--device", "cpu"],
        varies=("*.mp4",),  # frames per second are drawn on it
    ),
    "track score": Job(
        lambda at: [
            *("track", "score", "--protocol", "lasot-matlab"),
            *("--gt", at / "track/tracks/lasot", "--pred", at / "track/tracks/lasot"),
        ]
    ),
    "llava prepare": Job(lambda at: ["llava", "prepare", at / "chat/instruct.json", "--images", at / "chat/images"]),
    "llava train": Job(
        lambda at: [
            *("llava", "train", "mini", "--encoder", "mini-s8-128@48", "--data", at / "chat", "--device", "cpu"),
            *(*LM, "--stage2.rows", "8", "--stage1.epochs", "1", "--stage2.epochs", "1"),
        ],
        varies=("**/metrics.jsonl",),
    ),
    "lisa train": Job(
        lambda at: [
            *("lisa", "train", "mini", "--encoder", "mini-s8-128@48", "--data", at / "refer", "--device", "cpu"),
            *(*LM, "--segment.steps", "2", "--segment.batch", "2"),
        ],
        varies=("**/metrics.jsonl",),
    ),
    "lisa eval": Job(
        lambda at: ["lisa", "eval", at / "lisa/model", "--data", at / "refer", "--limit", "4", "--device", "cpu"],
        varies=("results/*",),
    ),
    "lisa segment": Job(
        lambda at: ["lisa", "segment", picture(at), "the disc", "--model", at / "lisa/model", "--device", "cpu"]
    ),
    "pca": Job(lambda at: ["pca", clip(at) / "img", *ENCODER, "--size", "64", "--device", "cpu"], varies=("*.json",)),
    "tsne": Job(
        lambda at: [
            *("tsne", at / "scenes", "--encoders", "mini-s8-128", "--perplexity", "5", "--grid", "8"),
            *("--device", "cpu"),
        ],
        varies=("*.json", "*.html"),
    ),
    "tokens": Job(
        lambda at: ["tokens", at / "scenes", "--encoders", "mini-s8-128", "--images", "4", "--device", "cpu"],
        varies=("*.json",),
    ),
}


def make_inputs(disk: SmallDisk, at: Path, name: str) -> None:
    """What the job of that name reads, where it is not there yet."""
    at.mkdir(exist_ok=True)
    (at / "sweep.yaml").write_text(SWEEP)
    for need in NEEDS.get(name, ()):
        if not (at / need).exists():
            made = disk.rice(*INPUTS[need](at), "--out", at / need)
            assert made.status == 0, made
