"""Train the small segmenter that is shipped with the package (`mini-sam`), on generated scenes alone.

    python benchmarks/train_mini_sam.py --out DIR

A SAM of a million parameters. As SAM begins with a ViT that was trained without masks, so does this, with mini-s8-128;
SAM's encoder has learnt positions where that one turns queries and keys, so its attention has to settle anew, and a
patch is not normalised by its own spread, but by that of all. It learns what SAM does, the mask of the thing under a
point (Kirillov et al., 2023, section 3), and, which SAM does not, masks of names: of all things that are striped, or
discs, or striped discs, from a vector for each name, which is thrown away. A SAM of a billion masks has features that
tell kinds of things apart; of thousands it has not, and a prompt of language would find nothing. Its estimate of a
mask's IoU and its three further masks are not trained.

The scenes are of the pretraining part of the generated world, which shares none with what the probes train and test on.

Shapes: B pictures, N masks, C width of a prompt, D of the encoder, E edge of the square input.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
import tyro
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from mllm.lisa.loss import mask_losses
from mllm.lisa.segmenter import Features, Segmenter, enlarge
from rice.data.world import CATEGORIES, Part, SceneConfig, draw_scene
from rice.data.world.shapes import SHAPES
from rice.data.world.textures import TEXTURES
from rice.encoders.load import load_encoder
from rice.files import atomic_folder

SEED, BEGINNING = 0, "mini-s8-128"
EDGE, WIDTH, LAYERS, HEADS = 96, 64, 2, 4
POINTS, NAMES = 2, 3
"""Masks of each kind that a picture is asked for in an update."""
ENCODER_RATE, RATE = 6e-4, 1.5e-3
BCE = 1.5
"""Weight of the cross entropy, beside a dice loss of 1."""
SCENES = SceneConfig(
    height=EDGE, width=EDGE, objects=(3, 5), clutter=(0, 0), words=(0, 0), radius=(0.17, 0.30), visible=0.6, plain=1.0
)
"""As those of `rice world scenes --layout refer`."""
JUDGED = 200
"""Scenes of another part that the result is judged on."""


class Thing(NamedTuple):
    """What a picture shows. `names`: numbers of its category, its texture, its shape; `mask`: (E, E)."""

    names: tuple[int, int, int]
    mask: Tensor


class Asked(NamedTuple):
    """Masks to learn. `points`: (x, y), or None; `names`: a name's number, or None; one of them."""

    points: list[tuple[int, int]]
    names: list[int]
    masks: list[Tensor]


def names_of(category: int) -> tuple[int, int, int]:
    """Numbers: categories first, then textures, then shapes."""
    texture, shape = category % len(TEXTURES), category // len(TEXTURES)
    return category, len(CATEGORIES) + texture, len(CATEGORIES) + len(TEXTURES) + shape


def kind_of(number: int) -> str:
    """What a name's number names."""
    if number < len(CATEGORIES):
        return "category"
    return "texture" if number < len(CATEGORIES) + len(TEXTURES) else "shape"


def draw(segmenter: Segmenter, part: Part, count: int) -> tuple[Tensor, list[list[Thing]]]:
    """Pictures (N, 3, E, E), in half precision, and what each shows."""
    pixels, things = [], []
    for index in range(count):
        scene = draw_scene(SCENES, part, SEED, index)
        pixels.append(segmenter.frame(Image.fromarray(scene.image)).pixels.half())
        things.append([Thing(names_of(thing.category), torch.from_numpy(thing.mask)) for thing in scene.objects])
        if (index + 1) % 1000 == 0:
            print(f"drew {index + 1} of {count} scenes", flush=True)
    return torch.stack(pixels), things


