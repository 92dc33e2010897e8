"""A plain implementation of docs/preprocessing.md, "Detections", and the fixtures that every implementation is held to.

`python -m tests.detections_reference` writes test/fixtures/detections/. It knows nothing of the implementations that
it judges: loops over numbers of 64 bits, no library but NumPy for reading and writing.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]
FIXTURES = Path(__file__).parents[2] / "test" / "fixtures" / "detections"
CLASSES = 3
SCORE_THRESHOLD, NMS_IOU, BOXES_MAX, CANDIDATES_MAX = 0.001, 0.7, 100, 3000


def corners(output: NDArray[np.float64]) -> tuple[list[list[float]], list[list[float]]]:
    """One image's (4 + classes) × A, centres first, as boxes by their corners and scores."""
    boxes, scores = [], []
    for place in range(output.shape[1]):
        x, y, width, height, *of_classes = (float(value) for value in output[:, place])
        boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        scores.append(of_classes)
    return boxes, scores


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def with_objectness(output: NDArray[np.float64]) -> tuple[list[list[float]], list[list[float]]]:
    """One image's A × (5 + classes) as boxes by their corners and scores."""
    boxes, scores = corners(np.concatenate([output[:, :4], output[:, 5:]], 1).T)
    factors = output[:, 4].tolist()
    return boxes, [[factor * score for score in of_place] for factor, of_place in zip(factors, scores, strict=True)]


def suppressed(output: NDArray[np.float64]) -> list[Json]:
    """What is found in one image's M × 6, whose graph has suppressed overlaps itself."""
    rows = [[float(value) for value in row] for row in output]
    kept = [row for row in rows if row[4] >= SCORE_THRESHOLD and row[5] >= 0]
    kept.sort(key=lambda row: -row[4])
    return [{"label": int(row[5]), "score": row[4], "box": row[:4]} for row in kept[:BOXES_MAX]]


def found(boxes: list[list[float]], scores: list[list[float]]) -> list[Json]:
    """What is found in one image, best first, in pixels of the input."""
    candidates = [
        (score, place, label)
        for place, of_classes in enumerate(scores)
        for label, score in enumerate(of_classes)
        if score >= SCORE_THRESHOLD
    ]
    candidates.sort(key=lambda candidate: -candidate[0])
    kept: list[tuple[float, int, int]] = []
    for candidate in candidates[:CANDIDATES_MAX]:
        _, place, label = candidate
        if all(label != other or iou(boxes[place], boxes[better]) <= NMS_IOU for _, better, other in kept):
            kept.append(candidate)
    return [{"label": label, "score": score, "box": boxes[place]} for score, place, label in kept[:BOXES_MAX]]


def to_image(box: list[float], width: int, height: int, side: int) -> list[float]:
    """From a square input that the image was letterboxed into."""
    scale = min(side / width, side / height)
    w, h = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    left, top = (side - w) // 2, (side - h) // 2
    x1, y1, x2, y2 = box
    return [
        min(max((x1 - left) * width / w, 0.0), width),
        min(max((y1 - top) * height / h, 0.0), height),
        min(max((x2 - left) * width / w, 0.0), width),
        min(max((y2 - top) * height / h, 0.0), height),
    ]


def cases() -> list[tuple[Json, NDArray[np.float32]]]:
    """Seeded outputs: clusters of boxes around a few objects, ties, empty images, and more boxes than are kept."""
    rng = np.random.default_rng(0)
    made: list[tuple[Json, NDArray[np.float32]]] = []
    for name, width, height, side, places, objects in (
        ("one crowd", 200, 100, 64, 84, 3),
        ("many small", 64, 64, 64, 84, 40),
        ("nothing", 100, 300, 64, 84, 0),
        ("more than are kept", 640, 480, 128, 336, 200),
    ):
        centres = rng.uniform(0, side, (max(1, objects), 4)) * [1, 1, 0.3, 0.3] + [0, 0, 6, 6]
        chosen = rng.integers(0, max(1, objects), places)
        boxes = centres[chosen] + rng.normal(0, 1, (places, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        scores = rng.beta(0.3, 3, (places, CLASSES)) if objects else rng.uniform(0, 0.0005, (places, CLASSES))
        # The same score twice: the earlier place goes first.
        scores[places // 2] = scores[0]
        output = np.concatenate([boxes, scores], 1).T.astype(np.float32)
        expected = found(*corners(output.astype(np.float64)))
        what = {"name": name, "layout": "CENTRES_FIRST", "width": width, "height": height, "side": side}
        made.append((case_of({**what, "output": f"{len(made):02d}.f32"}, output, expected), output))
    rng = np.random.default_rng(1)
    boxes = rng.uniform(8, 56, (84, 4)) * [1, 1, 0.5, 0.5]
    rows = np.concatenate([boxes, rng.beta(1, 2, (84, 1 + CLASSES))], 1).astype(np.float32)
    expected = found(*with_objectness(rows.astype(np.float64)))
    what = {"name": "objectness", "layout": "OBJECTNESS", "width": 200, "height": 100, "side": 64, "output": "04.f32"}
    made.append((case_of(what, rows, expected), rows))
    # Every box overlaps another one of its class: what the graph has kept stays. Two rows are filled up.
    corner = np.repeat(rng.uniform(0, 30, (15, 2)), 2, 0) + rng.uniform(0, 0.5, (30, 2))
    label = np.repeat(rng.integers(0, CLASSES, (15, 1)), 2, 0)
    boxes = np.concatenate([corner, corner + 30, rng.uniform(0, 1, (30, 1)), label], 1)
    rows = np.concatenate([boxes, [[0] * 6], [[-1] * 6]]).astype(np.float32)
    expected = suppressed(rows.astype(np.float64))
    what = {"name": "suppressed", "layout": "SUPPRESSED", "width": 100, "height": 100, "side": 64, "output": "05.f32"}
    made.append((case_of(what, rows, expected), rows))
    return made


def case_of(what: Json, output: NDArray[np.float32], expected: list[Json]) -> Json:
    width, height, side = what["width"], what["height"], what["side"]
    return {
        **what,
        "shape": list(output.shape),
        "detections": [{**one, "box": to_image(one["box"], width, height, side)} for one in expected],
    }


def write() -> None:
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for case, output in cases():
        (FIXTURES / case["output"]).write_bytes(output.astype("<f4").tobytes())
    text = json.dumps({"classes": CLASSES, "cases": [case for case, _ in cases()]}, indent=1)
    (FIXTURES / "cases.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    write()
