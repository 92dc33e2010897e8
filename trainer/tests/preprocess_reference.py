"""docs/preprocessing.md step by step in 64-bit NumPy, and the fixtures made with it.

`python -m tests.preprocess_reference`, run in this package's folder, writes ../test/fixtures/preprocess again.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from sklearn.datasets import load_digits

Json = dict[str, Any]
FIXTURES = Path(__file__).parents[2] / "test" / "fixtures" / "preprocess"


def levels(upright: NDArray[np.uint8], spec: Json) -> NDArray[np.uint8]:
    """Steps 4 and 5: h × w × 3 to H × W × 3."""
    h, w = upright.shape[:2]
    width, height = spec["width"], spec["height"]
    if spec["mode"] == "STRETCH":
        return _resize(upright, width, height)
    if spec["mode"] == "CROP":
        s = min(w / width, h / height) * spec["cropFraction"]
        part_w, part_h = _round(width * s), _round(height * s)
        left, top = (w - part_w) // 2, (h - part_h) // 2
        return _resize(upright[top : top + part_h, left : left + part_w], width, height)
    s = min(width / w, height / h)
    inner_w, inner_h = _round(w * s), _round(h * s)
    left, top = (width - inner_w) // 2, (height - inner_h) // 2
    canvas = np.full((height, width, 3), spec["padColor"], np.uint8)
    canvas[top : top + inner_h, left : left + inner_w] = _resize(upright, inner_w, inner_h)
    return canvas


def tensor(pixels: NDArray[np.uint8], spec: Json) -> NDArray[np.float64]:
    """Steps 6 and 7."""
    ordered = pixels if spec["channels"] == "RGB" else pixels[..., ::-1]
    if spec["channels"] == "GREY":
        ordered = np.floor(pixels @ np.array([19595, 38470, 7471]) / 65536 + 0.5)[..., None]
    values: NDArray[np.float64] = (ordered / 255 - np.array(spec["mean"])) / np.array(spec["std"])
    return values if spec["layout"] == "NHWC" else values.transpose(2, 0, 1)


def _round(x: float) -> int:
    return max(1, math.floor(x + 0.5))


def _resize(part: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    across, down = _weights(part.shape[1], width), _weights(part.shape[0], height)
    values = np.einsum("yj,xi,jic->yxc", down, across, part.astype(np.float64), optimize=True)
    # Sums of products that are a tie on paper may miss it by 1e-13: such a value is the tie.
    rounded: NDArray[np.float64] = np.floor(np.round(values, 9) + 0.5)
    return np.clip(rounded, 0, 255).astype(np.uint8)


def _weights(n: int, m: int) -> NDArray[np.float64]:
    scale = n / m
    centers = (np.arange(m) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(n) + 0.5 - centers[:, None]) / max(1, scale))
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


# ------------------------------------------------------------------------------------------------------------- fixtures


def _spec(width: int, height: int, mode: str, **changes: Any) -> Json:
    return {
        "version": 1,
        "width": width,
        "height": height,
        "mode": mode,
        "cropFraction": 1,
        "padColor": [114, 114, 114],
        "channels": "RGB",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "layout": "NCHW",
        **changes,
    }


CASES: list[tuple[str, str, Json]] = [
    ("photograph made smaller", "photograph.png", _spec(32, 32, "CROP")),
    ("photograph made smaller, middle part", "photograph.png", _spec(32, 32, "CROP", cropFraction=0.875)),
    ("photograph into a wide box", "photograph.png", _spec(48, 20, "CROP")),
    ("photograph stretched", "photograph.png", _spec(24, 56, "STRETCH")),
    ("photograph between bars", "photograph.png", _spec(40, 40, "LETTERBOX")),
    ("photograph between bars of a colour", "photograph.png", _spec(16, 48, "LETTERBOX", padColor=[255, 0, 7])),
    ("digit made larger", "digit.png", _spec(32, 32, "CROP")),
    ("digit in its own size", "digit.png", _spec(8, 8, "CROP")),
    ("noise made a little smaller", "noise.png", _spec(23, 17, "STRETCH")),
    ("noise to one pixel", "noise.png", _spec(1, 1, "STRETCH")),
    ("one row", "row.png", _spec(16, 16, "LETTERBOX")),
    ("alpha dropped", "alpha.png", _spec(16, 16, "STRETCH")),
    ("16-bit grey", "grey16.png", _spec(16, 16, "STRETCH")),
    ("palette", "palette.png", _spec(16, 16, "STRETCH")),
    ("blue first, channels last", "noise.png", _spec(8, 8, "CROP", channels="BGR", layout="NHWC")),
    ("levels as they are", "noise.png", _spec(8, 8, "CROP", mean=[0, 0, 0], std=[1 / 255, 1 / 255, 1 / 255])),
    *[(f"EXIF orientation {n}", f"exif{n}.jpg", _spec(16, 12, "CROP")) for n in range(1, 9)],
    ("noise in grey", "noise.png", _spec(8, 8, "CROP", channels="GREY", mean=[0.45], std=[0.226])),
    (
        "16-bit grey in one channel",
        "grey16.png",
        _spec(16, 16, "STRETCH", channels="GREY", mean=[0], std=[1], layout="NHWC"),
    ),
]
# Cases of which the tensor is stored too.
TENSORS = {
    "noise in grey",
    "16-bit grey in one channel",
    "digit made larger",
    "blue first, channels last",
    "levels as they are",
}


def images() -> dict[str, NDArray[np.uint8]]:
    """The upright RGB pixels of each image file, from how it was made, not from decoding it."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (29, 31, 3), dtype=np.uint8)
    digit = (load_digits().images[0] * 15).astype(np.uint8)
    grey = (np.arange(20)[:, None] * 700 + np.arange(20) * 2500).astype(np.uint16)
    squares = np.kron(np.array([[40, 90, 120], [160, 200, 230]], np.uint8), np.ones((16, 16), np.uint8))
    palette = rng.integers(0, 256, (16, 3), dtype=np.uint8)[rng.integers(0, 16, (20, 20))]
    photograph: NDArray[np.uint8] = data.astronaut()  # type: ignore[no-untyped-call]
    return {
        "photograph.png": photograph[20:276:4, 150:342:4],
        "digit.png": np.repeat(digit[..., None], 3, axis=2),
        "noise.png": noise,
        "row.png": noise[:1],
        "alpha.png": noise[:20, :20],
        "grey16.png": np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2),
        "palette.png": palette,
        **{f"exif{n}.jpg": np.repeat(squares[..., None], 3, axis=2) for n in range(1, 9)},
    }


