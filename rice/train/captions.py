"""Image-text training (CLIP): the ViT, a text tower, and a file for what is not the ViT's.

    captions.safetensors    projection, text tower and logit scale, beside the tower; its metadata hold the TextConfig

Shapes: B pictures, H W input pixels, L tokens of a caption, D width of the ViT, E of the embeddings.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from rice.data.captions import VOCABULARY
from rice.encoders.region_checkpoint import check_fit
from rice.errors import RiceError
from rice.files import atomic_path, open_safetensors, sort_facts
from rice.model.config import ViTConfig
from rice.model.linear import Linear
from rice.model.vit import ViT
from rice.train.config import TextConfig

CAPTIONS = "captions.safetensors"
_KEY, _TOWER = "text_config", "vit."
_FIRST_SCALE, _LARGEST_SCALE = math.log(1 / 0.07), math.log(100)


class Pairs(NamedTuple):
    """What shall meet: `images` and `texts` (B, E), of unit length; `scale` (1,), which multiplies their cosines."""

    images: Tensor
    texts: Tensor
    scale: Tensor


class CaptionModel(nn.Module):
    """A ViT and open_clip's text tower. Starts from their own random initialisations.

    The class token after the norm goes through a linear layer without bias, as in CLIP's ViT; the ViT itself is the one
    of every other target.
    """

    def __init__(self, config: ViTConfig, text: TextConfig) -> None:
        super().__init__()
        from open_clip.transformer import TextTransformer  # takes seconds to import, and only captions need it

        self.vit = ViT(config)
        self.projection = Linear(config.width, text.width, bias=False)
        self.text = TextTransformer(
            context_length=text.context,
            vocab_size=VOCABULARY,
            width=text.width,
            heads=text.heads,
            layers=text.layers,
            output_dim=text.width,
        )
        self.logit_scale = nn.Parameter(torch.full((1,), _FIRST_SCALE))  # of one axis, as FSDP2 takes no scalar
        nn.init.normal_(self.projection.weight, std=config.width**-0.5)

    def forward(self, images_B3HW: Tensor, captions_BL: Tensor) -> Pairs:
        """Normalised images, and the ids of `rice.data.captions.tokenise`."""
        images_BE = self.projection(self.vit(images_B3HW).pooled)
        texts_BE = self.text(captions_BL)
        unit_BE, unit_of_text_BE = (normalize(x_BE.float(), dim=-1) for x_BE in (images_BE, texts_BE))
        return Pairs(unit_BE, unit_of_text_BE, self.logit_scale.exp())

    @torch.no_grad()
    def limit_scale(self) -> None:
        """After each step, as open_clip: the scale stays between 1 and 100."""
        self.logit_scale.clamp_(0, _LARGEST_SCALE)


def save_captions(model: CaptionModel, config: TextConfig, folder: Path) -> None:
    """Write all but the ViT."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in _own(model).items()}
    facts = json.dumps(asdict(config), sort_keys=True)
    with atomic_path(folder / CAPTIONS) as file:
        save_file(tensors, file, metadata={"format": "pt", _KEY: facts})
        sort_facts(file)


def attach_captions(vit: ViT, config: TextConfig, folder: Path) -> CaptionModel:
    """`vit` with the text tower, projection and scale of `folder`, in training mode.

    Errors: RiceError where the folder has none, or those of another text tower or width.
    """
    file = folder / CAPTIONS
    if not file.is_file():
        raise RiceError(f"{folder} holds no text tower: expected {CAPTIONS}, which training on captions writes")
    with open_safetensors(file) as content:
        facts = (content.metadata() or {}).get(_KEY)
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    if facts != json.dumps(asdict(config), sort_keys=True):
        raise RiceError(f"{file} has the text tower {facts}, the recipe trains {config}; pass --text.* flags")
    model = CaptionModel(vit.config, config)
    model.vit = vit
    check_fit(_own(model), tensors, file, vit.config.width)
    model.load_state_dict(tensors, strict=False)
    return model.train()


def _own(model: CaptionModel) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith(_TOWER)}
