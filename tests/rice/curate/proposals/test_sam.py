"""SAM's regions against transformers' own pipeline, with tiny networks of random weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import measure

from rice.curate.proposals import sam
from rice.curate.proposals.config import ProposalConfig
from rice.curate.proposals.proposer import Proposals, build_proposer
from rice.curate.proposals.sam import SamProposer, load_sam
from rice.errors import RiceError

SIDE = 64
KINDS = ("sam", "sam2", "sam_hq")
LOOSE = {"sam_iou": 0.0, "sam_stability": 0.0}


def _sam(kind: str) -> Any:
    vision = {
        "num_pos_feats": 8,
        "window_size": 4,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
    }
    own = "SamHQ" if kind == "sam_hq" else "Sam"
    config = getattr(transformers, f"{own}Config")(
        vision_config={
            **vision,
            "output_channels": 16,
            "mlp_dim": 32,
            "window_size": 4,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            **{"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
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
            **{"hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "iou_head_hidden_dim": 16,
        },
    )
    return transformers.Sam2Model(config)


def _processor(kind: str) -> Any:
    if kind == "sam2":
        return transformers.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})
    return transformers.SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})


def _network(kind: str) -> Any:
    """Random weights, but masks of discs around the asked points, some sharp and some vague, whose estimates depend on
    the picture too: random weights alone give masks that are full, empty, or a line at the edge."""
    torch.manual_seed(0)
    model = _sam2() if kind == "sam2" else _sam(kind)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.1)
    model.register_forward_hook(_discs, with_kwargs=True)
    return model.eval()


def _discs(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    side = output.pred_masks.shape[-1]
    points_P2 = kwargs["input_points"][0, :, 0] * side / SIDE
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    from_point_Phw = ((columns - points_P2[:, :1, None]) ** 2 + (rows - points_P2[:, 1:, None]) ** 2).sqrt()
    sharpness_P = 1 + 20 * (points_P2[:, 0] * 0.37 % 1)
    radii_3 = torch.tensor([0.053, 0.207, 0.311]) * side
    inside_P3hw = (radii_3[:, None, None] - from_point_Phw[:, None]) * sharpness_P[:, None, None, None]
    output.pred_masks = inside_P3hw[None]
    level = kwargs["image_embeddings"]
    of_picture = (level if isinstance(level, torch.Tensor) else level[-1]).flatten()[0]
    own_P3 = (points_P2 @ torch.tensor([[0.31, 0.43, 0.59], [0.83, 0.27, 0.71]]) + of_picture) % 1
    output.iou_scores = 0.8 * own_P3[None] + 0.2 * output.iou_scores.sigmoid()
    return output


def _pictures(*sizes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Smooth noise, (height, width) each."""
    rng = np.random.default_rng(3)
    coarse = [Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)) for _ in sizes]
    return [np.array(c.resize((w, h), Image.Resampling.BICUBIC)) for c, (h, w) in zip(coarse, sizes, strict=True)]


def _config(**fields: Any) -> ProposalConfig:
    return ProposalConfig(proposals="sam", points_per_side=5, points_per_batch=7, pictures_per_batch=2, **fields)


