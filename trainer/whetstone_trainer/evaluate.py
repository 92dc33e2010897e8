"""How good a model is on a split: models as functions of images, and the job EVALUATE."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from whetstone_trainer.checkpoint import commit
from whetstone_trainer.data import Images, open_images, read_split
from whetstone_trainer.environment import prepare, say_hello
from whetstone_trainer.errors import TrainerError, mask_paths
from whetstone_trainer.events import Events
from whetstone_trainer.model import build_model, fit, read_state
from whetstone_trainer.preprocess import normalise
from whetstone_trainer.protocol import DatasetRef, EvaluateSpec, ModelRef, PreprocessSpec, Split, to_json
from whetstone_trainer.task import Outputs, Predict
from whetstone_trainer.tasks import TASKS

# What metrics were computed with.
TORCH = f"torch {torch.__version__}"
ONNXRUNTIME = f"onnxruntime {ort.__version__}"
# What an image can become.
INPUT_TYPES: dict[str, type] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


def write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    commit(temporary, path)


# ----------------------------------------------------------------------------------------------------------- predictors


def torch_predictor(model: nn.Module, spec: PreprocessSpec, device: torch.device) -> Predict:
    """`model` in evaluation mode, in float32."""
    model.eval()

    @torch.inference_mode()
    def predict(levels: torch.Tensor) -> Outputs:
        inputs = normalise(levels.to(device), spec).contiguous(memory_format=torch.channels_last)
        return tuple(output.float().cpu() for output in as_outputs(model(inputs)))

    return predict


def as_outputs(value: torch.Tensor | Outputs) -> Outputs:
    """What a model returns, as a tuple also where it is one tensor."""
    return (value,) if isinstance(value, torch.Tensor) else value


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


def onnx_predictor(session: ort.InferenceSession, model: ModelRef) -> Predict:
    """The model's only image input and the outputs of its task. Raises MODEL_INVALID where they are not there."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in INPUT_TYPES or len(inputs[0].shape) != 4:
        found = ", ".join(f"{port.name} {port.type} {port.shape}" for port in inputs)
        raise TrainerError(
            "MODEL_INVALID",
            f"A model has one input of four dimensions, of {', '.join(INPUT_TYPES)}; this one has {found}.",
        )
    name, fixed = inputs[0].name, inputs[0].shape[0]
    dtype = INPUT_TYPES[inputs[0].type]
    ports = [(port.name, port.shape) for port in session.get_outputs()]
    task = session.get_modelmeta().custom_metadata_map.get("whetstone.task")
    read = TASKS[model.task].reader(ports, task, model)

    def predict(levels: torch.Tensor) -> Outputs:
        array = as_input(normalise(levels, model.preprocess).numpy(), dtype)
        size = fixed if isinstance(fixed, int) else len(array)
        parts = [_run(session, name, array[start : start + size], size) for start in range(0, len(array), size)]
        return read([np.concatenate(outputs) for outputs in zip(*parts, strict=True)])

    return predict


def as_input(values: NDArray[np.float32], dtype: type) -> NDArray[Any]:
    """Step 8 of docs/preprocessing.md."""
    rounded = np.clip(np.floor(values + np.float32(0.5)), 0, 255) if dtype is np.uint8 else values
    converted: NDArray[Any] = rounded.astype(dtype)
    return converted


def _run(session: ort.InferenceSession, name: str, part: NDArray[Any], size: int) -> Sequence[NDArray[Any]]:
    """One run at a batch size of `size`; a smaller last part is filled up by repeating its first image."""
    filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
    try:
        outputs: list[NDArray[Any]] = session.run(None, {name: filled})
    except Exception as error:
        raise TrainerError("MODEL_INVALID", f"ONNX Runtime does not run the model: {mask_paths(str(error))}") from error
    return [output[: len(part)] for output in outputs]


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
    onnx = spec.model.format == "ONNX"
    if onnx and spec.device == "cuda":
        raise TrainerError(
            "DEVICE_UNAVAILABLE",
            "An ONNX version is evaluated on the CPU, and the job asks for CUDA.",
            hint="Use the device auto or cpu.",
        )
    device = prepare(spec)
    say_hello(events, spec, torch.device("cpu") if onnx else device)
    events.phase("weights")
    if onnx:
        session = onnx_session(spec.model.file, spec.cpu_threads)
        predict = onnx_predictor(session, spec.model)
        engine = ONNXRUNTIME
    else:
        predict = torch_predictor(load_model(spec.model).to(device), spec.model.preprocess, device)
        engine = TORCH
    images = in_model_classes(spec.model, spec.dataset, spec.split)
    workers = spec.cpu_threads if device.type == "cuda" else 0
    metrics = measure(predict, images, spec.model, batch_size=spec.batch_size, workers=workers, events=events)
    return {"metrics": metrics, "engine": engine}


def measure(
    predict: Predict, images: Images, model: ModelRef, *, batch_size: int, workers: int, events: Events
) -> dict[str, Any]:
    """Writes the EVALUATION artifact; returns the metrics as JSON."""
    task = TASKS[model.task]
    events.phase("evaluation", -(-len(images) // batch_size))
    evaluation = task.evaluate(
        predict, images, class_count=len(model.classes), batch_size=batch_size, workers=workers, events=events
    )
    write_json(events.work_dir / "evaluation.json", task.report(evaluation, model.classes))
    events.artifact("EVALUATION", "evaluation.json", {})
    metrics: dict[str, Any] = to_json(evaluation.metrics)
    return metrics


def in_model_classes(model: ModelRef, dataset: DatasetRef, split: Split) -> Images:
    """The split with labels of the model, matched by class name. Raises DATA_INVALID."""
    index = {name: n for n, name in enumerate(model.classes)}
    unknown = [name for name in dataset.classes if name not in index]
    if unknown:
        raise TrainerError(
            "DATA_INVALID",
            f"{len(unknown)} of the dataset's classes are not among the model's {len(index)}.",
            details=tuple(unknown),
        )
    items = read_split(dataset, split)
    task = TASKS[model.task]
    images = open_images(dataset, items, task, model.preprocess)
    of_model = [index[name] for name in dataset.classes]
    return replace(images, truths=[task.relabelled(truth, of_model) for truth in images.truths])
