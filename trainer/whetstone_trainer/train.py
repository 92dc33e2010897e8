"""The job TRAIN: weights, data, loop, checkpoints; then the best weights and how good they are.

Everything that decides the result is a pure function of the specification and of (seed, epoch, index, step). So a run
that was killed and continues from a checkpoint ends with the weights of an undisturbed one (CPU, same `cpuThreads`).
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from whetstone_trainer.augment import SIDE, batch_spec
from whetstone_trainer.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_tensors
from whetstone_trainer.compiled import compiled, compiler_of
from whetstone_trainer.data import Batch, BatchMaker, balanced_weights, batch_count, read_split, training_batches
from whetstone_trainer.environment import prepare, say_hello
from whetstone_trainer.errors import Stopped, TrainerError
from whetstone_trainer.evaluate import TORCH, as_outputs, torch_predictor, write_json
from whetstone_trainer.events import Events
from whetstone_trainer.images import CacheRoom, Images, fill_cache, open_images
from whetstone_trainer.model import macs, parameter_count, train_mode, weights_hash
from whetstone_trainer.processes import OtherRanks
from whetstone_trainer.protocol import Hyperparameters, PreprocessSpec, TrainSpec
from whetstone_trainer.protocol_json import camel, to_json
from whetstone_trainer.ranks import Ranks
from whetstone_trainer.state import (
    PRECISIONS,
    RULES,
    Job,
    Run,
    Saver,
    autocast,
    autocast_dtype,
    fingerprint,
    new_run,
    restored_run,
)
from whetstone_trainer.task import Evaluation
from whetstone_trainer.tasks import task_of


def run(spec: TrainSpec, events: Events, others: OtherRanks) -> dict[str, Any]:
    """Trains and writes the artifacts. Returns `TrainResult` of the protocol."""
    device = prepare(spec)
    resumed = resumable(spec, events)
    place = None if resumed is None else (resumed.epoch, resumed.batch)
    precision = PRECISIONS[autocast_dtype(spec, device)]
    say_hello(events, spec, device, place, precision=precision, compiler=compiler_of(spec, device))
    training, job, val_images, checkpoint = train(spec, device, resumed, events, others)
    return _finish(training, checkpoint, val_images, job)


def resumable(spec: TrainSpec, events: Events) -> Checkpoint | None:
    """The state in which an earlier attempt has left this run."""
    found = newest_checkpoint(events.work_dir, spec.resume_from, fingerprint(spec))
    if found is None:
        return None
    checkpoint = load_checkpoint(found)
    processes = checkpoint.progress.get("processes", 1)
    if processes != spec.processes:
        # Sums would be rounded in another way: the result would be of neither.
        raise TrainerError(
            "SPEC_INVALID",
            f"The checkpoint was written by {processes} processes that trained together, and this job has "
            f"{spec.processes}. A training resumes with as many as it began with.",
            hint="Use continueFrom with a version of the earlier training: that begins a new one.",
        )
    return checkpoint


def train(
    spec: TrainSpec,
    device: torch.device,
    resumed: Checkpoint | None,
    events: Events,
    others: OtherRanks,
    *,
    adapt: Callable[[nn.Module], nn.Module] | None = None,
    begin_epoch: Callable[[nn.Module], None] | None = None,
) -> tuple[Run, Job, Images, str]:
    """All epochs. Returns the run at its end, its job, the validation images, and the name of the last checkpoint.

    Args:
        others: are ended when the last batch is done.
        adapt: see `Job`.
        begin_epoch: called with the model before the first batch of each epoch. What it changes is in the model's
            state, or follows from it.
    """
    if spec.resume_from is not None and resumed is None:
        events.warn("CHECKPOINT_UNUSABLE", "The checkpoint is damaged or of another run: training starts from zero.")

    if resumed is not None and resumed.progress.get("rules") != RULES:
        events.warn(
            "RULES_CHANGED",
            "The checkpoint was written by a version of Whetstone that may compute losses or averages in another way. "
            "The training continues with today's rules: its result is not that of one version alone.",
        )

    # Weights come before images: what is missing shows before any work is done.
    events.phase("weights")
    training, job, train_images = _opened(spec, device, resumed, events, adapt=adapt)
    val_images = open_images(spec.dataset, read_split(spec.dataset, "val"), job.task, spec.preprocess)
    saver = Saver(training, job)
    if _is_over(training, spec):
        return training, job, val_images, saver.save()

    if spec.hyperparameters.compile:
        compile_model(training, job)
    with others:
        left = fill_cache(val_images, cache_room(spec), spec.cpu_threads, events)
        fill_cache(train_images, left, spec.cpu_threads, events)
        if spec.processes > 1:
            # Until they have come so far.
            events.phase("training", job.batches - training.progress.batch)
        job.ranks.join(device, events.work_dir)
        try:
            with closing(_batches(training, job, train_images)) as batches:
                while not _is_over(training, spec):
                    started = time.monotonic()
                    if begin_epoch is not None and training.progress.batch == 0:
                        begin_epoch(training.model)
                    others.begin_epoch()
                    train_epoch(training, batches, job, saver)
                    evaluation = _validate(training.ema, val_images, job)
                    _end_epoch(training, evaluation, job, started)
                    saver.save_if_due()
        except Stopped:
            saver.save()
            raise
    return training, job, val_images, saver.save()


def train_as(rank: int, spec: TrainSpec, events: Events, wait_for_epoch: Callable[[], object]) -> None:
    """What a rank other than 0 does: its part of each batch, in the epochs that rank 0 begins."""
    device = prepare(spec, rank)
    training, job, images = _opened(spec, device, resumable(spec, events), events, rank=rank)
    fill_cache(images, cache_room(spec), spec.cpu_threads, events)
    job.ranks.join(device, events.work_dir)
    with closing(_batches(training, job, images)) as batches:
        while True:
            wait_for_epoch()
            train_epoch(training, batches, job, None)
            training.progress.epoch, training.progress.batch = training.progress.epoch + 1, 0
            training.sums.zero_()


def _opened(
    spec: TrainSpec,
    device: torch.device,
    resumed: Checkpoint | None,
    events: Events,
    *,
    rank: int = 0,
    adapt: Callable[[nn.Module], nn.Module] | None = None,
) -> tuple[Run, Job, Images]:
    """The run as it begins or continues, its job, and the training images."""
    parameters, task = spec.hyperparameters, task_of(spec.preset)
    items = read_split(spec.dataset, "train")
    if len(items) < 2:
        raise TrainerError("DATA_INVALID", "The training split has one image; batch normalisation needs two.")
    ranks = Ranks(rank, spec.processes, min(parameters.batch_size, len(items)))
    if ranks.images < ranks.size:
        raise TrainerError(
            "SPEC_INVALID",
            f"A batch has {ranks.images} images, too few for {ranks.size} processes.",
            hint="Use fewer processes, or a larger batchSize.",
        )
    weights = None
    if parameters.class_weights == "BALANCED":
        labels = (task.labels(task.truth(item)) for item in items)
        weights = balanced_weights(labels, len(spec.dataset.classes)).to(device)
    job = Job(spec, device, batch_count(len(items), parameters.batch_size), events, weights, adapt, ranks)
    training = new_run(job) if resumed is None else restored_run(job, resumed)
    images = open_images(spec.dataset, items, task, task.kept_as(parameters, spec.preprocess), draft=True)
    return training, job, images


def _batches(training: Run, job: Job, images: Images) -> Generator[Batch, None, None]:
    """The training's batches from where it is."""
    spec, progress = job.spec, training.progress
    maker = BatchMaker(images, job.task, spec.hyperparameters, spec.preprocess, spec.seed, job.ranks)
    return training_batches(maker, (progress.epoch, progress.batch), job.workers)


