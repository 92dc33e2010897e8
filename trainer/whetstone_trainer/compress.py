"""A smaller file of an ONNX version: FP16, or INT8 whose metric stays inside a budget. The job COMPRESS.

The metric of the whole validation set is measured for the parent and for each candidate by the same code. `int8.py`
searches the smallest INT8 file. The server decides what passes; without a dataset only the outputs of noise are
compared.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from whetstone_trainer.candidates import Work, evaluate_on_all, is_inside, measured, metric_of
from whetstone_trainer.convert import ONNX_FILE, check, save_onnx, seeded_noise, write_probe
from whetstone_trainer.data import ordered_batches
from whetstone_trainer.environment import prepare, say_hello
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.evaluate import (
    ONNXRUNTIME,
    OnnxModel,
    in_model_classes,
    onnx_session,
    open_onnx,
    write_evaluation,
)
from whetstone_trainer.events import Events
from whetstone_trainer.half import to_half
from whetstone_trainer.inspect_onnx import describe
from whetstone_trainer.int8 import best_int8
from whetstone_trainer.protocol import CompressSpec
from whetstone_trainer.protocol_json import camel
from whetstone_trainer.task import Outputs
from whetstone_trainer.train import resumable

METADATA = "whetstone.compression"


def run(spec: CompressSpec, events: Events) -> dict[str, Any]:
    device = prepare(spec)
    resumed = None if spec.recover is None else resumable(spec.recover, events)
    say_hello(events, spec, device, None if resumed is None else (resumed.epoch, resumed.batch))
    if spec.model.format != "ONNX":
        raise TrainerError("SPEC_INVALID", "Only an ONNX version can be compressed.")
    events.phase("weights")
    original = onnx.load(spec.model.file)
    parent = open_onnx(onnx_session(spec.model.file, spec.cpu_threads), spec.model)
    if spec.dataset is not None:
        images = in_model_classes(spec.model, spec.dataset, "val")
    elif spec.compression.precision == "FP16":
        images = seeded_noise(spec.seed, spec.model.preprocess)
    else:
        raise TrainerError("SPEC_INVALID", "INT8 needs a dataset.")
    numbers: dict[str, Any] = {
        "problems": [],
        "inputs": "VALIDATION" if images.items else "SEEDED",
        "images": len(images),
        "precision": spec.compression.precision,
        "metric": None,
        "decisions": 0,
        "decisionsDiffer": 0,
        "outputs": [],
        "steps": [],
        "quantisable": 0,
        "kept": [],
        "calibration": None,
        "recovery": None,
    }
    work = Work(spec, events, device, resumed, original, parent, images, numbers)
    made = judged_by_metric(work) if images.items else by_outputs(work)
    events.emit("gate", gate="COMPRESSION", file=ONNX_FILE, numbers=numbers)
    return made


def judged_by_metric(work: Work) -> dict[str, Any]:
    reference = evaluate_on_all(work, work.parent)
    work.numbers["metric"] = {
        "name": camel(work.task.METRIC),
        "parent": metric_of(work, reference),
        "candidate": 0.0,
        "budget": work.spec.compression.budget,
    }
    found = measured(work, to_half(work.original), {}) if work.numbers["precision"] == "FP16" else best_int8(work)
    work.numbers["metric"]["candidate"] = metric_of(work, found.evaluation)
    if not is_inside(work, found):
        return {"metrics": None, "engine": None}
    finish(work, found.model)
    return {"metrics": write_evaluation(found.evaluation, work.spec.model, work.events), "engine": ONNXRUNTIME}


def by_outputs(work: Work) -> dict[str, Any]:
    """FP16 without a dataset: only its outputs are compared with the parent's, on noise."""
    finish(work, to_half(work.original))
    return {"metrics": None, "engine": None}


# ---------------------------------------------------------------------------------------------------------------- gate


def finish(work: Work, model: ModelProto) -> None:
    """Writes model.onnx with its probe set, and measures what `CompressionGate` says of the file."""
    spec, events, numbers = work.spec, work.events, work.numbers
    about = {"precision": spec.compression.precision, "calibration": numbers["calibration"]}
    if numbers["recovery"] is not None and numbers["recovery"]["kept"]:
        about["recovery"] = numbers["recovery"]
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, METADATA: json.dumps(about)})
    path = events.work_dir / ONNX_FILE
    save_onnx(model, path)
    events.artifact("ONNX", ONNX_FILE, {**describe(model), "weightsHash": None, "exporter": None})
    candidate = open_onnx(onnx_session(path, spec.cpu_threads), spec.model)
    if can_probe(candidate):
        write_probe(lambda levels: tensors(candidate.run(levels)), work.images, spec.model.preprocess, events)
    compare(work, candidate)
    numbers["problems"] = check(model)


def tensors(arrays: Sequence[NDArray[Any]]) -> Outputs:
    return tuple(torch.from_numpy(array) for array in arrays)


def can_probe(model: OnnxModel) -> bool:
    """A probe set has one input and one or two outputs of 32-bit floats, with any number of rows."""
    outputs = model.session.get_outputs()
    ports = [*model.session.get_inputs(), *outputs]
    free = all(port.type == "tensor(float)" and port.shape and isinstance(port.shape[0], str) for port in ports)
    return free and len(outputs) <= 2


def compare(work: Work, candidate: OnnxModel) -> None:
    """The two models on all images: the outputs, and the decisions that change."""
    numbers = work.numbers
    numbers["outputs"] = [
        {"name": port.name, "largest": 0.0, "largestDifference": 0.0} for port in candidate.session.get_outputs()
    ]
    work.events.phase("gate", -(-len(work.images) // work.batch))
    for batch in ordered_batches(work.images, work.batch, 0):
        wanted, found = work.parent.run(batch.images), candidate.run(batch.images)
        decisions, differ = work.task.decisions(work.parent.read(wanted), candidate.read(found))
        numbers["decisions"] += decisions
        numbers["decisionsDiffer"] += differ
        for output, one, other in zip(numbers["outputs"], wanted, found, strict=True):
            output["largest"] = max(output["largest"], magnitude(other))
            output["largestDifference"] = furthest(output["largestDifference"], one, other)
        work.events.advance()
        work.events.check_stop()


def magnitude(values: NDArray[Any]) -> float:
    """Of those that are numbers."""
    return float(np.abs(np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)).max(initial=0))


def furthest(before: float | None, one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """None where the shapes differ, or a value is not a number."""
    if before is None or one.shape != other.shape:
        return None
    difference = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0))
    return max(before, difference) if math.isfinite(difference) else None
