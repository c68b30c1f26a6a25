"""Recipes: the paper's training stages, its image-level ancestors, and the ablations of Table 5 as one-line variants.

A recipe is a function whose docstring names the row of the paper, the command, the score that the paper reports for it,
and what it costs. Hours are H200 hours by arithmetic, not measured: 3 x the forward's products, those with a million
centres among them, at 40 % of 989 TFLOP/s.
"""

from collections.abc import Callable
from dataclasses import replace

from rice.data.stream import StreamConfig
from rice.loss import ClusterLoss
from rice.model.region import RegionConfig
from rice.recipes import summary
from rice.train.config import MachineConfig, OptimiserConfig, TextConfig, TrainConfig

STAGE_1, STAGE_2 = 13_000_000_000, 1_000_000_000
"""Images of the first stage, and of each stage at a higher resolution (section 4.1)."""
_TENTH = OptimiserConfig(learning_rate=1e-4)


def b16_224() -> TrainConfig:
    """RICE ViT-B/16, first stage: 13 B images at 224.

    torchrun --nproc-per-node 8 --nnodes 8 -m rice.cli train b16-224 --data SHARDS --out OUT
    Not reported by itself. About 1,020 H200 hours.
    """
    return TrainConfig(tower="b16", stream=_on_a_gpu(224))


def b16_512() -> TrainConfig:
    """RICE ViT-B/16, last stage: 1 B images at 512 (Tables 3 and 4).

    rice train b16-512 --init OUT224/final --data SHARDS --out OUT
    COCO 38.9 / 31.5, LVIS 26.5 / 21.4 (detection / segmentation AP). About 460 H200 hours.
    """
    return _finer(b16_224(), 512)


def l14_224() -> TrainConfig:
    """RICE ViT-L/14, first stage: 13 B images at 224.

    rice train l14-224 --data SHARDS --out OUT
    Not reported by itself. About 4,500 H200 hours.
    """
    return TrainConfig(tower="l14", stream=_on_a_gpu(224))


def l14_336() -> TrainConfig:
    """RICE ViT-L/14, second stage: 1 B images at 336 (Table 1).

    rice train l14-336 --init OUT224/final --data SHARDS --out OUT
    DocVQA 79.19, average of the OCR columns 56.18. About 810 H200 hours.
    """
    return _finer(l14_224(), 336)


def l14_378() -> TrainConfig:
    """RICE ViT-L/14, third stage: 1 B images at 378 (Table 1).

    rice train l14-378 --init OUT336/final --data SHARDS --out OUT
    DocVQA 82.59, average of the OCR columns 58.02. About 1,050 H200 hours.
    """
    return _finer(l14_224(), 378)


def l14_560() -> TrainConfig:
    """RICE ViT-L/14, last stage: 1 B images at 560 (Table 1; the released checkpoint).

    rice train l14-560 --init OUT378/final --data SHARDS --out OUT
    DocVQA 87.38, average of the OCR columns 61.06. About 2,580 H200 hours.
    """
    return _finer(l14_224(), 560)


def tiny() -> TrainConfig:
    """A laptop's: 4 blocks of 192 channels at 128 pixels, on `rice pack`'s shards of a small COCO folder. Minutes.

    rice train tiny --data SHARDS --val VAL_SHARDS --out OUT
    At small K and short training scale 16 and margin 0.1 learn better than the paper's 64 and 0.3, under either form.
    """
    return TrainConfig(
        tower="tiny16",
        stream=StreamConfig(size=128, crop_scale=(0.25, 1.0), min_edge=12.0),
        loss=ClusterLoss(scale=16.0, margin=0.1),
        text=TextConfig(width=192, layers=4, heads=3, context=32),
        rho=1.0,
        ocr_rho=1.0,
        samples=12_800,
        batch=64,
        machine=MachineConfig(save_every=100, log_every=1),
    )


