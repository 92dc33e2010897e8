"""The detector's parts against their papers: plain computations that share no code with them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from whetstone_trainer.detection import assign as assignment
from whetstone_trainer.detection.assign import assign
from whetstone_trainer.detection.boxes import (
    anchor_points,
    boxes_to_distances,
    distances_to_boxes,
    expected_distances,
    to_image,
    to_input,
)
from whetstone_trainer.detection.loss import detection_loss, distribution_focal_loss
from whetstone_trainer.detection.network import Detector
from whetstone_trainer.model import build_model, parameter_count
from whetstone_trainer.preprocess import placement
from whetstone_trainer.protocol import SCHEMA, PreprocessSpec
from whetstone_trainer.vision import box_iou

LETTERBOX = PreprocessSpec(1, 64, 64, "LETTERBOX", 1.0, (114, 114, 114), "RGB", (0, 0, 0), (1, 1, 1), "NCHW")


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("yolov8n", 3.157), ("yolov8s", 11.167), ("yolov8m", 25.903), ("yolov8l", 43.7), ("yolov8x", 68.2)],
)
def test_the_sizes_have_the_parameters_of_the_published_models(preset: str, millions: float) -> None:
    with torch.device("meta"):
        assert parameter_count(build_model(preset, 80)) == pytest.approx(millions * 1e6, rel=0.01)


def test_the_network_answers_for_every_place_of_three_maps() -> None:
    model = Detector("n", 7)
    inputs = torch.rand(2, 3, 64, 96)
    places = 8 * 12 + 4 * 6 + 2 * 3
    distributions, logits = model(inputs)
    assert (distributions.shape, logits.shape) == ((2, places, 64), (2, places, 7))
    with torch.inference_mode():
        boxes, scores = model.eval()(inputs)
    assert (boxes.shape, scores.shape) == ((2, places, 4), (2, places, 7))
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    # Every class begins as unlikely as the prior says.
    assert scores.mean() == pytest.approx(0.01, rel=0.5)


def test_places_are_the_centres_of_the_cells_row_by_row() -> None:
    points, strides = anchor_points(64, 96, torch.device("cpu"))
    expected = [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for stride in (8, 16, 32)
        for row in range(64 // stride)
        for column in range(96 // stride)
    ]
    assert torch.cat([points, strides[:, None]], 1).tolist() == [list(map(float, place)) for place in expected]


def test_distances_and_boxes_are_each_others_inverse() -> None:
    points, strides = anchor_points(64, 64, torch.device("cpu"))
    distances = torch.rand(2, len(points), 4) * 14
    boxes = distances_to_boxes(distances, points, strides)
    assert torch.allclose(boxes_to_distances(boxes, points, strides), distances, atol=1e-4)
    x, y = points[5].tolist()
    left, top, right, bottom = (distances[1, 5] * 8).tolist()
    assert boxes[1, 5].tolist() == pytest.approx([x - left, y - top, x + right, y + bottom], abs=1e-4)


def test_an_object_that_fills_the_image_can_be_marked_at_every_size_that_is_accepted() -> None:
    largest = SCHEMA["$defs"]["DetectionHyperparameters"]["properties"]["imageSize"]["maximum"]
    for side in range(32, largest + 1, 32):
        points, strides = anchor_points(side, side, torch.device("cpu"))
        whole = torch.tensor([0.0, 0, side, side])
        marked = distances_to_boxes(boxes_to_distances(whole.expand(len(points), 4), points, strides), points, strides)
        assert (marked - whole).abs().amax(1).min() < 1


def test_a_side_is_the_mean_of_its_distribution() -> None:
    logits = np.random.default_rng(0).normal(size=64)
    sides = [np.exp(part) / np.exp(part).sum() @ np.arange(16) for part in logits.reshape(4, 16)]
    found = expected_distances(torch.from_numpy(logits)[None])
    assert found[0].tolist() == pytest.approx(sides)


def test_mixed_precision_moves_no_box() -> None:
    points, strides = anchor_points(640, 640, torch.device("cpu"))
    logits = 4 * torch.randn(1, len(points), 64, generator=torch.Generator().manual_seed(0))
    boxes = distances_to_boxes(expected_distances(logits), points, strides)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = distances_to_boxes(expected_distances(logits), points, strides)
    assert (mixed - boxes).abs().max() < 1e-3


@pytest.mark.parametrize(("width", "height"), [(64, 64), (200, 100), (33, 77)])
def test_boxes_go_to_the_input_and_back(width: int, height: int) -> None:
    where = placement(width, height, LETTERBOX)
    boxes = torch.tensor([[0.0, 0.0, width, height], [3.0, 5.0, 20.0, 30.5]])
    moved = to_input(boxes, where)
    x, y, w, h = where.target
    assert moved[0].tolist() == pytest.approx([x, y, x + w, y + h], abs=1e-4)
    assert torch.allclose(to_image(moved, where, width, height), boxes, atol=1e-4)
    outside = to_image(torch.tensor([[-9.0, -9.0, 99.0, 99.0]]), where, width, height)
    assert outside.tolist() == [[0, 0, width, height]]


# ----------------------------------------------------------------------------------------------------------- assignment


def plain_assignment(
    scores: torch.Tensor, boxes: torch.Tensor, points: torch.Tensor, labels: list[int], truths: torch.Tensor
) -> dict[int, tuple[int, float]]:
    """TOOD's assignment of one image, box by box: place → (box, target)."""
    ious = box_iou(truths, boxes)
    alignment = np.zeros(ious.shape)
    chosen: dict[int, list[int]] = {}
    for n, label in enumerate(labels):
        x1, y1, x2, y2 = truths[n].tolist()
        inside = [p for p, (x, y) in enumerate(points.tolist()) if x1 < x < x2 and y1 < y < y2]
        for p in inside:
            alignment[n, p] = float(scores[p, label]) ** 0.5 * float(ious[n, p]) ** 6
        for p in sorted(inside, key=lambda p: -alignment[n, p])[:10]:
            chosen.setdefault(p, []).append(n)
    owners = {p: max(boxes_of, key=lambda n: float(ious[n, p])) for p, boxes_of in chosen.items()}
    result = {}
    for p, n in owners.items():
        mine = [q for q, owner in owners.items() if owner == n]
        largest, best_iou = max(alignment[n, q] for q in mine), max(float(ious[n, q]) for q in mine)
        result[p] = (n, alignment[n, p] / largest * best_iou)
    return result


