"""Region proposals against an implementation that decodes every anchor first, and losses against loops in float64."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from probes.detection.config import HeadsConfig
from probes.detection.pyramid import levels
from probes.detection.rpn import LevelScores, RegionProposals
from rice.errors import RiceError

CONFIG = HeadsConfig(channels=6, rpn_top=(40, 25), proposals=30, rpn_samples=24)
SIZES = [(64, 64), (40, 64), (64, 27)]


pytestmark = pytest.mark.usefixtures("one_thread")


def features(patch: int = 16, batch: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cells = [math.ceil(4 * level.scale) for level in levels(patch)]
    return [torch.randn(batch, CONFIG.channels, n, n, generator=generator) for n in cells]


def module_of(patch: int = 16, config: HeadsConfig = CONFIG) -> RegionProposals:
    """Logits far apart, boxes that move by about a fifth of themselves."""
    module = RegionProposals(config, [level.stride for level in levels(patch)])
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            gain = 0.05 if name.startswith("deltas") else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain)
    return module


def decode_by_hand(deltas: Tensor, anchors: Tensor) -> Tensor:
    """float64, from Faster R-CNN's equation 2."""
    d, a = deltas.double(), anchors.double()
    width, height = a[:, 2] - a[:, 0], a[:, 3] - a[:, 1]
    x, y = a[:, 0] + width / 2 + d[:, 0] * width, a[:, 1] + height / 2 + d[:, 1] * height
    limit = math.log(1000 / 16)
    w, h = d[:, 2].clamp(max=limit).exp() * width, d[:, 3].clamp(max=limit).exp() * height
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)


def propose_by_hand(scores: list[LevelScores], image: int, size: tuple[int, int], top: int) -> Tensor:
    """Decode all, then sort, cut, clip, suppress."""
    coder, boxes, logits, level = BoxCoder((1.0, 1.0, 1.0, 1.0)), [], [], []
    for index, part in enumerate(scores):
        decoded = coder.decode_single(part.deltas[image], part.anchors)
        order = part.logits[image].argsort(descending=True)[:top]
        boxes.append(decoded[order])
        logits.append(part.logits[image][order])
        level.append(torch.full((len(order),), index))
    every = clip_boxes_to_image(torch.cat(boxes), size)
    good = (every[:, 2] > every[:, 0]) & (every[:, 3] > every[:, 1])
    kept = batched_nms(every[good], torch.cat(logits)[good], torch.cat(level)[good], CONFIG.rpn_nms)
    return every[good][kept][: CONFIG.proposals]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("patch", [14, 16])
def test_proposals_are_those_of_decoding_every_anchor(patch: int, training: bool) -> None:
    module = module_of(patch).train(training)
    scores = module(features(patch))
    found = module.propose(scores, SIZES)
    for image, size in enumerate(SIZES):
        expected = propose_by_hand(scores, image, size, CONFIG.rpn_top[0 if training else 1])
        assert len(expected) > 10
        torch.testing.assert_close(found[image], expected, rtol=0, atol=1e-4)
        assert not found[image].requires_grad


@torch.no_grad()
def test_decoding_is_the_papers_equation() -> None:
    config = HeadsConfig(channels=6, rpn_top=(10**6, 10**6), proposals=10**6, rpn_nms=1.0)
    module = module_of(14, config).eval()
    scores = module(features(14, batch=1))
    large = (10**6, 10**6)  # nothing is cut at its right and lower edge
    (found,) = module.propose(scores, [large])
    every = torch.cat([decode_by_hand(part.deltas[0], part.anchors) for part in scores]).clamp(min=0)
    every = every[(every[:, 2] > every[:, 0]) & (every[:, 3] > every[:, 1])]
    order = torch.cdist(found.double(), every).min(1)
    assert len(found) == len(every)
    assert float(order.values.max()) < 1e-3


def test_each_level_suppresses_only_its_own() -> None:
    box, logit = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[1.0]])
    same = [LevelScores(logit, torch.zeros(1, 1, 4), box), LevelScores(logit + 1, torch.zeros(1, 1, 4), box)]
    (found,) = module_of().propose(same, [(20, 20)])
    assert len(found) == 2
    twice = [LevelScores(logit.repeat(1, 2), torch.zeros(1, 2, 4), box.repeat(2, 1))]
    (found,) = module_of().propose(twice, [(20, 20)])
    assert len(found) == 1


def test_proposals_lie_inside_the_picture_and_have_an_area() -> None:
    module = module_of()
    for size, boxes in zip(SIZES, module.propose(module(features()), SIZES), strict=True):
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= size[1]).all()
        assert (boxes[:, 3] <= size[0]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(boxes) <= CONFIG.proposals


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["logits", "deltas"])
def test_a_diverged_training_says_so_and_a_test_leaves_the_box_out(part: str, bad: float) -> None:
    scores = LevelScores(
        torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2, 4), torch.tensor([[0.0, 0, 9, 9], [20, 20, 30, 30]])
    )
    getattr(scores, part)[0, 1] = bad
    with pytest.raises(RiceError, match="lower the learning rate"):
        module_of().train().propose([scores], [(40, 40)])
    (found,) = module_of().eval().propose([scores], [(40, 40)])
    assert found.tolist() == [[0, 0, 9, 9]]