def micro() -> TrainConfig:
    """The paper in miniature (`rice reproduce mini`): 4 blocks of 64 channels at 64 pixels. Minutes.

    rice train micro --data SHARDS --out OUT
    One recipe for all of its arms, so that they differ in what they learn from and in nothing else. Nothing is
    mirrored: where text is known it never is, and an arm that does not know it would see other pictures.
    Muon learns twice as fast as AdamW here. One region layer, whose queries are the means of boxes: behind two layers
    that ask with the class token, most of what is learnt in so few updates stays in the layers, which are dropped.
    """
    return TrainConfig(
        tower="micro8",
        begin="contrast",
        region=RegionConfig(layers=1, query="roi_align"),
        optimiser=OptimiserConfig(muon=0.02),
        stream=StreamConfig(size=64, crop_scale=(0.35, 0.7), flip=0.0, min_edge=16.0, regions=6),
        loss=ClusterLoss(scale=16.0, margin=0.1),
        text=TextConfig(width=64, layers=2, heads=4, context=40),
        rho=1.0,
        ocr_rho=1.0,
        samples=76_800,
        batch=64,
        machine=MachineConfig(save_every=300, log_every=10),
    )


def mlcd(recipe: Callable[[], TrainConfig]) -> TrainConfig:
    """The same run with image-level labels: the class token learns the eight nearest clusters of the image (MLCD)."""
    config = recipe()
    return replace(config, target="image", stream=replace(config.stream, image_positives=8))


def unicom(recipe: Callable[[], TrainConfig]) -> TrainConfig:
    """The same run with one image-level label, the nearest cluster (UNICOM)."""
    config = recipe()
    return replace(config, target="image", stream=replace(config.stream, image_positives=1))


def clip(recipe: Callable[[], TrainConfig]) -> TrainConfig:
    """The same run with captions: the class token learns to find its picture's among those of the batch (CLIP).

    Crops, flips and optimiser stay those of `recipe`, for a comparison of targets alone. open_clip does not flip: pass
    --stream.flip 0 where captions tell left from right.
    """
    config = recipe()
    return replace(config, target="captions", text=_TEXT.get(config.tower, config.text))


def ablation(*, n: int = 10, k: int = 1_000_000, rho: float = 0.1, m: int = 10) -> TrainConfig:
    """Table 5: ViT-B/16 on a tenth of the pretraining data; one of N, K, rho, M changes."""
    base = b16_224()
    stream = replace(base.stream, regions=n, positives=m)
    return replace(base, stream=stream, classes=k, rho=rho, samples=STAGE_1 // 10)


def _on_a_gpu(size: int) -> StreamConfig:
    """Eight processes a rank decode about as fast as a GPU takes pictures at 224."""
    return StreamConfig(size=size, workers=8)


def _finer(first: TrainConfig, size: int) -> TrainConfig:
    """A later stage: a higher resolution at a tenth of the learning rate (section 4.1)."""
    return replace(first, stream=replace(first.stream, size=size), samples=STAGE_2, optimiser=_TENTH)


_TEXT = {"l14": TextConfig(width=768, heads=12)}
"""CLIP's text towers where they are not that of its B/16."""
_PAPER = {
    "b16-224": b16_224,
    "b16-512": b16_512,
    "l14-224": l14_224,
    "l14-336": l14_336,
    "l14-378": l14_378,
    "l14-560": l14_560,
}


def recipes() -> dict[str, tuple[TrainConfig, str]]:
    """Every recipe by name: its configuration, and one line on what it is."""
    found = {name: (recipe(), summary(recipe)) for name, recipe in (("tiny", tiny), ("micro", micro), *_PAPER.items())}
    for name, recipe in _PAPER.items():
        found[f"mlcd-{name}"] = mlcd(recipe), f"As {name}, with eight image-level labels (MLCD)."
        found[f"unicom-{name}"] = unicom(recipe), f"As {name}, with one image-level label (UNICOM)."
        found[f"clip-{name}"] = clip(recipe), f"As {name}, with captions (CLIP)."
    for n in (1, 5, 10, 20):
        found[f"table5-n{n}"] = ablation(n=n), f"Table 5a: {n} sampled box{'es' if n > 1 else ''} a picture."
    for k, name in ((200_000, "200k"), (500_000, "500k"), (1_000_000, "1m"), (2_000_000, "2m")):
        found[f"table5-k{name}"] = ablation(k=k), f"Table 5b: {k:,} cluster centres."
    for rho in (0.05, 0.1, 0.2, 0.5):
        found[f"table5-rho{rho}"] = ablation(rho=rho), f"Table 5c: negative sampling rate {rho}."
    for m in (3, 5, 10, 20):
        found[f"table5-m{m}"] = ablation(m=m), f"Table 5d: {m} positive OCR labels."
    return found
