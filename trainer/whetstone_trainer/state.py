"""The state of a training: how it begins, what a checkpoint holds of it, how it is restored."""

import copy
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whetstone_trainer.checkpoint import Checkpoint, State, load_checkpoint, save_checkpoint
from whetstone_trainer.environment import workers_of
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events, file_hash
from whetstone_trainer.model import build_model, fit, freeze, match_classes, read_state, topology_of, without_storage
from whetstone_trainer.optimizer import SGD, AdamW, Group, Optimizer
from whetstone_trainer.preprocess import channel_count
from whetstone_trainer.protocol import Hyperparameters, TrainSpec
from whetstone_trainer.protocol_json import before_of, build, to_json
from whetstone_trainer.public_weights import public_weights
from whetstone_trainer.ranks import ALONE, Ranks
from whetstone_trainer.task import Evaluation, Task
from whetstone_trainer.tasks import task_of

# Grows with every change of what a run computes from the same specification: pictures, losses, assignment, averages,
# schedule. A training continues from a checkpoint of other rules, and the job says so. The earliest have no number.
RULES = 5


@dataclass
class Progress:
    """The part of a run's state that is not tensors.

    Args:
        epoch: complete epochs; batch: batches of the next one that are done; step: optimizer steps in all. Between two
            steps the gradients of the batches since the last one belong to the state.
        best_epoch: 0 while there is none; best: its metrics on the validation split, in the task's form.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    best: Any = None
    finished: bool = False
    stopped_early: bool = False


Forward = Callable[[torch.Tensor], Any]


@dataclass
class Run:
    """What changes during a training, and goes into a checkpoint.

    Args:
        ema: moving average of `model`, or `model` itself where that is off.
        sums: of the running epoch, one for each of the task's `RUNNING` and the seen images, float64, on the device.
        best: weights of the best epoch so far (the averaged ones), on the CPU.
        best_evaluation: of that epoch; not in a checkpoint, so None where it was in an earlier attempt.
        compiled: the training's forward pass of `model` where it is compiled; not in a checkpoint.
    """

    model: nn.Module
    ema: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    sums: torch.Tensor
    best: State
    progress: Progress
    best_evaluation: Evaluation | None = None
    compiled: Forward | None = None


@dataclass(frozen=True)
class Job:
    """What stays the same during a training.

    Args:
        batches: in an epoch.
        class_weights: of the loss.
        adapt: makes the model that is trained of the preset's with its first weights; None: it is the preset's itself.
        ranks: of this process and the others that train with it.
    """

    spec: TrainSpec
    device: torch.device
    batches: int
    events: Events
    class_weights: torch.Tensor | None = None
    adapt: Callable[[nn.Module], nn.Module] | None = None
    ranks: Ranks = ALONE

    @property
    def task(self) -> Task:
        return task_of(self.spec.preset)

    @property
    def steps(self) -> int:
        """Of the optimizer in an epoch."""
        return -(-self.batches // self.spec.hyperparameters.accumulate)

    @property
    def workers(self) -> int:
        return workers_of(self.spec, self.device)


def new_run(job: Job) -> Run:
    """A run at its first step, with weights as `spec.init` says."""
    spec, class_count = job.spec, len(job.spec.dataset.classes)
    channels = channel_count(spec.preprocess)
    model = build_model(spec.preset, class_count, channels)
    if spec.init.from_ == "CHECKPOINT":
        return _continued(job)
    if spec.init.from_ != "SCRATCH":
        public = spec.init.from_ == "PRETRAINED"
        state = public_weights(spec.preset, spec.init.file) if public else read_state(spec.init.file or "")
        fitted, new = fit(state, spec.preset, class_count, replace_head=True, channels=channels)
        earlier = spec.init.classes or ()
        if not new and earlier != spec.dataset.classes:
            fitted, fresh = match_classes(fitted, model.state_dict(), spec.preset, earlier, spec.dataset.classes)
            _warn_of_classes(fresh, earlier, job)
        model.load_state_dict(fitted, strict=False)
        if new:
            job.events.warn("HEAD_REPLACED", _new_layers(new, spec.preset))
    return _with_optimizer(model, job)


def _new_layers(new: tuple[str, ...], preset: str) -> str:
    topology = topology_of(preset)
    if any(not name.startswith(topology.head) for name in new):
        return f"The weights are of {topology.classifier}: neck and head of the detector start from random values."
    return f"The weights are for other classes: {', '.join(new)} start from random values."


def _warn_of_classes(fresh: tuple[str, ...], earlier: tuple[str, ...], job: Job) -> None:
    if not earlier:
        message = "Nobody knows which classes the weights are for: the classifier head starts from random values."
    else:
        kept = len(job.spec.dataset.classes) - len(fresh)
        message = f"The weights have other classes or another order: {kept} classes keep their part of the head by name"
        message += f"; {len(fresh)} start from random values: {', '.join(fresh[:10])}." if fresh else "."
    job.events.warn("CLASSES_MATCHED", message)


def _with_optimizer(model: nn.Module, job: Job) -> Run:
    parameters, device = job.spec.hyperparameters, job.device
    if job.adapt is not None:
        model = job.adapt(model)
    model = job.ranks.synchronised(model, device)
    model = model.to(device)
    if device.type == "cuda":
        # As images are. On a processor convolutions copy weights of any layout into one of their own, and gradients of
        # plain ones are as the optimizer reads them.
        model = model.to(memory_format=torch.channels_last)
    freeze(model, job.spec.preset, parameters.freeze)
    optimizer = new_optimizer(model, parameters, topology_of(job.spec.preset).behind)
    # Only rank 0 validates it.
    ema = copy.deepcopy(model) if parameters.ema_decay > 0 and job.ranks.rank == 0 else model
    scaler = torch.amp.GradScaler(device.type, enabled=autocast_dtype(job.spec, device) is torch.float16)
    sums = torch.zeros(len(job.task.RUNNING) + 1, dtype=torch.float64, device=device)
    return Run(model, ema, optimizer, scaler, sums, {}, Progress())


def new_optimizer(model: nn.Module, parameters: Hyperparameters, behind: tuple[str, ...]) -> Optimizer:
    """It has what is not frozen. The learning rate of a group is that of the step times its `rate_factor`, which is 1
    for the layers behind the backbone: the parameters whose names begin as one of `behind`."""
    backbone_factor = parameters.backbone_learning_rate_factor
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Biases and normalisation are not decayed.
            key = 1.0 if name.startswith(behind) else backbone_factor, parameter.ndim > 1
            groups.setdefault(key, []).append(parameter)
    decays: list[Group] = [
        {"params": params, "rate_factor": factor, "lr": 0.0, "weight_decay": parameters.weight_decay if decayed else 0}
        for (factor, decayed), params in groups.items()
    ]
    return AdamW(decays) if parameters.optimizer == "ADAMW" else SGD(decays, parameters.momentum)


def _continued(job: Job) -> Run:
    """More epochs of an earlier run: its weights, optimizer and epoch, on the schedule of the new number of epochs."""
    spec = job.spec
    assert spec.init.file is not None
    earlier = load_checkpoint(Path(spec.init.file))
    parameters = spec.hyperparameters
    if parameters.epochs <= earlier.epoch:
        raise TrainerError(
            "SPEC_INVALID", f"epochs counts from the checkpoint's first epoch: it must be more than {earlier.epoch}."
        )
    class_count, channels = len(spec.dataset.classes), channel_count(spec.preprocess)
    training = _with_optimizer(build_model(spec.preset, class_count, channels), job)
    fit(earlier.tensors["model"], spec.preset, class_count, replace_head=False, channels=channels)
    training.model.load_state_dict(earlier.tensors["model"])
    if training.ema is not training.model:
        training.ema.load_state_dict(earlier.tensors.get("ema", earlier.tensors["model"]))
    if earlier.progress["optimizer"] == parameters.optimizer:
        _load_optimizer(training, earlier.tensors.get("optimizer", {}))
    else:
        job.events.warn("OPTIMIZER_NEW", "The checkpoint is of another optimizer: this one starts without its memory.")
    training.progress = Progress(epoch=earlier.epoch, step=earlier.epoch * job.steps)
    return training


def restored_run(job: Job, checkpoint: Checkpoint) -> Run:
    """The run exactly as it was when the checkpoint was written."""
    spec, tensors, progress = job.spec, checkpoint.tensors, checkpoint.progress
    model = build_model(spec.preset, len(spec.dataset.classes), channel_count(spec.preprocess))
    training = _with_optimizer(model, job)
    training.model.load_state_dict(tensors["model"])
    if training.ema is not training.model:
        training.ema.load_state_dict(tensors["ema"])
    _load_optimizer(training, tensors.get("optimizer", {}))
    numbered = _numbered(training.model)
    for number, gradient in tensors.get("gradients", {}).items():
        parameter = numbered[int(number)]
        parameter.grad = torch.empty_like(parameter).copy_(gradient).detach()
    if progress["scaler"]:
        training.scaler.load_state_dict(progress["scaler"])
    training.sums.copy_(tensors["state"]["sums"])
    training.best = tensors.get("best", {})
    best = progress["best"]
    training.progress = Progress(
        checkpoint.epoch,
        checkpoint.batch,
        progress["step"],
        progress["bestEpoch"],
        None if best is None else build(job.task.METRICS, best),
        finished=progress["finished"],
        stopped_early=progress["stoppedEarly"],
    )
    torch.set_rng_state(tensors["state"]["rng"])
    if training.sums.is_cuda and "cudaRng" in tensors["state"]:
        torch.cuda.set_rng_state(tensors["state"]["cudaRng"], training.sums.device)
    return training


def _numbered(model: nn.Module) -> list[nn.Parameter]:
    """The parameters in the order of their numbers in a checkpoint, frozen ones too."""
    return sorted(model.parameters(), key=lambda parameter: parameter.ndim <= 1)


def _load_optimizer(training: Run, tensors: State) -> None:
    """From names `<parameter>/<key>`, each tensor in its parameter's memory format."""
    parameters = _numbered(training.model)
    for name, tensor in tensors.items():
        number, key = name.split("/")
        parameter = parameters[int(number)]
        if parameter.requires_grad:
            like = torch.empty_like(parameter) if tensor.shape == parameter.shape else torch.empty_like(tensor)
            training.optimizer.state[parameter][key] = like.to(parameter.device).copy_(tensor).detach()


