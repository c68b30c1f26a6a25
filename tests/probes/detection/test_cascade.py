"""The cascade against loops in float64 over torchvision's RoIAlign, with the same draws."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image, nms, roi_align

from probes.detection.cascade import Cascade, Found, Regions, Truth
from probes.detection.config import HeadsConfig
from probes.detection.federated import ClassLoss

CONFIG = HeadsConfig(channels=5, hidden=9, box_convs=1, roi_samples=20)
CLASSES = 3
STRIDES = [1.0, 2.0, 4.0, 8.0]  # of patch 4: boxes of 28 and 56 pixels change the level
IOUS, WEIGHTS = (0.5, 0.6, 0.7), ((10.0, 5.0), (20.0, 10.0), (30.0, 15.0))
SIZES = [(96, 96), (96, 70)]


pytestmark = pytest.mark.usefixtures("one_thread")


def features(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, CONFIG.channels, round(96 / s), round(96 / s), generator=generator) for s in STRIDES]


def cascade_of(config: HeadsConfig = CONFIG, spread: float = 1.0) -> Cascade:
    """`spread`: of the offsets, in the units that a stage's weights divide by."""
    module = Cascade(config, CLASSES, STRIDES, ClassLoss())
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            gain = spread if "deltas" in name else 2.0 if "scores" in name else 1.0
            fan = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain / fan**0.5)
    return module


TRUTH = [
    Truth(torch.tensor([[8.0, 8, 40, 40], [50, 20, 90, 80]]), torch.tensor([2, 0])),
    Truth(torch.tensor([[5.0, 30, 60, 90]]), torch.tensor([1])),
]
NOTHING = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def around(truth: Truth, size: tuple[int, int], seed: int = 0, count: int = 12) -> Tensor:
    """Boxes near the truth, at overlaps from high to low, and some anywhere."""
    generator = torch.Generator().manual_seed(seed)
    picks = truth.boxes[torch.arange(count) % max(len(truth.boxes), 1)] if len(truth.boxes) else torch.zeros(0, 4)
    near = picks + torch.randn(len(picks), 4, generator=generator) * torch.linspace(0, 9, len(picks))[:, None]
    corner = torch.rand(count, 2, generator=generator) * 50
    anywhere = torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 40], 1)
    boxes = clip_boxes_to_image(torch.cat([near, anywhere]), size)
    return boxes[(boxes[:, 2:] > boxes[:, :2] + 1).all(1)]


def pooled_by_hand(maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
    """One box at a time."""
    found = []
    for image, part in enumerate(boxes):
        for box in part:
            left, top, right, bottom = box.double().tolist()
            edge = math.sqrt((right - left) * (bottom - top))
            level = min(max(math.floor(2 + math.log2(edge / 56)), 0), 3) if edge else 0
            scale = 1 / STRIDES[level]
            found.append(
                roi_align(maps[level][image : image + 1], [box[None]], 7, scale, sampling_ratio=0, aligned=True)
            )
    return torch.cat(found)


def label_by_hand(boxes: Tensor, truth: Truth, iou: float) -> list[tuple[int, int]]:
    """(class, truth box) of each; CLASSES for the background."""
    if not len(truth.boxes):
        return [(CLASSES, 0)] * len(boxes)
    best, index = box_iou(truth.boxes, boxes).max(0)
    return [
        (int(truth.labels[k]) if float(b) >= iou else CLASSES, int(k))
        for b, k in zip(best, index.tolist(), strict=True)
    ]


def losses_by_hand(
    module: Cascade, maps: list[Tensor], boxes: list[Tensor], truth: list[Truth]
) -> tuple[list[float], list[float], list[list[Tensor]]]:
    """Class losses, box losses, and the boxes of every stage."""
    classes, offsets, every = [], [], []
    for stage in range(3):
        every.append(boxes)
        with torch.no_grad():
            scores, deltas = module.stages[stage](pooled_by_hand(maps, boxes))
        labels = [
            pair for part, wanted in zip(boxes, truth, strict=True) for pair in label_by_hand(part, wanted, IOUS[stage])
        ]
        images = [image for image, part in enumerate(boxes) for _ in part]
        flat = torch.cat(boxes).double()
        chance = scores.double().softmax(1)
        classes.append(-sum(math.log(float(chance[r, label])) for r, (label, _) in enumerate(labels)) / len(flat))
        centre, size = WEIGHTS[stage]
        total = 0.0
        for r, (label, index) in enumerate(labels):
            if label == CLASSES:
                continue
            left, top, right, bottom = flat[r].tolist()
            x0, y0, x1, y1 = truth[images[r]].boxes[index].double().tolist()
            width, height = right - left, bottom - top
            wanted = (
                centre * ((x0 + x1) - (left + right)) / 2 / width,
                centre * ((y0 + y1) - (top + bottom)) / 2 / height,
                size * math.log((x1 - x0) / width),
                size * math.log((y1 - y0) / height),
            )
            total += sum(abs(float(d) - w) for d, w in zip(deltas[r], wanted, strict=True))
        offsets.append(total / len(flat))
        moved = BoxCoder((centre, centre, size, size)).decode_single(deltas, torch.cat(boxes))
        split = [clip_boxes_to_image(m, s) for m, s in zip(moved.split([len(b) for b in boxes]), SIZES, strict=True)]
        boxes = [b[(b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1])].detach() for b in split]
    return classes, offsets, every


