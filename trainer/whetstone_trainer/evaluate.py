"""How good a classifier is on a split: top-1, top-5, loss, and for each class precision, recall and confusions."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from whetstone_trainer.checkpoint import commit
from whetstone_trainer.data import Images, open_images, ordered_batches, read_split
from whetstone_trainer.environment import prepare, say_hello
from whetstone_trainer.errors import TrainerError, mask_paths
from whetstone_trainer.events import Events
from whetstone_trainer.model import build_model, fit, read_state
from whetstone_trainer.preprocess import normalise
from whetstone_trainer.protocol import EvaluateSpec, ModelRef, PreprocessSpec, to_json

# Levels of a batch (N × 3 × H × W, uint8, RGB) to logits (N × classes, float32, on the CPU).
Predict = Callable[[torch.Tensor], torch.Tensor]


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


def evaluate(
    predict: Predict, images: Images, *, class_count: int, batch_size: int, workers: int, events: Events
) -> Evaluation:
    """One pass over the images in their order; the step moves with each batch."""
    confusion = np.zeros((class_count, class_count), np.int64)
    loss, in_top5 = 0.0, 0
    for batch in ordered_batches(images, batch_size, workers):
        logits = predict(batch.images)
        loss += float(nn.functional.cross_entropy(logits.double(), batch.labels, reduction="sum"))
        best = logits.topk(min(5, class_count)).indices
        in_top5 += int((best == batch.labels[:, None]).any(1).sum())
        np.add.at(confusion, (batch.labels.numpy(), best[:, 0].numpy()), 1)
        events.advance()
        events.check_stop()
    count = len(images)
    present = confusion.sum(1) > 0
    recall = confusion.diagonal()[present] / confusion.sum(1)[present]
    return Evaluation(
        Metrics(count, loss / count, int(confusion.trace()) / count, in_top5 / count, float(recall.mean())), confusion
    )


def write_evaluation(evaluation: Evaluation, classes: tuple[str, ...], path: Path) -> None:
    """The EVALUATION artifact, `Evaluation` of the protocol."""
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
    value = {
        "metrics": to_json(evaluation.metrics),
        "classes": list(classes),
        "perClass": per_class,
        "confusion": confusion.tolist(),
    }
    write_json(path, value)


def write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    commit(temporary, path)


# ----------------------------------------------------------------------------------------------------------- predictors


def torch_predictor(model: nn.Module, spec: PreprocessSpec, device: torch.device) -> Predict:
    """`model` in evaluation mode, in float32."""
    model.eval()

    @torch.inference_mode()
    def predict(levels: torch.Tensor) -> torch.Tensor:
        inputs = normalise(levels.to(device), spec).contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = model(inputs)
        return logits.float().cpu()

    return predict


def onnx_session(path: str | Path, threads: int) -> ort.InferenceSession:
    """ONNX Runtime on the CPU. Raises MODEL_INVALID."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Spinning threads take the cores from PyTorch's, and these from them: a batch through both took 4 × as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no base class of its own
        raise TrainerError(
            "MODEL_INVALID", f"ONNX Runtime does not load the model: {mask_paths(str(error))}"
        ) from error


def onnx_predictor(session: ort.InferenceSession, spec: PreprocessSpec, class_count: int) -> Predict:
    """The model's only image input and its first output of N × classes. Raises MODEL_INVALID where they are not there.

    An output of probabilities (each row sums to 1) is turned into logits, so that the loss means the same.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in ("tensor(float)", "tensor(float16)") or len(inputs[0].shape) != 4:
        found = ", ".join(f"{port.name} {port.type} {port.shape}" for port in inputs)
        raise TrainerError(
            "MODEL_INVALID", f"A classifier has one float input of four dimensions; this model has {found}."
        )
    name, fixed = inputs[0].name, inputs[0].shape[0]
    dtype = np.float16 if inputs[0].type == "tensor(float16)" else np.float32

    def predict(levels: torch.Tensor) -> torch.Tensor:
        array = normalise(levels, spec).numpy().astype(dtype)
        size = fixed if isinstance(fixed, int) else len(array)
        parts = [
            _run(session, name, array[start : start + size], size, class_count) for start in range(0, len(array), size)
        ]
        logits = torch.from_numpy(np.concatenate(parts).astype(np.float32))
        sums = logits.sum(1)
        if bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
            return logits.clamp_min(1e-12).log()
        return logits

    return predict


def _run(session: ort.InferenceSession, name: str, part: NDArray[Any], size: int, class_count: int) -> NDArray[Any]:
    """One run at a batch size of `size`; a smaller last part is filled up by repeating its first image."""
    filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
    try:
        output: NDArray[Any] = session.run(None, {name: filled})[0]
    except Exception as error:
        raise TrainerError("MODEL_INVALID", f"ONNX Runtime does not run the model: {mask_paths(str(error))}") from error
    if output.shape != (size, class_count):
        raise TrainerError(
            "MODEL_INVALID",
            f"The model's first output has the shape {list(output.shape)}, expected {[size, class_count]}.",
        )
    return output[: len(part)]


def load_model(model: ModelRef) -> nn.Module:
    """A checkpoint version with its weights. Raises WEIGHTS_INVALID, SPEC_INVALID."""
    if model.preset is None:
        raise TrainerError("SPEC_INVALID", "A checkpoint needs its preset.")
    state, _ = fit(read_state(model.file), model.preset, len(model.classes), replace_head=False)
    loaded = build_model(model.preset, len(model.classes))
    loaded.load_state_dict(state)
    return loaded.to(memory_format=torch.channels_last)


# ----------------------------------------------------------------------------------------------------- the job EVALUATE


def run(spec: EvaluateSpec, events: Events) -> dict[str, Any]:
    """The job EVALUATE: a model version on a dataset's split."""
    device = prepare(spec)
    onnx = spec.model.format == "ONNX"
    say_hello(events, spec.code_version, torch.device("cpu") if onnx else device)
    events.phase("weights")
    if onnx:
        session = onnx_session(spec.model.file, spec.cpu_threads)
        predict = onnx_predictor(session, spec.model.preprocess, len(spec.model.classes))
        engine = f"onnxruntime {ort.__version__}"
    else:
        predict = torch_predictor(load_model(spec.model).to(device), spec.model.preprocess, device)
        engine = f"torch {torch.__version__}"
    images = _in_model_classes(spec)
    events.phase("evaluation", -(-len(images) // spec.batch_size))
    evaluation = evaluate(
        predict,
        images,
        class_count=len(spec.model.classes),
        batch_size=spec.batch_size,
        workers=spec.cpu_threads if device.type == "cuda" else 0,
        events=events,
    )
    write_evaluation(evaluation, spec.model.classes, events.work_dir / "evaluation.json")
    events.artifact("EVALUATION", "evaluation.json", {})
    return {"metrics": to_json(evaluation.metrics), "engine": engine}


def _in_model_classes(spec: EvaluateSpec) -> Images:
    """The split with labels of the model, matched by class name. Raises DATA_INVALID."""
    index = {name: n for n, name in enumerate(spec.model.classes)}
    unknown = [name for name in spec.dataset.classes if name not in index]
    if unknown:
        raise TrainerError(
            "DATA_INVALID",
            f"{len(unknown)} of the dataset's classes are not among the model's {len(index)}.",
            details=tuple(unknown),
        )
    items = read_split(spec.dataset, spec.split)
    images = open_images(spec.dataset, items, spec.model.preprocess)
    of_model = torch.tensor([index[name] for name in spec.dataset.classes])
    return replace(images, labels=of_model[images.labels])
