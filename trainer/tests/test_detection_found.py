"""From outputs to boxes (docs/preprocessing.md, "Detections"), and from boxes to mAP."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests import detections_reference as reference
from tests.detections_reference import FIXTURES
from whetstone_trainer.detection.boxes import to_image
from whetstone_trainer.detection.layouts import choose_layout
from whetstone_trainer.detection.metric import Truth, evaluate_detections, matching_steps
from whetstone_trainer.detection.postprocess import CANDIDATES_MAX, Detections, find, rank_candidates, read_outputs
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.preprocess import placement
from whetstone_trainer.protocol import PreprocessSpec

CASES = json.loads((FIXTURES / "cases.json").read_text("utf-8"))["cases"]


def output_of(case: reference.Json) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer((FIXTURES / case["output"]).read_bytes(), "<f4").reshape(case["shape"])


def test_fixtures_are_what_the_reference_says() -> None:
    for (case, output), written in zip(reference.cases(), CASES, strict=True):
        assert case == written
        assert (FIXTURES / case["output"]).read_bytes() == output.tobytes()


BOTH_FORMS = [
    pytest.param(case, layout, id=f"{case['name']}, {layout}")
    for case in CASES
    for layout in ((case["layout"], "BOXES_SCORES") if case["layout"] == "CENTRES_FIRST" else (case["layout"],))
]


@pytest.mark.parametrize(("case", "layout"), BOTH_FORMS)
def test_what_is_found_is_that_of_the_fixture(case: reference.Json, layout: Any) -> None:
    output = output_of(case)[None]
    if layout == "BOXES_SCORES":
        corners, scores = reference.corners(output[0].astype(np.float64))
        outputs = [np.array([corners], np.float32), np.array([scores], np.float32)]
    else:
        outputs = [output]
    side = case["side"]
    spec = PreprocessSpec(1, side, side, "LETTERBOX", 1.0, (0, 0, 0), "RGB", (0, 0, 0), (1, 1, 1), "NCHW")
    found = find(*(part[0] for part in read_outputs(outputs, layout, reference.CLASSES)))
    boxes = to_image(found.boxes, placement(case["width"], case["height"], spec), case["width"], case["height"])
    expected = case["detections"]
    assert found.labels.tolist() == [one["label"] for one in expected]
    assert found.scores.tolist() == pytest.approx([one["score"] for one in expected], abs=1e-6)
    wanted = np.array([one["box"] for one in expected]).reshape(-1, 4)
    assert np.abs(boxes.numpy() - wanted).max(initial=0) < 1e-3


LAYOUTS = json.loads((FIXTURES / "layouts.json").read_text("utf-8"))


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda case: case["name"])
def test_the_layout_is_told_or_asked_for(case: reference.Json) -> None:
    def choose() -> str:
        return choose_layout(case["shapes"], case["classes"], None, case["said"])

    if case["layout"]:
        assert choose() == case["layout"]
        return
    with pytest.raises(TrainerError) as caught:
        choose()
    assert caught.value.code == "MODEL_INVALID"
    assert case["said"] or "one of BOXES_SCORES, CENTRES_FIRST, OBJECTNESS, SUPPRESSED" in str(caught.value.hint)


def test_two_outputs_of_a_file_of_ours_are_boxes_and_scores() -> None:
    shapes: list[list[int | str | None]] = [["n", 525, 4], ["n", 525, 10]]
    assert choose_layout(shapes, 10, "DETECTION", None) == "BOXES_SCORES"


def test_a_box_between_two_classes_is_refused() -> None:
    rows = np.array([[[0, 0, 8, 8, 0.9, 1.4]]], np.float32)
    with pytest.raises(TrainerError, match=r"the class 1\.4; there are 3 classes"):
        read_outputs([rows], "SUPPRESSED", 3)


def test_outputs_of_another_shape_than_declared_are_refused() -> None:
    with pytest.raises(TrainerError, match="do not have the layout CENTRES_FIRST of 3 classes"):
        read_outputs([np.zeros((1, 9, 5), np.float32)], "CENTRES_FIRST", 3)


# --------------------------------------------------------------------------------------------------------------- metric


def plain_map(found: list[Detections], truths: list[Truth], classes: int, at: float) -> float:
    """COCO's average precision at one IoU, straight from its definition: greedy matches, 101 recalls."""
    precisions = []
    for label in range(classes):
        total = sum(int((labels == label).sum()) for labels, _, _ in truths)
        if total == 0:
            continue
        rows = []
        for one, (labels, boxes, _) in zip(found, truths, strict=True):
            free = [box.tolist() for box in boxes[labels == label]]
            mine = [
                (float(s), b.tolist()) for s, b, k in zip(one.scores, one.boxes, one.labels, strict=True) if k == label
            ]
            for score, box in sorted(mine, key=lambda row: -row[0]):
                best = max(free, key=lambda other: reference.iou(box, other), default=None)
                hit = best is not None and reference.iou(box, best) >= at
                if hit:
                    free.remove(best)
                rows.append((score, hit))
        rows.sort(key=lambda row: -row[0])
        hits = np.cumsum([hit for _, hit in rows])
        precision = hits / np.arange(1, len(rows) + 1)
        curve = [max(precision[hits / total >= r / 100], default=0.0) for r in range(101)] if rows else [0.0]
        precisions.append(np.mean(curve))
    return float(np.mean(precisions))


