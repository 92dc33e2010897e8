"""Mean average precision by the reference evaluator of COCO (Lin et al. 2014; pycocotools).

What is scored is part of the definition and stored with each figure: see `postprocess`. Boxes are compared in pixels
of the upright
image. mAP50-95 is the mean over IoU 0.50, 0.55 … 0.95, over 101 recalls, and over the classes that have objects;
mAP50 at IoU 0.5 only.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from whetstone_trainer.detection.postprocess import BOXES_MAX, NMS_IOU, SCORE_THRESHOLD, Detections


@dataclass(frozen=True)
class DetectionMetrics:
    """Of a detector on a split, with the definition that the figures belong to."""

    images: int
    objects: int
    map50: float
    map5095: float
    score_threshold: float
    nms_iou: float
    boxes_max: int


# Of an image: labels, boxes (left, top, right, bottom in pixels of the image), crowds. A crowd is no object: what is
# found in it of its class is neither right nor wrong.
Truth = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

# Areas of boxes in pixels. COCO's, whose own areas are those of outlines where there are some.
EVERY_SIZE = (0.0, 1e10)
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True)
class DetectionEvaluation:
    """Rows of `precision` and `scores` are classes, columns the recalls 0, 0.01 … 1, at IoU 0.5.

    Args:
        objects: of each class. average_precision, average_precision50: of each class, NaN without objects.
        scores: the score that a box needs for that recall.
    """

    metrics: DetectionMetrics
    objects: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    average_precision50: NDArray[np.float64]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]


class _Matching(COCOeval):
    """Reports progress after each class of each image: with many of them it takes minutes."""

    advance: Callable[[], None]

    def computeIoU(self, imgId: int, catId: int) -> Any:
        self.advance()
        return super().computeIoU(imgId, catId)

    def evaluateImg(self, imgId: int, catId: int, *others: Any) -> Any:
        self.advance()
        return super().evaluateImg(imgId, catId, *others)


@dataclass(frozen=True)
class Matched:
    """Each box that is found, without those in crowds, at IoU 0.5. An object is known by its place among all of all
    images.

    Args:
        images, places: where it was found, and its place among what was found there.
        labels, scores: its own.
        right: whether it found an object; found_object: which one, -1 for none.
        objects: of each class.
        sizes: by size of the objects: how many, AP over IoU 0.5 … 0.95, and at 0.5; None where there are none.
    """

    images: NDArray[np.int64]
    places: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    found_object: NDArray[np.int64]
    objects: NDArray[np.int64]
    sizes: dict[str, dict[str, Any]]


def matching_steps(images: int, class_count: int, ranges: int = 1) -> int:
    """How often `evaluate_detections` calls `advance`; `match_detections` has a range for each size and one for all."""
    return (1 + ranges) * images * class_count


def evaluate_detections(
    found: Sequence[Detections],
    truths: Sequence[Truth],
    class_count: int,
    advance: Callable[[], None] = lambda: None,
) -> DetectionEvaluation:
    """Compares what is found in each image with what is true of it."""
    coco = _compare(found, truths, class_count, [EVERY_SIZE], advance)
    # IoU × recall × class; −1 where a class has no objects.
    precision: NDArray[np.float64] = np.where(coco.eval["precision"] < 0, np.nan, coco.eval["precision"])[..., 0, 0]
    count = _objects(truths, class_count)
    present = count > 0
    per_class, per_class50 = precision.mean((0, 1)), precision[0].mean(0)
    metrics = DetectionMetrics(
        images=len(truths),
        objects=int(count.sum()),
        map50=float(per_class50[present].mean()) if present.any() else 0.0,
        map5095=float(per_class[present].mean()) if present.any() else 0.0,
        score_threshold=SCORE_THRESHOLD,
        nms_iou=NMS_IOU,
        boxes_max=BOXES_MAX,
    )
    return DetectionEvaluation(
        metrics, count, per_class, per_class50, precision[0].T, coco.eval["scores"][0, ..., 0, 0].T
    )


def match_detections(
    found: Sequence[Detections],
    truths: Sequence[Truth],
    class_count: int,
    advance: Callable[[], None] = lambda: None,
) -> Matched:
    """Which boxes found which objects, and how good they are by size. It takes longer than `evaluate_detections`."""
    coco = _compare(found, truths, class_count, [EVERY_SIZE, *SIZES.values()], advance)
    sizes = {}
    areas = torch.cat([((boxes[:, 2:] - boxes[:, :2]).double().prod(1))[~crowds] for _, boxes, crowds in truths])
    for n, (name, (low, high)) in enumerate(SIZES.items(), 1):
        precision = coco.eval["precision"][..., n, 0]
        known = (precision >= 0).all((0, 1))
        ap, ap50 = (float(part[..., known].mean()) if known.any() else None for part in (precision, precision[0]))
        sizes[name] = {"objects": int(((areas >= low) & (areas <= high)).sum()), "ap": ap, "ap50": ap50}

    firsts = np.cumsum([0, *(len(one.labels) for one in found)])
    none = np.empty(0, np.int64)
    parts = [(none, none, none, np.empty(0), none)]
    # By class, then by size, then by image; None where the image has neither an object nor a box of the class.
    ranges, images = len(SIZES) + 1, len(truths)
    for label in range(class_count):
        start = label * ranges * images
        for one in filter(None, coco.evalImgs[start : start + images]):
            counted = ~one["dtIgnore"][0].astype(bool)
            image = np.full(int(counted.sum()), one["image_id"])
            ids, scores = (np.array(one[name])[counted] for name in ("dtIds", "dtScores"))
            matches = one["dtMatches"][0][counted].astype(np.int64)
            parts.append(
                (image, ids.astype(np.int64) - 1 - firsts[image], np.full_like(image, label), scores, matches - 1)
            )
    at, places, labels, scores, objects = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Matched(at, places, labels, scores, objects >= 0, objects, _objects(truths, class_count), sizes)


def _objects(truths: Sequence[Truth], class_count: int) -> NDArray[np.int64]:
    """How many there are of each class."""
    return np.bincount(torch.cat([labels[~crowds] for labels, _, crowds in truths]).numpy(), minlength=class_count)


def _compare(
    found: Sequence[Detections],
    truths: Sequence[Truth],
    class_count: int,
    areas: Sequence[tuple[float, float]],
    advance: Callable[[], None],
) -> COCOeval:
    """COCO's evaluator after its work, for objects of these areas."""
    objects: list[dict[str, Any]] = []
    for image, (labels, boxes, crowds) in enumerate(truths):
        for label, box, crowd in zip(labels.tolist(), boxes.double().tolist(), crowds.tolist(), strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": [box[0], box[1], width, height],
                    "area": width * height,
                    "iscrowd": int(crowd),
                }
            )
    dataset: Any = {
        "info": {},
        "images": [{"id": image} for image in range(len(truths))],
        "annotations": objects,
        "categories": [{"id": label} for label in range(class_count)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        results = truth.loadRes(rows) if len(rows := _rows(found)) else _nothing(dataset)
        coco = _Matching(truth, results, "bbox")
        coco.advance = advance
        coco.params.maxDets = [BOXES_MAX]
        coco.params.areaRng, coco.params.areaRngLbl = [list(area) for area in areas], [str(area) for area in areas]
        coco.evaluate()
        coco.accumulate()
    return coco


def _rows(found: Sequence[Detections]) -> NDArray[np.float64]:
    """What pycocotools reads fastest: image, x, y, width, height, score, class."""
    tables = []
    for image, one in enumerate(found):
        boxes = one.boxes.double()
        columns = [
            torch.full((len(boxes), 1), image),
            boxes[:, :2],
            boxes[:, 2:] - boxes[:, :2],
            one.scores[:, None],
            one.labels[:, None],
        ]
        tables.append(torch.cat([column.double() for column in columns], 1).numpy())
    return np.concatenate(tables)


def _nothing(dataset: Any) -> COCO:
    empty = COCO()
    empty.dataset = dataset | {"annotations": []}
    empty.createIndex()
    return empty
