"""The task DETECTION: the boxes and classes of the objects in an image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whetstone_trainer import augment
from whetstone_trainer.data import ordered_batches
from whetstone_trainer.detection import gate as gating
from whetstone_trainer.detection.augment import Picture, compose
from whetstone_trainer.detection.boxes import to_image, to_input
from whetstone_trainer.detection.findings import findings
from whetstone_trainer.detection.layouts import choose_layout
from whetstone_trainer.detection.loss import detection_loss
from whetstone_trainer.detection.metric import (
    SIZES,
    DetectionEvaluation,
    DetectionMetrics,
    Truth,
    evaluate_detections,
    match_detections,
    matching_steps,
)
from whetstone_trainer.detection.postprocess import Detections, find, read_outputs
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.hyperparameters import DetectionHyperparameters
from whetstone_trainer.images import Images
from whetstone_trainer.preprocess import normalise, placement
from whetstone_trainer.protocol import DatasetItem, ModelRef, PreprocessSpec
from whetstone_trainer.protocol_json import to_json
from whetstone_trainer.ranks import ALONE, Ranks
from whetstone_trainer.task import Outputs, Ports, Predict, Read


@dataclass(frozen=True)
class Objects:
    """What is in an image.

    Args:
        labels: K, int64.
        boxes: K × 4 (left, top, right, bottom), float32, in pixels: of the upright image, or in a training batch of
            the input.
        ignored: K, bool. These are neither objects to learn nor background of their class, such as crowds.
        width, height: of what `boxes` are in.
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    ignored: torch.Tensor
    width: int
    height: int

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process sends arrays as bytes; for each tensor PyTorch would open a file in shared memory.
        arrays = [part.numpy() for part in (self.labels, self.boxes, self.ignored)]
        return _objects_of, (*arrays, self.width, self.height)


def _objects_of(*values: Any) -> Objects:
    labels, boxes, ignored = (torch.from_numpy(array) for array in values[:3])
    return Objects(labels, boxes, ignored, *values[3:])


@dataclass(frozen=True)
class Evaluation:
    """How good a detector is on a split, and of what: what it has found in each image, what is true there, and the
    image's place in the dataset."""

    figures: DetectionEvaluation
    found: Sequence[Detections]
    truths: Sequence[Truth]
    numbers: Sequence[int]

    @property
    def metrics(self) -> DetectionMetrics:
        return self.figures.metrics


NAME = "DETECTION"
OUTPUTS = ("boxes", "scores")
METRICS = DetectionMetrics
CURVES = ("map50", "map5095")
METRIC = "map5095"
RUNNING = ("loss", "classLoss", "boxLoss", "distributionLoss")


def truth(item: DatasetItem) -> Objects:
    if item.boxes is None:
        raise TrainerError("DATA_INVALID", "The dataset has no boxes: a detector needs them for each image.")
    rows = [[box.x, box.y, box.x + box.width, box.y + box.height] for box in item.boxes]
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([box.label for box in item.boxes], dtype=torch.int64)
    crowds = torch.tensor([bool(box.crowd) for box in item.boxes], dtype=torch.bool)
    return Objects(labels, boxes, crowds, item.width, item.height)


def labels(objects: Objects) -> Sequence[int]:
    found: list[int] = objects.labels[~objects.ignored].tolist()
    return found


def relabelled(objects: Objects, classes: Sequence[int]) -> Objects:
    return replace(objects, labels=torch.tensor(classes)[objects.labels])


# ------------------------------------------------------------------------------------------------------------- training


def kept_as(parameters: DetectionHyperparameters, spec: PreprocessSpec) -> PreprocessSpec:
    """As the model sees it: a picture is composed of images that have their size in the input already."""
    return spec


def example(
    images: Images,
    place: tuple[int, int, int],
    draw: NDArray[np.float64],
    parameters: DetectionHyperparameters,
    spec: PreprocessSpec,
) -> tuple[torch.Tensor, Objects]:
    def picture(index: int) -> Picture:
        objects = images.truths[index]
        where = placement(objects.width, objects.height, spec)
        x, y, width, height = where.target
        boxes = to_input(objects.boxes, where) - torch.tensor([x, y, x, y])
        return Picture(images[index][:, y : y + height, x : x + width], objects.labels, boxes, objects.ignored)

    made = compose(picture, len(images), place, parameters, spec, draw=draw)
    return made.image, Objects(made.labels, made.boxes, made.ignored, spec.width, spec.height)


def inputs(
    levels: torch.Tensor, draws: NDArray[np.float64], parameters: DetectionHyperparameters, spec: PreprocessSpec
) -> torch.Tensor:
    levels = augment.resized(levels, spec)
    levels = augment.color(levels, torch.from_numpy(draws).to(levels.device), parameters.color_jitter)
    return normalise(levels, spec)