def _checkpoint(training: Run, spec: TrainSpec) -> Checkpoint:
    progress = training.progress
    tensors: dict[str, State] = {
        "model": training.model.state_dict(),
        "best": training.best,
        "optimizer": {
            f"{number}/{key}": tensor
            for number, parameter in enumerate(_numbered(training.model))
            for key, tensor in training.optimizer.state.get(parameter, {}).items()
            if tensor is not None
        },
        "state": {"sums": training.sums, "rng": torch.get_rng_state()},
    }
    if progress.batch % spec.hyperparameters.accumulate != 0:
        tensors["gradients"] = {
            str(number): parameter.grad
            for number, parameter in enumerate(_numbered(training.model))
            if parameter.grad is not None
        }
    if training.sums.is_cuda:
        # Dropout and stochastic depth draw from the generator of the device.
        tensors["state"]["cudaRng"] = torch.cuda.get_rng_state(training.sums.device)
    if training.ema is not training.model:
        tensors["ema"] = training.ema.state_dict()
    record = {
        "step": progress.step,
        "bestEpoch": progress.best_epoch,
        "best": None if progress.best is None else to_json(progress.best),
        "finished": progress.finished,
        "stoppedEarly": progress.stopped_early,
        "optimizer": spec.hyperparameters.optimizer,
        "scaler": training.scaler.state_dict(),
        "rules": RULES,
        "processes": spec.processes,
    }
    return Checkpoint(fingerprint(spec), progress.epoch, progress.batch, record, tensors)


