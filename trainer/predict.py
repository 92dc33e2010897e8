"""Says what is in images, with the model in this folder: `python predict.py IMAGE... [--top N] [--score S]`.

It prints one line of JSON for each image: the answer that `predict` of Whetstone gives. preprocess.json says how an
image becomes the input of the model, predict.json how its outputs are read, labels.txt what the classes are called.
Needs onnxruntime, numpy and Pillow. SPDX-License-Identifier: Apache-2.0
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

# ONNX Runtime reads it when it is imported: nothing is stored or sent about the models that it loads.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Json = dict[str, Any]
Array = NDArray[Any]
# Left, top, width, height.
Rectangle = tuple[int, int, int, int]

FORMATS = ("JPEG", "PNG", "WEBP")
ORIENTATION = 0x0112
# What turns an image of each EXIF orientation upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Element types of the input, by ONNX Runtime's names.
INPUT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
# Detections are searched among so many candidates, the best ones.
CANDIDATES_MAX = 3000
CLASSES_MAX = 10_000
# The size is checked in `decode`, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


class Model:
    """The model of a package that was unpacked into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.preprocess: Json = json.loads((folder / "preprocess.json").read_text("utf-8"))
        self.settings: Json = json.loads((folder / "predict.json").read_text("utf-8"))
        labels = folder / "labels.txt"
        self.labels = labels.read_text("utf-8").split("\n")[:-1] if labels.exists() else None
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def predict(self, image: Path | BinaryIO, top: int = 5, score: float | None = None) -> Json:
        """The `classes` or `detections` of an image. Raises ValueError with what is wrong."""
        pixels = decode(image, self.settings["maxImagePixels"])
        port = self.session.get_inputs()[0]
        values = tensor(levels(pixels, self.preprocess), self.preprocess)
        if port.type == "tensor(uint8)":
            values = np.clip(np.floor(values + 0.5), 0, 255)
        names = [output.name for output in self.session.get_outputs()]
        if self.settings["task"] == "CLASSIFICATION":
            names = names[:1]
        outputs = self.session.run(names, {port.name: values[None].astype(INPUT_TYPES[port.type])})
        if any(output.dtype not in (np.float16, np.float32, np.float64) for output in outputs):
            raise ValueError("The outputs of the model are no floating-point numbers.")
        floats = [output.astype(np.float32) for output in outputs]
        if self.settings["task"] == "CLASSIFICATION":
            return {"classes": classes(floats[0], self.settings, self.labels)[:top]}
        settings = self.settings if score is None else {**self.settings, "scoreThreshold": score}
        size = (pixels.shape[1], pixels.shape[0])
        return {"detections": detections(floats, settings, self.labels, size, self.preprocess)}


# -------------------------------------------------------------------------------------------- from an image to a tensor


