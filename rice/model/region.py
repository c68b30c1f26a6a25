"""Region Transformer layers (section 3.2, eq. 2) and the network that ends in them: RICE.

Shapes: B images, N regions, T tokens that regions may see (the h*w patches), D width, H heads, K channels per head;
M = B*N and R = N*H where a product takes them as its rows.
Published nowhere; what the paper leaves open is decided here: a region's query is the picture's class token, it sees
the patches whose cells its box overlaps, two layers follow the tower, and the tower's own post-norm ends both ways.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize, scaled_dot_product_attention, softmax

from rice.errors import RiceError
from rice.model.config import ViTConfig
from rice.model.linear import Linear, products
from rice.model.rope import Grid
from rice.model.vit import MLP, ViT

Query = Literal["cls", "roi_align", "learned"]
Form = Literal["reference", "absorbed"]


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """The region layers behind a tower.

    Args:
        layers: How many; dropped at export.
        heads: Of each; 0 stands for the tower's.
        query: What a region asks with: the picture's class token, the mean of its box (RoIAlign), or a learned vector.
    """

    layers: int = 2
    heads: int = 0
    query: Query = "cls"

    def __post_init__(self) -> None:
        """Errors: RiceError for negative numbers, unknown queries, and a learned one without layers."""
        if self.layers < 0 or self.heads < 0:
            raise RiceError(f"expected layers >= 0 and heads >= 0, got layers={self.layers}, heads={self.heads}")
        if self.query not in get_args(Query):
            raise RiceError(f"expected a query of {', '.join(get_args(Query))}, got {self.query!r}")
        if self.query == "learned" and self.layers == 0:
            raise RiceError("expected at least one region layer with query='learned': alone it looks at no picture")


def region_visibility(boxes_BN4: Tensor, grid: Grid, patch: int) -> Tensor:
    """Which patch tokens each region may attend to: those whose cell overlaps its box (section 3.2).

    `boxes_BN4`: xyxy, input pixels. Returns bool (B, N, h*w), never an empty row: the cell under the centre of the box,
    or the nearest one, is always seen. Whether boxes are finite and inside the picture is for the caller to check.
    """
    height, width = grid
    boxes_BN4 = boxes_BN4.float()  # bfloat16 has whole pixels up to 256 only
    columns_BNw = _overlaps(boxes_BN4[..., 0::2], width, patch)
    rows_BNh = _overlaps(boxes_BN4[..., 1::2], height, patch)
    return (rows_BNh[..., :, None] & columns_BNw[..., None, :]).flatten(2)


def _overlaps(spans_BN2: Tensor, cells: int, patch: int) -> Tensor:
    """bool (B, N, cells): the cells that share more than an edge with a span, and the one nearest to its middle."""
    index = torch.arange(cells, device=spans_BN2.device)
    low_BN1, high_BN1 = spans_BN2.chunk(2, dim=-1)
    middle_BN1 = ((low_BN1 + high_BN1) / (2 * patch)).floor().clamp(0, cells - 1)
    return (low_BN1 < (index + 1) * patch) & (high_BN1 > index * patch) | (index == middle_BN1)


class RegionLayer(nn.Module):
    """Masked cross-attention from regions to tokens, then an MLP; both on the normed queries, both residual.

    Tokens are taken as they are given: a norm of all T tokens would cost as much as the layer, so that whoever composes
    layers normalises them once. Keys have no bias, for which a softmax has no use, and neither RoPE nor a norm: that
    keeps absorption exact.
    """

    def __init__(self, dim: int, heads: int) -> None:
        """Errors: RiceError when `heads` does not divide `dim`."""
        super().__init__()
        if heads < 1 or dim % heads:
            raise RiceError(f"expected heads that divide the width {dim}, got {heads}")
        self.heads, self.head_dim = heads, dim // heads
        self.norm1 = nn.LayerNorm(dim)
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim, bias=False)
        self.value = Linear(dim, dim)
        self.proj = Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim)
        self._initialise()

    def forward(
        self,
        queries_BND: Tensor,
        tokens_BTD: Tensor,
        visible_BNT: Tensor,
        form: Form | None = None,
        *,
        check: bool = True,
    ) -> Tensor:
        """(B, N, D) -> (B, N, D). `visible`: bool; a region's output depends on no token that it does not see.

        `form`: two ways to the same values, chosen by their cost where it is None. `check`: look for empty rows, for
        which a GPU must wait; without it they give NaN. Errors: RiceError that names the first empty row.
        """
        if check:
            _refuse_empty(visible_BNT)
        if form is None:
            form = cheaper_form(queries_BND.shape[1], tokens_BTD.shape[1], queries_BND.shape[2], self.heads)
        attend = self._absorbed if form == "absorbed" else self._reference
        queries_BND = queries_BND + self.proj(attend(self.query(self.norm1(queries_BND)), tokens_BTD, visible_BNT))
        y_BND: Tensor = queries_BND + self.mlp(self.norm2(queries_BND))
        return y_BND

    def _reference(self, q_BND: Tensor, tokens_BTD: Tensor, visible_BNT: Tensor) -> Tensor:
        """Equation 2 as it is written: keys and values of all tokens, and a mask of 0 and -inf."""
        parts = (q_BND, self.key(tokens_BTD), self.value(tokens_BTD))
        q_BHNK, k_BHTK, v_BHTK = (x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2) for x in parts)
        y_BHNK = scaled_dot_product_attention(q_BHNK, k_BHTK, v_BHTK, attn_mask=_additive(visible_BNT, q_BND.dtype))
        return y_BHNK.transpose(1, 2).flatten(2)

    def _absorbed(self, q_BND: Tensor, tokens_BTD: Tensor, visible_BNT: Tensor) -> Tensor:
        """The same sums in another order: (q Wk) x' for q (x Wk')', and (a x) Wv' for a (x Wv'); no T x D product."""
        (batch, regions, width), tokens = q_BND.shape, tokens_BTD.shape[1]
        q_HMK = (q_BND * self.head_dim**-0.5).view(-1, self.heads, self.head_dim).transpose(0, 1)  # M = B * N
        key_HKD, value_HKD = (part.weight.view(self.heads, self.head_dim, width) for part in (self.key, self.value))
        asked_BRD = products(q_HMK, key_HKD).transpose(0, 1).reshape(batch, regions * self.heads, width)
        scores_BRT = products(asked_BRD, tokens_BTD.transpose(1, 2))
        scores_BNHT = scores_BRT.view(batch, regions, self.heads, tokens)
        scores_BNHT = scores_BNHT.masked_fill(~visible_BNT[:, :, None], -torch.inf)
        weights_BRT = softmax(scores_BNHT, dim=-1).to(scores_BRT.dtype).flatten(1, 2)
        seen_HMD = products(weights_BRT, tokens_BTD).view(-1, self.heads, width).transpose(0, 1)
        y_HMK = products(seen_HMD, value_HKD.transpose(1, 2))
        return y_HMK.transpose(0, 1).reshape_as(q_BND) + self.value.bias  # the weights of a region sum to 1

    @torch.no_grad()
    def _initialise(self) -> None:
        """As the tower's own blocks: residual branches are small, biases are 0, norms 1."""
        if self.query.weight.is_meta:
            return
        width = self.heads * self.head_dim
        stds = {
            self.query: 1.0,
            self.key: 1.0,
            self.value: 0.5,
            self.proj: 1.0,
            self.mlp.fc1: 0.5**0.5,
            self.mlp.fc2: 0.5,
        }
        for layer, std in stds.items():
            nn.init.normal_(layer.weight, std=std * width**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def cheaper_form(regions: int, tokens: int, width: int, heads: int) -> Form:
    """Multiply-adds of both forms, less what they share, per image; the absorbed one wins up to about 50 regions."""
    reference = 2 * tokens * width**2 + 2 * regions * tokens * width
    absorbed = 2 * regions * width**2 + 2 * heads * regions * tokens * width
    return "absorbed" if absorbed <= reference else "reference"


def _refuse_empty(visible_BNT: Tensor) -> None:
    empty = (~visible_BNT.any(dim=-1)).nonzero()
    if len(empty):
        image, region = empty[0].tolist()
        raise RiceError(
            f"region {region} of image {image} sees no token ({len(empty)} such rows): expected at least one per "
            "region; drop these regions, or make their masks with region_visibility"
        )


def _additive(visible_BNT: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask of eq. 2, (B, 1, N, T): 0 where visible, else -inf."""
    hidden = torch.full_like(visible_BNT, -torch.inf, dtype=dtype)
    return hidden.masked_fill(visible_BNT, 0.0)[:, None]


class RiceOutput(NamedTuple):
    """One pass over a batch.

    `pooled` (B, D): the post-normed class token, the global output. `patches` (B, D, h, w): the tower's last hidden
    state. `regions` (B, N, D): of length 1, fp32 at least.
    """

    pooled: Tensor
    patches: Tensor
    regions: Tensor


class RiceModel(nn.Module):
    """The tower, then region layers that look back at its last hidden state (Figure 3).

    Under FSDP shard blocks, region layers and the whole, not `vit` by itself: regions go through its post-norm, too.
    """

    def __init__(self, config: ViTConfig, region: RegionConfig = RegionConfig()) -> None:
        """Errors: RiceError when the heads of the region layers do not divide the width."""
        super().__init__()
        self.region_config = region
        self.vit = ViT(config)
        self.query = nn.Parameter(torch.empty(config.width).normal_(std=0.02)) if region.query == "learned" else None
        heads = region.heads or config.heads
        self.region_layers = nn.ModuleList(RegionLayer(config.width, heads) for _ in range(region.layers))

    def forward(self, images_B3HW: Tensor, boxes_BN4: Tensor, form: Form | None = None) -> RiceOutput:
        """All regions of all images in one pass. `images`: normalised, any size; `boxes`: xyxy, input pixels.

        `form`: as of `RegionLayer`. Nothing is checked here that a GPU would have to wait for. Errors: RiceError for an
        image below one patch.
        """
        hidden_BTD, pooled_BD, grid = self.vit(images_B3HW)
        normed_BTD = layer_norm(hidden_BTD, hidden_BTD.shape[-1:])
        class_BD, tokens_BTD = normed_BTD[:, 0], normed_BTD[:, 1:]
        visible_BNT = region_visibility(boxes_BN4, grid, self.vit.config.patch)
        regions_BND = self._queries(class_BD, tokens_BTD, boxes_BN4, grid)
        for layer in self.region_layers:
            regions_BND = layer(regions_BND, tokens_BTD, visible_BNT, form, check=False)
        regions_BND = self.vit.post_norm(regions_BND)
        regions_BND = regions_BND.to(torch.promote_types(regions_BND.dtype, torch.float32))
        patches_BDhw = _as_map(hidden_BTD[:, 1:], grid)
        return RiceOutput(pooled_BD, patches_BDhw, normalize(regions_BND, dim=-1))

    def _queries(self, class_BD: Tensor, tokens_BTD: Tensor, boxes_BN4: Tensor, grid: Grid) -> Tensor:
        if self.region_config.query == "roi_align":
            return roi_mean(_as_map(tokens_BTD, grid), boxes_BN4, self.vit.config.patch)
        query_BD = class_BD if self.query is None else self.query.expand_as(class_BD)
        return query_BD[:, None].expand(-1, boxes_BN4.shape[1], -1)


def _as_map(tokens_BTD: Tensor, grid: Grid) -> Tensor:
    batch, _, width = tokens_BTD.shape
    return tokens_BTD.transpose(1, 2).reshape(batch, width, *grid)


def roi_mean(maps_BDhw: Tensor, boxes_BN4: Tensor, patch: int) -> Tensor:
    """(B, N, D): the mean of bilinear samples inside each box (RoIAlign with one bin), fp32 at least.

    `boxes_BN4`: xyxy, input pixels.
    """
    from torchvision.ops import roi_align  # three seconds, which a training without it need not wait

    batch, regions = boxes_BN4.shape[:2]
    maps_BDhw = maps_BDhw.to(torch.promote_types(maps_BDhw.dtype, torch.float32))
    image_R1 = torch.arange(batch, device=boxes_BN4.device).repeat_interleave(regions)[:, None]
    rois_R5 = torch.cat([image_R1, boxes_BN4.flatten(0, 1)], dim=1).to(maps_BDhw)
    pooled_RD11: Tensor = roi_align(maps_BDhw, rois_R5, output_size=1, spatial_scale=1 / patch, aligned=True)
    return pooled_RD11.view(batch, regions, maps_BDhw.shape[1])
