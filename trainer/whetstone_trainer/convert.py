"""From PyTorch weights to an ONNX file, and the numbers that say whether the two agree. The job CONVERT.

The gate (see `Gate` in the protocol): checker, strict shape inference, reload in ONNX Runtime; the whole validation set
through both at one batch size; 128 images at batches of 1, 7 and 64. Large images come in smaller batches and are
fewer, so that they fit into memory. The server decides what passes. Then how good the ONNX file is on the validation
set.
"""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from whetstone_trainer.checkpoint import commit, save_tensors
from whetstone_trainer.data import ordered_batches, read_split
from whetstone_trainer.environment import prepare, say_hello
from whetstone_trainer.errors import TrainerError, disk_full, mask_paths
from whetstone_trainer.evaluate import (
    ONNXRUNTIME,
    in_model_classes,
    load_model,
    measure,
    onnx_session,
    open_onnx,
    torch_predictor,
)
from whetstone_trainer.events import Events
from whetstone_trainer.images import Images, open_images
from whetstone_trainer.inspect_onnx import describe
from whetstone_trainer.model import weights_hash
from whetstone_trainer.preprocess import channel_count, normalise
from whetstone_trainer.protocol import Conversion, ConvertSpec, ModelRef, PreprocessSpec
from whetstone_trainer.protocol_json import to_json
from whetstone_trainer.task import Outputs, Predict, Task
from whetstone_trainer.tasks import task_of

GATE_BATCH = 32
OTHER_BATCHES = (1, 7, 64)
OTHER_BATCHES_IMAGES = 128
# Pixels of a batch at most, as many as 32 images of 640 × 640 have: the memory that a batch takes grows with them.
BATCH_PIXELS_MAX = 32 * 640**2
PROBE_IMAGES = 32
ONNX_FILE = "model.onnx"


@dataclass(frozen=True)
class Source:
    """What is converted. `dataset_hash` is the content hash of the training data, None where nobody knows it."""

    model: nn.Module
    preset: str
    classes: tuple[str, ...]
    preprocess: PreprocessSpec
    weights_hash: str
    dataset_hash: str | None

    @property
    def task(self) -> Task:
        return task_of(self.preset)

    def reference(self, file: Path) -> ModelRef:
        """The candidate as an evaluation sees it."""
        return ModelRef("ONNX", str(file), self.task.NAME, self.preset, self.classes, self.preprocess, None)


def run(spec: ConvertSpec, events: Events) -> dict[str, Any]:
    """The job CONVERT: a checkpoint version to ONNX."""
    device = prepare(spec)
    say_hello(events, spec, device)
    if spec.model.preset is None or spec.model.format != "CHECKPOINT":
        raise TrainerError("SPEC_INVALID", "Only a checkpoint of a preset can be converted.")
    events.phase("weights")
    model = load_model(spec.model)
    digest = weights_hash(model.state_dict())
    dataset_hash = None if spec.dataset is None else spec.dataset.content_hash
    source = Source(model, spec.model.preset, spec.model.classes, spec.model.preprocess, digest, dataset_hash)
    if spec.dataset is None:
        images = seeded_noise(spec.seed, spec.model.preprocess)
    else:
        images = open_images(spec.dataset, read_split(spec.dataset, "val"), source.task, spec.model.preprocess)
    path = convert(source, images, spec.conversion, device, threads=spec.cpu_threads, events=events)
    result = {"weightsHash": digest, "metrics": None, "engine": None}
    if path is None or spec.dataset is None or not set(spec.dataset.classes) <= set(spec.model.classes):
        return result
    candidate = source.reference(path)
    metrics = measure(
        open_onnx(onnx_session(path, spec.cpu_threads), candidate).predict,
        in_model_classes(candidate, spec.dataset, "val"),
        candidate,
        batch_size=GATE_BATCH,
        workers=0,
        events=events,
    )
    return {**result, "metrics": metrics, "engine": ONNXRUNTIME}


