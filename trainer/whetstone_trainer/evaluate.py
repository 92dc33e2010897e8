"""How good a model is on a split: models as functions of images, and the job EVALUATE."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from whetstone_trainer.checkpoint import commit
from whetstone_trainer.data import read_split
from whetstone_trainer.environment import prepare, say_hello
from whetstone_trainer.errors import TrainerError, mask_paths
from whetstone_trainer.events import Events
from whetstone_trainer.images import Images, open_images
from whetstone_trainer.model import build_model, fit, read_state
from whetstone_trainer.preprocess import channel_count, normalise
from whetstone_trainer.protocol import DatasetRef, EvaluateSpec, ModelRef, PreprocessSpec, Split
from whetstone_trainer.protocol_json import to_json
from whetstone_trainer.task import Evaluation, Outputs, Predict, Read
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


def mirrored_too(predict: Predict, model: ModelRef) -> Predict:
    """`predict` on each image and on its mirror image."""

    def both(levels: torch.Tensor) -> Outputs:
        outputs, mirrored = predict(levels), predict(levels.flip(-1))
        return TASKS[model.task].with_mirrored(outputs, mirrored, model.preprocess, len(model.classes))

    return both


def as_outputs(value: torch.Tensor | Outputs) -> Outputs:
    """What a model returns, as a tuple also where it is one tensor."""
    return (value,) if isinstance(value, torch.Tensor) else value


def onnx_session(model: str | Path | bytes, threads: int) -> ort.InferenceSession:
    """ONNX Runtime on the CPU, of a file or of its bytes. Raises MODEL_INVALID."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Spinning threads take the cores from PyTorch's, and these from them: a batch through both took 4 × as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        source = model if isinstance(model, bytes) else str(model)
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no base class of its own
        raise TrainerError(
            "MODEL_INVALID", f"ONNX Runtime does not load the model: {mask_paths(str(error))}"
        ) from error


@dataclass(frozen=True)
class OnnxModel:
    """A model with one image input.

    Args:
        batch: images of a run, where the graph fixes them.
        read: from what the graph gives to the outputs of the task.
    """

    session: ort.InferenceSession
    preprocess: PreprocessSpec
    name: str
    dtype: type
    batch: int | None
    read: Read

    def feeds(self, levels: torch.Tensor) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
        """The inputs of each run with how many images are meant: a last part that is smaller than the graph's batch is
        filled up by repeating its first image."""
        array = as_input(normalise(levels, self.preprocess).numpy(), self.dtype)
        size = self.batch or len(array)
        for start in range(0, len(array), size):
            part = array[start : start + size]
            yield {self.name: np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])}, len(part)

    def run(self, levels: torch.Tensor) -> list[NDArray[Any]]:
        """What the graph gives, in its order. Raises MODEL_INVALID."""
        parts = [[output[:count] for output in self._run(feed)] for feed, count in self.feeds(levels)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def predict(self, levels: torch.Tensor) -> Outputs:
        return self.read(self.run(levels))

    def _run(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            outputs: list[NDArray[Any]] = self.session.run(None, feed)
        except Exception as error:
            raise TrainerError(
                "MODEL_INVALID", f"ONNX Runtime does not run the model: {mask_paths(str(error))}"
            ) from error
        return outputs


def open_onnx(session: ort.InferenceSession, model: ModelRef) -> OnnxModel:
    """The model's only image input and the outputs of its task. Raises MODEL_INVALID where they are not there."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in INPUT_TYPES or len(inputs[0].shape) != 4:
        found = ", ".join(f"{port.name} {port.type} {port.shape}" for port in inputs)
        raise TrainerError(
            "MODEL_INVALID",
            f"A model has one input of four dimensions, of {', '.join(INPUT_TYPES)}; this one has {found}.",
        )
    fixed = inputs[0].shape[0]
    ports = [(port.name, port.shape) for port in session.get_outputs()]
    task = session.get_modelmeta().custom_metadata_map.get("whetstone.task")
    return OnnxModel(
        session,
        model.preprocess,
        inputs[0].name,
        INPUT_TYPES[inputs[0].type],
        fixed if isinstance(fixed, int) else None,
        TASKS[model.task].reader(ports, task, model),
    )


def as_input(values: NDArray[np.float32], dtype: type) -> NDArray[Any]:
    """Step 8 of docs/preprocessing.md."""
    rounded = np.clip(np.floor(values + np.float32(0.5)), 0, 255) if dtype is np.uint8 else values
    converted: NDArray[Any] = rounded.astype(dtype)
    return converted


def load_model(model: ModelRef) -> nn.Module:
    """A checkpoint version with its weights. Raises WEIGHTS_INVALID, SPEC_INVALID."""
    if model.preset is None:
        raise TrainerError("SPEC_INVALID", "A checkpoint needs its preset.")
    class_count, channels = len(model.classes), channel_count(model.preprocess)
    state, _ = fit(read_state(model.file), model.preset, class_count, replace_head=False, channels=channels)
    loaded = build_model(model.preset, class_count, channels)
    loaded.load_state_dict(state)
    return loaded


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
        predict: Predict = open_onnx(session, spec.model).predict
        engine = ONNXRUNTIME
    else:
        predict = torch_predictor(load_model(spec.model).to(device), spec.model.preprocess, device)
        engine = TORCH
    if spec.test_time_augmentation == "FLIP":
        predict = mirrored_too(predict, spec.model)
    images = in_model_classes(spec.model, spec.dataset, spec.split)
    workers = spec.cpu_threads if device.type == "cuda" else 0
    metrics = measure(predict, images, spec.model, batch_size=spec.batch_size, workers=workers, events=events)
    return {"metrics": metrics, "engine": engine}


def measure(
    predict: Predict, images: Images, model: ModelRef, *, batch_size: int, workers: int, events: Events
) -> dict[str, Any]:
    """Writes the EVALUATION artifact; returns the metrics as JSON."""
    return write_evaluation(
        evaluate(predict, images, model, batch_size=batch_size, workers=workers, events=events), model, events
    )


def evaluate(
    predict: Predict, images: Images, model: ModelRef, *, batch_size: int, workers: int, events: Events
) -> Evaluation:
    events.phase("evaluation", -(-len(images) // batch_size))
    return TASKS[model.task].evaluate(
        predict, images, class_count=len(model.classes), batch_size=batch_size, workers=workers, events=events
    )


def write_evaluation(evaluation: Evaluation, model: ModelRef, events: Events) -> dict[str, Any]:
    """The EVALUATION artifact; returns the metrics as JSON."""
    write_json(events.work_dir / "evaluation.json", TASKS[model.task].report(evaluation, model.classes, events))
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
