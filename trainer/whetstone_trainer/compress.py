"""A smaller file of an ONNX version: FP16, or INT8 whose metric stays inside a budget. The job COMPRESS.

The metric of the whole validation set is measured for the parent and for each candidate by the same code. When INT8
loses more than the budget, operators go back to 32-bit floats, the most harmful first, until it does not. Where a
fine-tuning is asked for, INT8 is made of the fine-tuned weights too, and the better of both is kept. The server
decides what passes; without a dataset only the outputs of noise are compared.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from whetstone_trainer.checkpoint import Checkpoint
from whetstone_trainer.convert import (
    GATE_BATCH,
    ONNX_FILE,
    Source,
    batch_max,
    check,
    export,
    save_onnx,
    seeded_noise,
    write_onnx,
    write_probe,
)
from whetstone_trainer.data import Images, open_images, ordered_batches, read_split
from whetstone_trainer.environment import prepare, say_hello
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.evaluate import (
    ONNXRUNTIME,
    OnnxModel,
    evaluate,
    in_model_classes,
    onnx_session,
    open_onnx,
    write_evaluation,
)
from whetstone_trainer.events import Events
from whetstone_trainer.half import to_half
from whetstone_trainer.inspect_onnx import describe
from whetstone_trainer.model import weights_hash
from whetstone_trainer.protocol import CompressSpec, TrainSpec, camel
from whetstone_trainer.quantise import (
    Feed,
    Quantiser,
    open_quantiser,
)
from whetstone_trainer.recover import recovered
from whetstone_trainer.task import NOT_FINITE, Evaluation, Outputs, Task
from whetstone_trainer.tasks import TASKS
from whetstone_trainer.train import resumable

METADATA = "whetstone.compression"
# Calibration keeps the results of all operators of a batch in memory.
CALIBRATION_PIXELS_MAX = 8 * 224**2
# Images on which the operators are ranked.
RANKING_IMAGES = 32
# What a message about operators names at most: an event line has 64 KiB.
KEPT_NAMED_MAX = 300
NAME_LENGTH_MAX = 100
# At most this share of the parent's bytes: FP16 takes about half of them and loses next to nothing.
INT8_BYTES_SHARE_MAX = 0.5


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


@dataclass(frozen=True)
class Floats:
    """A graph in 32-bit floats from which INT8 is made: the parent's, or that of the fine-tuned weights.

    Args:
        levels: of the images on which the operators are ranked.
        whole: with all operators in INT8.
    """

    file: Path
    model: OnnxModel
    quantiser: Quantiser
    levels: list[torch.Tensor]
    whole: Candidate


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


# -------------------------------------------------------------------------------------------------------------- metric


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


# ---------------------------------------------------------------------------------------------------------------- INT8


def best_int8(work: Work) -> Candidate:
    """The smallest file inside the budget; where there is none, the best that was tried."""
    images = calibration_images(work)
    floats = [opened(work, Path(work.spec.model.file), images)]
    work.numbers["quantisable"] = len(floats[0].quantiser.operators)
    if work.spec.recover is not None:
        floats.append(opened(work, fine_tuned(work, work.spec.recover, images), images, recovered=True))
    # They are equally small.
    best = min((one.whole for one in floats), key=lambda whole: whole.lost)
    if not is_inside(work, best):
        found = [smallest(work, one) for one in floats]
        inside = [one for one in found if is_inside(work, one)]
        best = min(inside or found, key=lambda one: (one.size if inside else 0, one.lost))
    named = list(best.kept.items())[:KEPT_NAMED_MAX]
    work.numbers["kept"] = [{"name": name[:NAME_LENGTH_MAX], "error": error} for name, error in named]
    if work.numbers["recovery"] is not None:
        work.numbers["recovery"]["kept"] = best.recovered
    return best


def opened(work: Work, file: Path, images: Images, *, recovered: bool = False) -> Floats:
    work.events.phase("export")
    quantiser = open_quantiser(file, work.events.work_dir / ("recovered" if recovered else "quantisation"))
    model = open_onnx(onnx_session(file, work.spec.cpu_threads), work.spec.model)
    levels = calibrate(work, quantiser, model, images)
    work.events.phase("export")
    whole = quantiser.quantised(quantiser.operators, quantiser.ends(quantiser.operators))
    return Floats(file, model, quantiser, levels, measured(work, whole, {}, recovered=recovered))


def fine_tuned(work: Work, training: TrainSpec, images: Images) -> Path:
    """An ONNX file of the parent's checkpoint after some epochs with fake quantisation."""
    spec, events = work.spec, work.events
    assert spec.compression.calibration is not None
    assert spec.dataset is not None
    method = spec.compression.calibration.method
    model, run = recovered(training, work.device, work.resumed, events, images=images, method=method)
    work.numbers["recovery"] = {
        "epochs": run.progress.epoch,
        "bestEpoch": run.progress.best_epoch,
        "learningRate": training.hyperparameters.learning_rate,
        "kept": False,
    }
    events.phase("export")
    digest = weights_hash(model.state_dict())
    source = Source(
        model, training.preset, spec.model.classes, spec.model.preprocess, digest, spec.dataset.content_hash
    )
    opset = next(one.version for one in work.original.opset_import if one.domain == "")
    exported, _ = export(model, work.task.OUTPUTS, spec.model.preprocess, opset, events)
    path = events.work_dir / "recovered.onnx"
    write_onnx(exported, source, path)
    return path


