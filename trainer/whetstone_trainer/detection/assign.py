"""Which place learns which box: task-aligned assignment (Feng et al. 2021, TOOD, section 3.2)."""

from dataclasses import dataclass

import torch

# Not the paper's, which has 13, 1 and 6: see PROVENANCE.md.
CANDIDATES = 10
SCORE_POWER, IOU_POWER = 0.5, 6.0
# How many pairs of a box and a place are compared at once: a bound on the memory, whatever a batch holds.
PAIRS_MAX = 2**20


@dataclass(frozen=True)
class Assignment:
    """What each of A places of N images is to learn.

    Args:
        scores: N × A × classes; the aligned quality at the box's class, 0 elsewhere.
        positive: N × A, bool.
        boxes: P × 4, those of the positive places, in their order.
    """

    scores: torch.Tensor
    positive: torch.Tensor
    boxes: torch.Tensor


def inside(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Whether each of K boxes holds each of A points: K × A."""
    x, y = points.unbind(1)
    left, top, right, bottom = boxes[..., None].unbind(1)
    return (left < x) & (x < right) & (top < y) & (y < bottom)


def in_parts(count: int, places: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Indices of `count` boxes, in parts that may be compared with all places at once."""
    return torch.split(torch.arange(count, device=device), max(1, PAIRS_MAX // places))


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
    count, places = scores.shape[:2]
    image, slot = torch.nonzero(labels >= 0, as_tuple=True)
    label, truth = labels[image, slot], truths[image, slot]
    parts = in_parts(len(truth), places, scores.device)
    candidates = [_candidates(points, truth[k], boxes[image[k]], scores[image[k], :, label[k]]) for k in parts]
    # K × 10 each, of K boxes.
    place, alignment, iou, allowed = (torch.cat(part) for part in zip(*candidates, strict=True))

    # Each place goes to the box with the largest IoU; of equal ones, to the first.
    box = torch.arange(len(truth), device=scores.device)[:, None].expand_as(place)
    at = image[:, None] * places + place
    fit = torch.where(allowed, iou, -1.0)
    best = fit.new_full((count * places,), -1.0).scatter_reduce(0, at.flatten(), fit.flatten(), "amax")
    fits_best = allowed & (fit == best[at])
    nobody = torch.full((count * places,), len(truth), device=scores.device)
    owner = nobody.scatter_reduce(0, at[fits_best], box[fits_best], "amin")
    chosen = fits_best & (owner[at] == box)

    alignment, iou = torch.where(chosen, alignment, 0.0), torch.where(chosen, iou, 0.0)
    largest = alignment.amax(1, keepdim=True)
    quality = alignment / largest.clamp_min(1e-9) * iou.amax(1, keepdim=True)
    targets = torch.zeros_like(scores)
    owned = box[chosen]
    targets[image[owned], place[chosen], label[owned]] = quality[chosen]
    positive = owner < len(truth)
    return Assignment(targets, positive.reshape(count, places), truth[owner[positive]])


def _candidates(
    points: torch.Tensor, truth: torch.Tensor, boxes: torch.Tensor, scores: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Of each of K true boxes the ten places with the best alignment: the places, alignments, IoUs, and whether each
    place is allowed, K × 10.

    Args:
        truth: K × 4. boxes: K × A × 4, predicted. scores: K × A, of the true box's class.
    """
    allowed = inside(points, truth)
    iou = _iou(truth[:, None], boxes)
    alignment = scores.pow(SCORE_POWER) * iou.pow(IOU_POWER)
    # Places outside a box come last; a very small box has some among its ten.
    best = alignment.masked_fill(~allowed, -1).topk(min(CANDIDATES, len(points)), -1).indices
    return best, *(values.gather(1, best) for values in (alignment, iou, allowed))


def _iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of boxes (… × 4) that broadcast. torchvision's `box_iou` does not take several images."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    overlap = sides[..., 0] * sides[..., 1]
    return overlap / (_area(a) + _area(b) - overlap)


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
