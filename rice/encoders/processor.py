"""The preprocessor_config.json of a spec, which transformers' AutoImageProcessor reads. Imports no torch."""

from typing import Any

from rice.encoders.hf_config import RESAMPLE
from rice.encoders.spec import EncoderSpec


def processor_json(spec: EncoderSpec, model_type: str = "") -> dict[str, Any]:
    """The preprocessor_config.json of a spec, which transformers' AutoImageProcessor reads.

    `model_type`: the tower's; NaFlex and Qwen2.5-ViT take patches, and have processors that cut them.
    """
    facts = {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": RESAMPLE[spec.preprocessing.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }
    size, patch = spec.native_size, spec.patch
    if model_type == "siglip2_vision_model":
        return facts | {
            "image_processor_type": "Siglip2ImageProcessor",
            "patch_size": patch,
            "max_num_patches": (size // patch) ** 2,
        }
    if model_type == "qwen2_5_vl_vision":
        return facts | {
            "image_processor_type": "Qwen2VLImageProcessor",
            "patch_size": patch,
            "merge_size": spec.size_multiple // patch,
            "size": {"shortest_edge": size**2, "longest_edge": size**2},  # bounds of the area
        }
    return facts | _square(spec)


def _square(spec: EncoderSpec) -> dict[str, Any]:
    size, shortest = spec.native_size, spec.preprocessing.resize == "shortest"
    edge = round(size / spec.preprocessing.crop_fraction)
    kind = "CLIPImageProcessor" if shortest else "SiglipImageProcessor"
    if spec.preprocessing.backend == "torchvision-float":
        kind = "DINOv3ViTImageProcessor"
    return {
        "image_processor_type": kind,
        "size": {"shortest_edge": edge} if shortest else {"height": edge, "width": edge},
        "do_center_crop": shortest,
        "crop_size": {"height": size, "width": size},
    }