def _of_pipeline(model: Any, processor: Any, picture: NDArray[np.uint8], config: ProposalConfig) -> Proposals:
    """From the pipeline's masks; those without a pixel are no regions."""
    output = transformers.pipeline("mask-generation", model=model, image_processor=processor, device="cpu")(
        Image.fromarray(picture),
        points_per_crop=config.points_per_side,
        points_per_batch=64,
        pred_iou_thresh=config.sam_iou,
        stability_score_thresh=config.sam_stability,
    )
    masks = [np.asarray(mask) for mask in output["masks"]]
    kept = [index for index, mask in enumerate(masks) if mask.any()]
    boxes = np.array([measure.regionprops(masks[index].astype(np.uint8))[0].bbox for index in kept]).reshape(-1, 4)
    return Proposals(boxes[:, [1, 0, 3, 2]].astype(np.float64), np.asarray(output["scores"])[kept].astype(np.float32))


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.4, 0.0), (0.0, 0.8), (0.3, 0.7)])
@pytest.mark.parametrize("kind", KINDS)
def test_regions_are_those_of_transformers_pipeline(kind: str, thresholds: tuple[float, float]) -> None:
    model, processor = _network(kind), _processor(kind)
    config = _config(sam_iou=thresholds[0], sam_stability=thresholds[1])
    sizes = [(48, 48), (90, 90), (64, 64)] if kind == "sam2" else [(48, 80), (100, 70), (64, 64)]
    pictures = _pictures(*sizes)
    for picture, found in zip(pictures, SamProposer(model, processor, config)(pictures), strict=True):
        expected = _of_pipeline(model, processor, picture, config)
        assert len(expected.boxes) > 4
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        assert (found.boxes.dtype, found.scores.dtype) == (np.float64, np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_grid_covers_the_whole_picture_as_the_network_sees_it(kind: str) -> None:
    (picture,) = _pictures((48, 96))
    model, processor = _network(kind), _processor(kind)
    asked: list[torch.Tensor] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: asked.append(kwargs["input_points"][0, :, 0]), with_kwargs=True
    )
    SamProposer(model, processor, _config())([picture])
    middles = [[(x + 0.5) * 96 / 5, (y + 0.5) * 48 / 5] for y in range(5) for x in range(5)]
    join = transformers.Sam2Processor if kind == "sam2" else transformers.SamProcessor
    prompt = {"input_points": [[[point] for point in middles]]}
    if kind == "sam2":
        prompt["input_labels"] = [[[1] for _ in middles]]
    expected = join(processor)(images=picture, return_tensors="pt", **prompt)["input_points"]
    np.testing.assert_allclose(torch.cat(asked).numpy(), expected[0, :, 0].numpy(), atol=1e-3)


def test_every_picture_is_embedded_once() -> None:
    model, seen = _network("sam"), []
    model.vision_encoder.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    SamProposer(model, _processor("sam"), _config(**LOOSE))(_pictures((48, 80), (100, 70), (64, 64)))
    assert seen == [2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_without_a_sure_mask_has_no_region(kind: str, checkpoints: dict[str, Path]) -> None:
    config = ProposalConfig(proposals="sam", sam_checkpoint=str(checkpoints[kind]), points_per_side=3)
    (found,) = build_proposer(config, "cpu")(_pictures((48, 80)))
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)


def test_no_picture_gives_no_result() -> None:
    assert SamProposer(_network("sam"), _processor("sam"), _config())([]) == []


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as the hub's repositories."""
    folders = {}
    for kind in KINDS:
        folders[kind] = tmp_path_factory.mktemp(kind)
        _network(kind).save_pretrained(folders[kind])
        _processor(kind).save_pretrained(folders[kind])
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_network_that_was_saved(kind: str, checkpoints: dict[str, Path]) -> None:
    loaded, processor = load_sam(str(checkpoints[kind]), "cpu")
    saved = _network(kind).state_dict()
    assert not loaded.training
    assert type(processor).__name__ == type(_processor(kind)).__name__
    assert saved.keys() == loaded.state_dict().keys()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, saved[name])


def test_a_checkpoint_that_is_not_whole_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(checkpoints["sam"], tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if "iou_token" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(RiceError, match=r"no values for 1 tensors, mask_decoder.iou_token.weight first"):
        load_sam(str(tmp_path), "cpu")


def test_what_is_no_sam_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    for checkpoint in (str(tmp_path), str(tmp_path / "missing")):
        with pytest.raises(RiceError) as raised:
            load_sam(checkpoint, "cpu")
        assert checkpoint in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_repository_that_cannot_be_reached_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(repository: str, name: str) -> Path:
        raise RiceError("no network")

    monkeypatch.setattr(sam, "fetch", refuse)
    with pytest.raises(RiceError, match=r"cannot reach nobody/none on the model hub.*give its folder instead"):
        load_sam("nobody/none", "cpu")


def test_a_video_checkpoint_of_sam2_gives_its_part_for_pictures(tmp_path: Path) -> None:
    """The published SAM 2 are such."""
    parts = _sam2().config
    torch.manual_seed(1)
    video = transformers.Sam2VideoModel(
        transformers.Sam2VideoConfig(
            vision_config=parts.vision_config.to_dict(),
            prompt_encoder_config=parts.prompt_encoder_config.to_dict(),
            mask_decoder_config=parts.mask_decoder_config.to_dict(),
        )
    )
    video.save_pretrained(tmp_path)
    _processor("sam2").save_pretrained(tmp_path)
    loaded, _ = load_sam(str(tmp_path), "cpu")
    saved = video.state_dict()
    assert type(loaded).__name__ == "Sam2Model"
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, saved[name])