def build(beginning: Any) -> Segmenter:
    """A SAM at random whose encoder has the beginning's sizes."""
    vit, spec = beginning.module.config, beginning.spec
    size = {"image_size": EDGE, "patch_size": vit.patch}
    vision = {"hidden_size": vit.width, "num_hidden_layers": vit.depth, "num_attention_heads": vit.heads}
    vision |= {"mlp_dim": vit.mlp_width, "layer_norm_eps": vit.eps, "output_channels": WIDTH, "use_rel_pos": False}
    vision |= {"global_attn_indexes": list(range(vit.depth)), "num_pos_feats": WIDTH // 2, "initializer_range": 0.02}
    decoder = {"hidden_size": WIDTH, "mlp_dim": 2 * WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = transformers.SamConfig(
        vision_config={**size, **vision},
        prompt_encoder_config={**size, "hidden_size": WIDTH, "mask_input_channels": 4},
        mask_decoder_config={**decoder, "iou_head_hidden_dim": WIDTH},
    )
    square = {"height": EDGE, "width": EDGE}
    norm = {"image_mean": list(spec.mean), "image_std": list(spec.std)}
    processor = transformers.SamImageProcessor(**norm, size={"longest_edge": EDGE}, pad_size=square)
    model = transformers.SamModel(config)
    initialise(model)
    return Segmenter(model, processor)


@torch.no_grad()
def initialise(model: Any) -> None:
    """transformers' own is meant to be overwritten: of the encoder it is all but zero, and of positions so fast a wave
    that neighbours have nothing in common."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    nn.init.normal_(model.vision_encoder.pos_embed, std=0.02)
    nn.init.normal_(model.shared_image_embedding.positional_embedding)


@torch.no_grad()
def take_over(encoder: Any, vit: Any, pixels_N3EE: Tensor) -> None:
    """The values of a rice.model.vit.ViT. Its norm of patches becomes a part of their filters, with one spread for all
    patches of these pictures; its class token stays behind."""
    filters = vit.patch_embed.weight - vit.patch_embed.weight.mean(dim=0)
    patches_NDhw = functional.conv2d(pixels_N3EE.float(), filters, stride=vit.config.patch)
    scale_D111 = (vit.pre_norm.weight / patches_NDhw.std(dim=1).mean())[:, None, None, None]
    encoder.patch_embed.projection.weight.copy_(filters * scale_D111)
    encoder.patch_embed.projection.bias.copy_(vit.pre_norm.bias)
    for layer, block in zip(encoder.layers, vit.blocks, strict=True):
        layer.layer_norm1.load_state_dict(block.norm1.state_dict())
        layer.attn.qkv.load_state_dict(block.attn.qkv.state_dict())
        layer.attn.proj.load_state_dict(block.attn.proj.state_dict())
        layer.layer_norm2.load_state_dict(block.norm2.state_dict())
        layer.mlp.lin1.load_state_dict(block.mlp.fc1.state_dict())
        layer.mlp.lin2.load_state_dict(block.mlp.fc2.state_dict())


def ask(things: Sequence[Thing], dice: np.random.Generator) -> Asked:
    """Points on things, and names of things, each with its mask: of a name, all that have it."""
    asked = Asked([], [], [])
    for _ in range(POINTS):
        mask = things[int(dice.integers(len(things)))].mask
        rows, columns = np.nonzero(mask.numpy())
        place = dice.integers(len(rows))
        asked.points.append((int(columns[place]), int(rows[place])))
        asked.masks.append(mask)
    for _ in range(NAMES):
        name = things[int(dice.integers(len(things)))].names[int(dice.integers(3))]
        asked.names.append(name)
        asked.masks.append(torch.stack([thing.mask for thing in things if name in thing.names]).any(dim=0))
    return asked


def point_prompts(segmenter: Segmenter, points_N2: Tensor) -> Tensor:
    """A SAM's own prompts (N, C) for points (x, y) in pixels of its input, without its padding point."""
    labels_1N1 = torch.ones(1, len(points_N2), 1, dtype=torch.int64)
    sparse_1N2C, _ = segmenter.model.prompt_encoder(points_N2[None, :, None], labels_1N1, None, None)
    prompts_NC: Tensor = sparse_1N2C[0, :, 0]
    return prompts_NC


def batches(count: int, size: int, dice: np.random.Generator) -> Iterator[list[int]]:
    """Endless; each picture once in a round."""
    while True:
        order = dice.permutation(count).tolist()
        yield from (order[start : start + size] for start in range(0, count - size + 1, size))


def train(
    segmenter: Segmenter, pixels_N3EE: Tensor, things: list[list[Thing]], updates: int, batch: int
) -> nn.Embedding:
    """AdamW, warm-up and cosine, in place. The prompt encoder's part for masks is left at random. Returns the names."""
    model, dice = segmenter.model.train(), np.random.default_rng(SEED)
    prompts = model.prompt_encoder
    for part in (model.vision_encoder, prompts.point_embed[1], prompts.not_a_point_embed, prompts.no_mask_embed):
        part.requires_grad_(True)
    names = nn.Embedding(len(CATEGORIES) + len(TEXTURES) + len(SHAPES), WIDTH)
    begun = [*model.vision_encoder.patch_embed.parameters(), *model.vision_encoder.layers.parameters()]
    known = {id(value) for value in begun}
    rest = [value for value in model.parameters() if value.requires_grad and id(value) not in known]
    rest += names.parameters()
    groups = [{"params": begun, "lr": ENCODER_RATE}, {"params": rest, "lr": RATE}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda u: min(1, (u + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * u / updates)))
    )
    start, average = time.monotonic(), math.nan
    for update, chosen in zip(range(updates), batches(len(things), batch, dice), strict=False):
        loss = loss_of(segmenter, names, pixels_N3EE[chosen].float(), [ask(things[i], dice) for i in chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*begun, *rest], 1.0)
        optimizer.step()
        schedule.step()
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        if update % 100 == 0 or update + 1 == updates:
            print(f"update {update}: loss {average:.3f}, {time.monotonic() - start:.0f} s", flush=True)
    model.eval()
    return names


@torch.no_grad()
def judge(segmenter: Segmenter, names: nn.Embedding) -> dict[str, float]:
    """cIoU in percent, by kind of prompt, on scenes that it has not seen."""
    pixels_N3EE, things = draw(segmenter, Part.TRAIN, JUDGED)
    dice = np.random.default_rng(SEED)
    sums: dict[str, Any] = {}
    for index, shown in enumerate(things):
        asked = ask(shown, dice)
        features = segmenter.encode(pixels_N3EE[index : index + 1].float())
        prompts_NC = torch.cat(
            [point_prompts(segmenter, torch.tensor(asked.points).float()), names(torch.tensor(asked.names))]
        )
        owners_N = torch.zeros(len(prompts_NC), dtype=torch.int64)
        logits_NEE = enlarge(segmenter.decode(features, owners_N, prompts_NC), None, (EDGE, EDGE), EDGE)
        kinds = ["point"] * POINTS + [kind_of(number) for number in asked.names]
        for kind, logits_EE, mask_EE in zip(kinds, logits_NEE, asked.masks, strict=True):
            found_EE = logits_EE > 0
            sums[kind] = sums.get(kind, 0) + np.array([(found_EE & mask_EE).sum(), (found_EE | mask_EE).sum()])
    return {kind: round(100 * float(common / union), 1) for kind, (common, union) in sorted(sums.items())}


def loss_of(segmenter: Segmenter, names: nn.Embedding, pixels_B3EE: Tensor, asked: Sequence[Asked]) -> Tensor:
    """Mean over all masks of a batch."""
    features = Features((segmenter.model.vision_encoder(pixels_B3EE).last_hidden_state,))
    points = torch.tensor([point for one in asked for point in one.points]).float()
    numbers = torch.tensor([name for one in asked for name in one.names])
    own = [number for number, one in enumerate(asked) for _ in one.points]
    own += [number for number, one in enumerate(asked) for _ in one.names]
    masks = [mask for one in asked for mask in one.masks[:POINTS]] + [m for one in asked for m in one.masks[POINTS:]]
    prompts_NC = torch.cat([point_prompts(segmenter, points), names(numbers)])
    logits_NEE = enlarge(segmenter.decode(features, torch.tensor(own), prompts_NC), None, (EDGE, EDGE), EDGE)
    bce_N, dice_N = mask_losses(logits_NEE, torch.stack(masks).to(torch.uint8))
    return BCE * bce_N.mean() + dice_N.mean()


def main(*, out: Path, scenes: int = 10_000, updates: int = 4500, batch: int = 12) -> None:
    """Draw, train, write in half precision: three quarters of an hour on one core.

    Args:
        out: folder to write.
        scenes: pictures to learn from.
        updates: steps.
        batch: pictures of a step.
    """
    torch.manual_seed(SEED)
    beginning = load_encoder(BEGINNING)
    segmenter = build(beginning)
    pixels, things = draw(segmenter, Part.PRETRAIN, scenes)
    take_over(segmenter.model.vision_encoder, beginning.module, pixels[:64])
    names = train(segmenter, pixels, things, updates, batch)
    print("cIoU on other scenes:", judge(segmenter, names), flush=True)
    segmenter.model.half()
    with atomic_folder(out) as folder:
        segmenter.save(folder)


if __name__ == "__main__":
    tyro.cli(main)
