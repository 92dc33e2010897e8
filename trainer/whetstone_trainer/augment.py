"""Random changes of training images, each a pure function of (seed, epoch, index): a resumed run repeats them exactly.

Geometry happens for each image on the CPU, in torchvision's `transforms.v2`; colour for the whole batch on the device.
Sources: random resized crop, Szegedy et al. 2014; colour jitter, Krizhevsky et al. 2012; erasing, Zhong et al. 2017;
TrivialAugment, Müller and Hutter 2021; MixUp, Zhang et al. 2017; CutMix, Yun et al. 2019.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.preprocess import resize
from whetstone_trainer.protocol import SCHEMA, Hyperparameters, PreprocessSpec
from whetstone_trainer.vision import functional

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
    ROTATION,
    HUE,
    TRIVIAL,
    TRIVIAL_CHANGE,
    TRIVIAL_STRENGTH,
    QUARTER_TURN,
    SIDE,
) = range(20)

NARROWEST = 3 / 4
ASPECT_RATIOS = (math.log(NARROWEST), math.log(1 / NARROWEST))
ERASED_AREAS = (0.02, 0.33)
# Of the Beta distribution of MixUp's shares: most pictures show nearly one image.
MIXUP_ALPHA = 0.2
# The strides of every topology divide it.
SIDE_STEP = 32


def draws(seed: int, epoch: int, index: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) for one image in one epoch. More of them leave the first ones as they were."""
    return np.random.default_rng((seed, epoch, index)).random(SIDE + 1)


def picture(
    image: torch.Tensor, draw: NDArray[np.float64], parameters: ClassificationHyperparameters, spec: PreprocessSpec
) -> torch.Tensor:
    """All changes of one image that happen on the CPU."""
    image = geometry(image, draw, parameters, spec)
    image = image.rot90(quarter_turns(draw, parameters), (1, 2))
    if parameters.rotation > 0:
        image = turn(image, parameters.rotation * (2 * draw[ROTATION] - 1), spec)
    if parameters.hue > 0:
        image = functional.adjust_hue(image, parameters.hue * (2 * draw[HUE] - 1))
    if draw[TRIVIAL] < parameters.trivial_augment:
        change = TRIVIAL_CHANGES[int(draw[TRIVIAL_CHANGE] * len(TRIVIAL_CHANGES))]
        image = change(image, 2 * draw[TRIVIAL_STRENGTH] - 1, spec)
    return image


def quarter_turns(draw: NDArray[np.float64], parameters: Hyperparameters) -> int:
    """How often an image, which is square, is turned by 90° against the clock."""
    turned = draw[QUARTER_TURN] < parameters.quarter_turns
    return 1 + int(3 * draw[QUARTER_TURN] / parameters.quarter_turns) if turned else 0


def batch_spec(draws: NDArray[np.float64], parameters: Hyperparameters, spec: PreprocessSpec) -> PreprocessSpec:
    """The spec with the side that the pictures of a batch have: a multiple of 32 that `multi_scale` allows.

    Args:
        draws: a row for each image.
    """
    share = parameters.multi_scale
    most = SCHEMA["$defs"][type(parameters).__name__]["properties"]["imageSize"]["maximum"]
    smallest = max(1, math.ceil(spec.width * (1 - share) / SIDE_STEP))
    largest = math.floor(min(most, spec.width * (1 + share)) / SIDE_STEP)
    if share == 0 or smallest >= largest:
        return spec
    side = SIDE_STEP * (smallest + int(draws[0, SIDE] * (largest - smallest + 1)))
    return replace(spec, width=side, height=side)


