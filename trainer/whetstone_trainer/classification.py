"""The task CLASSIFICATION: one class for each image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from whetstone_trainer import augment
from whetstone_trainer.data import ordered_batches
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.findings import Predictions, findings, joined, predictions
from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.images import Images
from whetstone_trainer.preprocess import normalise
from whetstone_trainer.protocol import DatasetItem, ModelRef, PreprocessSpec
from whetstone_trainer.protocol_json import to_json
from whetstone_trainer.ranks import ALONE, Ranks
from whetstone_trainer.task import NOT_FINITE, Outputs, Ports, Predict, Read


@dataclass(frozen=True)
class Metrics:
    """Of a classifier on a split; `macro_top1` is the mean recall over the classes that have images."""

    images: int
    loss: float
    top1: float
    top5: float
    macro_top1: float


@dataclass(frozen=True)
class Evaluation:
    """`confusion[true, predicted]` counts images."""

    metrics: Metrics
    confusion: NDArray[np.int64]
    predictions: Predictions


@dataclass(frozen=True)
class Mixed:
    """What a training picture of two images shows: `share` of it is of the class `label`, the rest of `other`."""

    label: int
    other: int
    share: float


NAME = "CLASSIFICATION"
OUTPUTS = ("logits",)
METRICS = Metrics
CURVES = ("loss", "top1", "top5", "macro_top1")
METRIC = "top1"
RUNNING = ("loss", "top1")


def truth(item: DatasetItem) -> int:
    if item.label is None:
        raise TrainerError("DATA_INVALID", "The dataset is one of boxes: a classifier needs a class for each image.")
    return item.label


def labels(label: int) -> Sequence[int]:
    return (label,)


def relabelled(label: int, classes: Sequence[int]) -> int:
    return classes[label]


# ------------------------------------------------------------------------------------------------------------- training


def kept_as(parameters: ClassificationHyperparameters, spec: PreprocessSpec) -> PreprocessSpec | int:
    """What the model sees. Where crops are random, so many pixels that the smallest and narrowest of them fills the
    input."""
    if parameters.crop_scale == 1:
        return spec
    return math.ceil(max(spec.width, spec.height) / math.sqrt(augment.NARROWEST * parameters.crop_scale))


def example(
    images: Images,
    place: tuple[int, int, int],
    draw: NDArray[np.float64],
    parameters: ClassificationHyperparameters,
    spec: PreprocessSpec,
) -> tuple[torch.Tensor, int | Mixed]:
    index = place[2] % len(images)
    picture, label = augment.picture(images[index], draw, parameters, spec), images.truths[index]
    how = augment.mixing(place, len(images), parameters)
    if how is None:
        return picture, label
    mixed, share = augment.mix(picture, augment.picture(images[how.index], how.draw, parameters, spec), how)
    return mixed, Mixed(label, images.truths[how.index], share)


def inputs(
    levels: torch.Tensor, draws: NDArray[np.float64], parameters: ClassificationHyperparameters, spec: PreprocessSpec
) -> torch.Tensor:
    levels = augment.resized(levels, spec)
    levels = augment.color(levels, torch.from_numpy(draws).to(levels.device), parameters.color_jitter)
    return augment.erase(normalise(levels, spec), draws, parameters.erasing)


def loss(
    outputs: Outputs,
    truths: Sequence[int | Mixed],
    parameters: ClassificationHyperparameters,
    spec: PreprocessSpec,
    class_weights: torch.Tensor | None,
    *,
    ranks: Ranks = ALONE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy with label smoothing (Szegedy et al. 2015). Of a mixed picture the class with the larger share is
    the true one for the running top-1."""
    (logits,) = outputs
    smoothing = parameters.label_smoothing

    def losses(labels: torch.Tensor) -> torch.Tensor:
        each = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        # Not the function's own `weight`: it divides by the weights of the batch, which would favour batches without
        # rare classes.
        return each if class_weights is None else each * class_weights[labels]

    pairs = [truth if isinstance(truth, Mixed) else Mixed(truth, truth, 1.0) for truth in truths]
    first = torch.tensor([pair.label for pair in pairs], device=logits.device)
    wanted = first
    if any(isinstance(truth, Mixed) for truth in truths):
        other = torch.tensor([pair.other for pair in pairs], device=logits.device)
        share = torch.tensor([pair.share for pair in pairs], device=logits.device)
        mean = (share * losses(first) + (1 - share) * losses(other)).mean()
        wanted = torch.where(share >= 0.5, first, other)
    elif class_weights is None:
        mean = nn.functional.cross_entropy(logits, first, label_smoothing=smoothing)
    else:
        mean = losses(first).mean()
    correct = (logits.detach().argmax(1) == wanted).sum()
    return mean, torch.stack([mean.detach().double() * len(wanted), correct, torch.full_like(correct, len(wanted))])


# ------------------------------------------------------------------------------------------------------------- judging