def decode(file: Path | BinaryIO, pixels_max: int) -> NDArray[np.uint8]:
    """Height × width × RGB, upright by the EXIF orientation. Raises ValueError."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > pixels_max:
                raise ValueError(f"The image has {image.width} × {image.height} pixels; {pixels_max} are allowed.")
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError("The image is an animation: a still image is needed.")
            rgb = _rgb(image)
            # The block may stand behind the pixels, so that it is known once they are read.
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
            turn = TURNS.get(exif.get(ORIENTATION, 1))
            return np.array(rgb if turn is None else rgb.transpose(turn))
    except UnidentifiedImageError as error:
        raise ValueError("The image is not JPEG, PNG or WebP: convert it to PNG.") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"The image cannot be read: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    """Alpha is dropped; 16-bit grey keeps its high byte, where Pillow would clip it."""
    if image.mode == "CMYK":
        raise ValueError("The image is CMYK, which libraries convert differently: convert it to PNG.")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8))
    return image.convert("RGB")


def placement(width: int, height: int, spec: Json) -> tuple[Rectangle, Rectangle]:
    """Which part of an image becomes which part of the input."""
    w, h = spec["width"], spec["height"]
    if spec["mode"] == "STRETCH":
        return (0, 0, width, height), (0, 0, w, h)
    if spec["mode"] == "CROP":
        scale = min(width / w, height / h) * spec["cropFraction"]
        return _centred(_round(w * scale), _round(h * scale), width, height), (0, 0, w, h)
    scale = min(w / width, h / height)
    return (0, 0, width, height), _centred(_round(width * scale), _round(height * scale), w, h)


def _round(length: float) -> int:
    return max(1, math.floor(length + 0.5))


def _centred(width: int, height: int, outer_width: int, outer_height: int) -> Rectangle:
    return (outer_width - width) // 2, (outer_height - height) // 2, width, height


def levels(pixels: NDArray[np.uint8], spec: Json) -> NDArray[np.uint8]:
    """The image in the size of the input: height × width × RGB."""
    (left, top, width, height), (x, y, w, h) = placement(pixels.shape[1], pixels.shape[0], spec)
    part = pixels[top : top + height, left : left + width]
    columns = [np.tensordot(part[:, near], weights, (1, 0)) for near, weights in _weights(width, w)]
    between = np.stack(columns, 1).astype(np.float32)
    rows = [np.tensordot(weights, between[near], (0, 0)) for near, weights in _weights(height, h)]
    canvas = np.full((spec["height"], spec["width"], 3), spec["padColor"], np.uint8)
    canvas[y : y + h, x : x + w] = np.clip(np.floor(np.stack(rows) + 0.5), 0, 255)
    return canvas


def _weights(n: int, m: int) -> list[tuple[slice, NDArray[np.float64]]]:
    """Which of `n` pixels each of `m` is made of, and how much they weigh: an antialiased triangle filter."""
    scale = n / m
    support = max(1.0, scale)
    found = []
    for i in range(m):
        centre = (i + 0.5) * scale
        first = max(0, math.floor(centre - support - 0.5) + 1)
        last = min(n - 1, math.ceil(centre + support - 0.5) - 1)
        weights = np.maximum(0, 1 - np.abs(np.arange(first, last + 1) + 0.5 - centre) / support)
        found.append((slice(first, last + 1), weights / weights.sum()))
    return found


def tensor(image: NDArray[np.uint8], spec: Json) -> NDArray[np.float32]:
    """Levels as the input of the model, without the dimension of the batch."""
    ordered: Array = image if spec["channels"] == "RGB" else image[..., ::-1]
    if spec["channels"] == "GREY":
        ordered = _luma(image)
    values = ((ordered / 255 - np.array(spec["mean"])) / np.array(spec["std"])).astype(np.float32)
    return values if spec["layout"] == "NHWC" else np.ascontiguousarray(values.transpose(2, 0, 1))


def _luma(image: NDArray[np.uint8]) -> Array:
    """One channel. The weights add up to 65,536, so that a grey pixel keeps its level."""
    sums: Array = image.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return (sums + 32768 >> 16)[..., None]


# ---------------------------------------------------------------------------------- from outputs to what is in an image


def classes(output: NDArray[np.float32], settings: Json, labels: list[str] | None) -> list[Json]:
    """Every class with its probability, the most probable first."""
    if sum(size != 1 for size in output.shape) > 1:
        raise ValueError(f"The output has the shape {list(output.shape)}; that of a classifier is 1 × classes.")
    scores = output.ravel()
    if labels is not None and len(labels) != len(scores):
        raise ValueError(f"The model has {len(scores)} classes, but labels.txt has {len(labels)} lines.")
    if settings["scores"] == "LOGITS":
        powers = np.exp(scores.astype(np.float64) - scores.max())
        scores = powers / powers.sum()
    _refuse_nan(scores)
    order = np.argsort(-scores, kind="stable")
    return [{"label": _label(labels, i), "index": int(i), "probability": float(scores[i])} for i in order]


def detections(
    outputs: list[NDArray[np.float32]], settings: Json, labels: list[str] | None, size: tuple[int, int], spec: Json
) -> list[Json]:
    """What a detector finds in one image of `size` (width, height), the highest score first, in pixels of the image."""
    floats, scores, named = _places(outputs, settings["outputLayout"], None if labels is None else len(labels))
    _refuse_nan(floats)
    boxes = floats.astype(np.float64)
    (left, top, width, height), (x, y, w, h) = placement(*size, spec)
    found = []
    for place, label, score in _best(boxes, scores, named, settings):
        x1, x2 = np.clip((boxes[place, ::2] - x) * (width / w) + left, 0, size[0]).tolist()
        y1, y2 = np.clip((boxes[place, 1::2] - y) * (height / h) + top, 0, size[1]).tolist()
        box = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
        found.append({"label": _label(labels, label), "index": label, "score": score, "box": box})
    return found


def _places(
    outputs: list[NDArray[np.float32]], layout: str, class_count: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64] | None]:
    """A × 4 boxes (left, top, right, bottom in pixels of the input) and A × classes scores. Or, where the graph has
    suppressed overlaps itself, A × 1 scores and the class of each box."""
    rows = outputs[0][0]
    if layout == "SUPPRESSED":
        # Rows without a score or a class fill the output up.
        rows = rows[(rows[:, 4] > 0) & (rows[:, 5] >= 0)]
        named = rows[:, 5].astype(np.int64)
        if (named != rows[:, 5]).any() or (named >= (class_count or CLASSES_MAX)).any():
            raise ValueError("The model names a class that labels.txt does not have.")
        return rows[:, :4], rows[:, 4:5], named
    if layout == "BOXES_SCORES":
        boxes, scores = rows, outputs[1][0]
    else:
        rows = rows.T if layout == "CENTRES_FIRST" else rows
        centres, halves = rows[:, :2], rows[:, 2:4] / 2
        boxes = np.concatenate([centres - halves, centres + halves], 1)
        scores = rows[:, 4:] if layout == "CENTRES_FIRST" else rows[:, 4:5] * rows[:, 5:]
    if class_count not in (None, scores.shape[1]):
        raise ValueError(f"The model has {scores.shape[1]} classes, but labels.txt has {class_count} lines.")
    return boxes, scores, None


def _best(
    boxes: NDArray[np.float64], scores: NDArray[np.float32], named: NDArray[np.int64] | None, settings: Json
) -> list[tuple[int, int, float]]:
    """Place, class and score of what is found. A better box of its class drops one that it overlaps by more than
    `nmsIou`, unless the graph has done that (`named`)."""
    flat = scores.ravel()
    candidates = np.flatnonzero(flat >= settings["scoreThreshold"])
    candidates = candidates[np.argsort(-flat[candidates], kind="stable")][:CANDIDATES_MAX]
    kept: list[tuple[int, int, float]] = []
    by_label: dict[int, list[int]] = {}
    for candidate in candidates.tolist():
        if len(kept) == settings["boxesMax"]:
            break
        place, label = divmod(candidate, scores.shape[1]) if named is None else (candidate, int(named[candidate]))
        better = by_label.setdefault(label, [])
        if named is None and better and (_iou(boxes[better], boxes[place]) > settings["nmsIou"]).any():
            continue
        better.append(place)
        kept.append((place, label, float(flat[candidate])))
    return kept


def _iou(boxes: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    size = np.maximum(0, np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]))
    common = size[:, 0] * size[:, 1]
    union = np.prod(boxes[:, 2:] - boxes[:, :2], 1) + np.prod(box[2:] - box[:2]) - common
    shares: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares


def _label(labels: list[str] | None, index: int) -> str | None:
    return labels[index] if labels is not None and index < len(labels) else None


def _refuse_nan(values: Array) -> None:
    if np.isnan(values).any():
        raise ValueError("The model failed on this image: its output is not made of numbers.")


def main() -> int:
    parser = argparse.ArgumentParser(description="Says what is in images. Prints one line of JSON for each.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a JPEG, PNG or WebP file")
    parser.add_argument("--top", type=int, default=5, help="most classes of an image (default: 5)")
    parser.add_argument("--score", type=float, help="least score of a detection (default: that of predict.json)")
    options = parser.parse_args()
    model = Model(Path(__file__).resolve().parent)
    for image in options.images:
        try:
            print(json.dumps(model.predict(image, options.top, options.score), ensure_ascii=False))
        except ValueError as error:
            print(f"{image}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
