"""What people should look at in a classifier's evaluation: its worst images, images that are probably labelled wrongly,
and the pairs of classes that it confuses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# How much of it is kept.
WORST_MAX = 50
LABEL_ERRORS_MAX = 50
PAIRS_MAX = 20
EXAMPLES_MAX = 6
# Probabilities that are kept of each image: of 1,000 classes all would take 200 MB for 50,000 images.
CLASSES_KEPT = 10


@dataclass(frozen=True)
class Predictions:
    """Of each image of a split.

    Args:
        numbers: its place in the dataset. labels: its class. losses: −ln of the probability of its class.
        classes, probabilities: N × K, its most probable classes, best first.
    """

    numbers: NDArray[np.int64]
    labels: NDArray[np.int64]
    losses: NDArray[np.float64]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def predictions(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of a batch: what `joined` puts together."""
    logs = logits.double().log_softmax(1)
    best = logs.topk(min(CLASSES_KEPT, logs.shape[1]))
    return labels, -logs.gather(1, labels[:, None])[:, 0], best.indices, best.values.exp()


def joined(batches: list[tuple[torch.Tensor, ...]], numbers: list[int]) -> Predictions:
    columns = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return Predictions(np.array(numbers, np.int64), *columns)


def findings(of: Predictions, confusion: NDArray[np.int64]) -> dict[str, Any]:
    """`ClassificationFindings` of the protocol."""
    wrong = label_errors(of, len(confusion))
    return {
        "worst": [
            {**_image(of, at), "loss": float(of.losses[at])} for at in np.lexsort((of.numbers, -of.losses))[:WORST_MAX]
        ],
        "labelErrors": {
            "count": len(wrong),
            "images": [
                {**_image(of, at), "predicted": int(of.classes[at, place]), "probability": _at(of, at, place)}
                for at, place in wrong[:LABEL_ERRORS_MAX]
            ],
        },
        "confused": confused_pairs(of, confusion),
    }


def _image(of: Predictions, at: int) -> dict[str, Any]:
    return {
        "n": int(of.numbers[at]),
        "label": int(of.labels[at]),
        "predicted": int(of.classes[at, 0]),
        "probability": _at(of, at, 0),
        "ownProbability": float(np.exp(-of.losses[at])),
    }


def _at(of: Predictions, at: int, place: int) -> float:
    return float(of.probabilities[at, place])


def label_errors(of: Predictions, class_count: int) -> list[tuple[int, int]]:
    """Images that are probably labelled wrongly, the most probable first, each with the place of the better class among
    its `classes`.

    Confident learning (Northcutt et al. 2021): the threshold of a class is the mean probability that its own images
    have for it. An image whose class is below its threshold, while another class reaches its own, probably shows that
    one. They are ranked by the difference of both probabilities.
    """
    own = np.exp(-of.losses)
    counts = np.bincount(of.labels, minlength=class_count)
    sums = np.bincount(of.labels, own, class_count)
    # A class without images is never the better one.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reaches = (of.probabilities >= thresholds[of.classes]) & (of.classes != of.labels[:, None])
    suspects = np.flatnonzero((own < thresholds[of.labels]) & reaches.any(1))
    places = reaches.argmax(1)
    margins = own[suspects] - of.probabilities[suspects, places[suspects]]
    return [(int(at), int(places[at])) for at in suspects[np.lexsort((of.numbers[suspects], margins))]]


def confused_pairs(of: Predictions, confusion: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Pairs (class, what it is taken for) by their images, with those of which the model is most certain."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS_MAX]
    pairs = []
    for label, other in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[label, other] == 0:
            break
        both = np.flatnonzero((of.labels == label) & (of.classes[:, 0] == other))
        certain = both[np.lexsort((of.numbers[both], -of.probabilities[both, 0]))][:EXAMPLES_MAX]
        examples = of.numbers[certain].tolist()
        pair = {"label": int(label), "predicted": int(other), "count": int(wrong[label, other]), "examples": examples}
        pairs.append(pair)
    return pairs
