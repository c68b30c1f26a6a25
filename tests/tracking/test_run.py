"""One training judged: killed or not, on one rank or two, by the command or by the sweep's probe."""

import itertools
import json
import multiprocessing
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_tracker import (
    CONFIG,
    ENCODER,
    config,
    lasot_score,
    scores_of,
    tiny_encoder,
    tracks_of,
    train_rank,
    walk,
    write_clip,
)

from probes import fit as fit_module
from probes.protocol import Metric, identity
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.errors import RiceError
from rice.progress import SilentProgress
from tracking import commands
from tracking import train as train_module
from tracking.checkpoint import TrackerFacts, load_tracker
from tracking.evaluate import Store
from tracking.model import build_head
from tracking.probe import TrackingProbe
from tracking.run import flat, headline, truth_of
from tracking.score import Scores


def train(root: Path, out: Path, **changes: Any) -> None:
    commands.train(config(**changes), encoder=ENCODER, data=root, out=out, device="cpu")


def test_the_best_tracker_is_of_the_highest_headline_and_the_last_of_the_last_step(trained: tuple[Path, Path]) -> None:
    _, out = trained
    evaluations = json.loads((out / "evaluations.json").read_text())
    best = max(evaluations, key=lambda entry: (entry["lasot success"], entry["done"]))
    assert TrackerFacts.read(out / "best.safetensors").done == best["done"]
    last = TrackerFacts.read(out / "last.safetensors")
    assert (last.done, last.updates, last.encoder, last.seed) == (4, 4, ENCODER, 0)
    assert last.scores == {name: value for name, value in evaluations[-1].items() if name != "done"}


KILLS: dict[str, tuple[Any, str, int]] = {
    "in training": (train_module, "_losses", 4),
    "in the last evaluation": (Store, "write", 5),
    "after it, before the checkpoint": (fit_module, "_save", 2),
}
"""What is called, and which of its calls does not return."""


