"""Random changes of training images, each a pure function of (seed, epoch, index): a resumed run repeats them exactly.

Geometry happens for each image on the CPU, in torchvision's `transforms.v2`; colour for the whole batch on the device.
Sources: random resized crop, Szegedy et al. 2014; colour jitter, Krizhevsky et al. 2012; erasing, Zhong et al. 2017.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional

from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.preprocess import resize
from whetstone_trainer.protocol import PreprocessSpec

# Which of an image's random numbers decides what. Fixed, so that turning one change off leaves the others as they were.
(
    AREA,
    RATIO,
    LEFT,
    TOP,
    FLIP,
    BRIGHTNESS,
    CONTRAST,
    SATURATION,
    ERASE,
    ERASE_AREA,
    ERASE_LEFT,
    ERASE_TOP,
    VERTICAL_FLIP,
) = range(13)

ASPECT_RATIOS = (math.log(3 / 4), math.log(4 / 3))
ERASED_AREAS = (0.02, 0.33)


def draws(seed: int, epoch: int, index: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) for one image in one epoch. More of them leave the first ones as they were."""
    return np.random.default_rng((seed, epoch, index)).random(VERTICAL_FLIP + 1)


def geometry(
    image: torch.Tensor, draw: NDArray[np.float64], parameters: ClassificationHyperparameters, spec: PreprocessSpec
) -> torch.Tensor:
    """3 × height × width levels to 3 × spec.height × spec.width levels: random crop and flips."""
    if parameters.crop_scale < 1:
        height, width = image.shape[-2:]
        area = height * width * (parameters.crop_scale + (1 - parameters.crop_scale) * draw[AREA])
        ratio = math.exp(ASPECT_RATIOS[0] + (ASPECT_RATIOS[1] - ASPECT_RATIOS[0]) * draw[RATIO])
        # Of the ratios those whose crop fits into the image: a side that is cut off would take its area along.
        ratio = min(max(ratio, area / height**2), width**2 / area)
        w = min(width, math.ceil(math.sqrt(area * ratio)))
        h = min(height, math.ceil(area / w))
        left, top = int(draw[LEFT] * (width - w + 1)), int(draw[TOP] * (height - h + 1))
        image = functional.resized_crop(image, top, left, h, w, [spec.height, spec.width], antialias=True)
    elif image.shape[-2:] != (spec.height, spec.width):
        image = resize(image, spec)
    if draw[VERTICAL_FLIP] < parameters.vertical_flip:
        image = functional.vertical_flip(image)
    return functional.horizontal_flip(image) if draw[FLIP] < parameters.flip else image


def color(images: torch.Tensor, draw: torch.Tensor, strength: float) -> torch.Tensor:
    """N × 3 × H × W levels (float) with brightness, contrast and saturation scaled by 1 ± strength for each image.

    `draw` has a row for each. The formulas are torchvision's (`adjust_brightness`, `adjust_contrast`,
    `adjust_saturation`).
    """
    if strength == 0:
        return images

    def factor(which: int) -> torch.Tensor:
        return (1 + strength * (2 * draw[:, which] - 1))[:, None, None, None].to(images.dtype)

    images = (images * factor(BRIGHTNESS)).clamp_(0, 255)
    images = torch.lerp(_grey(images).mean((2, 3), keepdim=True), images, factor(CONTRAST)).clamp_(0, 255)
    return torch.lerp(_grey(images), images, factor(SATURATION)).clamp_(0, 255)


def _grey(images: torch.Tensor) -> torch.Tensor:
    """ITU-R BT.601 luma."""
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def erase(inputs: torch.Tensor, draw: NDArray[np.float64], probability: float) -> torch.Tensor:
    """Sets a random square of some normalised inputs (N × C × H × W) to zero, the mean colour. `draw`: a row each."""
    height, width = inputs.shape[-2:]
    for n in np.flatnonzero(draw[:, ERASE] < probability):
        low, high = ERASED_AREAS
        side = math.sqrt(low + (high - low) * draw[n, ERASE_AREA])
        h, w = max(1, round(side * height)), max(1, round(side * width))
        top, left = int(draw[n, ERASE_TOP] * (height - h + 1)), int(draw[n, ERASE_LEFT] * (width - w + 1))
        inputs[n, :, top : top + h, left : left + w] = 0
    return inputs
