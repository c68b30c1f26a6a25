"""The tracker's frames per second: with the template's features kept, against the same model that computes them anew in
every frame; clips followed together, against one at a time; and the share that decoding takes. Exits 1 where the first
goal fails.

    python benchmarks/track.py [--encoder timm:vit_base_patch16_224] [--frames 8] [--device cuda] [--json FILE]

template   the limit, by multiply-adds at ViT-B/16 with 128 and 256 pixels: 34.8 GMAC a frame with the template's
           backbone pass, 29.2 without, so 1.19x; cutting windows is on both sides. Both must find the same boxes.
together   K clips in a batch against K batches of one; on a CPU, whose matrix products are fast at 256 tokens
           already, there is little to win. Boxes may differ by rounding.
decode     seconds of decoding the frames (JPEG, 1280 x 720) over those of following them, in one thread.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from benchmarks.timing import alternate, begin, finish, ratios, shown, spread
from rice.data.video import Image_HW3, read_frame
from rice.encoders.load import load_encoder
from tracking.config import TrackingConfig
from tracking.model import build_head, grids
from tracking.tracker import Box, Tracker

GOAL = 1.15
_START: Box = (560.0, 300.0, 120.0, 90.0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        encoder: Frozen, with random weights.
        frames: Of each clip, 1280 x 720.
        clips: Followed together.
        rounds: Alternating rounds; the median of their ratios counts.
        device: cpu or cuda.
        json: Write the figures here, too.
    """

    encoder: str = "timm:vit_base_patch16_224"
    frames: int = 8
    clips: int = 4
    rounds: int = 5
    device: str = "cpu"
    json: Path | None = None


def main(config: Config) -> int:
    """Run everything; 0 where the goal is met."""
    report = begin(config, config.device)
    tracker = _tracker(config)
    clips = [_clip(config.frames, seed) for seed in range(config.clips)]
    report["sizes"] = tracker.sizes
    report["template"] = template(tracker, clips[0], config)
    report["together"] = together(tracker, clips, config)
    report["decode"] = decode(tracker, clips[0], config)
    for part in ("template", "together", "decode"):
        print(f"  {part:<10} {report[part]['said']}")
    return finish(report, config.json, holds=report["template"]["meets"])


def template(tracker: Tracker, clip: Sequence[Image_HW3], config: Config) -> dict[str, Any]:
    """Frames per second with the template's features kept over without."""

    def anew() -> list[Box]:
        """What OSTrack's test loop does: template and search go through the backbone in every frame."""
        boxes = [_START]
        for frame in clip[1:]:
            (found,) = tracker.follow([frame], [boxes[-1]], tracker.templates([clip[0]], [_START]))
            boxes.append(found.box)
        return boxes

    def kept() -> list[Box]:
        return [found.box for found in tracker.track(clip, _START)]

    apart = float(np.abs(np.array(anew()) - np.array(kept())).max())
    seconds = alternate({"anew": anew, "kept": kept}, config.rounds, config.device)
    ratio = ratios(seconds, "anew", "kept")
    rate = spread([(len(clip) - 1) / s for s in seconds["kept"]])
    return {
        "said": f"{shown(ratio)}x the frames/s of the same model without; {shown(rate, '.2f')} frames/s; boxes "
        f"{apart:.1e} px apart",
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": ratio,
        "frames_per_s": rate,
        "boxes_apart": apart,
        "goal": GOAL,
        "meets": ratio["median"] >= GOAL and apart == 0.0,
    }


def together(tracker: Tracker, clips: Sequence[Sequence[Image_HW3]], config: Config) -> dict[str, Any]:
    """Clips in one batch over one at a time."""

    def batch() -> list[list[Box]]:
        templates = tracker.templates([clip[0] for clip in clips], [_START] * len(clips))
        boxes = [[_START] for _ in clips]
        for index in range(1, config.frames):
            found = tracker.follow([clip[index] for clip in clips], [track[-1] for track in boxes], templates)
            for track, one in zip(boxes, found, strict=True):
                track.append(one.box)
        return boxes

    def alone() -> list[list[Box]]:
        return [[found.box for found in tracker.track(clip, _START)] for clip in clips]

    apart = float(np.abs(np.array(batch()) - np.array(alone())).max())
    seconds = alternate({"alone": alone, "batch": batch}, config.rounds, config.device)
    ratio = ratios(seconds, "alone", "batch")
    return {
        "said": f"{len(clips)} clips in a batch: {shown(ratio)}x the frames/s of one at a time; boxes {apart:.1e} px "
        "apart",
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": ratio,
        "boxes_apart": apart,
    }


def decode(tracker: Tracker, clip: Sequence[Image_HW3], config: Config) -> dict[str, Any]:
    """Decoding over following."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{k}.jpg" for k in range(len(clip))]
        for path, frame in zip(paths, clip, strict=True):
            Image.fromarray(frame).save(path, quality=90)
        seconds = alternate(
            {
                "decode": lambda: [read_frame(path) for path in paths],
                "follow": lambda: list(tracker.track(clip, _START)),
            },
            config.rounds,
            config.device,
        )
    share = ratios(seconds, "decode", "follow")
    each = spread([1000 * s / len(clip) for s in seconds["decode"]])
    return {
        "said": f"{shown(share)} of the time of following; {shown(each, '.1f')} ms a frame, done in threads meanwhile",
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "share": share,
        "ms_a_frame": each,
    }


def _tracker(config: Config) -> Tracker:
    encoder = load_encoder(config.encoder, weights=None, device=config.device).requires_grad_(False)
    settings = TrackingConfig()
    sizes, spec = settings.sizes(encoder.spec), encoder.spec
    z_grid, x_grid = grids(sizes, spec.patch)
    head = build_head(settings.heads, width=spec.width, template=z_grid, search=x_grid)
    return Tracker(encoder, head.to(config.device).eval(), sizes, settings)


def _clip(frames: int, seed: int) -> list[Image_HW3]:
    """Smooth noise with a patch that moves, so that JPEG has what photos have."""
    dice = np.random.default_rng(seed)
    small = Image.fromarray(dice.integers(0, 255, (45, 80, 3), dtype=np.uint8))
    ground = np.asarray(small.resize((1280, 720), Image.Resampling.BICUBIC))
    target = dice.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    clip = []
    for index in range(frames):
        frame = ground.copy()
        frame[300 : 300 + 90, 560 + 4 * index : 680 + 4 * index] = target
        clip.append(frame)
    return clip


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main(tyro.cli(Config)))
