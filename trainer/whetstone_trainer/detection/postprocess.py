"""From a detector's outputs to the boxes that are found: the one definition, docs/preprocessing.md, "Detections"."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whetstone_trainer.detection.layouts import Layout, fits
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.vision import nms

# Part of the metric's definition, the same everywhere, stored with each figure.
SCORE_THRESHOLD = 0.001
NMS_IOU = 0.7
BOXES_MAX = 100
# What goes into the suppression at most: it bounds its time, which grows with the square.
CANDIDATES_MAX = 3000


@dataclass(frozen=True)
class Detections:
    """What is found in one image, best first.

    Args:
        boxes: K × 4 (left, top, right, bottom in pixels), float32.
        scores: K, float32. labels: K, int64.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


def read_outputs(outputs: Sequence[NDArray[Any]], layout: Layout, class_count: int) -> tuple[torch.Tensor, ...]:
    """Boxes (N × A × 4: left, top, right, bottom in pixels of the input) and scores (N × A × classes); or, where the
    graph has suppressed overlaps itself, scores and labels of the boxes (N × A). A score of −∞ is none. Raises
    MODEL_INVALID.
    """
    if not fits([output.shape for output in outputs], layout, class_count):
        found = ", ".join(str(list(output.shape)) for output in outputs)
        raise TrainerError(
            "MODEL_INVALID", f"The outputs {found} do not have the layout {layout} of {class_count} classes."
        )
    tensors = [torch.from_numpy(output.astype(np.float32)) for output in outputs]
    rows = tensors[0]
    if layout == "BOXES_SCORES":
        return rows, tensors[1]
    if layout == "SUPPRESSED":
        return _suppressed(rows, class_count)
    if layout == "CENTRES_FIRST":
        rows = rows.transpose(1, 2)
    centres, halves = rows[..., :2], rows[..., 2:4] / 2
    scores = rows[..., 4:] if layout == "CENTRES_FIRST" else rows[..., 4:5] * rows[..., 5:]
    return torch.cat([centres - halves, centres + halves], -1), scores


def _suppressed(rows: torch.Tensor, class_count: int) -> tuple[torch.Tensor, ...]:
    """What the graph fills its rows up with has no score, or no class."""
    boxes, scores, labels = rows[..., :4], rows[..., 4], rows[..., 5]
    present = (scores > 0) & (labels >= 0)
    odd = labels[present & ((labels != labels.round()) | (labels >= class_count))]
    if len(odd) > 0:
        raise TrainerError(
            "MODEL_INVALID", f"A box has the class {float(odd[0]):g}; there are {class_count} classes, from 0."
        )
    return boxes, scores.masked_fill(~present, -torch.inf), labels.to(torch.int64)


def find(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    suppressed: torch.Tensor | None = None,
    *,
    threshold: float = SCORE_THRESHOLD,
    boxes_max: int = BOXES_MAX,
) -> Detections:
    """The boxes of one image: threshold, then greedy non-maximum suppression in each class.

    Every pair of a place and a class whose score reaches the threshold is a candidate; the best 3,000 remain (ties: the
    earlier place, then the earlier class). A candidate falls when a better one of its class overlaps it by an IoU above
    0.7.

    Args:
        boxes: A × 4. scores: A × classes, or A of boxes whose graph has suppressed overlaps itself.
        suppressed: their classes, A.
    """
    if suppressed is not None:
        best = rank_candidates(scores, threshold)[:boxes_max]
        return Detections(boxes[best], scores[best], suppressed[best])
    candidates = rank_candidates(scores, threshold)
    places, labels = candidates // scores.shape[1], candidates % scores.shape[1]
    kept = suppress(boxes[places], labels)[:boxes_max]
    return Detections(boxes[places[kept]], scores.flatten()[candidates[kept]], labels[kept])


def rank_candidates(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Flat indices (place · classes + class) of the candidates among A × classes scores, or A, best first."""
    flat = scores.flatten()
    candidates = torch.nonzero(flat >= threshold)[:, 0]
    if len(candidates) > CANDIDATES_MAX:
        # Without those that cannot remain: of an untrained detector every score is a candidate, and sorting takes long.
        lowest = flat[candidates].topk(CANDIDATES_MAX).values[-1]
        candidates = candidates[flat[candidates] >= lowest]
    return candidates[flat[candidates].sort(descending=True, stable=True).indices[:CANDIDATES_MAX]]


def suppress(boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Indices of the boxes (K × 4, best first) that no better one of their class covers, best first."""
    ranks = torch.arange(len(boxes), 0, -1, dtype=torch.float32)
    kept = [members[nms(boxes[members], ranks[members], NMS_IOU)] for members in _by_label(labels)]
    return torch.cat(kept).sort().values if kept else torch.empty(0, dtype=torch.int64)


def _by_label(labels: torch.Tensor) -> list[torch.Tensor]:
    return [torch.nonzero(labels == label)[:, 0] for label in sorted(set(labels.tolist()))]
