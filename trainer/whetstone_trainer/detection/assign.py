"""Which place learns which box: task-aligned assignment (Feng et al. 2021, TOOD, section 3.2)."""

from dataclasses import dataclass

import torch
from torchvision.ops import box_iou

# Not the paper's, which has 13, 1 and 6: see PROVENANCE.md.
CANDIDATES = 10
SCORE_POWER, IOU_POWER = 0.5, 6.0


@dataclass(frozen=True)
class Assignment:
    """What each of A places of N images is to learn.

    Args:
        scores: N × A × classes; the aligned quality at the box's class, 0 elsewhere.
        boxes: N × A × 4; where `positive` is False without meaning.
        positive: N × A, bool.
    """

    scores: torch.Tensor
    boxes: torch.Tensor
    positive: torch.Tensor


def inside(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Whether each of N × M boxes holds each of A points: N × M × A."""
    sides = torch.cat([points[None, None] - boxes[:, :, None, :2], boxes[:, :, None, 2:] - points[None, None]], -1)
    return sides.amin(-1) > 0


@torch.no_grad()
def assign(
    scores: torch.Tensor, boxes: torch.Tensor, points: torch.Tensor, labels: torch.Tensor, truths: torch.Tensor
) -> Assignment:
    """Chooses for each true box the places inside it that score and fit it best.

    Alignment is score^0.5 · IoU^6; a box gets the best ten, a place that several boxes chose goes to the one that it
    fits best. The target is the alignment, scaled so that each box's largest is its largest IoU.

    Args:
        scores: N × A × classes, of 0 to 1.
        boxes: N × A × 4, predicted.
        points: A × 2.
        labels: N × M, −1 where a box is not to be assigned.
        truths: N × M × 4.
    """
    real = labels >= 0
    allowed = inside(points, truths) & real[..., None]
    ious = torch.stack([box_iou(t, b) for t, b in zip(truths, boxes, strict=True)]) * allowed
    of_class = scores.transpose(1, 2).gather(1, labels.clamp_min(0)[..., None].expand(-1, -1, scores.shape[1]))
    alignment = of_class.pow(SCORE_POWER) * ious.pow(IOU_POWER)

    # Places outside a box come last, and those among the ten of a very small box are dropped again.
    best = alignment.masked_fill(~allowed, -1).topk(min(CANDIDATES, alignment.shape[-1]), -1)
    chosen = torch.zeros_like(allowed).scatter_(-1, best.indices, True) & allowed
    ious_of_chosen = torch.where(chosen, ious, -1.0)
    owner = ious_of_chosen.argmax(1)
    chosen &= torch.zeros_like(chosen).scatter_(1, owner[:, None], True)

    alignment = alignment * chosen
    largest = alignment.amax(-1, keepdim=True)
    quality = alignment / largest.clamp_min(1e-9) * (ious * chosen).amax(-1, keepdim=True)
    positive = chosen.any(1)
    owner_labels = labels.clamp_min(0).gather(1, owner)
    targets = torch.zeros_like(scores).scatter_(-1, owner_labels[..., None], quality.amax(1)[..., None])
    return Assignment(targets, truths.gather(1, owner[..., None].expand(-1, -1, 4)), positive)