def batch_max(spec: PreprocessSpec) -> int:
    """The largest batch that the gate runs: large images come in smaller ones."""
    return max(1, BATCH_PIXELS_MAX // (spec.width * spec.height))


def seeded_noise(seed: int, spec: PreprocessSpec) -> Images:
    """Images of even noise, where there is no dataset. They have no items."""
    generator = torch.Generator().manual_seed(seed)
    shape = (OTHER_BATCHES_IMAGES, 3, spec.height, spec.width)
    levels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Images((), [None] * len(levels), None, None, draft=False, cache=list(levels))


def convert(
    source: Source, images: Images, conversion: Conversion, device: torch.device, *, threads: int, events: Events
) -> Path | None:
    """Writes model.onnx and probe.safetensors, and reports the gate's numbers. None where it found problems."""
    if source.preprocess.layout != "NCHW":
        raise TrainerError("SPEC_INVALID", f"The preset {source.preset} takes its input as NCHW.")
    path = events.work_dir / ONNX_FILE
    events.phase("export", 3)
    exported, exporter = export(source.model, source.task.OUTPUTS, source.preprocess, conversion.opset, events)
    events.advance()
    events.check_stop()
    write_onnx(exported, source, path)
    events.advance()
    problems = check(exported)
    events.advance()
    meta = {**describe(exported), "weightsHash": source.weights_hash, "exporter": exporter}
    events.artifact("ONNX", ONNX_FILE, meta)

    reference = torch_predictor(source.model.to(device), source.preprocess, device)
    write_probe(reference, images, source.preprocess, events)
    numbers = gate_numbers(
        reference, path, images, source, conversion.relative_tolerance, threads=threads, events=events
    )
    numbers["problems"] = problems + numbers["problems"]
    events.emit("gate", gate="CONVERSION", file=ONNX_FILE, numbers=numbers)
    return None if numbers["problems"] else path


# --------------------------------------------------------------------------------------------------------------- export


def export(
    model: nn.Module, outputs: tuple[str, ...], spec: PreprocessSpec, opset: int, events: Events
) -> tuple[onnx.ModelProto, str]:
    """The model with a dynamic batch, and which exporter made it: DYNAMO, or TORCHSCRIPT where that one fails."""
    model = model.cpu().eval()
    # An example batch of 2: some versions take a size of 1 for a constant.
    example = torch.zeros(2, channel_count(spec), spec.height, spec.width)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": list(outputs), "opset_version": opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            batch = torch.export.Dim("batch", min=1, max=2**16)
            program = torch.onnx.export(
                model, (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False, **names
            )
            assert program is not None
            return program.model_proto, "DYNAMO"
        except Exception as error:  # the exporter raises whatever its many passes raise
            if disk_full(error):
                raise  # the other exporter would make another file
            events.warn("EXPORT_FALLBACK", f"The current exporter failed, the older one is used: {str(error)[:1000]}")
        path = events.work_dir / (ONNX_FILE + ".tmp")
        try:
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=False,
                dynamic_axes={name: {0: "batch"} for name in ("input", *outputs)},
                **names,
            )
            return onnx.load(str(path)), "TORCHSCRIPT"
        except Exception as error:
            raise TrainerError(
                "EXPORT_FAILED", f"Neither exporter can convert the model: {str(error)[:1000]}"
            ) from error
        finally:
            path.unlink(missing_ok=True)


def write_onnx(exported: onnx.ModelProto, source: Source, path: Path) -> None:
    """Adds what the model needs to be used to its metadata, and writes the file. Raises IO."""
    for node in exported.graph.node:
        # The exporter's notes: stack traces with the paths of this machine.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (
        *exported.graph.value_info,
        *exported.graph.input,
        *exported.graph.output,
        *exported.graph.initializer,
    ):
        del value.metadata_props[:]
    del exported.graph.metadata_props[:]
    metadata = {
        "whetstone.task": source.task.NAME,
        "whetstone.preset": source.preset,
        "whetstone.classes": json.dumps(source.classes, ensure_ascii=False),
        "whetstone.preprocess": json.dumps(to_json(source.preprocess)),
        "whetstone.weightsHash": source.weights_hash,
        "whetstone.datasetHash": source.dataset_hash or "",
    }
    onnx.helper.set_model_props(exported, metadata)
    save_onnx(exported, path)


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Writes a file that is whole or not there; the same model gives the same bytes. Raises IO."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        commit(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainerError("IO", f"{path.name} cannot be written: {error}", retryable=True) from error