def scenes_found() -> tuple[list[Detections], list[Truth]]:
    """Seeded truths of two of three classes, and detections near them, wrong, doubled and missing."""
    rng = np.random.default_rng(1)
    found, truths = [], []
    for _ in range(12):
        count = int(rng.integers(0, 5))
        corners = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (count, 2))], 1)
        labels = rng.integers(0, 2, count)
        truths.append((torch.from_numpy(labels), torch.from_numpy(boxes).float(), torch.zeros(count, dtype=torch.bool)))
        near = np.repeat(boxes, 2, 0) + rng.normal(0, 1.5, (2 * count, 4))
        order = rng.permutation(2 * count)
        guesses = np.where(rng.random(2 * count) < 0.2, 2, np.repeat(labels, 2))
        scores = np.sort(rng.random(2 * count))[::-1].copy()
        found.append(
            Detections(
                torch.from_numpy(near[order]).float(),
                torch.from_numpy(scores).float(),
                torch.from_numpy(guesses[order]),
            )
        )
    return found, truths


def test_map_is_cocos_average_over_classes_with_objects(capfd: pytest.CaptureFixture[str]) -> None:
    found, truths = scenes_found()
    evaluation = evaluate_detections(found, truths, 3)
    metrics = evaluation.metrics
    assert (metrics.images, metrics.objects) == (12, sum(len(labels) for labels, _, _ in truths))
    assert metrics.map50 == pytest.approx(plain_map(found, truths, 3, 0.5), abs=1e-6)
    expected = np.mean([plain_map(found, truths, 3, at) for at in np.arange(0.5, 0.96, 0.05)])
    assert 0.1 < metrics.map5095 == pytest.approx(expected, abs=1e-6)
    # The definition goes with the figure.
    assert (metrics.score_threshold, metrics.nms_iou, metrics.boxes_max) == (0.001, 0.7, 100)
    assert np.isnan(evaluation.average_precision[2])
    assert evaluation.precision.shape == evaluation.scores.shape == (3, 101)
    assert capfd.readouterr().out == ""


def test_without_detections_or_objects_map_is_zero() -> None:
    _, truths = scenes_found()
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert evaluate_detections([nothing] * 12, truths, 3).metrics.map50 == 0
    empty = [(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool))]
    assert evaluate_detections([nothing], empty, 3).metrics.map5095 == 0


def test_of_too_many_candidates_the_best_remain_and_of_equal_ones_the_first() -> None:
    scores = torch.randint(1, 40, (2000, 5), generator=torch.Generator().manual_seed(0)) / 40
    flat = scores.flatten().tolist()
    wanted = sorted((n for n in range(len(flat)) if flat[n] >= 0.1), key=lambda n: (-flat[n], n))[:CANDIDATES_MAX]
    assert len(wanted) == 3000
    assert rank_candidates(scores, 0.1).tolist() == wanted


def test_what_is_found_in_a_crowd_of_its_class_is_neither_right_nor_wrong() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [40.0, 40.0, 80.0, 80.0]])
    truth = (torch.tensor([0, 0]), boxes, torch.tensor([False, True]))
    in_crowd = [[42.0, 42.0, 50.0, 50.0], [60.0, 60.0, 70.0, 70.0]]

    def measured() -> float:
        found = torch.tensor([*in_crowd, [0.0, 0.0, 10.0, 10.0]])
        labels = torch.zeros(3, dtype=torch.int64)
        metrics = evaluate_detections([Detections(found, torch.tensor([0.9, 0.8, 0.7]), labels)], [truth], 2).metrics
        assert metrics.objects == 1
        return metrics.map50

    assert measured() == pytest.approx(1)
    # In a crowd of another class it is wrong, as everywhere.
    truth = (torch.tensor([0, 1]), boxes, torch.tensor([False, True]))
    assert measured() == pytest.approx(1 / 3, abs=1e-3)


def test_a_long_comparison_moves_its_step() -> None:
    found, truths = scenes_found()
    steps = 0

    def advance() -> None:
        nonlocal steps
        steps += 1

    evaluate_detections(found, truths, 3, advance)
    assert steps == matching_steps(len(truths), 3) == 72
