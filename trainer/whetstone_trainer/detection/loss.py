"""The detector's loss: binary cross-entropy of the classes, complete IoU and distribution focal loss of the boxes."""

import torch
from torch import nn

from whetstone_trainer.detection.assign import assign, in_parts, inside
from whetstone_trainer.detection.boxes import (
    BINS,
    anchor_points,
    boxes_to_distances,
    distances_to_boxes,
    expected_distances,
)
from whetstone_trainer.ranks import ALONE, Ranks
from whetstone_trainer.vision import complete_box_iou_loss

CLASS_WEIGHT, BOX_WEIGHT, DISTRIBUTION_WEIGHT = 0.5, 7.5, 1.5


def detection_loss(
    distributions: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    truths: torch.Tensor,
    ignored: torch.Tensor,
    *,
    height: int,
    width: int,
    class_weights: torch.Tensor | None = None,
    ranks: Ranks = ALONE,
) -> torch.Tensor:
    """The weighted class, box and distribution losses (3), each a mean over the assigned quality (Feng et al. 2021).

    Args:
        distributions: N × A × 64, raw, of inputs of `height` × `width` pixels.
        logits: N × A × classes.
        labels: N × M, −1 where an image has fewer than M boxes.
        truths: N × M × 4.
        ignored: N × M, bool. Nothing is learned from these boxes, and inside them nothing against their class.
        class_weights: how much an object of each class counts.
        ranks: the images are this rank's part of a batch. The mean is over the quality in the whole batch, as if this
            part had its share of it.
    """
    points, strides = anchor_points(height, width, logits.device)
    # Most places learn no box: only those that do take part in the gradient.
    with torch.no_grad():
        boxes = distances_to_boxes(expected_distances(distributions), points, strides)
    target = assign(logits.detach().sigmoid(), boxes, points, labels.masked_fill(ignored, -1), truths)
    quality = target.scores if class_weights is None else target.scores * class_weights
    total = ranks.sum(quality.sum()).clamp_min(1) * ranks.share
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, target.scores, reduction="none")
    if class_weights is not None:
        entropy = entropy * torch.where(target.scores > 0, class_weights, 1.0)
    unknown = _ignored_places(logits, points, labels, truths, ignored) & (target.scores == 0)
    classes = entropy.masked_fill(unknown, 0).sum() / total

    image, place = torch.nonzero(target.positive, as_tuple=True)
    weight = quality[image, place].sum(-1)
    chosen, points, strides = distributions[image, place], points[place], strides[place]
    # Zheng et al. 2020, "Distance-IoU loss": overlap, distance of the centres, aspect ratio.
    found = distances_to_boxes(expected_distances(chosen), points, strides)
    iou = complete_box_iou_loss(found, target.boxes, reduction="none")
    focal = distribution_focal_loss(chosen, boxes_to_distances(target.boxes, points, strides))
    return torch.stack(
        [
            CLASS_WEIGHT * classes,
            BOX_WEIGHT * (iou * weight).sum() / total,
            DISTRIBUTION_WEIGHT * (focal * weight).sum() / total,
        ]
    )


def _ignored_places(
    logits: torch.Tensor, points: torch.Tensor, labels: torch.Tensor, truths: torch.Tensor, ignored: torch.Tensor
) -> torch.Tensor:
    """Which places lie inside an ignored box, by its class: like `logits`, bool."""
    result = torch.zeros_like(logits, dtype=torch.bool)
    image, slot = torch.nonzero(ignored, as_tuple=True)
    label, box = labels[image, slot], truths[image, slot]
    for part in in_parts(len(box), len(points), logits.device):
        row, place = torch.nonzero(inside(points, box[part]), as_tuple=True)
        result[image[part][row], place, label[part][row]] = True
    return result


def distribution_focal_loss(distributions: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the two bins around each distance, mean of the four sides (Li et al. 2020, equation 6).

    Args:
        distributions: K × 64, raw; distances: K × 4, in strides, of 0 to below 15. Returns K.
    """
    log = distributions.reshape(-1, 4, BINS).log_softmax(-1)
    lower = distances.long()
    upper_share = distances - lower
    below = log.gather(-1, lower[..., None])[..., 0]
    above = log.gather(-1, lower[..., None] + 1)[..., 0]
    crossed: torch.Tensor = below * (1 - upper_share) + above * upper_share
    return -crossed.mean(-1)