def check(model: onnx.ModelProto) -> list[str]:
    """What ONNX's checker and its strict shape inference say against the model; empty when nothing."""
    problems = []
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:
        problems.append(mask_paths(str(error))[:1000])
    return problems


# ----------------------------------------------------------------------------------------------------------------- gate


def write_probe(reference: Predict, images: Images, spec: PreprocessSpec, events: Events) -> None:
    """Stores up to 32 inputs, evenly spread over the images, with PyTorch's outputs: `output`, `output1` …, in their
    order."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(PROBE_IMAGES, len(images))).round().astype(int))
    levels = torch.stack([images[int(index)] for index in chosen])
    parts = [reference(part) for part in torch.split(levels, batch_max(spec))]
    outputs = {f"output{n or ''}": torch.cat(output) for n, output in enumerate(zip(*parts, strict=True))}
    tensors = {"input": normalise(levels, spec), **outputs}
    save_tensors(events.work_dir / "probe.safetensors", tensors, {"kind": "probe"})
    events.artifact("PROBE", "probe.safetensors", {"images": len(chosen)})


def gate_numbers(
    reference: Predict,
    path: Path,
    images: Images,
    source: Source,
    relative_tolerance: float,
    *,
    threads: int,
    events: Events,
) -> dict[str, Any]:
    """How far the ONNX file is from PyTorch: `numbers` of the protocol's `Gate`, without what `check` found."""
    task = source.task
    largest = batch_max(source.preprocess)
    gate_batch = min(GATE_BATCH, largest)
    others = list(dict.fromkeys(min(size, largest) for size in OTHER_BATCHES))
    # Their outputs are kept, which of large images take much memory too.
    count = min(OTHER_BATCHES_IMAGES, 4 * largest, len(images))
    first = replace(images, items=images.items[:count], truths=images.truths[:count], cache=images.cache[:count])
    events.phase("gate", -(-len(images) // gate_batch) + sum(-(-count // size) for size in others))
    problems: list[str] = []
    compared: list[NDArray[np.float64]] = []
    batches: list[dict[str, Any]] = []
    try:
        candidate = open_onnx(onnx_session(path, threads), source.reference(path)).predict
        kept: list[Outputs] = []
        for wanted, levels in _outputs(reference, images, gate_batch, events):
            compared.append(task.compare(wanted, candidate(levels), relative_tolerance))
            if len(kept) * gate_batch < count:
                kept.append(wanted)
        batches.append({"batch": gate_batch, "images": len(images), **task.furthest(np.concatenate(compared))})
        wanted = tuple(torch.cat(outputs)[:count] for outputs in zip(*kept, strict=True))
        for size in others:
            parts = [outputs for outputs, _ in _outputs(candidate, first, size, events)]
            found = tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))
            rows = task.compare(wanted, found, relative_tolerance)
            batches.append({"batch": size, "images": count, **task.furthest(rows)})
    except TrainerError as error:
        if error.code != "MODEL_INVALID":
            raise
        problems.append(error.message[:1000])
    rows = np.concatenate(compared) if compared else np.empty((0, 5))
    furthest = {name: max((batch[name] for batch in batches), default=0.0) for name in task.furthest(rows)}
    return {
        "problems": problems,
        "inputs": "VALIDATION" if images.items else "SEEDED",
        "images": len(rows),
        **task.gate(rows, relative_tolerance),
        **furthest,
        "batches": batches,
    }


def _outputs(predict: Predict, images: Images, size: int, events: Events) -> Iterator[tuple[Outputs, torch.Tensor]]:
    """(outputs, levels) of each batch."""
    for batch in ordered_batches(images, size, 0):
        yield predict(batch.images), batch.images
        events.advance()
        events.check_stop()