def anchors_of(scores: list[LevelScores]) -> Tensor:
    return torch.cat([part.anchors for part in scores])


def losses_by_hand(scores: list[LevelScores], truth: list[Tensor]) -> tuple[float, float]:
    """Faster R-CNN's equation 1 with absolute differences, one anchor at a time, in float64."""
    anchors = anchors_of(scores)
    objectness = offsets = 0.0
    for image, truth_G4 in enumerate(truth):
        logits = torch.cat([part.logits[image] for part in scores]).double().tolist()
        deltas = torch.cat([part.deltas[image] for part in scores]).double().tolist()
        overlap = box_iou(truth_G4, anchors).tolist()
        largest = [max(row) for row in overlap]
        labels, matched = [], []
        for n in range(len(anchors)):
            if not len(truth_G4):
                labels.append(0), matched.append(0)
                continue
            best = max(row[n] for row in overlap)
            label = 1 if best >= 0.7 else 0 if best < 0.3 else -1
            if any(row[n] == most for row, most in zip(overlap, largest, strict=True)):
                label = 1
            labels.append(label), matched.append([row[n] for row in overlap].index(best))
        positive = [n for n, label in enumerate(labels) if label == 1]
        negative = [n for n, label in enumerate(labels) if label == 0]
        most = min(len(positive), CONFIG.rpn_samples // 2)
        positive = [positive[k] for k in torch.randperm(len(positive))[:most].tolist()]
        negative = [negative[k] for k in torch.randperm(len(negative))[: CONFIG.rpn_samples - most].tolist()]
        for n in positive:
            objectness += math.log1p(math.exp(-logits[n]))
            left, top, right, bottom = anchors[n].double().tolist()
            x0, y0, x1, y1 = truth_G4[matched[n]].double().tolist()
            width, height = right - left, bottom - top
            wanted = (
                ((x0 + x1) - (left + right)) / 2 / width,
                ((y0 + y1) - (top + bottom)) / 2 / height,
                math.log((x1 - x0) / width),
                math.log((y1 - y0) / height),
            )
            offsets += sum(abs(d - w) for d, w in zip(deltas[n], wanted, strict=True))
        for n in negative:
            objectness += math.log1p(math.exp(logits[n]))
    count = CONFIG.rpn_samples * len(truth)
    return objectness / count, offsets / count


TRUTH = [
    torch.tensor([[3.0, 5, 40, 50], [30, 30, 62, 63], [10, 10, 14, 13]]),
    torch.zeros(0, 4),
    torch.tensor([[0.0, 0, 27, 64]]),
]


@pytest.mark.parametrize("patch", [14, 16])
def test_losses_are_the_definition_with_the_same_draws(patch: int) -> None:
    module = module_of(patch).train()
    scores = module(features(patch))
    torch.manual_seed(11)
    found = module.losses(scores, TRUTH)
    torch.manual_seed(11)
    objectness, offsets = losses_by_hand(scores, TRUTH)
    assert found["rpn_objectness"].item() == pytest.approx(objectness, rel=1e-5)
    assert found["rpn_boxes"].item() == pytest.approx(offsets, rel=1e-5)
    assert offsets > 0.01


def test_pictures_without_truth_teach_no_offsets_and_every_parameter_has_a_gradient() -> None:
    module = module_of().train()
    found = module.losses(module(features()), [torch.zeros(0, 4)] * 3)
    assert found["rpn_boxes"].item() == 0
    assert found["rpn_objectness"].item() > 0
    (found["rpn_boxes"] + found["rpn_objectness"]).backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    assert not gradients["deltas.weight"].any()
    assert gradients["objectness.weight"].any()


@torch.no_grad()
def test_each_anchor_has_the_logit_and_the_offsets_of_its_cell_and_ratio() -> None:
    """The order of anchors (row, column, ratio) is that of the scores: channel a of cell (i, j)."""
    module, maps = module_of(), features(batch=2)
    for part, x, stride in zip(module(maps), maps, module.strides, strict=True):
        hidden = x
        for convolution in module.convs:
            hidden = nn.functional.relu(convolution(hidden))
        logits, deltas = module.objectness(hidden), module.deltas(hidden)
        height, width = x.shape[-2:]
        for i, j, a in ((0, 0, 1), (height - 1, 0, 2), (0, width - 1, 0)):
            row = (i * width + j) * 3 + a
            torch.testing.assert_close(part.logits[:, row], logits[:, a, i, j])
            torch.testing.assert_close(part.deltas[:, row], deltas[:, 4 * a : 4 * a + 4, i, j])
            box = part.anchors[row].double()
            assert ((box[:2] + box[2:]) / 2).tolist() == pytest.approx([j * stride, i * stride], abs=1e-3)
            shape = float((box[3] - box[1]) / (box[2] - box[0]))
            assert shape == pytest.approx(module.config.anchor_ratios[a], rel=1e-4)


def test_scores_are_fp32_whatever_the_features_are() -> None:
    module = module_of().to(torch.bfloat16)
    for part in module([x.to(torch.bfloat16) for x in features()]):
        assert {part.logits.dtype, part.deltas.dtype, part.anchors.dtype} == {torch.float32}
