"""Train the small encoder that is shipped with the package (`mini-s8-128`), on generated scenes alone.

    python benchmarks/train_mini.py --out DIR

A ViT of 0.8 million parameters learns, in the pretraining part of the generated world, the shape and the texture of the
annotated object under each patch token. That is a supervised stand-in which makes the first table worth reading and
shows that the probes tell a trained encoder from an untrained one; it is not RICE's training.

Shapes: B images, T tokens, D width, h w patch grid, C classes (24 categories, then the background), S shapes,
U textures, K logits.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from rice.data.world import CATEGORIES, Part, Scene, SceneConfig, draw_scene
from rice.data.world.shapes import SHAPES
from rice.encoders.spec import CLIP_MEAN, CLIP_STD
from rice.files import atomic_folder
from rice.model import checkpoint
from rice.model.config import MINI8 as CONFIG
from rice.model.vit import ViT

SEED = 0


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


def token_loss(logits_BTK: Tensor, cover_BChw: Tensor) -> Tensor:
    """Cross entropy of each token's shape and of its texture against the shares that they cover of its cell.

    Two small questions are learned faster than their 24 combinations. Tokens of mere background count a quarter.
    """
    objects_BSUT = cover_BChw[:, :-1].reshape(len(cover_BChw), len(SHAPES), -1, cover_BChw[0, 0].numel())
    background_B1T = cover_BChw[:, -1:].flatten(2)
    weight_BT = 1 - 0.75 * background_B1T[:, 0]
    loss = torch.zeros(())
    shapes_BTK, textures_BTK = logits_BTK[..., : len(SHAPES) + 1], logits_BTK[..., len(SHAPES) + 1 :]
    for logits, shares in ((shapes_BTK, objects_BSUT.sum(2)), (textures_BTK, objects_BSUT.sum(1))):
        target_BKT = torch.cat([shares, background_B1T], dim=1)
        each_BT = -(target_BKT * logits.log_softmax(-1).mT).sum(1)
        loss = loss + (weight_BT * each_BT).sum() / weight_BT.sum()
    return loss


def train(pictures: Tensor, covers: Tensor, updates: int, batch: int) -> ViT:
    """AdamW, warm-up and cosine. The last fifth of the updates sees whole pictures, the rest quarters of them."""
    torch.manual_seed(SEED)
    model = ViT(CONFIG)
    head = torch.nn.Linear(CONFIG.width, len(SHAPES) + len(CATEGORIES) // len(SHAPES) + 2)
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda u: min(1, (u + 1) / 200) * 0.5 * (1 + math.cos(math.pi * u / updates))
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    whole = covers.shape[-1]
    start, average = time.monotonic(), math.nan
    for update in range(updates):
        quarters = update < 0.8 * updates
        chosen = torch.randint(len(pictures), (batch if quarters else batch // 4,))
        images, cells = augment(pictures[chosen], covers[chosen], whole // 2 if quarters else whole)
        hidden_BTD = model((images - mean) / std).hidden[:, 1:]
        loss = token_loss(head(torch.nn.functional.layer_norm(hidden_BTD, (CONFIG.width,))), cells)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        if update % 100 == 0 or update + 1 == updates:
            print(f"update {update}: loss {average:.3f}, {time.monotonic() - start:.0f} s", flush=True)
    return model.eval()


def main(*, out: Path, scenes: int = 6000, updates: int = 4000, batch: int = 64) -> None:
    """Draw, train, write in half precision.

    Args:
        out: New folder for config.json and model.safetensors.
        scenes: Pictures to draw.
        updates: Of the weights.
        batch: Quarter pictures an update.
    """
    model = train(*draw(scenes), updates, batch)
    with atomic_folder(out) as folder:
        checkpoint.save(model.half(), folder)
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main)