def resized(levels: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """N × 3 × H × W levels (float) in the size of the spec."""
    size = (spec.height, spec.width)
    if levels.shape[-2:] == size:
        return levels
    return functional.resize(levels, list(size), antialias=True)  # type: ignore[no-any-return]


def mean_color(spec: PreprocessSpec) -> list[float]:
    """Fills what a change leaves empty."""
    levels = [255 * level for level in (reversed(spec.mean) if spec.channels == "BGR" else spec.mean)]
    return levels * 3 if spec.channels == "GREY" else levels


def turn(image: torch.Tensor, degrees: float, spec: PreprocessSpec) -> torch.Tensor:
    bilinear = functional.InterpolationMode.BILINEAR
    turned: torch.Tensor = functional.rotate(image, degrees, interpolation=bilinear, fill=mean_color(spec))
    return turned


def _affine(
    image: torch.Tensor, spec: PreprocessSpec, shear: tuple[float, float], move: tuple[float, float]
) -> torch.Tensor:
    """`shear`: by the tangent; `move`: by shares of the sides."""
    height, width = image.shape[-2:]
    moved: torch.Tensor = functional.affine(
        image,
        angle=0,
        translate=[round(move[0] * width), round(move[1] * height)],
        scale=1,
        shear=[math.degrees(math.atan(tangent)) for tangent in shear],
        interpolation=functional.InterpolationMode.BILINEAR,
        fill=mean_color(spec),
    )
    return moved


# TrivialAugment's list with its wide ranges. The strength is between -1 and 1.
TRIVIAL_CHANGES: tuple[Callable[[torch.Tensor, float, PreprocessSpec], torch.Tensor], ...] = (
    lambda image, strength, spec: image,
    lambda image, strength, spec: _affine(image, spec, (0.99 * strength, 0), (0, 0)),
    lambda image, strength, spec: _affine(image, spec, (0, 0.99 * strength), (0, 0)),
    lambda image, strength, spec: _affine(image, spec, (0, 0), (strength / 7, 0)),
    lambda image, strength, spec: _affine(image, spec, (0, 0), (0, strength / 7)),
    lambda image, strength, spec: turn(image, 135 * strength, spec),
    lambda image, strength, spec: functional.adjust_brightness(image, 1 + 0.99 * strength),
    lambda image, strength, spec: functional.adjust_saturation(image, 1 + 0.99 * strength),
    lambda image, strength, spec: functional.adjust_contrast(image, 1 + 0.99 * strength),
    lambda image, strength, spec: functional.adjust_sharpness(image, 1 + 0.99 * strength),
    lambda image, strength, spec: functional.posterize(image, 8 - round(6 * abs(strength))),
    lambda image, strength, spec: functional.solarize(image, 255 * (1 - abs(strength))),
    lambda image, strength, spec: functional.autocontrast(image),
    lambda image, strength, spec: functional.equalize(image),
)


@dataclass(frozen=True)
class Mixing:
    """That a picture shows a part of another image.

    Args:
        index: of the other image; draw: its numbers.
        share: how much of the picture is the first image.
        centre: of the rectangle that shows the other image, as shares of the sides; None: the two are blended.
    """

    index: int
    draw: NDArray[np.float64]
    share: float
    centre: tuple[float, float] | None


def mixing(place: tuple[int, int, int], count: int, parameters: ClassificationHyperparameters) -> Mixing | None:
    """What image number % count of `count` is mixed with. `place`: (seed, epoch, number)."""
    if parameters.mix_up == parameters.cut_mix == 0:
        return None
    rng = np.random.default_rng((*place, 1))
    up, cut, index = rng.random(), rng.random(), int(rng.integers(count))
    draw, centre = rng.random(TRIVIAL_STRENGTH + 1), (rng.random(), rng.random())
    if up < parameters.mix_up:
        share, rectangle = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA), None
    elif cut < parameters.cut_mix:
        share, rectangle = rng.random(), centre
    else:
        return None
    # Numbers that were added later are drawn last, so that those before stay as they were.
    return Mixing(index, np.append(draw, rng.random(SIDE - TRIVIAL_STRENGTH)), share, rectangle)


def mix(image: torch.Tensor, other: torch.Tensor, how: Mixing) -> tuple[torch.Tensor, float]:
    """The picture of two of the same size, and the share of it that is the first one."""
    if how.centre is None:
        return torch.lerp(other.float(), image.float(), how.share).round_().to(torch.uint8), how.share
    height, width = image.shape[-2:]
    side = math.sqrt(1 - how.share)
    left, right = (round(width * (how.centre[0] + half * side)) for half in (-0.5, 0.5))
    top, bottom = (round(height * (how.centre[1] + half * side)) for half in (-0.5, 0.5))
    # What lies outside of the picture does not count.
    rows, columns = slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right))
    mixed = image.clone()
    mixed[:, rows, columns] = other[:, rows, columns]
    covered = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - covered / (height * width)


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