def smallest(work: Work, floats: Floats) -> Candidate:
    """The smallest file of these weights that is inside the budget; where there is none, the best that was tried."""
    quantiser, best = floats.quantiser, floats.whole
    if is_inside(work, best):
        return best
    errors = rank(work, floats)
    names = affordable(list(errors), quantiser.weights, floats.file.stat().st_size)

    def keeping(names: Sequence[str]) -> Candidate:
        work.events.phase("export")
        rest = [name for name in quantiser.operators if name not in names]
        model = quantiser.quantised(rest, quantiser.ends(rest))
        return measured(work, model, {name: errors[name] for name in names}, recovered=best.recovered)

    most = len(names)
    # As many as this are too few, and from `inside` on there are enough: doubled until that is known, then halved.
    outside, inside = 0, most + 1
    while inside - outside > 1:
        count = min(most, max(1, 2 * outside)) if inside > most else (inside + outside) // 2
        tried = keeping(names[:count])
        if is_inside(work, tried):
            best, inside = tried, count
        else:
            best = min(best, tried, key=lambda one: one.lost) if inside > most else best
            outside = count
    return best


def calibration_images(work: Work) -> Images:
    """Of the training split, chosen by the seed."""
    spec, calibration = work.spec, work.spec.compression.calibration
    if spec.dataset is None or calibration is None:
        raise TrainerError("SPEC_INVALID", "INT8 needs a dataset and a calibration.")
    items = read_split(spec.dataset, "train")
    order = np.random.default_rng(spec.seed).permutation(len(items))[: calibration.images]
    chosen = tuple(items[n] for n in sorted(order.tolist()))
    work.numbers["calibration"] = {
        "method": calibration.method,
        "images": len(chosen),
        "seed": spec.seed,
        "imagesHash": hashlib.sha256("".join(f"{item.n} {item.sha256}\n" for item in chosen).encode()).hexdigest(),
    }
    return open_images(spec.dataset, chosen, work.task, spec.model.preprocess)


def calibrate(work: Work, quantiser: Quantiser, model: OnnxModel, images: Images) -> list[torch.Tensor]:
    """Finds the ranges on the images; returns those on which the operators are ranked."""
    pixels = work.spec.model.preprocess.width * work.spec.model.preprocess.height
    size = min(GATE_BATCH, max(1, CALIBRATION_PIXELS_MAX // pixels))
    work.events.phase("calibration", -(-len(images) // size))
    kept: list[torch.Tensor] = []

    def feeds() -> Iterator[Feed]:
        for batch in ordered_batches(images, size, 0):
            if sum(map(len, kept)) < RANKING_IMAGES:
                kept.append(batch.images[:RANKING_IMAGES])
            for feed, _ in model.feeds(batch.images):
                yield feed
            work.events.advance()
            work.events.check_stop()

    quantiser.calibrate(feeds(), work.numbers["calibration"]["method"], work.spec.cpu_threads)
    return kept


def rank(work: Work, floats: Floats) -> dict[str, float]:
    """The operators with the error of the outputs that quantising each alone causes, the largest first."""
    quantiser, levels = floats.quantiser, floats.levels
    wanted = [floats.model.run(part) for part in levels]
    ends = set(quantiser.ends(quantiser.operators))
    work.events.phase("ranking", len(quantiser.operators))
    errors: dict[str, float] = {}
    for name in quantiser.operators:
        data = quantiser.quantised([name], [name] if name in ends else []).SerializeToString()
        alone = open_onnx(onnx_session(data, work.spec.cpu_threads), work.spec.model)
        errors[name] = output_error(wanted, [alone.run(part) for part in levels])
        work.events.advance()
        work.events.check_stop()
    return dict(sorted(errors.items(), key=lambda one: -one[1]))


def output_error(wanted: Sequence[Sequence[NDArray[Any]]], found: Sequence[Sequence[NDArray[Any]]]) -> float:
    """Of the output that suffers most: squared differences over the squared distances from the mean."""
    errors = []
    for references, others in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        if [part.shape for part in references] != [part.shape for part in others]:
            continue  # boxes that the graph has suppressed itself
        reference, candidate = (
            np.concatenate([part.ravel() for part in parts]).astype(np.float64) for parts in (references, others)
        )
        spread = float(((reference - reference.mean()) ** 2).sum())
        errors.append(float(((reference - candidate) ** 2).sum()) / max(spread, 1e-30))
    error = max(errors, default=0.0)
    return error if math.isfinite(error) else NOT_FINITE


def affordable(names: Sequence[str], weights: dict[str, int], parent_bytes: int) -> list[str]:
    """Those operators, in their order, that can have 32-bit weights together in a file that is worth it. One at least
    is quantised."""
    size = sum(weights.values())
    kept = []
    for name in names:
        if size + 3 * weights[name] <= INT8_BYTES_SHARE_MAX * parent_bytes:
            size += 3 * weights[name]
            kept.append(name)
    return kept[: len(names) - 1]


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
