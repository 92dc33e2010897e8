"""The detector's loss: binary cross-entropy of the classes, complete IoU and distribution focal loss of the boxes."""

import torch
from torch import nn
from torchvision.ops import complete_box_iou_loss

from whetstone_trainer.detection.assign import assign, inside
from whetstone_trainer.detection.boxes import (
    BINS,
    anchor_points,
    boxes_to_distances,
    distances_to_boxes,
    expected_distances,
)

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
) -> torch.Tensor:
    """The weighted class, box and distribution losses (3), each a mean over the assigned quality (Feng et al. 2021).

    Args:
        distributions: N × A × 64, raw, of inputs of `height` × `width` pixels.
        logits: N × A × classes.
        labels: N × M, −1 where an image has fewer than M boxes.
        truths: N × M × 4.
        ignored: N × M, bool. Nothing is learned from these boxes, and inside them nothing against their class.
    """
    points, strides = anchor_points(height, width, logits.device)
    boxes = distances_to_boxes(expected_distances(distributions), points, strides)
    learned = labels.masked_fill(ignored, -1)
    target = assign(logits.detach().sigmoid(), boxes.detach(), points, learned, truths)
    total = target.scores.sum().clamp_min(1)
    # Places that lie inside an ignored box, by its class.
    within = (inside(points, truths) & ignored[..., None]).float().transpose(1, 2)
    unknown = (within @ nn.functional.one_hot(labels.clamp_min(0), logits.shape[2]).float() > 0) & (target.scores == 0)
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, target.scores, reduction="none")
    classes = entropy.masked_fill(unknown, 0).sum() / total

    weight = target.scores.sum(-1)[target.positive]
    # Zheng et al. 2020, "Distance-IoU loss": overlap, distance of the centres, aspect ratio.
    iou = complete_box_iou_loss(boxes[target.positive], target.boxes[target.positive], reduction="none")
    wanted = boxes_to_distances(target.boxes, points, strides)[target.positive]
    focal = distribution_focal_loss(distributions[target.positive], wanted)
    return torch.stack(
        [
            CLASS_WEIGHT * classes,
            BOX_WEIGHT * (iou * weight).sum() / total,
            DISTRIBUTION_WEIGHT * (focal * weight).sum() / total,
        ]
    )


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
