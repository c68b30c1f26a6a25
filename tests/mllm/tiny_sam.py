"""SAM and SAM 2 of transformers so small that a test builds them, with random weights that answer to their prompts."""

from typing import Any

import torch
import transformers

SIDE = 64
KINDS = ("sam", "sam2")


def tiny_sam(kind: str = "sam", seed: int = 0) -> Any:
    """SamModel, Sam2Model or SamHQModel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _sam2() if kind == "sam2" else _sam(kind)
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.15)
    return model.eval()


def tiny_processor(kind: str = "sam") -> Any:
    """Its image processor."""
    if kind == "sam2":
        return transformers.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})
    return transformers.SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})


def _sam(kind: str) -> Any:
    own = "SamHQ" if kind == "sam_hq" else "Sam"
    sizes = {"image_size": SIDE, "patch_size": 8}
    config = getattr(transformers, f"{own}Config")(
        vision_config={
            **sizes,
            **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32},
            **{"output_channels": 16, "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 8},
        },
        prompt_encoder_config={**sizes, "hidden_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            **{"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"iou_head_hidden_dim": 16, **({"vit_dim": 16} if kind == "sam_hq" else {})},
        },
    )
    return getattr(transformers, f"{own}Model")(config)


def _sam2() -> Any:
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                **{"hidden_size": 8, "num_attention_heads": 1, "image_size": [SIDE, SIDE], "mlp_ratio": 2.0},
                **{"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64]},
                **{"num_attention_heads_per_stage": [1, 1, 1, 1], "global_attention_blocks": [3]},
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            **{"hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            "iou_head_hidden_dim": 16,
        },
    )
    return transformers.Sam2Model(config)
