"""The verbs `rice track train`, `rice track eval` and `rice track run`."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from probes.training_config import wait_passively
from rice.encoders.spec import EncoderReference, EncoderSpec
from rice.errors import RiceError
from rice.progress import BarProgress, bars_if
from rice.recipes import choice
from tracking.config import TrackingConfig
from tracking.protocols import Protocol
from tracking.recipe import RECIPES

if TYPE_CHECKING:
    import torch

    from rice.train.world import World
    from tracking.material import HeldOut
    from tracking.probe import TrackingProbe
    from tracking.score import Scores
    from tracking.tracker import Tracker


def train(
    recipe: Annotated[TrackingConfig, choice(RECIPES)],
    *,
    encoder: str,
    data: Path,
    out: Path,
    weights: str = "default",
    seed: int = 0,
    device: str = "auto",
    dry_run: bool = False,
) -> None:
    """Train OSTrack's head on a frozen encoder and judge it, by a recipe whose every field is a flag.

    rice track train RECIPE --help lists the flags. The encoder stays as it is; two ViT blocks and the CENTER head
    learn. Killed at any instant, the same command goes on. Several GPUs: torchrun --nproc-per-node 8 -m rice.cli
    track train RECIPE ...

    OUT/last.safetensors, OUT/best.safetensors: the head, for rice track eval and run; OUT/scores.json; OUT/tracks:
    a file of boxes for each clip, for rice track score; OUT/metrics.jsonl, OUT/course.png: losses; OUT/preview.png:
    frames of some test clips; OUT/submission-*.zip where a server has the truth.

    DATA is one benchmark in its own layout (GOT-10k, LaSOT, TrackingNet, TNL2K), or a folder of several by the names
    got10k, lasot, trackingnet, tnl2k and coco, of which --train and --test name those that are used.

    Example: rice track train got10k --encoder rice-b16-512 --data GOT10K --out out/rice

    On a laptop: rice track train mini --encoder mini-s8-128 --data CLIPS --out out/mini

    Args:
        encoder: as in rice encoders. Its input size is --search-size.
        data: folder of the benchmark, or of several.
        out: folder to write; the same one resumes.
        weights: default (the published ones), none (random), or a path.
        seed: initialisation, pairs, and how they are cut and varied.
        device: auto, cpu or cuda.
        dry_run: say what would run and what it would take, and write nothing.
    """
    wait_passively()
    from rice.encoders.load import describe
    from rice.encoders.weights import plain
    from rice.train.world import join
    from tracking.probe import TrackingProbe

    with join(device) as world:
        probe, reference = TrackingProbe(recipe, data), EncoderReference.parse(encoder)
        spec = describe(reference, plain(weights))
        probe.input_size(spec, reference.size)
        if dry_run:
            print(_plan(probe, encoder, spec))  # noqa: T201
        else:
            _train(probe, encoder, plain(weights), seed, out, world)


def _train(probe: "TrackingProbe", encoder: str, weights: str | None, seed: int, out: Path, world: "World") -> None:
    """Train and judge."""
    from probes.heads import Tower, same_training
    from rice.train.metrics import read_lines
    from rice.train.picture import draw_course
    from tracking.run import HEADLINES

    tests = probe.material.tests  # data is checked before the encoder is loaded
    tower = Tower.load(encoder, weights, world.device)
    if world.leads:
        same_training(out, tower, probe, seed)
    outcome = probe.training(tower, seed=seed, folder=out).run(bars_if(world.leads), world)
    if world.leads:
        _report(out, tests, outcome.scores)
        log = out / "metrics.jsonl"
        names = {n for line in read_lines(log) for n in line if n.rpartition(" ")[2] in HEADLINES}
        draw_course(log, out / "course.png", {name: name for name in sorted(names)}, "score, %")


def _plan(probe: "TrackingProbe", encoder: str, spec: EncoderSpec) -> str:
    """What a training would do and take, as text."""
    from rice.encoders.cost import cost

    config, found = probe.config, probe.describe()
    template, search = config.sizes(spec)
    price = [cost(spec, edge) for edge in (template, search)]
    gflops = "unknown" if None in (p.gflops for p in price) else f"{sum(p.gflops or 0 for p in price):,.1f} GFLOPs"
    return "\n".join(
        [
            f"encoder   {encoder}: template {template} px, search {search} px, "
            f"{price[0].tokens:,} + {price[1].tokens:,} tokens, {gflops} a pair",
            f"data      {found}",
            f"steps     {config.updates:,} of {config.batch}: {config.epochs} x {config.epoch_pairs:,} pairs",
            f"judges    {sum(map(len, probe.material.clips)):,} frames, {config.at_once} clips at once",
        ]
    )


def evaluate(
    model: Annotated[Path, tyro.conf.Positional],
    *,
    data: Path,
    out: Path,
    benchmark: str | None = None,
    split: str | None = None,
    protocol: Protocol | None = None,
    at_once: int = 16,
    device: str = "auto",
) -> None:
    """Judge a trained tracker on a benchmark: OUT/tracks, OUT/scores.json, plots, OUT/preview.png.

    Killed at any instant, the same command goes on with the clips that are not done. Where a server has the truth
    (GOT-10k's test, TrackingNet's TEST), OUT/submission-BENCHMARK.zip is what it takes, checked to be complete.
    Several GPUs: torchrun --nproc-per-node 8 -m rice.cli track eval ...

    Example: rice track eval out/mini/last.safetensors --data LASOT --out out/lasot

    Args:
        model: last.safetensors or best.safetensors of rice track train.
        data: folder of a benchmark in its own layout, or of clips with a groundtruth.txt each (boxes or polygons).
        out: folder to write.
        benchmark: got10k, lasot, trackingnet, tnl2k or folder, where the layout does not tell.
        split: name of the split; test (GOT-10k: val) where it is not named.
        protocol: whose definition of the scores; the benchmark's official one, where it is not named.
        at_once: clips that are followed together.
        device: auto, cpu or cuda.
    """
    from probes.heads import EVALUATIONS
    from rice.files import make_folder
    from rice.runs import alone
    from rice.train.world import join
    from tracking.curves import write_curves
    from tracking.evaluate import Store, follow_all
    from tracking.material import open_tests, place_to_judge
    from tracking.run import judge_tracks, write_submission

    if (out / EVALUATIONS).exists():
        raise RiceError(f"{out} holds a training, whose tracks would be replaced; name another --out")
    with join(device) as world:
        progress = bars_if(world.leads)
        tracker = _load(model, world.device)
        (test,) = open_tests([place_to_judge(data, benchmark=benchmark, split=split)], None, progress)
        store = Store(out)
        make_folder(out)
        with alone(out, ".track.lock", "evaluating into") if world.leads else contextlib.nullcontext():
            if world.leads:
                store.clear()
            follow_all(tracker, test.clips, store, at_once=at_once, progress=progress, world=world)
            if world.leads:
                scores = judge_tracks(test, store, protocol)
                if scores is not None:
                    write_curves(out, scores)
                write_submission(test, store, out)
                _report(out, [test], {} if scores is None else {test.benchmark: scores})


def run(
    video: Annotated[Path, tyro.conf.Positional],
    *,
    model: Path,
    out: Path,
    box: Annotated[tuple[float, float, float, float] | None, tyro.conf.arg(metavar="X Y W H")] = None,
    device: str = "auto",
) -> None:
    """Follow one target through a video: OUT/NAME.mp4 with its box and score, OUT/NAME.txt with a box a frame.

    Example: rice track run clip.mp4 --box 120 80 60 40 --model out/mini/last.safetensors --out out/clip

    Args:
        video: any video file, or a folder of frames (or with them in img or imgs). A groundtruth.txt in the folder
            (boxes or polygons) is drawn in green, and its first line is the first box where --box is not given.
        model: last.safetensors or best.safetensors of rice track train.
        out: folder to write.
        box: the target in the first frame: left, top, width, height in pixels.
        device: auto, cpu or cuda.
    """
    from rice.train.world import join
    from tracking.video import check_start, known_truth, open_clip, run_video

    footage, truth = open_clip(video), known_truth(video)
    if box is None and truth is None:
        raise RiceError(f"say where the target is in the first frame of {video}: --box X Y W H")
    first = box if box is not None or truth is None else tuple(truth[0].tolist())
    assert first is not None
    check_start(first, footage.height, footage.width)
    with join(device) as world:
        tracker = _load(model, world.device)
        film, result, fps = run_video(footage, first, tracker, out, BarProgress(), truth)
    print(f"{fps:.1f} frames/s followed; look at {film}; boxes in {result}")  # noqa: T201


def _load(model: Path, device: "torch.device") -> "Tracker":
    """A tracker with the encoder that it was trained on. Errors: RiceError where that one changed."""
    from tracking.checkpoint import TrackerFacts, load_tracker

    return load_tracker(model, TrackerFacts.read(model).open_tower(model, device))


def _report(out: Path, tests: "Sequence[HeldOut]", scores: "Mapping[str, Scores]") -> None:
    """scores.json, preview.png, and a line a benchmark on the screen."""
    from rice.files import write_json
    from tracking.evaluate import Store
    from tracking.preview import write_preview

    write_json(out / "scores.json", {name: part.as_json() for name, part in scores.items()})
    write_preview(out / "preview.png", [clip for test in tests for clip in test.clips], Store(out))
    for test in tests:
        if test.benchmark not in scores:
            zips = out / f"submission-{test.benchmark}.zip"
            why = f"the truth is on a server; see {zips}" if zips.exists() else "only first boxes are known, no score"
            print(f"{test.title} {test.split}: {why}")  # noqa: T201
            continue
        part = scores[test.benchmark]
        values = "  ".join(f"{name} {value:.2f}" for name, value in part.values.items())
        print(f"{test.title} {test.split}  {values}  ({len(part.frames)} clips, protocol {part.protocol})")  # noqa: T201
    print(f"written to {out}; look at {out / 'preview.png'}")  # noqa: T201
