"""The local engine, and Ray, against a bare loop over the same models: what do stages, files and manifests cost?

    python benchmarks/curate.py [--pictures 48] [--rounds 5] [--ray] [--json FILE]

The bare loop decodes a picture once, calls the same proposer, encoder, reader and tokenizer on it, and keeps all in
memory. The stages scan, decode, propose, embed and ocr write tars, tables and manifests, and decode a picture in each
of the last four. All run in one process on one core, on generated scenes with objects and words; regions, features and
tokens of all sides must be the same. Models are loaded by each: that is part of a stage.

Goal: at most 1.1 times the bare loop. Ray's time is without its start, which is told apart.
"""

import hashlib
import io
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import tyro
from PIL import Image

from benchmarks.timing import alternate, begin, finish, ratios, shown, spread
from rice.curate.config import CheckConfig, EmbedConfig, EngineConfig
from rice.curate.embed import EmbedStage, build_features
from rice.curate.engine import Engine
from rice.curate.ocr import OcrStage
from rice.curate.proposals.config import ProposalConfig
from rice.curate.proposals.filter import select as select_regions
from rice.curate.proposals.proposer import build_proposer
from rice.curate.propose import ProposeStage
from rice.curate.sources import find_sources
from rice.curate.take import take_pictures
from rice.curate.text.config import TextConfig
from rice.curate.text.reader import build_reader
from rice.curate.text.select import select as select_lines
from rice.curate.text.tokens import load_tokenizer
from rice.data.decode import decode_picture
from rice.data.world import Part, SceneConfig, draw_scene
from rice.progress import SilentProgress

GOAL = 1.1
STAGES = 5
CHECK = CheckConfig(min_edge=160)
PROPOSALS = ProposalConfig(min_region=48)
EMBED = EmbedConfig(encoder="mini-s8-128")
TEXT = TextConfig()


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        pictures: How many.
        size: Their edge, pixels.
        rounds: Each with all sides.
        ray: Measure Ray, too (rice-suite[ray]).
        json: Write the figures here, too.
    """

    pictures: int = 48
    size: int = 480
    rounds: int = 5
    ray: bool = False
    json: Path | None = None


def main(config: Config) -> int:
    """Run everything; 0 where the goal holds and all sides found the same."""
    torch.set_num_threads(1)
    report = begin(config)
    with tempfile.TemporaryDirectory() as folder:
        place = write_scenes(Path(folder) / "pictures", config)
        found: dict[str, Any] = {}
        runs: dict[str, Callable[[], Any]] = {
            "loop": lambda: found.update(loop=loop(place)),
            "local": lambda: found.update(local=stages(place, Path(folder) / "local", "local")),
        }
        if config.ray:
            report["ray_start_seconds"] = start_ray()
            runs["ray"] = lambda: found.update(ray=stages(place, Path(folder) / "ray", "ray"))
        seconds = alternate(runs, config.rounds)
    ratio = {name: ratios(seconds, name, "loop") for name in runs if name != "loop"}
    alike = all(side == found["loop"] for side in found.values())
    for name, values in ratio.items():
        print(f"  {name:5} {shown(values)} of the bare loop")
    print(f"  {config.pictures} pictures: {found['loop'][0]} regions, {found['loop'][1]} lines of text; alike: {alike}")
    report |= {
        "seconds": seconds,
        "ratio": ratio,
        "alike": alike,
        "regions": found["loop"][0],
        "lines": found["loop"][1],
    }
    if config.ray:
        more = spread([(a - b) / STAGES for a, b in zip(seconds["ray"], seconds["local"], strict=True)])
        report["ray_seconds_more_per_stage"] = more
        print(f"  ray takes {shown(more, '.1f')} s more for each of {STAGES} stages, whose workers it starts")
    return finish(report, config.json, holds=alike and ratio["local"]["median"] <= GOAL)


def write_scenes(folder: Path, config: Config) -> Path:
    """JPEGs with objects and words."""
    folder.mkdir()
    layout = SceneConfig(height=config.size, width=config.size, objects=(3, 6), words=(0, 3))
    for number in range(config.pictures):
        scene = draw_scene(layout, Part.TRAIN, 0, number)
        Image.fromarray(scene.image).save(folder / f"{number:04d}.jpg", quality=90)
    return folder


Found = tuple[int, int, str]
"""Regions, lines of text, and a hash of boxes, features and tokens."""


def loop(place: Path) -> Found:
    """No stages, no files."""
    proposer, features = build_proposer(PROPOSALS, "cpu"), build_features(EMBED, "cpu")
    reader, tokenizer = build_reader(TEXT, "cpu", threads=1), load_tokenizer(TEXT.tokenizer)
    boxes, tokens = [], []
    for path in sorted(place.iterdir()):
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
        pixels_HW3 = decode_picture(content, (width, height))
        (proposals,) = proposer([pixels_HW3])
        regions = select_regions(proposals, width, height, PROPOSALS)
        boxes.append(regions.boxes.tolist())
        if len(regions.boxes):
            features.add(pixels_HW3, regions.boxes)
        (lines,) = reader([pixels_HW3])
        tokens.append([tokenizer.encode(text) for text in select_lines(lines, width, height, TEXT).texts])
    return _found(boxes, features.take(), tokens)


def stages(place: Path, out: Path, engine: str) -> Found:
    """The same by stages, with one worker."""
    shutil.rmtree(out, ignore_errors=True)
    where = EngineConfig(engine="ray" if engine == "ray" else "local", workers=1, device="cpu")
    sources = find_sources([place], 10**6)
    with Engine(where, len(sources)) as running:
        pictures = take_pictures(sources, out, CHECK, running, SilentProgress())
        for stage in (ProposeStage(out, PROPOSALS), EmbedStage(out, EMBED), OcrStage(out, TEXT)):
            running.run(stage, pictures, SilentProgress())
    (name,) = pictures
    boxes = pq.read_table(out / "propose" / f"{name}.parquet")["boxes"].to_pylist()
    tokens = pq.read_table(out / "ocr" / f"{name}.parquet")["tokens"].to_pylist()
    return _found(boxes, np.load(out / "embed" / f"{name}.npy"), tokens)


def _found(boxes: list[Any], features_RD: Any, tokens: list[Any]) -> Found:
    text = repr((boxes, tokens)).encode() + features_RD.tobytes()
    return len(features_RD), sum(map(len, tokens)), hashlib.sha256(text).hexdigest()


def start_ray() -> float:
    """Seconds."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    began = time.perf_counter()
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
