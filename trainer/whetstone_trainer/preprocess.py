"""From an image file to the model's input: the one definition, docs/preprocessing.md.

Pillow only decodes: libvips, Pillow and torchvision resize differently at the edges. PyTorch's antialiased bilinear
interpolation of float32 is the definition's filter (within one level of it in 0.07 % of values, the fixtures tell).
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.protocol import PreprocessSpec

PIXELS_MAX = 25_000_000
# Pillow's own limit is another one; ours is checked from the header, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


# The import stores every other format, and what Pillow reads otherwise than it does itself, as PNG.
FORMATS = ("JPEG", "PNG", "WEBP")
ORIENTATION = 0x0112


def decode(content: bytes, name: str, reduction: int = 1) -> torch.Tensor:
    """Decodes to 3 × height × width, uint8, RGB, upright by its EXIF orientation. Raises DATA_INVALID with `name`.

    With a `reduction` of 2, 4 or 8 the sides of a JPEG come divided by it, rounded up: its decoder leaves out the finer
    parts, which takes a fraction of the time. Other formats come whole.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > PIXELS_MAX:
                raise TrainerError("DATA_INVALID", f"{name} has more than {PIXELS_MAX // 1_000_000} megapixels.")
            if reduction > 1:
                image.draft(None, (image.width // reduction, image.height // reduction))
            pixels = np.array(_upright(_rgb(image), image.info.get("exif", b"")))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise TrainerError("DATA_INVALID", f"{name} cannot be decoded: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


# What turns an image of each orientation upright, as EXIF 2.32 defines them.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, block: bytes) -> Image.Image:
    """By the EXIF block only: Pillow's `exif_transpose` also follows XMP and text chunks, which serving does not."""
    exif = Image.Exif()
    exif.load(block)
    turn = TURNS.get(exif.get(ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB. Alpha is dropped; 16-bit grey keeps its high byte, where Pillow would clip it."""
    if image.mode == "CMYK":
        raise ValueError("CMYK is not read here; the import stores such images as PNG")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8))
    return image.convert("RGB")


@dataclass(frozen=True)
class Placement:
    """Which part of an image becomes which part of the input: left, top, width and height, in pixels of each."""

    part: tuple[int, int, int, int]
    target: tuple[int, int, int, int]


def placement(width: int, height: int, spec: PreprocessSpec) -> Placement:
    """Of an upright image of `width` × `height` pixels: step 4 of the definition."""
    whole = (0, 0, spec.width, spec.height)
    if spec.mode == "STRETCH":
        return Placement((0, 0, width, height), whole)
    if spec.mode == "CROP":
        scale = min(width / spec.width, height / spec.height) * spec.crop_fraction
        w, h = _pixels(spec.width * scale), _pixels(spec.height * scale)
        return Placement(((width - w) // 2, (height - h) // 2, w, h), whole)
    scale = min(spec.width / width, spec.height / height)
    w, h = _pixels(width * scale), _pixels(height * scale)
    return Placement((0, 0, width, height), ((spec.width - w) // 2, (spec.height - h) // 2, w, h))


def resize(image: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """3 × height × width levels as 3 × spec.height × spec.width levels."""
    return place_in(image, placement(image.shape[2], image.shape[1], spec), spec)


def place_in(image: torch.Tensor, place: Placement, spec: PreprocessSpec, reduction: int = 1) -> torch.Tensor:
    """The input with `place.part` of the image, of which `image` has the sides divided by `reduction`."""
    left, top, width, height = place.part
    x, y, w, h = place.target
    x1, x2 = round(left / reduction), round((left + width) / reduction)
    y1, y2 = round(top / reduction), round((top + height) / reduction)
    resized = resample(image[:, y1:y2, x1:x2], w, h)
    if (w, h) == (spec.width, spec.height):
        return resized
    canvas = torch.tensor(spec.pad_color, dtype=torch.uint8)[:, None, None].repeat(1, spec.height, spec.width)
    canvas[:, y : y + h, x : x + w] = resized
    return canvas


def _pixels(length: float) -> int:
    return max(1, int(length + 0.5))


def resample(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Antialiased triangle filter with half-pixel centres, rounded half up once, at the end."""
    values = torch.nn.functional.interpolate(
        image[None].float(), (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return values[0].add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)


def normalise(images: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """N × 3 × height × width levels, RGB, as the input tensor: float32, in the spec's channel order and layout."""
    if spec.channels == "BGR":
        images = images.flip(1)
    elif spec.channels == "GREY":
        images = luma(images)
    mean = torch.tensor(spec.mean, device=images.device)[:, None, None]
    std = torch.tensor(spec.std, device=images.device)[:, None, None]
    values = (images.float() / 255 - mean) / std
    return values if spec.layout == "NCHW" else values.permute(0, 2, 3, 1).contiguous()


def channel_count(spec: PreprocessSpec) -> int:
    """Of the input."""
    return 1 if spec.channels == "GREY" else 3


def luma(images: torch.Tensor) -> torch.Tensor:
    """N × 3 × H × W levels as N × 1 × H × W. The weights add up to 65,536, so that a grey pixel keeps its level."""
    weights = torch.tensor([19595.0, 38470.0, 7471.0], device=images.device)[:, None, None]
    # Exact: no sum exceeds 2^24.
    return (images.float() * weights).sum(1, keepdim=True).add_(32768).div_(65536).floor_()


def to_numpy(images: torch.Tensor, spec: PreprocessSpec) -> NDArray[np.float32]:
    """What a serving engine is given."""
    array: NDArray[np.float32] = normalise(images, spec).numpy()
    return array
