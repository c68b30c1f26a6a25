"""Train the small encoder that is shipped with the package (`mini-s8-128`), on generated scenes alone.

    python benchmarks/train_mini.py --out DIR

A ViT of 0.8 million parameters learns the category of annotated objects in the pretraining part of the generated
world: the mean of the patch tokens that an object covers, against one learned centre per category and one for the
background. That is a supervised stand-in which makes the first table worth reading; it is not RICE's training.

Shapes: B images, D width, h w patch grid, R regions of all images, C classes.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rice.data.world import CATEGORIES, Part, Scene, SceneConfig, draw_scene
from rice.encoders.spec import CLIP_MEAN, CLIP_STD
from rice.files import atomic_folder
from rice.model import checkpoint
from rice.model.vit import ViT, ViTConfig

CONFIG = ViTConfig(width=128, depth=4, heads=4, mlp_width=512, patch=8, image_size=128)
SEED = 0
_SCALE = 10.0
_LEAST_COVER = 0.25
"""A token belongs to an object from this share of its cell on."""


def draw(count: int) -> tuple[Tensor, Tensor]:
    """Pretraining scenes: pictures (N, 3, H, W) uint8, and what share of a cell each class covers (N, C, h, w)."""
    pictures, covers = [], []
    scene_config = SceneConfig(height=CONFIG.image_size, width=CONFIG.image_size)
    for index in range(count):
        scene = draw_scene(scene_config, Part.PRETRAIN, SEED, index)
        pictures.append(scene.image.transpose(2, 0, 1))
        covers.append(cover(scene))
        if (index + 1) % 500 == 0:
            print(f"drew {index + 1} of {count} scenes", flush=True)
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(covers))


def cover(scene: Scene) -> NDArray[np.float16]:
    """Share of each cell that each class covers, (C, h, w); the last class is the background."""
    grid = CONFIG.image_size // CONFIG.patch
    shares = np.zeros((len(CATEGORIES) + 1, grid, grid))
    for thing in scene.objects:
        shares[thing.category] += thing.mask.reshape(grid, CONFIG.patch, grid, CONFIG.patch).mean((1, 3))
    shares[-1] = 1 - shares.sum(0)
    return shares.astype(np.float16)


def augment(images_B3HW: Tensor, cover_BChw: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """A window of `grid` x `grid` patches, turned, flipped, with each picture's brightness changed."""
    top, left = (int(torch.randint(cover_BChw.shape[-1] - grid + 1, ())) for _ in range(2))
    cells = cover_BChw[..., top : top + grid, left : left + grid].float()
    rows, columns = (slice(s * CONFIG.patch, (s + grid) * CONFIG.patch) for s in (top, left))
    images = images_B3HW[..., rows, columns].float() / 255
    turns = int(torch.randint(4, ()))
    images, cells = images.rot90(turns, (-2, -1)), cells.rot90(turns, (-2, -1))
    if torch.rand(()) < 0.5:
        images, cells = images.flip(-1), cells.flip(-1)
    return (images * (0.7 + 0.6 * torch.rand(len(images), 1, 1, 1))).clamp(0, 1), cells


def region_loss(model: ViT, centres_CD: Tensor, images_B3HW: Tensor, cover_BChw: Tensor) -> tuple[Tensor, float]:
    """Cosine softmax of each region's mean token against the centres, and the share of regions that it gets right."""
    hidden_BTD = model(images_B3HW).hidden[:, 1:]
    weight_BCT = cover_BChw.flatten(2)
    weight_BCT = weight_BCT * (weight_BCT >= _LEAST_COVER)
    region_BCD = weight_BCT @ hidden_BTD
    image, category = (weight_BCT.sum(-1) > 0).nonzero(as_tuple=True)
    unit = torch.nn.functional.normalize
    logits_RC = _SCALE * unit(region_BCD[image, category], dim=-1) @ unit(centres_CD, dim=-1).T
    loss = torch.nn.functional.cross_entropy(logits_RC, category, label_smoothing=0.05)
    return loss, (logits_RC.argmax(-1) == category).float().mean().item()


def train(pictures: Tensor, covers: Tensor, updates: int, batch: int) -> ViT:
    """AdamW, warm-up and cosine. The last fifth of the updates sees whole pictures, the rest quarters of them."""
    torch.manual_seed(SEED)
    model = ViT(CONFIG)
    centres = torch.nn.Parameter(torch.randn(len(CATEGORIES) + 1, CONFIG.width))
    optimiser = torch.optim.AdamW([*model.parameters(), centres], lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda u: min(1, (u + 1) / 200) * 0.5 * (1 + math.cos(math.pi * u / updates))
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    whole = covers.shape[-1]
    start, right = time.monotonic(), 0.0
    for update in range(updates):
        quarters = update < 0.8 * updates
        chosen = torch.randint(len(pictures), (batch if quarters else batch // 4,))
        images, cells = augment(pictures[chosen], covers[chosen], whole // 2 if quarters else whole)
        loss, accuracy = region_loss(model, centres, (images - mean) / std, cells)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        right = 0.98 * right + 0.02 * accuracy
        if update % 100 == 0 or update + 1 == updates:
            seconds = time.monotonic() - start
            print(f"update {update}: loss {loss.item():.3f}, regions right {right:.3f}, {seconds:.0f} s", flush=True)
    return model.eval()


def main() -> None:
    """Draw, train, write in half precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="new folder for config.json and model.safetensors")
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64, help="quarter pictures an update")
    arguments = parser.parse_args()
    pictures, covers = draw(arguments.scenes)
    model = train(pictures, covers, arguments.updates, arguments.batch)
    with atomic_folder(arguments.out) as folder:
        checkpoint.save(model.half(), folder)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
