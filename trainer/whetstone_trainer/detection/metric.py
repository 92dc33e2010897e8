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


def matching_steps(images: int, class_count: int) -> int:
    """How often `evaluate_detections` calls `advance`."""
    return 2 * images * class_count


def evaluate_detections(
    found: Sequence[Detections],
    truths: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    class_count: int,
    advance: Callable[[], None] = lambda: None,
) -> DetectionEvaluation:
    """Compares what is found in each image with its (labels, boxes, crowds). Boxes as left, top, right, bottom in
    pixels of the image.

    A crowd is no object: what is found in it of its class is neither right nor wrong.
    """
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
        coco.params.areaRng, coco.params.areaRngLbl = [[0, 1e10]], ["all"]
        coco.evaluate()
        coco.accumulate()
    # IoU × recall × class; −1 where a class has no objects.
    precision: NDArray[np.float64] = np.where(coco.eval["precision"] < 0, np.nan, coco.eval["precision"])[..., 0, 0]
    single = [entry["category_id"] for entry in objects if not entry["iscrowd"]]
    count = np.bincount(np.array(single, np.int64), minlength=class_count)
    present = count > 0
    per_class, per_class50 = precision.mean((0, 1)), precision[0].mean(0)
    metrics = DetectionMetrics(
        images=len(truths),
        objects=len(single),
        map50=float(per_class50[present].mean()) if present.any() else 0.0,
        map5095=float(per_class[present].mean()) if present.any() else 0.0,
        score_threshold=SCORE_THRESHOLD,
        nms_iou=NMS_IOU,
        boxes_max=BOXES_MAX,
    )
    return DetectionEvaluation(
        metrics, count, per_class, per_class50, precision[0].T, coco.eval["scores"][0, ..., 0, 0].T
    )


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
