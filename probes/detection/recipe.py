"""Recipes of the detection probe: rows of the paper's Table 3, and what they are with other schedules or on a laptop.

A recipe is a function whose docstring names the row, the command, the score that the paper reports, and the cost. Hours
are one H100's by arithmetic (1 TFLOP an image at 40 % of 989 TFLOP/s for the heads, and the encoder's forward), not
measured.
"""

from dataclasses import replace

from probes.detection.config import DetectionConfig, HeadsConfig
from rice.recipes import described


def coco() -> DetectionConfig:
    """Table 3, COCO: 12 epochs, pictures fitted into the encoder's square.

    rice detect train coco --encoder rice-b16-512 --data COCO --out OUT
    RICE B/16 at 512: 38.9 boxes, 31.5 masks. The paper states no schedule. About 1.5 hours.
    """
    return DetectionConfig()


def lvis() -> DetectionConfig:
    """Table 3, LVIS: as COCO, at twice the rate, with rare categories repeated and the federated loss.

    rice detect train lvis --encoder rice-b16-512 --data LVIS --out OUT
    RICE B/16 at 512: 26.5 boxes, 21.4 masks. About 1.5 hours.
    """
    return replace(
        coco(), learning_rate=2e-4, repeat_threshold=0.001, train_split="lvis_v1_train", test_split="lvis_v1_val"
    )


def roboflow() -> DetectionConfig:
    """Table 3, Roboflow100: small datasets, so smaller batches and more epochs; boxes only.

    rice detect train roboflow --encoder rice-b16-512 --data RF100 --out OUT
    RICE B/16 at 512: see rice tables for its seven domains. About 7 hours for all hundred datasets.
    """
    return DetectionConfig(batch=16, epochs=24, warmup=100, heads=HeadsConfig(masks="never"))


def vitdet() -> DetectionConfig:
    """detectron2's whole ViTDet recipe on a frozen encoder: 100 epochs of large-scale jitter.

    rice detect train vitdet --encoder rice-b16-512@1024 --data COCO --out OUT
    Not in the paper. About 12 hours at 512.
    """
    return DetectionConfig(epochs=100, jitter=(0.1, 2.0), milestones=(163_889 / 184_375, 177_546 / 184_375))


def small() -> DetectionConfig:
    """A laptop, minutes: 64 channels, 64 regions, for real data of a few hundred pictures.

    rice detect train small --encoder rice-b16-512@256 --data COCO --out OUT
    """
    heads = HeadsConfig(
        channels=64,
        hidden=256,
        box_convs=2,
        mask_convs=2,
        rpn_samples=128,
        rpn_top=(500, 300),
        proposals=200,
        roi_samples=64,
    )
    return DetectionConfig(
        epochs=12, batch=4, learning_rate=1e-3, weight_decay=0.05, warmup=50, milestones=(), clip=1.0, heads=heads
    )


def mini() -> DetectionConfig:
    """Generated scenes on two cores: one cell in seconds (`rice sweep detection-mini`).

    rice detect train mini --encoder mini-s8-128 --data SCENES --out OUT
    """
    heads = replace(small().heads, channels=48, hidden=128, roi_samples=32, proposals=100)
    return replace(small(), epochs=2, batch=8, heads=heads)


RECIPES = described((coco, lvis, roboflow, vitdet, small, mini))
"""Name -> (configuration, first line of its docstring)."""