def evaluate(
    predict: Predict, images: Images, *, class_count: int, batch_size: int, workers: int, events: Events
) -> Evaluation:
    """Top-1, top-5, loss and confusions in one pass over the images in their order; the step moves with each batch."""
    batches = []
    for batch in ordered_batches(images, batch_size, workers):
        (logits,) = predict(batch.images)
        batches.append(predictions(logits, torch.tensor(batch.truths)))
        events.advance()
        events.check_stop()
    seen = joined(batches, [item.n for item in images.items])
    confusion = np.zeros((class_count, class_count), np.int64)
    np.add.at(confusion, (seen.labels, seen.classes[:, 0]), 1)
    in_top5 = int((seen.classes[:, :5] == seen.labels[:, None]).any(1).sum())
    count = len(images)
    present = confusion.sum(1) > 0
    recall = confusion.diagonal()[present] / confusion.sum(1)[present]
    loss = float(seen.losses.sum()) / count
    metrics = Metrics(count, loss, int(confusion.trace()) / count, in_top5 / count, float(recall.mean()))
    return Evaluation(metrics, confusion, seen)


def rank(metrics: Metrics, selection_metric: str) -> tuple[float, ...]:
    if selection_metric == "LOSS":
        return (-metrics.loss,)
    return (metrics.macro_top1 if selection_metric == "MACRO_TOP1" else metrics.top1, -metrics.loss)


def report(evaluation: Evaluation, classes: tuple[str, ...], events: Events) -> dict[str, Any]:
    confusion = evaluation.confusion

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    per_class = [
        {
            "name": name,
            "images": int(confusion[n].sum()),
            "precision": share(int(confusion[n, n]), int(confusion[:, n].sum())),
            "recall": share(int(confusion[n, n]), int(confusion[n].sum())),
        }
        for n, name in enumerate(classes)
    ]
    return {
        "metrics": to_json(evaluation.metrics),
        "classes": list(classes),
        "perClass": per_class,
        "confusion": confusion.tolist(),
        "findings": findings(evaluation.predictions, confusion),
    }


def with_mirrored(outputs: Outputs, mirrored: Outputs, spec: PreprocessSpec, class_count: int) -> Outputs:
    """The logarithm of the mean of both probabilities."""
    both = torch.stack([outputs[0].log_softmax(1), mirrored[0].log_softmax(1)])
    return (both.logsumexp(0) - math.log(2),)


def reader(ports: Ports, task: str | None, model: ModelRef) -> Read:
    """The first output, N × classes. Probabilities (each row sums to 1) become logits, so that the loss means the
    same."""

    def read(arrays: Sequence[NDArray[Any]]) -> Outputs:
        wanted = (len(arrays[0]), len(model.classes))
        if arrays[0].shape != wanted:
            raise TrainerError(
                "MODEL_INVALID",
                f"The model's first output has the shape {list(arrays[0].shape)}, expected {list(wanted)}.",
            )
        logits = torch.from_numpy(arrays[0].astype(np.float32))
        if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
            return (logits.clamp_min(1e-12).log(),)
        return (logits,)

    return read


# ----------------------------------------------------------------------------------------------------------------- gate

# Columns of a comparison: largest |difference| of an image's logits, the reference's largest |logit|, whether the best
# class differs, and by how much the reference prefers its own best class to the candidate's.
DIFFERENCE, LOGIT, TOP1_DIFFERS, MARGIN = range(4)


def compare(wanted: Outputs, found: Outputs, relative_tolerance: float) -> NDArray[np.float64]:
    (reference,), (candidate,) = ((output.double() for output in outputs) for outputs in (wanted, found))
    best, other = reference.argmax(1), candidate.argmax(1)
    rows = torch.arange(len(reference))
    columns = [
        (reference - candidate).abs().amax(1),
        reference.abs().amax(1),
        (best != other).double(),
        reference[rows, best] - reference[rows, other],
    ]
    table: NDArray[np.float64] = torch.stack(columns, 1).numpy()
    return np.nan_to_num(table, nan=NOT_FINITE, posinf=NOT_FINITE, neginf=NOT_FINITE)


def gate(rows: NDArray[np.float64], relative_tolerance: float) -> dict[str, Any]:
    largest = float(rows[:, LOGIT].max(initial=0))
    tolerance = relative_tolerance * max(1.0, largest)
    differ = rows[:, TOP1_DIFFERS] > 0
    return {
        "tolerance": tolerance,
        "largestLogit": largest,
        "beyondTolerance": int((rows[:, DIFFERENCE] > tolerance).sum()),
        "top1Differ": int(differ.sum()),
        "top1DifferBeyondMargin": int((differ & (rows[:, MARGIN] > tolerance)).sum()),
    }


def furthest(rows: NDArray[np.float64]) -> dict[str, float]:
    return {"largestDifference": float(rows[:, DIFFERENCE].max(initial=0))}


def decisions(wanted: Outputs, found: Outputs) -> tuple[int, int]:
    """The class of each image."""
    (reference,), (candidate,) = wanted, found
    return len(reference), int((reference.argmax(1) != candidate.argmax(1)).sum())