@pytest.mark.parametrize("spread", [0.5, 15.0])
def test_losses_are_the_definition_and_later_stages_are_labelled_anew(spread: float) -> None:
    """With the large spread, boxes leave the picture between the stages."""
    torch.manual_seed(0)  # of the choice of regions: among some, no label depends on the threshold
    module, maps = cascade_of(spread=spread).train(), features()
    regions = module.choose([around(t, s) for t, s in zip(TRUTH, SIZES, strict=True)], TRUTH)
    found = module.losses(maps, regions, TRUTH, SIZES)
    classes, offsets, every = losses_by_hand(module, maps, [part.boxes for part in regions], TRUTH)
    for stage in range(3):
        assert found[f"class_{stage}"].item() == pytest.approx(classes[stage], rel=1e-4)
        assert found[f"boxes_{stage}"].item() == pytest.approx(offsets[stage], rel=1e-4, abs=1e-6)
    assert set(found) == {f"{kind}_{stage}" for kind in ("class", "boxes") for stage in range(3)}
    if spread == 0.5:
        # The test can tell: other thresholds would give other labels on these very boxes.
        for stage in (1, 2):
            pairs = [
                [label_by_hand(part, wanted, iou) for part, wanted in zip(every[stage], TRUTH, strict=True)]
                for iou in (IOUS[stage], 0.5)
            ]
            assert pairs[0] != pairs[1]
        assert min(offsets) > 0
    else:
        assert sum(map(len, every[2])) < sum(map(len, every[0]))


def test_the_heads_feel_their_whole_loss_and_the_features_a_third_of_each_stages() -> None:
    module, maps = cascade_of().train(), [x.requires_grad_() for x in features()]
    regions = module.choose([around(t, s) for t, s in zip(TRUTH, SIZES, strict=True)], TRUTH)
    torch.stack(list(module.losses(maps, regions, TRUTH, SIZES).values())).sum().backward()
    felt = [x.grad.clone() for x in maps if x.grad is not None]
    heads = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    module.zero_grad()
    plain = [x.requires_grad_() for x in features()]
    boxes = [part.boxes for part in regions]
    total = torch.stack([x.sum() * 0 for x in plain]).sum()
    for stage in range(3):
        scores, deltas = module.stages[stage](pooled_by_hand(plain, boxes))
        flat = torch.cat(boxes)
        pairs = [pair for part, t in zip(boxes, TRUTH, strict=True) for pair in label_by_hand(part, t, IOUS[stage])]
        labels = torch.tensor([label for label, _ in pairs])
        images = [image for image, part in enumerate(boxes) for _ in part]
        target = torch.stack([TRUTH[image].boxes[k] for image, (_, k) in zip(images, pairs, strict=True)])
        centre, size = WEIGHTS[stage]
        coder = BoxCoder((centre, centre, size, size))
        wanted, good = coder.encode_single(target, flat), labels < CLASSES
        total = total + torch.nn.functional.cross_entropy(scores, labels)
        total = total + (deltas[good] - wanted[good]).abs().sum() / len(flat)
        moved = coder.decode_single(deltas.detach(), flat).split([len(b) for b in boxes])
        boxes = [clip_boxes_to_image(m, s) for m, s in zip(moved, SIZES, strict=True)]
        assert all((b[:, 2:] > b[:, :2]).all() for b in boxes)
    total.backward()
    assert len(felt) == len(maps)
    for mine, reference in zip(felt, plain, strict=True):
        assert reference.grad is not None
        torch.testing.assert_close(mine, reference.grad / 3, rtol=1e-3, atol=1e-6)
    for mine, parameter in zip(heads, module.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-3, atol=1e-5)


