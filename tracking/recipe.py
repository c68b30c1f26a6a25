"""Recipes of the tracking probe: columns of the paper's Table 4, and what is trained on a laptop.

A recipe is a function whose docstring names the column, the command, the score that the paper reports, and the cost.
Hours are one H100's by arithmetic (96 GFLOP a pair at 40 % of 989 TFLOP/s), not measured; pictures must be decoded as
fast: 2 a pair.
"""

from collections.abc import Callable
from dataclasses import replace

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
    """A laptop, an hour: 192 pixels to search in, 9,600 pairs, for real clips or generated ones.

    rice track train small --encoder mini-s8-128 --data CLIPS --out OUT
    """
    return replace(
        mini(),
        epochs=10,
        epoch_pairs=960,
        template_size=96,
        search_size=192,
        centre_jitter=3.0,
        search_factor=4.0,
        heads=HeadsConfig(channels=128),
    )


def mini() -> TrackingConfig:
    """Generated clips on two cores: one cell in seconds (`rice sweep tracking-mini`).

    rice track train mini --encoder mini-s8-128 --data CLIPS --out OUT
    """
    return TrackingConfig(
        epochs=1,
        epoch_pairs=3200,
        batch=32,
        learning_rate=2e-3,
        warmup=10,
        drop_at=None,
        clip=1.0,
        template_size=48,
        search_size=96,
        search_factor=3.0,
        centre_jitter=1.0,
        least_frames=8,
        least_still=12.0,
        heads=HeadsConfig(channels=64, head_dim=32),
    )


RECIPES: tuple[Callable[[], TrackingConfig], ...] = (got10k, joint, small, mini)


def recipes() -> dict[str, tuple[TrackingConfig, str]]:
    """Name -> (configuration, first line of its docstring)."""
    return {recipe.__name__: (recipe(), (recipe.__doc__ or "").splitlines()[0]) for recipe in RECIPES}