def cache_room(spec: TrainSpec) -> CacheRoom:
    """Of one process."""
    return CacheRoom(spec.cache_bytes_max // spec.processes, spec.cache_disk_bytes_max // spec.processes)


def _is_over(training: Run, spec: TrainSpec) -> bool:
    """Finished, or to be resumed by another job."""
    progress = training.progress
    return progress.finished or (spec.stop_after_epoch is not None and progress.epoch >= spec.stop_after_epoch)


# ----------------------------------------------------------------------------------------------------------------- loop

# The moving average reads and writes all weights. So it moves by four steps at a time and at an epoch's end, with the
# product of their decays.
AVERAGED_STEPS = 4


def train_epoch(training: Run, batches: Iterator[Batch], job: Job, saver: Saver | None) -> None:
    """The rest of the running epoch. Only rank 0 has a saver, and may stop."""
    progress, parameters = training.progress, job.spec.hyperparameters
    started, seen = time.monotonic(), 0
    job.events.phase("training", job.batches - progress.batch)
    train_mode(training.model)
    for batch in islice(batches, job.batches - progress.batch):
        rate = learning_rate(progress.step, job.steps * parameters.epochs, parameters)
        _add_gradients(training, batch, job)
        progress.batch += 1
        is_step = progress.batch % parameters.accumulate == 0 or progress.batch == job.batches
        if is_step:
            _step(training, rate, job)
        seen += job.ranks.images
        speed = seen / (time.monotonic() - started)
        left = (job.batches * (parameters.epochs - progress.epoch) - progress.batch) * parameters.batch_size
        job.events.advance(
            epoch=(progress.epoch + 1, parameters.epochs),
            metrics=lambda rate=rate: {**_running_metrics(training.sums, job), "learningRate": rate},  # type: ignore[misc]
            items_per_second=speed,
            eta_seconds=left / speed,
        )
        # Between steps each rank has gradients of its own, which no checkpoint of rank 0 holds.
        if saver is not None and (is_step or job.ranks.size == 1):
            saver.save_if_due()
            job.events.check_stop()


def _add_gradients(training: Run, batch: Batch, job: Job) -> None:
    """Adds the batch's part to the gradients of the next step: their mean over its batches."""
    parameters, progress = job.spec.hyperparameters, training.progress
    job.ranks.seed(job.spec.seed, progress.epoch, progress.batch)
    spec = batch_spec(batch.draws, parameters, job.spec.preprocess)
    inputs = _inputs(batch.images, batch.draws, spec, job)
    with autocast(job):
        forward = training.model if training.compiled is None else training.compiled
        outputs = as_outputs(forward(inputs))
    # Outside autocast and in float32: bfloat16 would round the boxes of the loss to 2 pixels at stride 32.
    outputs = tuple(output.float() for output in outputs)
    loss, sums = job.task.loss(outputs, batch.truths, parameters, spec, job.class_weights, ranks=job.ranks)
    first = progress.batch // parameters.accumulate * parameters.accumulate
    batches = min(parameters.accumulate, job.batches - first)
    training.scaler.scale(loss * job.ranks.share / batches).backward()  # type: ignore[no-untyped-call]
    training.sums += job.ranks.sum(sums.double())


def _inputs(images: torch.Tensor, draws: NDArray[np.float64], spec: PreprocessSpec, job: Job) -> torch.Tensor:
    """What the model sees of a batch of training images."""
    pinned = images.pin_memory() if job.device.type == "cuda" else images
    levels = pinned.to(job.device, non_blocking=True).float()
    inputs = job.task.inputs(levels, draws, job.spec.hyperparameters, spec)
    return inputs.contiguous(memory_format=torch.channels_last)


def compile_model(training: Run, job: Job) -> None:
    """Compiles what a training batch goes through; all have the same shape."""
    spec, (first, end) = job.spec.preprocess, job.ranks.part
    train_mode(training.model)
    images = torch.zeros((end - first, 3, spec.height, spec.width), dtype=torch.uint8)
    training.compiled = compiled(training, job, _inputs(images, np.zeros((len(images), SIDE + 1)), spec, job))


def _step(training: Run, rate: float, job: Job) -> None:
    parameters, optimizer, scaler = job.spec.hyperparameters, training.optimizer, training.scaler
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    job.ranks.sum_gradients(training.model)
    if parameters.gradient_clip > 0:
        scaler.unscale_(optimizer)  # type: ignore[arg-type]
        gradients = [parameter.grad for parameter in training.model.parameters() if parameter.grad is not None]
        optimizer.grad_scale = (nn.utils.get_total_norm(gradients) / parameters.gradient_clip).clamp_min(1)
    scaler.step(optimizer)  # type: ignore[arg-type]
    scaler.update()
    optimizer.zero_grad()
    training.progress.step += 1
    of_epoch = -(-training.progress.batch // parameters.accumulate)
    if of_epoch % AVERAGED_STEPS == 0 or of_epoch == job.steps:
        average(training, parameters.ema_decay, (of_epoch - 1) % AVERAGED_STEPS + 1)


def learning_rate(step: int, steps: int, parameters: Hyperparameters) -> float:
    """Of step `step` (from 0) of `steps`: linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2016)."""
    warmup = min(parameters.warmup_steps, steps // 2)
    if step < warmup:
        return parameters.learning_rate * (step + 1) / (warmup + 1)
    return parameters.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


@torch.no_grad()
def average(training: Run, decay: float, steps: int) -> None:
    """Moves the averaged weights by the last `steps` steps. The decay grows with them: a run of three keeps 1 % of its
    initial weights."""
    if training.ema is training.model:
        return
    last = training.progress.step
    current = math.prod(min(decay, (1 + step) / (10 + step)) for step in range(last - steps + 1, last + 1))
    old, new = list(training.ema.state_dict().values()), list(training.model.state_dict().values())
    floats = [n for n, tensor in enumerate(old) if tensor.is_floating_point()]
    torch._foreach_lerp_([old[n] for n in floats], [new[n] for n in floats], 1 - current)
    for tensor, value in zip(old, new, strict=True):
        if not tensor.is_floating_point():
            tensor.copy_(value)


def _running_metrics(sums: torch.Tensor, job: Job) -> dict[str, float]:
    *totals, seen = sums.tolist()
    if not math.isfinite(totals[0]):
        raise TrainerError(
            "DIVERGED",
            "The loss is not a finite number any more.",
            hint="Use a smaller learningRate or a longer warm-up.",
        )
    return {f"train.{name}": total / seen for name, total in zip(job.task.RUNNING, totals, strict=True)}


def _validate(model: nn.Module, images: Images, job: Job) -> Evaluation:
    size = job.spec.hyperparameters.batch_size
    job.events.phase("validation", -(-len(images) // size))
    predict = torch_predictor(model, job.spec.preprocess, job.device)
    classes = len(job.spec.dataset.classes)
    return job.task.evaluate(
        predict, images, class_count=classes, batch_size=size, workers=job.workers, events=job.events
    )


def _end_epoch(training: Run, evaluation: Evaluation, job: Job, started: float) -> None:
    """Counts the epoch, keeps its weights if they are the best, decides whether there is another one."""
    progress, parameters, val = training.progress, job.spec.hyperparameters, evaluation.metrics
    metrics = _running_metrics(training.sums, job)
    if not all(math.isfinite(getattr(val, name)) for name in job.task.CURVES):
        raise TrainerError(
            "DIVERGED", "The validation result is not a finite number.", hint="Use a smaller learningRate."
        )
    progress.epoch, progress.batch = progress.epoch + 1, 0
    training.sums.zero_()
    rank, by = job.task.rank, parameters.selection_metric
    is_best = progress.best is None or rank(val, by) > rank(progress.best, by)
    if is_best:
        progress.best, progress.best_epoch = val, progress.epoch
        training.best = {name: tensor.detach().cpu().clone() for name, tensor in training.ema.state_dict().items()}
        training.best_evaluation = evaluation
    without_better = progress.epoch - progress.best_epoch
    progress.stopped_early = 0 < parameters.early_stopping <= without_better and progress.epoch < parameters.epochs
    progress.finished = progress.stopped_early or progress.epoch >= parameters.epochs
    job.events.emit(
        "epoch",
        epoch=progress.epoch,
        epochs=parameters.epochs,
        step=progress.step,
        metrics={
            **metrics,
            **{f"val.{camel(name)}": getattr(val, name) for name in job.task.CURVES},
            "learningRate": learning_rate(progress.step - 1, job.steps * parameters.epochs, parameters),
        },
        best=is_best,
        durationMs=round((time.monotonic() - started) * 1000),
    )


def _finish(training: Run, checkpoint: str, val_images: Images, job: Job) -> dict[str, Any]:
    """The best weights as artifacts, and how good they are."""
    spec, events, progress = job.spec, job.events, training.progress
    classes = spec.dataset.classes
    assert progress.best is not None
    digest = weights_hash(training.best)
    weights = events.work_dir / "weights.safetensors"
    save_tensors(weights, training.best, {"preset": spec.preset, "weightsHash": digest})
    meta = {
        "preset": spec.preset,
        "weightsHash": digest,
        "classCount": len(classes),
        "parameters": parameter_count(training.model),
        "preprocess": to_json(spec.preprocess),
        "epoch": progress.best_epoch,
        "metrics": to_json(progress.best),
    }
    events.artifact("WEIGHTS", "weights.safetensors", meta)
    events.artifact("CHECKPOINT", checkpoint, {"epoch": progress.epoch, "step": progress.step})

    evaluation = training.best_evaluation
    if evaluation is None:
        # The best epoch was in an earlier attempt.
        training.model.load_state_dict(training.best)
        evaluation = _validate(training.model, val_images, job)
    write_json(events.work_dir / "evaluation.json", job.task.report(evaluation, classes, events))
    events.artifact("EVALUATION", "evaluation.json", {})
    return {
        "epochs": progress.epoch,
        "bestEpoch": progress.best_epoch,
        "stoppedEarly": progress.stopped_early,
        "metrics": to_json(progress.best),
        "engine": TORCH,
        "parameters": meta["parameters"],
        "macs": macs(spec.preset, len(classes), spec.preprocess),
        "bytes": weights.stat().st_size,
    }