@pytest.fixture(scope="module")
def one_by_one(roots: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data, out) of a training that follows each clip by itself: what is left after a kill makes no other batch."""
    out = tmp_path_factory.mktemp("one-by-one") / "out"
    train(roots / "lasot", out, evaluate_every=1, at_once=1)
    return roots / "lasot", out


@pytest.mark.parametrize("where", KILLS)
def test_a_killed_training_goes_on_to_the_same_end(
    one_by_one: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    root, out = one_by_one
    target, name, last = KILLS[where]
    whole, calls = getattr(target, name), itertools.count(1)

    def dying(*arguments: Any) -> Any:
        if next(calls) == last:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(target, name, dying)
    with pytest.raises(KeyboardInterrupt):
        train(root, tmp_path, evaluate_every=1, at_once=1)
    assert not (tmp_path / "scores.json").exists()
    monkeypatch.setattr(target, name, whole)
    train(root, tmp_path, evaluate_every=1, at_once=1)
    assert scores_of(tmp_path) == scores_of(out)
    assert tracks_of(tmp_path) == tracks_of(out)
    for name in ("last.safetensors", "best.safetensors", "evaluations.json"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_what_is_judged_is_the_benchmarks_own_truth(tmp_path: Path) -> None:
    boxes = walk(3, (5, 6, 9, 8), (1, 1))
    flags, cover = np.array([False, True, False]), np.array([8, 0, 3])
    clip = write_clip(tmp_path / "a", boxes, origin=1, absent=flags, cover=cover, size=(64, 48))
    truth = truth_of(clip)
    assert truth.boxes.tolist() == [[x + 1, y + 1, width, height] for x, y, width, height in boxes]
    assert clip.boxes.tolist() == [list(box) for box in boxes]
    assert truth.absent is flags
    assert truth.cover is cover
    assert truth.size == (64, 48)


def run(probe: TrackingProbe, encoder: Encoder, workdir: Path, seed: int = 0) -> dict[str, Metric]:
    found = probe.run(encoder, seed=seed, workdir=workdir, progress=SilentProgress())
    return {metric.name: metric for metric in found}


def test_the_probe_yields_each_benchmarks_own_scores_with_the_protocols_name(
    roots: Path, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(train=("got10k", "lasot"), test=("lasot", "got10k", "tnl2k", "trackingnet"))
    probe = TrackingProbe(settings, roots)
    metrics = run(probe, encoder, tmp_path / "work")
    lasot = [f"{name} {score}" for name in ("LaSOT", "TNL2K") for score in ("success", "precision", "norm. precision")]
    assert sorted(metrics) == sorted([*lasot, "GOT-10k AO", "GOT-10k SR0.5", "GOT-10k SR0.75"])
    for name, metric in metrics.items():
        assert 0 <= metric.value <= 1
        assert (metric.n, metric.unit, metric.higher_is_better) == (3, "fraction", True)
        assert metric.split == ("val" if name.startswith("GOT") else "test")
        protocol = {"LaSOT": "lasot-matlab", "GOT-10k": "got10k", "TNL2K": "tnl2k"}[name.split()[0]]
        assert metric.protocol.startswith(f"{protocol}: ")
        assert "got10k + lasot, 2 epochs of 8 pairs in batches of 4" in metric.protocol
        assert metric.stderr is not None
    items = pd.read_parquet(tmp_path / "work/items.parquet")
    assert len(items) == 9
    assert set(items.benchmark) == {"lasot", "got10k", "tnl2k"}
    assert items.id.is_unique
    rows = items[items.benchmark == "lasot"]
    assert rows.success.mean() / 100 == pytest.approx(metrics["LaSOT success"].value, abs=1e-9)
    kept = tmp_path / "work/kept"
    assert {path.name for path in kept.iterdir()} == {"last.safetensors", "tracks", "submission-trackingnet.zip"}
    assert {path.name for path in (kept / "tracks").iterdir()} == {"lasot", "got10k", "tnl2k", "trackingnet"}
    again = lasot_score(roots / "lasot", kept / "tracks/lasot", tmp_path / "truth", capsys)
    for key, name in (("success", "success"), ("precision", "precision"), ("norm_precision", "norm. precision")):
        assert again[key] / 100 == pytest.approx(metrics[f"LaSOT {name}"].value, abs=1e-9)
    after = load_tracker(kept / "last.safetensors", encoder)
    assert (after.sizes, after.config) == ((16, 32), settings)
    commands.evaluate(kept / "last.safetensors", data=roots / "lasot", out=tmp_path / "again", device="cpu", at_once=3)
    assert scores_of(tmp_path / "again")["lasot"]["success"] / 100 == pytest.approx(metrics["LaSOT success"].value)


def test_a_seed_gives_the_same_numbers_and_another_one_other_weights(
    roots: Path, encoder: Encoder, tmp_path: Path
) -> None:
    found = [
        run(TrackingProbe(CONFIG, roots / "got10k"), encoder, tmp_path / name, seed)
        for name, seed in (("one", 0), ("two", 0), ("three", 1))
    ]
    assert found[0] == found[1]
    heads = [load_tracker(tmp_path / name / "kept/last.safetensors", encoder).head for name in ("one", "two", "three")]
    assert torch.equal(heads[0].segment, heads[1].segment)
    assert not torch.equal(heads[0].segment, heads[2].segment)


def test_the_seed_is_that_of_the_heads_first_weights_too(roots: Path, encoder: Encoder, tmp_path: Path) -> None:
    settings = config(epochs=1, epoch_pairs=4, learning_rate=1e-12)
    run(TrackingProbe(settings, roots / "got10k"), encoder, tmp_path, seed=3)
    found = load_tracker(tmp_path / "kept/last.safetensors", encoder).head
    expected = build_head(settings.heads, width=128, template=(2, 2), search=(4, 4), seed=3)
    torch.testing.assert_close(found.segment, expected.segment, rtol=0, atol=1e-9)


def test_how_fast_tracks_are_made_is_no_part_of_a_results_identity() -> None:
    assert identity(CONFIG) == identity(config(at_once=1, evaluate_every=1))
    assert identity(CONFIG) != identity(config(margin=5.0))


def test_the_probe_says_what_it_would_do(roots: Path, tmp_path: Path) -> None:
    settings = config(train=("lasot",), test=("lasot", "trackingnet"))
    probe = TrackingProbe(settings, roots)
    said = probe.inspect()
    assert "of lasot; tests on 3 of LaSOT test, 3 of TrackingNet test" in said
    assert "TrackingNet: truth withheld, a zip for the server instead of scores" in said
    assert probe.count_images() == 2 * 4 * 4 + 2 * 3 * 8
    assert probe.fingerprint() == TrackingProbe(settings, roots).fingerprint()
    assert probe.fingerprint() != TrackingProbe(CONFIG, roots / "lasot").fingerprint()


def test_a_size_that_is_not_the_searchs_is_refused(roots: Path) -> None:
    probe, spec = TrackingProbe(CONFIG, roots / "lasot"), tiny_encoder().spec
    assert probe.input_size(spec, None) == probe.input_size(spec, 32) == 32
    with pytest.raises(RiceError, match="has 32 pixels, but @64 was asked; drop @64, and set search_size"):
        probe.input_size(spec, 64)


def test_a_damaged_test_frame_is_named_by_decoding_all(roots: Path, tmp_path: Path) -> None:
    shutil.copytree(roots / "lasot", tmp_path / "lasot")
    probe = TrackingProbe(CONFIG, tmp_path / "lasot")
    probe.decode_all(SilentProgress())
    name = (tmp_path / "lasot/testing_set.txt").read_text().split()[1]
    frame = tmp_path / "lasot" / name.rpartition("-")[0] / name / "img/00000005.jpg"
    frame.write_bytes(frame.read_bytes()[:300])
    with pytest.raises(RiceError, match=f"{name}/img/00000005.jpg"):
        probe.decode_all(SilentProgress())


def scores(**values: float) -> Scores:
    return Scores(protocol="got10k", values=values, per_sequence={}, frames={}, curves={}, left_out={}, notes=())


def test_trackers_are_compared_by_the_mean_of_each_benchmarks_first_score() -> None:
    both = flat({"lasot": scores(success=60.0, precision=99.0), "got10k": scores(**{"ao": 30.0, "sr_0.5": 88.0})})
    assert both == {"lasot success": 60, "lasot precision": 99, "got10k ao": 30, "got10k sr_0.5": 88}
    assert headline(both) == 45
    assert headline({"done": 3}) == 0


def free_port() -> int:
    with socket.socket() as at:
        at.bind(("localhost", 0))
        port: int = at.getsockname()[1]
        return port


@pytest.mark.slow
def test_two_ranks_train_together_agree_and_judge_every_clip_once(roots: Path, tmp_path: Path) -> None:
    """BatchNorm's statistics are each rank's own while it trains; all are judged with the leader's."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    ranks = [context.Process(target=train_rank, args=(rank, 2, roots / "lasot", tmp_path, port)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    leader, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert leader["head"].keys() == other["head"].keys()
    for name, value in leader["head"].items():
        assert torch.equal(value, other["head"][name]), name
    assert leader["scores"] == other["scores"]
    folder = tmp_path / "training"
    listed = (roots / "lasot/testing_set.txt").read_text().split()
    assert sorted(tracks_of(folder)) == sorted(f"tracks/lasot/{name}.txt" for name in listed)
    stored = load_tracker(folder / "last.safetensors", load_encoder(ENCODER)).head.state_dict()
    assert all(torch.equal(value, leader["head"][name]) for name, value in stored.items())
    evaluations = json.loads((folder / "evaluations.json").read_text())
    assert [entry["done"] for entry in evaluations] == [2, 4]
    assert evaluations[-1]["lasot success"] == leader["scores"]["lasot"]["success"]
