"""What a compression has tried: models with the metric of the whole validation set and their bytes."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from onnx import ModelProto

from whetstone_trainer.checkpoint import Checkpoint
from whetstone_trainer.convert import GATE_BATCH, batch_max
from whetstone_trainer.evaluate import OnnxModel, evaluate, onnx_session, open_onnx
from whetstone_trainer.events import Events
from whetstone_trainer.images import Images
from whetstone_trainer.protocol import CompressSpec
from whetstone_trainer.task import Evaluation, Task
from whetstone_trainer.tasks import TASKS


@dataclass(frozen=True)
class Work:
    """Args:
    device: what a fine-tuning computes on; `resumed`: where an earlier attempt has left it.
    parent: the model that is compressed, opened.
    images: of the validation split, or noise.
    numbers: what was measured so far: `CompressionGate` of the protocol.
    """

    spec: CompressSpec
    events: Events
    device: torch.device
    resumed: Checkpoint | None
    original: ModelProto
    parent: OnnxModel
    images: Images
    numbers: dict[str, Any]

    @property
    def task(self) -> Task:
        return TASKS[self.spec.model.task]

    @property
    def batch(self) -> int:
        return min(GATE_BATCH, batch_max(self.spec.model.preprocess))


@dataclass(frozen=True)
class Candidate:
    """A compressed model.

    Args:
        kept: operators that are in 32-bit floats though they could be quantised, each with its error in `rank`.
        recovered: whether it has the fine-tuned weights.
        lost: points of the metric.
    """

    model: ModelProto
    kept: dict[str, float]
    recovered: bool
    evaluation: Evaluation
    size: int
    lost: float


def evaluate_on_all(work: Work, model: OnnxModel) -> Evaluation:
    return evaluate(model.predict, work.images, work.spec.model, batch_size=work.batch, workers=0, events=work.events)


def metric_of(work: Work, evaluation: Evaluation) -> float:
    """0 where the outputs are no numbers, as after an overflow of 16 bits."""
    if not all(math.isfinite(getattr(evaluation.metrics, name)) for name in work.task.CURVES):
        return 0.0
    value: float = getattr(evaluation.metrics, work.task.METRIC)
    return value


def measured(work: Work, model: ModelProto, kept: dict[str, float], *, recovered: bool = False) -> Candidate:
    data = model.SerializeToString(deterministic=True)
    evaluation = evaluate_on_all(work, open_onnx(onnx_session(data, work.spec.cpu_threads), work.spec.model))
    reached = metric_of(work, evaluation)
    lost = 100 * (work.numbers["metric"]["parent"] - reached)
    step = {"operators": len(kept), "recovered": recovered, "metric": reached, "sizeBytes": len(data)}
    work.numbers["steps"].append(step)
    print(
        f"{work.spec.compression.precision}{' after fine-tuning' if recovered else ''}, {len(kept)} operators kept in "
        f"FP32: {work.task.METRIC} {reached:.4f}, {lost:.2f} points lost, {len(data)} bytes",
        flush=True,
    )
    return Candidate(model, kept, recovered, evaluation, len(data), lost)


def is_inside(work: Work, candidate: Candidate) -> bool:
    # A loss of one image in a hundred is one point, whatever the last bit of a float says.
    return candidate.lost <= work.spec.compression.budget + 1e-9
