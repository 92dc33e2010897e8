"""From a detector's outputs to the boxes that are found: the one definition, docs/preprocessing.md, "Detections"."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from whetstone_trainer.errors import TrainerError

# Part of the metric's definition, the same everywhere, stored with each figure.
SCORE_THRESHOLD = 0.001
NMS_IOU = 0.7
BOXES_MAX = 100
# What goes into the suppression at most: it bounds its time, which grows with the square.
CANDIDATES_MAX = 3000

# BOXES_SCORES: `boxes` (N × A × 4: left, top, right, bottom) and `scores` (N × A × classes).
# CENTRES_FIRST: one output (N × (4 + classes) × A), rows: centre x, centre y, width, height, then the scores.
# Both in pixels of the input, scores of 0 to 1.
Layout = Literal["BOXES_SCORES", "CENTRES_FIRST"]


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


def choose_layout(
    outputs: Sequence[tuple[str, Sequence[int | str | None]]], class_count: int, task: str | None, said: Layout | None
) -> Layout:
    """The layout of a model's outputs. Raises MODEL_INVALID where it cannot be told and the user has not said it.

    Args:
        outputs: (name, shape); a dimension that is not a number is free.
        task: `whetstone.task` of the file's metadata, None in a foreign file.
        said: what the user says; only checked against the shapes.
    """
    fitting = [layout for layout, fits in _FITS.items() if fits([shape for _, shape in outputs], class_count)]
    if said is not None:
        if said not in fitting:
            raise TrainerError("MODEL_INVALID", f"The outputs {_listed(outputs)} do not have the layout {said}.")
        return said
    if task == "DETECTION" and "BOXES_SCORES" in fitting:
        return "BOXES_SCORES"
    if fitting == ["CENTRES_FIRST"] and outputs[0][1][1] == 4 + class_count:
        return "CENTRES_FIRST"
    raise TrainerError(
        "MODEL_INVALID",
        f"The outputs {_listed(outputs)} do not say how they hold boxes and the scores of {class_count} classes.",
        hint="Say the model's output layout: BOXES_SCORES (boxes N × A × 4 as left, top, right, bottom; scores "
        "N × A × classes) or CENTRES_FIRST (N × (4 + classes) × A: centre x, centre y, width, height, scores).",
    )


def _boxes_scores(shapes: Sequence[Sequence[int | str | None]], class_count: int) -> bool:
    return len(shapes) == 2 and _like(shapes[0], (None, None, 4)) and _like(shapes[1], (None, None, class_count))


def _centres_first(shapes: Sequence[Sequence[int | str | None]], class_count: int) -> bool:
    # A square output would fit both ways round.
    rows = 4 + class_count
    return len(shapes) == 1 and _like(shapes[0], (None, rows, None)) and shapes[0][2] != rows


_FITS = {"BOXES_SCORES": _boxes_scores, "CENTRES_FIRST": _centres_first}


def _like(shape: Sequence[int | str | None], wanted: Sequence[int | None]) -> bool:
    """Whether every size that both know is the same."""
    return len(shape) == len(wanted) and all(
        w is None or not isinstance(s, int) or s == w for s, w in zip(shape, wanted, strict=True)
    )


def _listed(outputs: Sequence[tuple[str, Sequence[int | str | None]]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in outputs)


def read_outputs(
    outputs: Sequence[NDArray[Any]], layout: Layout, class_count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (N × A × 4: left, top, right, bottom in pixels of the input) and scores (N × A × classes). Raises
    MODEL_INVALID."""
    if not _FITS[layout]([output.shape for output in outputs], class_count):
        found = ", ".join(str(list(output.shape)) for output in outputs)
        raise TrainerError(
            "MODEL_INVALID", f"The outputs {found} do not have the layout {layout} of {class_count} classes."
        )
    tensors = [torch.from_numpy(output.astype(np.float32)) for output in outputs]
    if layout == "BOXES_SCORES":
        return tensors[0], tensors[1]
    rows = tensors[0].transpose(1, 2)
    centres, halves = rows[..., :2], rows[..., 2:4] / 2
    return torch.cat([centres - halves, centres + halves], -1), rows[..., 4:]


def find(
    boxes: torch.Tensor, scores: torch.Tensor, *, threshold: float = SCORE_THRESHOLD, boxes_max: int = BOXES_MAX
) -> Detections:
    """The boxes of one image: threshold, then greedy non-maximum suppression in each class.

    Every pair of a place and a class whose score reaches the threshold is a candidate; the best 3,000 go on (ties:
    the earlier place,
    then the earlier class). A candidate falls when a better one of its class overlaps it by an IoU above 0.7.

    Args:
        boxes: A × 4. scores: A × classes.
    """
    candidates = rank_candidates(scores, threshold)
    places, labels = candidates // scores.shape[1], candidates % scores.shape[1]
    kept = suppress(boxes[places], labels)[:boxes_max]
    return Detections(boxes[places[kept]], scores.flatten()[candidates[kept]], labels[kept])


def rank_candidates(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Flat indices (place · classes + class) of the candidates among A × classes scores, best first."""
    flat = scores.flatten()
    candidates = torch.nonzero(flat >= threshold)[:, 0]
    return candidates[flat[candidates].sort(descending=True, stable=True).indices[:CANDIDATES_MAX]]


def suppress(boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Indices of the boxes (K × 4, best first) that no better one of their class covers, best first."""
    ranks = torch.arange(len(boxes), 0, -1, dtype=torch.float32)
    kept = [members[nms(boxes[members], ranks[members], NMS_IOU)] for members in _by_label(labels)]
    return torch.cat(kept).sort().values if kept else torch.empty(0, dtype=torch.int64)


def _by_label(labels: torch.Tensor) -> list[torch.Tensor]:
    return [torch.nonzero(labels == label)[:, 0] for label in sorted(set(labels.tolist()))]