def test_assignment_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(3)
    points, strides = anchor_points(64, 64, torch.device("cpu"))
    scores = torch.rand(2, len(points), 5, generator=generator)
    boxes = distances_to_boxes(torch.rand(2, len(points), 4, generator=generator) * 3 + 0.2, points, strides)
    # Two that overlap, a small one inside a large one; the second image has one.
    truths = torch.tensor([[[4.0, 4, 40, 40], [20, 20, 60, 60], [24, 24, 34, 34]], [[10, 8, 50, 30], [0] * 4, [0] * 4]])
    labels = torch.tensor([[1, 1, 4], [0, -1, -1]])
    found = assign(scores, boxes, points, labels, truths)
    assigned = torch.zeros_like(boxes)
    assigned[found.positive] = found.boxes
    for n, count in ((0, 3), (1, 1)):
        expected = plain_assignment(scores[n], boxes[n], points, labels[n, :count].tolist(), truths[n, :count])
        assert torch.nonzero(found.positive[n])[:, 0].tolist() == sorted(expected)
        for place, (box, target) in expected.items():
            assert assigned[n, place].tolist() == truths[n, box].tolist()
            assert found.scores[n, place, labels[n, box]] == pytest.approx(target, rel=1e-4)
        assert found.scores[n].sum() == pytest.approx(sum(target for _, target in expected.values()), rel=1e-4)


def test_an_image_without_objects_gets_no_places() -> None:
    points, _ = anchor_points(32, 32, torch.device("cpu"))
    nothing = torch.full((1, 1), -1)
    found = assign(torch.rand(1, 21, 2), torch.rand(1, 21, 4), points, nothing, torch.zeros(1, 1, 4))
    assert not found.positive.any()
    assert not found.scores.any()


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Values of the largest tensor that an operator has made."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(one, torch.Tensor):
                self.values = max(self.values, one.numel())
        return made