def test_the_truth_boxes_are_among_the_candidates_and_each_is_its_own() -> None:
    module = cascade_of()
    for part, wanted in zip(module.choose([torch.zeros(0, 4)] * 2, TRUTH), TRUTH, strict=True):
        order = part.matched.argsort()
        assert torch.equal(part.boxes[order], wanted.boxes)
        assert torch.equal(part.labels[order], wanted.labels)


@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_of_the_chosen_is_positive_at_most_and_labels_are_those_of_half_an_overlap(seed: int) -> None:
    torch.manual_seed(seed)
    truth = TRUTH[0]
    (part,) = cascade_of().choose([around(truth, SIZES[0], seed, count=30)], [truth])
    assert len(part.boxes) == CONFIG.roi_samples
    positive = part.labels < CLASSES
    assert int(positive.sum()) == CONFIG.roi_samples // 4
    pairs = label_by_hand(part.boxes, truth, 0.5)
    assert part.labels.tolist() == [label for label, _ in pairs]
    assert part.matched[positive].tolist() == [k for label, k in pairs if label < CLASSES]
    assert len(torch.unique(part.boxes, dim=0)) == len(part.boxes)


def test_pictures_without_truth_are_background_and_teach_no_offsets() -> None:
    module, maps = cascade_of().train(), features()
    regions = module.choose([around(NOTHING, s) for s in SIZES], [NOTHING, NOTHING])
    assert all((part.labels == CLASSES).all() and len(part.boxes) > 5 for part in regions)
    found = module.losses(maps, regions, [NOTHING, NOTHING], SIZES)
    classes, offsets, _ = losses_by_hand(module, maps, [part.boxes for part in regions], [NOTHING, NOTHING])
    assert offsets == [0, 0, 0]
    for stage in range(3):
        assert found[f"boxes_{stage}"].item() == 0
        assert found[f"class_{stage}"].item() == pytest.approx(classes[stage], rel=1e-4)
    torch.stack(list(found.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_one_picture_without_proposals_and_truth_does_not_disturb_the_other() -> None:
    module, maps = cascade_of().train(), features()
    torch.manual_seed(0)
    regions = module.choose([around(TRUTH[0], SIZES[0]), torch.zeros(0, 4)], [TRUTH[0], NOTHING])
    found = module.losses(maps, regions, [TRUTH[0], NOTHING], SIZES)
    alone = module.losses([x[:1] for x in maps], regions[:1], TRUTH[:1], SIZES[:1])
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value)


def test_no_regions_at_all_give_zero_losses_with_gradients() -> None:
    module, maps = cascade_of().train(), features()
    regions = module.choose([torch.zeros(0, 4)] * 2, [NOTHING, NOTHING])
    found = module.losses(maps, regions, [NOTHING, NOTHING], SIZES)
    total = torch.stack(list(found.values())).sum()
    total.backward()
    assert total.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in module.parameters())


def test_a_picture_whose_boxes_all_leave_it_between_the_stages_teaches_the_rest_of_the_batch() -> None:
    """Offsets of a young training can push every region of a picture over its edge; it has truth all the same."""
    module, maps = cascade_of().train(), features()
    with torch.no_grad():
        module.stages[0].deltas.weight.zero_()
        module.stages[0].deltas.bias.copy_(torch.tensor([-100.0, 0, 0, 0]))  # ten widths to the left
    edge = Truth(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([1]))
    inside = torch.tensor([[90.0, 10, 95, 20], [90, 30, 95, 40]])
    far = Truth(torch.tensor([[91.0, 10, 96, 20]]), torch.tensor([0]))
    regions = module.choose([torch.zeros(0, 4), inside], [edge, far])
    found = module.losses(maps, regions, [edge, far], [(96, 96), (96, 96)])
    assert all(torch.isfinite(value) for value in found.values())


