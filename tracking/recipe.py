"""Recipes of the tracking probe: columns of the paper's Table 4, and what is trained on a laptop.

A recipe is a function whose docstring names the column, the command, the score that the paper reports, and the cost.
Hours are one H100's by arithmetic (96 GFLOP a pair at 40 % of 989 TFLOP/s), not measured; pictures must be decoded as
fast: 2 a pair.
"""

from dataclasses import replace

from rice.recipes import described
from tracking.config import HeadsConfig, TrackingConfig


def got10k() -> TrackingConfig:
    """Table 4, GOT-10k: 100 epochs of 60,000 pairs of its train split.

    rice track train got10k --encoder rice-b16-512 --data GOT10K --out OUT
    Judged on val, whose truth is public; the paper's AO is of test: rice track eval writes the zip for its server.
    About 25 minutes.
    """
    return TrackingConfig()


def joint() -> TrackingConfig:
    """Table 4, LaSOT, TrackingNet and TNL2K: 300 epochs on COCO, TrackingNet, GOT-10k and LaSOT, with equal shares.

    rice track train joint --encoder rice-b16-512 --data ROOT --out OUT
    ROOT has the folders coco, trackingnet, got10k, lasot, tnl2k. TrackingNet's truth is on its server: OUT has the zip.
    About 75 minutes.
    """
    return replace(
        got10k(),
        epochs=300,
        train=("coco", "trackingnet", "got10k", "lasot"),
        test=("lasot", "trackingnet", "tnl2k"),
    )


def small() -> TrackingConfig:
    """A laptop, an hour or less: 128 pixels to search in, 24,000 pairs, for a few hundred clips.

    rice track train small --encoder mini-s8-128 --data CLIPS --out OUT
    """
    return replace(
        got10k(),
        epochs=10,
        epoch_pairs=2400,
        batch=32,
        learning_rate=1e-3,
        warmup=20,
        drop_at=None,
        clip=1.0,
        template_size=64,
        search_size=128,
        centre_jitter=2.0,
        least_frames=8,
        least_still=16.0,
        heads=HeadsConfig(channels=64),
    )


def mini() -> TrackingConfig:
    """Generated clips on two cores: one cell in seconds (`rice sweep tracking-mini`).

    rice track train mini --encoder mini-s8-128 --data CLIPS --out OUT
    One block instead of two, and windows in which the target is as large in template and search.
    """
    return replace(
        small(),
        epochs=1,
        epoch_pairs=2160,
        batch=12,
        learning_rate=3e-3,
        warmup=10,
        template_size=40,
        template_factor=1.25,
        search_size=80,
        search_factor=2.5,
        centre_jitter=1.3,
        heads=HeadsConfig(blocks=1, channels=32, head_dim=32),
    )


RECIPES = described((got10k, joint, small, mini))
"""Name -> (configuration, first line of its docstring)."""
