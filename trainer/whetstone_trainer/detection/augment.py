"""Random changes of training images with boxes, each a pure function of (seed, epoch, index).

One mechanism: images are scaled and laid as tiles onto a canvas; a mosaic (Bochkovskiy et al. 2020, YOLOv4) has four
tiles around a random centre, any other picture one tile. Then flips and quarter turns. Colour comes later for the whole
batch, as in classification.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from whetstone_trainer.augment import FLIP, quarter_turns
from whetstone_trainer.hyperparameters import DetectionHyperparameters
from whetstone_trainer.protocol import PreprocessSpec
from whetstone_trainer.vision import functional

# What is cut off is an object to learn where this share of it can still be seen, or where it fills that share of its
# tile: a part of a large object is no background. Of anything else the rest is ignored.
VISIBLE_SHARE = 0.4
FILLED_SHARE = 0.75
# Where the four images of a mosaic may meet, as a share of the side.
CENTRE = (0.3, 0.7)


@dataclass(frozen=True)
class Picture:
    """An image with its objects.

    Args:
        image: 3 × height × width, uint8.
        labels: K, int64.
        boxes: K × 4 (left, top, right, bottom in pixels), float32.
        ignored: K, bool. These are neither objects to learn nor background of their class.
    """

    image: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor
    ignored: torch.Tensor


def compose(
    picture: Callable[[int], Picture],
    count: int,
    place: tuple[int, int, int],
    parameters: DetectionHyperparameters,
    spec: PreprocessSpec,
    *,
    draw: NDArray[np.float64],
) -> Picture:
    """The training picture of image number % count, spec.width × spec.height.

    Args:
        picture: an image of the split, brought to its size in the input, without padding.
        count: images of the split.
        place: (seed, epoch, number).
        draw: the image's numbers from `augment.draws`.
    """
    rng = np.random.default_rng((*place, 1))
    last = round(parameters.mosaic_until * parameters.epochs)
    is_mosaic = rng.random() < parameters.mosaic and place[1] < last
    width, height = spec.width, spec.height
    x, y = (round(side * rng.uniform(*CENTRE)) for side in (width, height))
    if is_mosaic:
        others = rng.integers(0, count, 3)
        regions = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        tiles = zip([place[2] % count, *others.tolist()], regions, strict=True)
    else:
        tiles = zip([place[2] % count], [(0, 0, width, height)], strict=True)

    canvas = torch.tensor(spec.pad_color, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    laid = [lay(canvas, region, picture(index), parameters.scale, rng) for index, region in tiles]
    labels, boxes, ignored = (
        torch.cat(parts) for parts in zip(*((tile.labels, tile.boxes, tile.ignored) for tile in laid), strict=True)
    )
    result = Picture(canvas, labels, boxes, ignored)
    if draw[FLIP] < parameters.flip:
        result = flip(result, horizontal=True)
    if rng.random() < parameters.vertical_flip:
        result = flip(result, horizontal=False)
    for _ in range(quarter_turns(draw, parameters)):
        result = turn(result)
    return result


def lay(
    canvas: torch.Tensor, region: tuple[int, int, int, int], tile: Picture, scale: float, rng: np.random.Generator
) -> Picture:
    """Draws `tile`, scaled by 1 ± `scale` and moved at random, into a region of the canvas. Returns the objects that
    can be seen.

    What is smaller than the region goes anywhere inside it; of what is larger, any part is seen.
    """
    left, top, right, bottom = region
    factor = rng.uniform(1 - scale, 1 + scale)
    height, width = (max(1, round(side * factor)) for side in tile.image.shape[-2:])
    x = left + round(rng.random() * (right - left - width))
    y = top + round(rng.random() * (bottom - top - height))
    # The part of the canvas that the tile covers.
    x1, y1, x2, y2 = max(left, x), max(top, y), min(right, x + width), min(bottom, y + height)
    scaled = functional.resize(tile.image, [height, width], antialias=True)
    canvas[:, y1:y2, x1:x2] = scaled[:, y1 - y : y2 - y, x1 - x : x2 - x]

    ratio = torch.tensor([width / tile.image.shape[2], height / tile.image.shape[1]]).repeat(2)
    moved = tile.boxes * ratio + torch.tensor([x, y, x, y])
    low, high = torch.tensor([x1, y1, x1, y1]), torch.tensor([x2, y2, x2, y2])
    seen = moved.clamp(low, high)
    visible = (seen[:, 2:] > seen[:, :2]).all(1)
    learned = (area(seen) >= VISIBLE_SHARE * area(moved)) | (area(seen) >= FILLED_SHARE * (x2 - x1) * (y2 - y1))
    return Picture(canvas, tile.labels[visible], seen[visible], (tile.ignored | ~learned)[visible])


def flip(picture: Picture, *, horizontal: bool) -> Picture:
    boxes = picture.boxes.clone()
    axis = 0 if horizontal else 1
    side = picture.image.shape[2 - axis]
    boxes[:, axis], boxes[:, axis + 2] = side - picture.boxes[:, axis + 2], side - picture.boxes[:, axis]
    return Picture(picture.image.flip(2 - axis), picture.labels, boxes, picture.ignored)


def turn(picture: Picture) -> Picture:
    """By 90° against the clock."""
    left, top, right, bottom = picture.boxes.unbind(1)
    width = picture.image.shape[2]
    boxes = torch.stack([top, width - right, bottom, width - left], 1)
    return Picture(picture.image.rot90(1, (1, 2)), picture.labels, boxes, picture.ignored)


def area(boxes: torch.Tensor) -> torch.Tensor:
    """K × 4 to K, square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