def test_many_objects_take_no_more_memory_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 objects, a quarter of them crowds, at 320 px; the same losses whatever is compared at once."""
    generator = torch.Generator().manual_seed(2)
    points, _ = anchor_points(320, 320, torch.device("cpu"))
    distributions = torch.randn(4, len(points), 64, generator=generator)
    logits = torch.randn(4, len(points), 3, generator=generator)
    corners = torch.rand(4, 100, 2, generator=generator) * 280
    truths = torch.cat([corners, corners + 4 + torch.rand(4, 100, 2, generator=generator) * 36], -1)
    labels, ignored = torch.randint(3, (4, 100), generator=generator), torch.arange(100).expand(4, 100) % 4 == 0
    at_once = detection_loss(distributions, logits, labels, truths, ignored, height=320, width=320)
    monkeypatch.setattr(assignment, "PAIRS_MAX", 16 * len(points))
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        in_parts = detection_loss(distributions, logits, labels, truths, ignored, height=320, width=320)
    assert torch.equal(in_parts, at_once)
    assert largest.values == distributions.numel()


# ----------------------------------------------------------------------------------------------------------------- loss


def test_the_distribution_loss_is_cross_entropy_with_the_two_nearest_bins() -> None:
    logits = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    distances = torch.tensor([[0.0, 2.25, 7.5, 14.9]])
    expected = 0.0
    for side, distance in enumerate(distances[0].tolist()):
        log = torch.log_softmax(logits[0, side * 16 : side * 16 + 16], 0)
        low = math.floor(distance)
        expected -= float((low + 1 - distance) * log[low] + (distance - low) * log[low + 1]) / 4
    assert float(distribution_focal_loss(logits, distances)) == pytest.approx(expected, rel=1e-5)


def plain_ciou(a: list[float], b: list[float]) -> float:
    """Zheng et al. 2020, equations 9 to 11: 1 − IoU + ρ²/c² + αv."""
    overlap_w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    overlap_h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    wa, ha, wb, hb = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    iou = overlap_w * overlap_h / (wa * ha + wb * hb - overlap_w * overlap_h)
    centres = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    around = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    v = 4 / math.pi**2 * (math.atan(wb / hb) - math.atan(wa / ha)) ** 2
    alpha = v / (1 - iou + v) if v else 0.0
    return 1 - iou + centres / around + alpha * v


@pytest.mark.parametrize("weights", [None, [4.0, 1.0, 0.25]])
def test_the_losses_are_weighted_means_over_the_assigned_quality(weights: list[float] | None) -> None:
    generator = torch.Generator().manual_seed(5)
    points, strides = anchor_points(64, 64, torch.device("cpu"))
    distributions = torch.randn(1, len(points), 64, generator=generator)
    logits = torch.randn(1, len(points), 3, generator=generator)
    truths, labels = torch.tensor([[[6.0, 9, 41, 50], [30, 30, 60, 58]]]), torch.tensor([[2, 0]])
    boxes = distances_to_boxes(expected_distances(distributions), points, strides)
    target = plain_assignment(logits[0].sigmoid(), boxes[0], points, [2, 0], truths[0])
    weight_of = [1.0 if weights is None else weights[label] for label in (2, 0)]
    total = max(1.0, sum(weight_of[box] * quality for box, quality in target.values()))

    probability = logits[0].double().sigmoid()
    classes = -torch.log1p(-probability).sum()
    iou = focal = 0.0
    for place, (box, quality) in target.items():
        p = probability[place, labels[0, box]]
        entropy = quality * (torch.log1p(-p) - torch.log(p)) - torch.log1p(-p)
        classes += weight_of[box] * entropy + torch.log1p(-p)
        weight = weight_of[box] * quality
        iou += weight * plain_ciou(boxes[0, place].tolist(), truths[0, box].tolist())
        sides = torch.cat([points[place] - truths[0, box, :2], truths[0, box, 2:] - points[place]]) / strides[place]
        focal += weight * float(distribution_focal_loss(distributions[0, place][None], sides.clamp(0, 14.99)[None]))
    class_weights = None if weights is None else torch.tensor(weights)
    nothing = torch.zeros(1, 2) > 0
    found = detection_loss(
        distributions, logits, labels, truths, nothing, height=64, width=64, class_weights=class_weights
    )
    assert found.tolist() == pytest.approx(
        [0.5 * float(classes) / total, 7.5 * iou / total, 1.5 * focal / total], rel=1e-3
    )


def test_a_batch_without_objects_only_has_a_class_loss() -> None:
    distributions, logits = torch.zeros(2, 21, 64, requires_grad=True), torch.zeros(2, 21, 3, requires_grad=True)
    nothing = torch.full((2, 1), -1)
    found = detection_loss(distributions, logits, nothing, torch.zeros(2, 1, 4), nothing > 0, height=32, width=32)
    assert found.tolist() == pytest.approx([0.5 * 2 * 21 * 3 * math.log(2), 0, 0], rel=1e-5)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_nothing_is_learned_against_the_class_of_a_crowd_inside_of_it() -> None:
    distributions, logits = torch.zeros(1, 84, 64), torch.zeros(1, 84, 3, requires_grad=True)
    # Class 1 is a crowd in the left half, class 2 an object that lies in it.
    labels, truths = torch.tensor([[1, 2]]), torch.tensor([[[0.0, 0.0, 32.0, 64.0], [8.0, 8.0, 28.0, 28.0]]])
    detection_loss(
        distributions, logits, labels, truths, torch.tensor([[True, False]]), height=64, width=64
    ).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    points, _ = anchor_points(64, 64, torch.device("cpu"))
    left = points[:, 0] < 32
    assert (logits.grad[0, left, 1] == 0).all()
    assert (logits.grad[0, ~left, 1] > 0).all()
    assert (logits.grad[0, :, 0] > 0).all()
    # The object gets its places all the same: 0.25 is the gradient of a place that learns nothing.
    assert (logits.grad[0, :, 2] < 0.249).sum() > 1
