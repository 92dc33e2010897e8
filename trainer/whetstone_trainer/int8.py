"""INT8 of a model whose metric stays inside the budget.

When it loses more, operators go back to 32-bit floats, the most harmful first, until it does not. Where a fine-tuning
is asked for, INT8 is made of the fine-tuned weights too, and the better of both is kept.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whetstone_trainer.candidates import Candidate, Work, is_inside, measured
from whetstone_trainer.convert import GATE_BATCH, Source, export, write_onnx
from whetstone_trainer.data import ordered_batches, read_split
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.evaluate import OnnxModel, onnx_session, open_onnx
from whetstone_trainer.images import Images, open_images
from whetstone_trainer.model import weights_hash
from whetstone_trainer.protocol import TrainSpec
from whetstone_trainer.quantise import Feed, Quantiser, open_quantiser
from whetstone_trainer.recover import recovered
from whetstone_trainer.task import NOT_FINITE

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
