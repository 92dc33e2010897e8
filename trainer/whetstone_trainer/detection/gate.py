"""How far a converted detector is from the one that was trained: outputs, and the lists after non-maximum
suppression."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whetstone_trainer.detection.postprocess import (
    BOXES_MAX,
    NMS_IOU,
    SCORE_THRESHOLD,
    Detections,
    find,
    rank_candidates,
    suppress,
)
from whetstone_trainer.task import NOT_FINITE, Outputs
from whetstone_trainer.vision import box_iou

BOX_TOLERANCE = 1e-2
# Boxes that are BOX_TOLERANCE apart have IoUs that are this far apart where they are 20 pixels wide.
IOU_TOLERANCE = 2e-3

# Lists are compared above this score. What lies below is noise: a detector that has hardly learned gives hundreds of
# boxes nearly the same score, and the last bit decides their order.
LIST_SCORE = 0.05

# What a deployment answers unless told otherwise, and how much two boxes overlap that are the same find.
SHOWN_SCORE = 0.25
SAME_IOU = 0.5

# Columns of a comparison: largest difference of an image's scores and of its boxes, boxes of the reference after
# suppression, boxes that only one list has, and those of them that no tolerance explains.
SCORE, BOX, DETECTIONS, DIFFER, BEYOND = range(5)


def compare(wanted: Outputs, found: Outputs, relative_tolerance: float) -> NDArray[np.float64]:
    """One row for each image. Scores are at most 1, so that their tolerance is `relative_tolerance`."""
    rows = []
    for boxes, scores, other_boxes, other_scores in zip(*wanted, *found, strict=True):
        reference, candidate = _kept(boxes, scores), _kept(other_boxes, other_scores)
        differ = reference ^ candidate
        beyond = differ - _explained(differ, boxes, scores, relative_tolerance, len(reference)) if differ else differ
        rows.append(
            [
                float((scores - other_scores).abs().max()),
                _largest_box_difference(boxes, scores, other_boxes, other_scores),
                len(reference),
                len(differ),
                len(beyond),
            ]
        )
    table: NDArray[np.float64] = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return np.nan_to_num(table, nan=NOT_FINITE, posinf=NOT_FINITE, neginf=NOT_FINITE)


def _largest_box_difference(
    boxes: torch.Tensor, scores: torch.Tensor, other_boxes: torch.Tensor, other_scores: torch.Tensor
) -> float:
    """Over the boxes that can be found: whose score reaches the metric's threshold in one of the two."""
    counts = torch.maximum(scores, other_scores).amax(1) >= SCORE_THRESHOLD
    return float((boxes - other_boxes)[counts].abs().max()) if counts.any() else 0.0


def _kept(boxes: torch.Tensor, scores: torch.Tensor) -> set[int]:
    """The flat indices (place · classes + class) of what is found."""
    candidates = rank_candidates(scores, LIST_SCORE)
    places, labels = candidates // scores.shape[1], candidates % scores.shape[1]
    return set(candidates[suppress(boxes[places], labels)[:BOXES_MAX]].tolist())


def _explained(differ: set[int], boxes: torch.Tensor, scores: torch.Tensor, tolerance: float, kept: int) -> set[int]:
    """Those whose score, IoU or margin lies within the tolerance of its threshold, and those that such a one takes
    along."""
    names = sorted(differ)
    flat = scores.flatten()
    candidates = torch.nonzero(flat >= LIST_SCORE - tolerance)[:, 0]
    classes = scores.shape[1]
    explained: set[int] = set()
    for name in names:
        rivals = candidates[(candidates % classes == name % classes) & (candidates != name)]
        overlap = box_iou(boxes[name // classes][None], boxes[rivals // classes])[0]
        near = overlap > NMS_IOU - IOU_TOLERANCE
        edge = near & (overlap < NMS_IOU + IOU_TOLERANCE)
        tie = near & ((flat[rivals] - flat[name]).abs() <= 2 * tolerance)
        if abs(float(flat[name]) - LIST_SCORE) <= tolerance or bool((edge | tie).any()):
            explained.add(name)
    # A box that stays or goes decides about those that it overlaps, and in a full list about the last ones.
    grown = True
    while grown:
        others = [name for name in names if name not in explained]
        takes = {
            name for name in others if explained and (kept >= BOXES_MAX or _overlaps(name, explained, boxes, classes))
        }
        grown = bool(takes)
        explained |= takes
    return explained


def _overlaps(name: int, explained: set[int], boxes: torch.Tensor, classes: int) -> bool:
    same = [other // classes for other in explained if other % classes == name % classes]
    if not same:
        return False
    overlap = box_iou(boxes[name // classes][None], boxes[torch.tensor(same)])
    return bool((overlap > NMS_IOU - IOU_TOLERANCE).any())


def numbers(rows: NDArray[np.float64], relative_tolerance: float) -> dict[str, Any]:
    beyond = (rows[:, SCORE] > relative_tolerance) | (rows[:, BOX] > BOX_TOLERANCE)
    return {
        "tolerance": relative_tolerance,
        "boxTolerance": BOX_TOLERANCE,
        "listScore": LIST_SCORE,
        "beyondTolerance": int(beyond.sum()),
        "detections": int(rows[:, DETECTIONS].sum()),
        "detectionsDiffer": int(rows[:, DIFFER].sum()),
        "detectionsDifferBeyondMargin": int(rows[:, BEYOND].sum()),
    }


def furthest(rows: NDArray[np.float64]) -> dict[str, float]:
    return {
        "largestDifference": float(rows[:, SCORE].max(initial=0)),
        "largestBoxDifference": float(rows[:, BOX].max(initial=0)),
    }


def decisions(wanted: Outputs, found: Outputs) -> tuple[int, int]:
    """The boxes that a deployment would answer, and those that only one of the two models finds."""
    count = differ = 0
    for reference, candidate in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        one, other = find(*reference, threshold=SHOWN_SCORE), find(*candidate, threshold=SHOWN_SCORE)
        count += len(one.labels)
        differ += len(one.labels) + len(other.labels) - 2 * _found_by_both(one, other)
    return count, differ


def _found_by_both(one: Detections, other: Detections) -> int:
    """Pairs of boxes of the same class that overlap, the best first."""
    overlap = box_iou(one.boxes, other.boxes) * (one.labels[:, None] == other.labels)
    pairs = 0
    for row in overlap:
        if len(row) > 0 and float(row.max()) >= SAME_IOU:
            pairs += 1
            overlap[:, int(row.argmax())] = 0
    return pairs
