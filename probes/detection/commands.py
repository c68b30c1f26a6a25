"""The verbs `rice detect train`, `rice detect eval` and `rice detect predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from probes.detection.config import DetectionConfig
from probes.detection.evaluators import Evaluator, check_protocol
from probes.detection.recipe import RECIPES
from probes.detection.score import IouType, Scores
from probes.detection.suites import domain_means
from probes.training_config import wait_passively
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError
from rice.progress import BarProgress, bars_if
from rice.recipes import choice

if TYPE_CHECKING:
    import torch

    from probes.detection.checkpoint import DetectorFacts
    from probes.detection.model import Detector
    from probes.detection.probe import DetectionProbe
    from probes.heads import Tower
    from rice.data.coco import CocoSplit
    from rice.encoders.base import Encoder
    from rice.train.world import World

_SHOWN = 12
_KINDS: dict[IouType, str] = {"bbox": "boxes", "segm": "masks"}


def train(
    recipe: Annotated[DetectionConfig, choice(RECIPES)],
    *,
    encoder: str,
    data: Path,
    out: Path,
    weights: str = "default",
    seed: int = 0,
    device: str = "auto",
    evaluator: Evaluator = "faster",
    dry_run: bool = False,
) -> None:
    """Train Cascade Mask R-CNN on a frozen encoder and judge it, by a recipe whose every field is a flag.

    rice detect train RECIPE --help lists the flags. The encoder stays as it is; only pyramid and heads learn. Killed at
    any instant, the same command goes on. Several GPUs: torchrun --nproc-per-node 8 -m rice.cli detect train RECIPE ...

    OUT/last.safetensors, OUT/best.safetensors: the heads, for rice detect eval and predict; OUT/scores.json;
    OUT/results.json: detections in COCO's format, for rice detect score; OUT/metrics.jsonl, OUT/course.png: losses;
    OUT/preview.png: some test pictures with what was found.

    DATA is COCO's layout, LVIS', Roboflow's or Pascal VOC's (rice data check says what is found), or a folder of many
    (Roboflow100, RF100-VL): then each dataset has a folder under OUT, and the means of the domains are printed.

    Example: rice detect train coco --encoder rice-b16-512 --data COCO --out out/rice

    On a laptop: rice detect train small --encoder mini-s8-128 --data SCENES --out out/mini --evaluate-every 4

    Args:
        encoder: as in rice encoders; NAME@SIZE picks the input size.
        data: folder of the dataset.
        out: folder to write; the same one resumes.
        weights: default (the published ones), none (random), or a path.
        seed: initialisation, order, mirroring and jitter, draws of anchors and proposals.
        device: auto, cpu or cuda.
        evaluator: faster (faster-coco-eval), pycocotools, or lvis for LVIS; they give the same numbers.
        dry_run: say what would run and what it would take, and write nothing.
    """
    wait_passively()
    from probes.detection.probe import DetectionProbe
    from probes.heads import Tower
    from rice.encoders.weights import plain
    from rice.train.world import join

    with join(device) as world:
        probe = DetectionProbe(recipe, data)
        probe.inspect()
        for dataset in probe.datasets.values():
            check_protocol(evaluator, lvis=dataset.splits[1].federated)
        if dry_run:
            for name, dataset in probe.datasets.items():
                print(_plan(name, dataset, encoder, plain(weights)))  # noqa: T201
            return
        tower = Tower.load(encoder, plain(weights), world.device)
        scores = {
            name: _train(dataset, tower, seed, evaluator, out / name, world) for name, dataset in probe.datasets.items()
        }
        if world.leads and probe.suite is not None:
            means = domain_means({name: values["AP"] for name, values in scores.items()}, probe.suite)
            print("\n".join(f"{domain:<20} {100 * value:6.2f}" for domain, value in means.items()))  # noqa: T201


def _plan(name: str, dataset: "DetectionProbe", encoder: str, weights: str | None) -> str:
    """What a training would do and take, as text."""
    from probes.coco import describe as describe_split
    from probes.detection.data import training_set
    from probes.detection.material import cache_bytes
    from rice.encoders.cost import cost
    from rice.encoders.load import describe
    from rice.files import format_bytes

    (train, test), config = dataset.splits, dataset.config
    spec, shown = describe(EncoderReference.parse(encoder), weights), training_set(train, config)
    size = spec.native_size
    price, updates = cost(spec, size), shown.updates(config)
    disk = cache_bytes(config, spec.width, spec.check_size(size, size), len(shown.images), len(test.images))
    seen = updates * config.batch
    gflops = "unknown" if price.gflops is None else f"{price.gflops:,.1f} GFLOPs an image"
    return "\n".join(
        [
            *([f"{name}:"] if name else []),
            f"encoder   {encoder} at {size} px: {price.tokens:,} tokens, {gflops}",
            f"trains    on {describe_split(train)}, {len(shown.images):,} with something to learn",
            f"tests     on {describe_split(test)}",
            f"learns    {len(train.categories)} categories, {'boxes and masks' if shown.masks else 'boxes'}",
            f"steps     {updates:,} of {config.batch}: {seen:,} images, {config.epochs} epochs",
            f"cache     {format_bytes(disk)} of frozen features, "
            + (f"of --cache-gb {config.cache_gb:g}" if config.cache_gb else "not asked for (--cache-gb)"),
        ]
    )


def _train(
    dataset: "DetectionProbe", tower: "Tower", seed: int, evaluator: Evaluator, out: Path, world: "World"
) -> dict[str, float]:
    """Train and judge on one dataset. Returns the scores of boxes."""
    from probes.detection.run import JUDGED
    from probes.heads import same_training
    from rice.train.picture import draw_course

    if world.leads:
        same_training(out, tower, dataset, seed)
    training = dataset.training(tower, seed=seed, folder=out, features=out, evaluator=evaluator)
    outcome = training.run(bars_if(world.leads), world)
    scores = {kind: judged.scores for kind, judged in outcome.judged.items()}
    if world.leads:
        _report(out, scores, training.test, outcome.results)
        draw_course(out / "metrics.jsonl", out / "course.png", JUDGED, "average precision, %")
    return scores["bbox"].values


def evaluate(
    model: Annotated[Path, tyro.conf.Positional],
    *,
    data: Path,
    out: Path,
    split: str | None = None,
    device: str = "auto",
    evaluator: Evaluator = "faster",
) -> None:
    """Judge a trained detector on a split: OUT/results.json, OUT/scores.json, OUT/preview.png.

    Example: rice detect eval out/mini/best.safetensors --data COCO --split val2017 --out out/val

    Args:
        model: best.safetensors or last.safetensors of rice detect train.
        data: folder of a dataset with the categories that the detector knows.
        out: folder to write.
        split: name of the split; the one that rice data check would test on, where it is not named.
        device: auto, cpu or cuda.
        evaluator: faster (faster-coco-eval), pycocotools, or lvis for LVIS.
    """
    from probes.detection.evaluate import detect_split
    from probes.detection.material import held_out
    from probes.detection.run import judge_results
    from probes.heads import EVALUATIONS
    from rice.data.coco import find_splits, open_split, role
    from rice.files import write_json
    from rice.train.world import join

    if (out / EVALUATIONS).exists():
        raise RiceError(f"{out} holds a training, whose scores would be replaced; name another --out")
    with join(device) as world:
        facts, detector, encoder = _load(model, world.device)
        test = open_split(data, split or role(find_splits(data)).test)
        check_protocol(evaluator, lvis=test.federated)
        known = {(c.id, c.name) for c in test.categories}
        if known != set(facts.categories):
            odd = sorted(known ^ set(facts.categories))[0]
            raise RiceError(f"{model} knows other categories than {test.files.annotations}: {odd[1]!r} (id {odd[0]})")
        part = held_out(encoder, test, facts.size)
        results = detect_split(part, detector, folder=out, progress=bars_if(world.leads), world=world)
        if world.leads:
            judged = judge_results(test, part.images, results, masks=facts.masks, evaluator=evaluator)
            write_json(out / "results.json", results)
            _report(out, {kind: part.scores for kind, part in judged.items()}, test, results)


def predict(
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH ...")],
    *,
    model: Path,
    out: Path,
    threshold: float = 0.5,
    device: str = "auto",
) -> None:
    """Find objects in pictures: OUT/NAME.png with boxes, masks and scores, OUT/results.json in COCO's format.

    results.json has every detection that the detector keeps, whatever --threshold shows; images.json says which
    image_id is which file. Example: rice detect predict photos/ --model out/mini/best.safetensors --out out/photos

    Args:
        images: pictures, or folders of them.
        model: best.safetensors or last.safetensors of rice detect train.
        out: folder to write.
        threshold: least score that is drawn.
        device: auto, cpu or cuda.
    """
    from probes.detection.predict import find_pictures, predict_pictures
    from rice.train.world import join

    if not 0 <= threshold <= 1:
        raise RiceError(f"expected a threshold from 0 to 1, got {threshold}")
    pictures = find_pictures(images)
    with join(device) as world:
        facts, detector, encoder = _load(model, world.device)
        count = predict_pictures(pictures, detector, encoder, facts, out, threshold, BarProgress())
    print(f"{count} objects of score {threshold:g} and more in {len(pictures)} pictures, drawn under {out}")  # noqa: T201


def _load(model: Path, device: "torch.device") -> "tuple[DetectorFacts, Detector, Encoder]":
    """A detector with the encoder that it was trained on. Errors: RiceError where that one changed."""
    from probes.detection.checkpoint import DetectorFacts, load_detector

    facts = DetectorFacts.read(model)
    encoder = facts.open_tower(model, device)
    return facts, load_detector(model, encoder), encoder


def _report(out: Path, scores: dict[IouType, Scores], test: "CocoSplit", results: Sequence[dict[str, Any]]) -> None:
    """scores.json, preview.png, and two lines on the screen."""
    from probes.detection.draw import draw_results
    from probes.images import sheet
    from rice.files import atomic_write, write_json

    write_json(out / "scores.json", {kind: part.as_json() for kind, part in scores.items()})
    names = {category.id: category.name for category in test.categories}
    shown = range(min(_SHOWN, len(test.images)))
    pictures = []
    for index in shown:
        found = [r for r in results if r["image_id"] == test.images[index].id]
        pictures.append(draw_results(test.load_image(index), found, names, threshold=_readable(found)))
    with atomic_write(out / "preview.png", "wb") as file:
        sheet(pictures).save(file, "PNG")
    for kind, part in scores.items():
        values = "  ".join(f"{n} {100 * v:.2f}" for n, v in part.values.items() if v >= 0 and n.startswith("AP"))
        print(f"{_KINDS[kind]:<6} {values}  ({part.images} images of {test.name})")  # noqa: T201
    print(f"written to {out}; look at {out / 'preview.png'}")  # noqa: T201


def _readable(found: Sequence[dict[str, Any]], most: int = 8) -> float:
    """A threshold that leaves a picture readable: its surest few, of at least 0.3 where there are such."""
    scores = sorted((r["score"] for r in found), reverse=True)
    return max(0.3, scores[most]) if len(scores) > most else 0.3