def detect_by_hand(
    module: Cascade, maps: list[Tensor], proposals: list[Tensor], threshold: float, most: int
) -> list[Found]:
    """Mean of the stages' probabilities, the last stage's boxes, one suppression per class."""
    boxes, every = proposals, []
    for stage in range(3):
        scores, deltas = module.stages[stage](pooled_by_hand(maps, boxes))
        every.append(scores.softmax(1))
        centre, size = WEIGHTS[stage]
        moved = BoxCoder((centre, centre, size, size)).decode_single(deltas, torch.cat(boxes))
        split = moved.split([len(part) for part in boxes])
        boxes = [clip_boxes_to_image(part, s) for part, s in zip(split, SIZES, strict=True)]
    mean = torch.stack(every).mean(0).split([len(part) for part in boxes])
    found = []
    for part, scores in zip(boxes, mean, strict=True):
        rows = []
        for label in range(CLASSES):
            good = torch.where(scores[:, label] > threshold)[0]
            kept = good[nms(part[good], scores[good, label], CONFIG.nms)]
            rows += [(float(scores[r, label]), label, part[r]) for r in kept.tolist()]
        rows.sort(key=lambda row: -row[0])
        rows = rows[:most]
        found.append(
            Found(
                torch.stack([r[2] for r in rows]),
                torch.tensor([r[0] for r in rows]),
                torch.tensor([r[1] for r in rows]),
            )
        )
    return found


@pytest.mark.parametrize(("threshold", "most"), [(0.05, 100), (0.3, 100), (0.05, 7)])
@torch.no_grad()
def test_detections_average_the_scores_and_take_the_last_boxes(threshold: float, most: int) -> None:
    module, maps = cascade_of(spread=2.0).eval(), features()
    proposals = [around(t, s) for t, s in zip(TRUTH, SIZES, strict=True)]
    found = module.detect(maps, proposals, SIZES, threshold=threshold, most=most)
    expected = detect_by_hand(module, maps, proposals, threshold, most)
    for mine, reference in zip(found, expected, strict=True):
        assert 3 < len(reference.scores) <= most
        torch.testing.assert_close(mine.scores, reference.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.boxes, reference.boxes, rtol=0, atol=1e-2)
        assert torch.equal(mine.labels, reference.labels)
        assert bool((mine.labels < CLASSES).all())


@torch.no_grad()
def test_pictures_without_proposals_have_no_detections() -> None:
    module, maps = cascade_of().eval(), features()
    boxes = around(TRUTH[1], SIZES[1])
    first, second = module.detect(maps, [torch.zeros(0, 4), boxes], SIZES, threshold=0.05, most=100)
    assert first.boxes.shape == (0, 4)
    assert len(first.scores) == len(first.labels) == 0
    assert len(second.scores) > 0
    for part in module.detect(maps, [torch.zeros(0, 4)] * 2, SIZES, threshold=0.05, most=100):
        assert len(part.scores) == 0


@torch.no_grad()
def test_a_region_that_is_not_finite_is_left_out_of_the_detections() -> None:
    module, maps = cascade_of().eval(), features()
    boxes = around(TRUTH[0], SIZES[0])
    expected = module.detect(maps[:], [boxes, boxes[:0]], SIZES, threshold=0.05, most=100)[0]
    broken = torch.cat([boxes, torch.tensor([[float("nan"), 0, 5, 5]])])
    found = module.detect(maps, [broken, boxes[:0]], SIZES, threshold=0.05, most=100)[0]
    torch.testing.assert_close(found.boxes, expected.boxes)
    torch.testing.assert_close(found.scores, expected.scores)


def test_the_stages_and_their_weights_come_from_the_configuration() -> None:
    config = HeadsConfig(
        channels=5, hidden=9, box_convs=1, roi_samples=20, cascade_ious=(0.6,), cascade_weights=((7.0, 2.0),)
    )
    module, maps = cascade_of(config).train(), features()
    box = torch.tensor([[8.0, 8, 40, 30]])  # overlap 0.69 with the first truth box
    regions = [Regions(box, torch.tensor([2]), torch.tensor([0])), Regions(box[:0], *[torch.zeros(0).long()] * 2)]
    (loss,) = (value for name, value in module.losses(maps, regions, TRUTH, SIZES).items() if name.startswith("boxes"))
    _, deltas = module.stages[0](pooled_by_hand(maps, [box, box[:0]]))
    wanted = torch.tensor([0.0, 7 * 5 / 22, 0, 2 * math.log(32 / 22)])
    assert loss.item() == pytest.approx(float((deltas[0] - wanted).detach().abs().sum()), rel=1e-4)