# How the stored pixels come from the upright ones, by orientation (the inverse of what a reader has to do).
_STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a, 3),
}


def write_images() -> None:
    rng = np.random.default_rng(8)
    for name, pixels in images().items():
        path = FIXTURES / name
        if name == "digit.png":
            Image.fromarray(pixels[..., 0]).save(path)
        elif name == "alpha.png":
            alpha = rng.integers(0, 256, (*pixels.shape[:2], 1), dtype=np.uint8)
            Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(path)
        elif name == "grey16.png":
            Image.fromarray((np.arange(20)[:, None] * 700 + np.arange(20) * 2500).astype(np.uint16)).save(path)
        elif name == "palette.png":
            Image.fromarray(pixels).quantize(16, dither=Image.Dither.NONE).save(path)
        elif name.startswith("exif"):
            orientation = int(name[4])
            exif = Image.Exif()
            exif[0x0112] = orientation
            stored = np.ascontiguousarray(_STORED[orientation](pixels[..., 0]))
            Image.fromarray(stored).save(path, quality=100, exif=exif)
        else:
            Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def expected() -> list[tuple[Json, NDArray[np.uint8]]]:
    """Each case as `cases.json` has it, with its levels."""
    sources = images()
    found = []
    for number, (name, file, spec) in enumerate(CASES):
        case = {"name": name, "file": file, "spec": spec, "levels": f"{number:02d}.levels"}
        if name in TENSORS:
            case["tensor"] = f"{number:02d}.f32"
        found.append((case, levels(sources[file], spec)))
    return found


def main() -> None:
    FIXTURES.mkdir(parents=True, exist_ok=True)
    write_images()
    for case, pixels in expected():
        (FIXTURES / case["levels"]).write_bytes(pixels.tobytes())
        if "tensor" in case:
            (FIXTURES / case["tensor"]).write_bytes(tensor(pixels, case["spec"]).astype("<f4").tobytes())
    text = json.dumps([case for case, _ in expected()], indent=1)
    (FIXTURES / "cases.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
