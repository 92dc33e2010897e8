"""From an image file to the model's input: the one definition, docs/preprocessing.md, in NumPy.

Pillow only decodes. The resize is our own because libvips, Pillow and torchvision differ at the edges.
"""

import warnings
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.protocol import PreprocessSpec

Pixels = NDArray[np.uint8]
PIXELS_MAX = 25_000_000


def decode(file: Path | BinaryIO, name: str) -> Pixels:
    """Decodes to height × width × 3, uint8, RGB, upright by EXIF orientation. Raises DATA_INVALID with `name`."""
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is higher; ours is checked from the header, before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.width * image.height > PIXELS_MAX:
                    raise TrainerError("DATA_INVALID", f"{name} has more than {PIXELS_MAX // 1_000_000} megapixels.")
                return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except FileNotFoundError as error:
        raise TrainerError("DATA_INVALID", f"{name} is missing from the dataset's folder.") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainerError("DATA_INVALID", f"{name} cannot be decoded: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB. Alpha is dropped, 16-bit grey keeps its high byte (Pillow would clip it)."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8))
    return image.convert("RGB")


def resize(image: Pixels, spec: PreprocessSpec) -> Pixels:
    """The image as spec.height × spec.width × 3, uint8, RGB."""
    height, width = image.shape[:2]
    if spec.mode == "STRETCH":
        return resample(image, (0.0, 0.0, float(width), float(height)), spec.width, spec.height)
    if spec.mode == "CROP":
        scale = min(width / spec.width, height / spec.height) * spec.crop_fraction
        w, h = spec.width * scale, spec.height * scale
        return resample(image, ((width - w) / 2, (height - h) / 2, w, h), spec.width, spec.height)
    scale = min(spec.width / width, spec.height / height)
    w_in, h_in = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    left, top = (spec.width - w_in) // 2, (spec.height - h_in) // 2
    canvas = np.empty((spec.height, spec.width, 3), np.uint8)
    canvas[:] = spec.pad_color
    inner = resample(image, (0.0, 0.0, float(width), float(height)), w_in, h_in)
    canvas[top : top + h_in, left : left + w_in] = inner
    return canvas


def resample(image: Pixels, box: tuple[float, float, float, float], width: int, height: int) -> Pixels:
    """The box (left, top, width, height in source pixels) as width × height pixels.

    Antialiased triangle filter, half-pixel centres, horizontal then vertical in float64, rounded half up once at the end.
    """
    left, top, box_width, box_height = box
    rows, columns = image.shape[:2]
    across = _weights(columns, left, box_width, width)
    down = _weights(rows, top, box_height, height)
    wide = np.einsum("oi,yic->yoc", across, image.astype(np.float64), optimize=True)
    tall = np.einsum("oi,ixc->oxc", down, wide, optimize=True)
    return np.clip(np.floor(tall + 0.5), 0, 255).astype(np.uint8)


@lru_cache(maxsize=256)
def _weights(source: int, start: float, length: float, target: int) -> NDArray[np.float64]:
    """target × source: how much each source pixel counts in each target pixel. Taps outside the image are dropped and
    the rest is normalised to 1."""
    scale = length / target
    support = max(1.0, scale)
    centers = start + (np.arange(target) + 0.5) * scale
    distance = np.abs((np.arange(source) + 0.5)[None, :] - centers[:, None]) / support
    weights = np.maximum(0.0, 1.0 - distance)
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def normalise(pixels: Pixels, spec: PreprocessSpec) -> NDArray[np.float32]:
    """N × height × width × 3 levels to the input tensor, float32, in the spec's channel order and layout."""
    ordered = pixels if spec.channels == "RGB" else pixels[..., ::-1]
    mean, std = np.float32(spec.mean), np.float32(spec.std)
    values = (ordered.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(values if spec.layout == "NHWC" else values.transpose(0, 3, 1, 2))
