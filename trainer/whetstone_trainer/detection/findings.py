"""What people should look at in a detector's evaluation: where to set its score threshold, what it confuses or misses,
how good it is for small and large objects, and its worst images. All at IoU 0.5, by COCO's matching."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whetstone_trainer.detection.metric import Matched, Truth
from whetstone_trainer.detection.postprocess import Detections
from whetstone_trainer.findings import EXAMPLES_MAX, PAIRS_MAX, WORST_MAX
from whetstone_trainer.vision import box_iou

MATCH_IOU = 0.5
BOXES_MAX = 20


@dataclass(frozen=True)
class Threshold:
    """The score from which boxes count, where F1 (the harmonic mean of precision and recall) is highest."""

    score: float
    f1: float
    precision: float
    recall: float


def best_threshold(scores: NDArray[np.float64], right: NDArray[np.bool_], objects: int) -> Threshold | None:
    """Of boxes with these scores, of which some found one of the `objects`. None where none did."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(right[order])
    # Boxes of the same score count together.
    last = np.flatnonzero(np.diff(ranked, append=-np.inf))
    if objects == 0 or len(last) == 0 or hits[-1] == 0:
        return None
    found, boxes = hits[last], last + 1
    f1 = 2 * found / (boxes + objects)
    best = int(f1.argmax())
    at = last[best]
    return Threshold(float(ranked[at]), float(f1[best]), float(hits[at] / (at + 1)), float(hits[at] / objects))


# A true class and the one that was found instead. None is the background: an object was missed, or a box was false.
Mistake = tuple[int | None, int | None]


@dataclass(frozen=True)
class _Image:
    """What is wrong in an image where boxes count from a threshold.

    Args:
        missed: places of the objects that no box of their class found.
        false: places of the boxes that found no object of their class.
        mistakes: a box of another class that covers a missed object makes one of the two.
    """

    missed: list[int]
    false: list[int]
    mistakes: list[Mistake]


def findings(
    matched: Matched, found: Sequence[Detections], truths: Sequence[Truth], numbers: Sequence[int], class_count: int
) -> tuple[dict[str, Any], list[Threshold | None]]:
    """`DetectionFindings` of the protocol, and the best threshold of each class. `numbers`: places of the images in the
    dataset."""
    overall = best_threshold(matched.scores, matched.right, int(matched.objects.sum()))
    per_class = []
    for label in range(class_count):
        mine = matched.labels == label
        per_class.append(best_threshold(matched.scores[mine], matched.right[mine], int(matched.objects[label])))
    counts = matched.scores >= (np.inf if overall is None else overall.score)
    images = _wrong(matched, counts, found, truths)

    confusion = np.diag([*np.bincount(matched.labels[matched.right & counts], minlength=class_count), 0])
    where: dict[Mistake, list[int]] = defaultdict(list)
    for number, image in zip(numbers, images, strict=True):
        for mistake in image.mistakes:
            where[mistake].append(number)
            confusion[_row(mistake, class_count)] += 1
    ranked = sorted(where.items(), key=lambda one: (-len(one[1]), _row(one[0], class_count)))
    return {
        "iou": MATCH_IOU,
        "best": None if overall is None else vars(overall),
        "sizes": matched.sizes,
        "confusion": confusion.tolist(),
        "confused": [
            {
                "label": label,
                "predicted": other,
                "count": len(seen),
                "examples": list(dict.fromkeys(seen))[:EXAMPLES_MAX],
            }
            for (label, other), seen in ranked[:PAIRS_MAX]
        ],
        "worst": _worst(images, found, truths, numbers),
    }, per_class


def _row(mistake: Mistake, class_count: int) -> tuple[int, int]:
    """Its place in the confusion matrix, whose last row and column are the background."""
    label, other = (class_count if one is None else one for one in mistake)
    return label, other


def _wrong(
    matched: Matched, counts: NDArray[np.bool_], found: Sequence[Detections], truths: Sequence[Truth]
) -> list[_Image]:
    """`counts`: which of the boxes of `matched` count."""
    seen = set(matched.found_object[matched.right & counts].tolist())
    false: dict[int, list[int]] = defaultdict(list)
    for at in np.flatnonzero(~matched.right & counts):
        false[int(matched.images[at])].append(int(matched.places[at]))
    images, first = [], 0
    for image, ((labels, boxes, crowds), one) in enumerate(zip(truths, found, strict=True)):
        missed = [n for n in range(len(labels)) if not crowds[n] and first + n not in seen]
        wrong = sorted(false[image])
        pairs = _overlapping(boxes[missed], one.boxes[wrong])
        objects, others = labels[missed].tolist(), one.labels[wrong].tolist()
        mistakes: list[Mistake] = [(objects[a], others[b]) for a, b in pairs]
        mistakes += [(label, None) for a, label in enumerate(objects) if a not in {pair[0] for pair in pairs}]
        mistakes += [(None, label) for b, label in enumerate(others) if b not in {pair[1] for pair in pairs}]
        images.append(_Image(missed, wrong, mistakes))
        first += len(labels)
    return images


def _overlapping(objects: torch.Tensor, boxes: torch.Tensor) -> list[tuple[int, int]]:
    """Pairs of an object and a box, each in one at most, those that overlap most first."""
    pairs: list[tuple[int, int]] = []
    if len(objects) == 0 or len(boxes) == 0:
        return pairs
    overlaps = box_iou(objects, boxes)
    while float(overlaps.max()) >= MATCH_IOU:
        row, column = divmod(int(overlaps.argmax()), len(boxes))
        pairs.append((row, column))
        overlaps[row], overlaps[:, column] = -1, -1
    return pairs


def _worst(
    images: Sequence[_Image], found: Sequence[Detections], truths: Sequence[Truth], numbers: Sequence[int]
) -> list[dict[str, Any]]:
    """The images with the most missed objects and false boxes, with these boxes."""

    def box(kind: str, label: int, score: float | None, corners: list[float]) -> dict[str, Any]:
        left, top, right, bottom = (round(value, 2) for value in corners)
        place = {"x": left, "y": top, "width": round(right - left, 2), "height": round(bottom - top, 2)}
        return {"kind": kind, "label": label, "score": score, **place}

    ranked = sorted(range(len(images)), key=lambda n: (-len(images[n].missed) - len(images[n].false), numbers[n]))
    worst = []
    for image in ranked[:WORST_MAX]:
        left, (labels, corners, _), one = images[image], truths[image], found[image]
        if not left.missed and not left.false:
            break
        boxes = [box("MISSED", int(labels[n]), None, corners[n].tolist()) for n in left.missed]
        boxes += [box("FALSE", int(one.labels[n]), float(one.scores[n]), one.boxes[n].tolist()) for n in left.false]
        counts = {"n": numbers[image], "missed": len(left.missed), "false": len(left.false)}
        worst.append({**counts, "boxes": boxes[:BOXES_MAX]})
    return worst