class Saver:
    """Writes checkpoints: when one is due, when the run is stopped, and at the end."""

    def __init__(self, training: Run, job: Job) -> None:
        self._training, self._spec, self._events = training, job.spec, job.events
        self._saved_at = time.monotonic()
        self._saved: tuple[tuple[int, int], str] | None = None

    def save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= self._spec.checkpoint_seconds:
            self.save()

    def save(self) -> str:
        """The file's name; it is written only where the run has moved since the last one."""
        progress, events = self._training.progress, self._events
        place = (progress.epoch, progress.batch)
        if self._saved is None or self._saved[0] != place:
            checkpoint = _checkpoint(self._training, self._spec)
            file = save_checkpoint(events.work_dir, checkpoint)
            sha256, size = file_hash(events.work_dir / file)
            events.emit("checkpoint", file=file, sha256=sha256, sizeBytes=size, epoch=place[0], batch=place[1])
            self._saved = (place, file)
        self._saved_at = time.monotonic()
        return self._saved[1]


def fingerprint(spec: TrainSpec) -> str:
    """Of everything that decides the result, paths left out: only the same run may continue from a checkpoint.

    A hyperparameter that was added later is left out where it does what was done before: a checkpoint from before it
    was there is of the same run.
    """
    before = before_of(type(spec.hyperparameters))
    parameters = to_json(spec.hyperparameters)
    value = {
        "preset": spec.preset,
        "dataset": spec.dataset.content_hash,
        "classes": spec.dataset.classes,
        "preprocess": to_json(spec.preprocess),
        "hyperparameters": {k: v for k, v in parameters.items() if k not in before or before[k] != v},
        "init": spec.init.from_,
        "seed": spec.seed,
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


PRECISIONS = {torch.bfloat16: "BF16", torch.float16: "FP16", None: "FP32"}


def autocast_dtype(spec: TrainSpec, device: torch.device) -> torch.dtype | None:
    """bfloat16 on a GPU that has it, float16 on an older one. On a processor None (float32), or bfloat16 if asked for.

    Instructions for bfloat16 make convolutions 1.6 times as fast. None suit grouped ones: EfficientNet takes twice as
    long with them.
    """
    asked = spec.hyperparameters.mixed_precision
    if asked == "OFF":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    found = torch.cpu.get_capabilities() if asked == "BF16" else {}
    computes = found.get("avx512_bf16") or found.get("amx_bf16")
    return torch.bfloat16 if computes and not _has_grouped_convolutions(spec.preset) else None


def autocast(job: Job) -> torch.autocast:
    """Of the model's forward pass in training."""
    dtype = autocast_dtype(job.spec, job.device)
    return torch.autocast(job.device.type, dtype, enabled=dtype is not None)


@cache
def _has_grouped_convolutions(preset: str) -> bool:
    layers = without_storage(lambda: build_model(preset, 1)).modules()
    return any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers)