def loss(
    outputs: Outputs,
    truths: Sequence[Objects],
    parameters: DetectionHyperparameters,
    spec: PreprocessSpec,
    class_weights: torch.Tensor | None,
    *,
    ranks: Ranks = ALONE,
) -> tuple[torch.Tensor, torch.Tensor]:
    distributions, logits = outputs
    objects = [part.to(logits.device) for part in padded(truths, spec)]
    parts = detection_loss(
        distributions,
        logits,
        *objects,
        height=spec.height,
        width=spec.width,
        class_weights=class_weights,
        ranks=ranks,
    )
    total, count = parts.sum(), len(truths)
    means = torch.cat([total.detach()[None], parts.detach()]).double()
    return total, torch.cat([means * count, means.new_tensor([count])])


def padded(truths: Sequence[Objects], spec: PreprocessSpec) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Labels (N × M, −1 where an image has fewer than M objects), boxes (N × M × 4, in pixels of the spec's size) and
    which are ignored (N × M), M at least 1."""
    most = max(1, *(len(objects.labels) for objects in truths))
    labels, boxes = torch.full((len(truths), most), -1), torch.zeros(len(truths), most, 4)
    ignored = torch.zeros(len(truths), most, dtype=torch.bool)
    for n, objects in enumerate(truths):
        count = len(objects.labels)
        labels[n, :count], ignored[n, :count] = objects.labels, objects.ignored
        boxes[n, :count] = objects.boxes * (spec.width / objects.width)
    return labels, boxes, ignored


# ------------------------------------------------------------------------------------------------------------- judging


def evaluate(
    predict: Predict, images: Images, *, class_count: int, batch_size: int, workers: int, events: Events
) -> Evaluation:
    """mAP of what is found, in pixels of the upright images."""
    assert isinstance(images.resized, PreprocessSpec)
    found: list[Detections] = []
    for batch in ordered_batches(images, batch_size, workers):
        for *outputs, objects in zip(*predict(batch.images), batch.truths, strict=True):
            one = find(*outputs)
            where = placement(objects.width, objects.height, images.resized)
            moved = to_image(one.boxes, where, objects.width, objects.height)
            found.append(Detections(moved, one.scores, one.labels))
        events.advance()
        events.check_stop()
    events.phase("matching", matching_steps(len(images), class_count))
    truths = [(objects.labels, objects.boxes, objects.ignored) for objects in images.truths]
    figures = evaluate_detections(found, truths, class_count, partial(_move, events))
    return Evaluation(figures, found, truths, [item.n for item in images.items])


def _move(events: Events) -> None:
    events.advance()
    events.check_stop()


def rank(metrics: DetectionMetrics, selection_metric: str) -> tuple[float, ...]:
    both = (metrics.map5095, metrics.map50)
    return both if selection_metric == "MAP5095" else both[::-1]


def report(evaluation: Evaluation, classes: tuple[str, ...], events: Events) -> dict[str, Any]:
    figures, found, truths = evaluation.figures, evaluation.found, evaluation.truths
    events.phase("matching", matching_steps(len(truths), len(classes), 1 + len(SIZES)))
    matched = match_detections(found, truths, len(classes), partial(_move, events))
    noted, thresholds = findings(matched, found, truths, evaluation.numbers, len(classes))

    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    def curve(values: NDArray[np.float64], n: int) -> list[float] | None:
        return values[n].tolist() if figures.objects[n] else None

    per_class = [
        {
            "name": name,
            "objects": int(figures.objects[n]),
            "ap": known(float(figures.average_precision[n])),
            "ap50": known(float(figures.average_precision50[n])),
            "precision": curve(figures.precision, n),
            "scores": curve(figures.scores, n),
            "best": None if best is None else vars(best),
        }
        for n, (name, best) in enumerate(zip(classes, thresholds, strict=True))
    ]
    return {"metrics": to_json(figures.metrics), "classes": list(classes), "perClass": per_class, "findings": noted}


def with_mirrored(outputs: Outputs, mirrored: Outputs, spec: PreprocessSpec, class_count: int) -> Outputs:
    """The boxes of both: the suppression that follows takes the better one of two that overlap."""
    boxes, scores = zip(*(_without_own_suppression(one, class_count) for one in (outputs, mirrored)), strict=True)
    turned = boxes[1][..., [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1]) + torch.tensor([spec.width, 0, spec.width, 0])
    return torch.cat([boxes[0], turned], 1), torch.cat(scores, 1)


def _without_own_suppression(outputs: Outputs, class_count: int) -> Outputs:
    """Of a graph that suppresses overlaps itself each box has one class: the others have no score."""
    if len(outputs) == 2:
        return outputs
    boxes, scores, labels = outputs
    each = torch.full((*scores.shape, class_count), -torch.inf)
    return boxes, each.scatter(2, labels.clamp(0, class_count - 1)[..., None], scores[..., None])


def reader(ports: Ports, task: str | None, model: ModelRef) -> Read:
    layout = choose_layout([shape for _, shape in ports], len(model.classes), task, model.output_layout)
    return lambda arrays: read_outputs(arrays, layout, len(model.classes))


# ----------------------------------------------------------------------------------------------------------------- gate

compare, gate, furthest, decisions = gating.compare, gating.numbers, gating.furthest, gating.decisions
