"""Places of the feature maps, and what they say of boxes. Boxes are left, top, right, bottom in pixels of the input."""

import torch

from whetstone_trainer.preprocess import Placement

STRIDES = (8, 16, 32)
# A side's distance is a distribution over 0, 1 … 15 strides (Li et al. 2020, "Generalized focal loss").
BINS = 16


def anchor_points(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres of all places (A × 2: x, y) and their strides (A), in pixels; maps from fine to coarse, each row by
    row."""
    points, strides = [], []
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        y, x = torch.meshgrid(
            (torch.arange(rows, device=device) + 0.5) * stride,
            (torch.arange(columns, device=device) + 0.5) * stride,
            indexing="ij",
        )
        points.append(torch.stack([x, y], -1).reshape(-1, 2))
        strides.append(torch.full((rows * columns,), float(stride), device=device))
    return torch.cat(points), torch.cat(strides)


def expected_distances(distributions: torch.Tensor) -> torch.Tensor:
    """Logits over the bins (… × 64) to distances (… × 4), in strides: the mean of each distribution."""
    bins = torch.arange(BINS, dtype=distributions.dtype, device=distributions.device)
    # No matrix product: autocast and TensorFloat-32 would round the distances to 8 or 10 bits, 2 pixels at stride 32.
    return (distributions.reshape(*distributions.shape[:-1], 4, BINS).softmax(-1) * bins).sum(-1)


def distances_to_boxes(distances: torch.Tensor, points: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """Distances of the left, top, right and bottom side from each place (… × A × 4, in strides) to boxes."""
    pixels = distances * strides[:, None]
    return torch.cat([points - pixels[..., :2], points + pixels[..., 2:]], -1)


def boxes_to_distances(boxes: torch.Tensor, points: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """The inverse of `distances_to_boxes`, held inside what the bins can say."""
    pixels = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)
    return (pixels / strides[:, None]).clamp(0, BINS - 1 - 0.01)


def to_input(boxes: torch.Tensor, where: Placement) -> torch.Tensor:
    """K × 4 in pixels of the upright image, in pixels of the input."""
    offset, ratio, target = _map(where)
    return (boxes - offset) * ratio + target


def to_image(boxes: torch.Tensor, where: Placement, width: int, height: int) -> torch.Tensor:
    """K × 4 in pixels of the input, in pixels of the upright image and inside its `width` × `height`."""
    offset, ratio, target = _map(where)
    low, high = torch.zeros(4), torch.tensor([width, height, width, height], dtype=torch.float32)
    return ((boxes - target) / ratio + offset).clamp(low, high)


def _map(where: Placement) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    left, top, width, height = where.part
    x, y, w, h = where.target
    offset, target = torch.tensor([left, top, left, top]), torch.tensor([x, y, x, y])
    return offset, torch.tensor([w / width, h / height]).repeat(2), target
