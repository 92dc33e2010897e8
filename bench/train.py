"""Images a second of the trainer's loop, in turns with what it is compared with: each arm is a process, and they train
epoch by epoch one after the other. Then a job from its start: seconds to the first batch (goal: < 3), and the share of
an epoch that its validation takes where it has a fifth of the images (goal: < 0.2).

ResNet50 is compared with a bare PyTorch loop with the same batch, threads, image size and fused AdamW, whose weights and
inputs have their channels last. That loop has its inputs ready in memory: no augmentation, no normalisation, no moving
average, no clipping, no metrics. Goal: ratio ≥ 1. With --parent also with the trainer of another checkout, which
detectors are compared with.

With --compile also with the same trainer whose model is compiled: a ratio below 1 says which share of the time a
compiled epoch takes. Its compilation, before the first round, is reported on stderr.

    PYTHONPATH=trainer trainer/.venv/bin/python bench/train.py [--preset yolov8n] [--size 32] [--batch 32] [--threads 2]
        [--workers 0] [--rounds 8] [--parent FOLDER] [--compile]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests import support  # before PyTorch: the package sets how OpenMP's threads wait

# isort: split
import torch
from torchvision.models import resnet50

from scenes import write_scenes
from whetstone_trainer.data import BatchMaker, batch_count, read_split, training_batches
from whetstone_trainer.environment import prepare
from whetstone_trainer.events import Events
from whetstone_trainer.images import CacheRoom, fill_cache, open_images
from whetstone_trainer.protocol import TrainSpec
from whetstone_trainer.protocol_json import read_spec_line
from whetstone_trainer.ranks import Ranks
from whetstone_trainer.state import Job, Saver, new_run
from whetstone_trainer.tasks import task_of
from whetstone_trainer.train import compile_model, train_epoch

STEPS = 10


class Nowhere:
    def write(self, line: bytes, /) -> None:
        pass


def bare_epoch(options: argparse.Namespace) -> Callable[[], None]:
    torch.set_num_threads(options.threads)
    images = STEPS * options.batch
    model = resnet50(num_classes=10).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    inputs = torch.randn(images, 3, options.size, options.size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (images,))

    def epoch() -> None:
        for step in range(STEPS):
            part = slice(step * options.batch, (step + 1) * options.batch)
            loss = torch.nn.functional.cross_entropy(model(inputs[part]), labels[part])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return epoch


def spec_of(options: argparse.Namespace, folder: Path, epochs: int) -> support.Json:
    images = STEPS * options.batch
    changes = {"imageSize": options.size, "batchSize": options.batch, "epochs": epochs}
    changes["compile"] = options.arm == "compiled"
    if options.preset.startswith("resnet"):
        dataset = support.write_digits(folder, images, images // 4)
        spec = support.train_spec(dataset, changes, preprocess=support.preprocess(options.size))
    else:
        dataset = write_scenes(folder, images, images // 4, side=options.size)
        spec = support.detector_spec(dataset, options.size, changes)
    run = {"cpuThreads": options.threads, "workers": options.workers, "checkpointSeconds": 86_400}
    return {**spec, "preset": options.preset, **run}


def trainer_epoch(options: argparse.Namespace, folder: Path) -> Callable[[], None]:
    read = read_spec_line(support.spec_line(folder, spec_of(options, folder, 1000))).spec
    assert isinstance(read, TrainSpec)
    device = prepare(read)
    events = Events(Nowhere(), "bench", 1, folder)
    task = task_of(read.preset)
    kept = task.kept_as(read.hyperparameters, read.preprocess)
    images = open_images(read.dataset, read_split(read.dataset, "train"), task, kept, draft=True)
    fill_cache(images, CacheRoom(2**30, 0), 2, events)
    ranks = Ranks(0, 1, options.batch)
    job = Job(read, device, batch_count(len(images), options.batch), events, ranks=ranks)
    training = new_run(job)
    if read.hyperparameters.compile:
        started = time.perf_counter()
        compile_model(training, job)
        print(f"compiled in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    saver = Saver(training, job)
    maker = BatchMaker(images, task, read.hyperparameters, read.preprocess, read.seed)
    batches = training_batches(maker, (0, 0), job.workers)

    def epoch() -> None:
        train_epoch(training, batches, job, saver)
        training.progress.epoch, training.progress.batch = training.progress.epoch + 1, 0

    return epoch


def job_from_its_start(options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        spec = spec_of(options, Path(folder), 2)
        started = time.perf_counter()
        with support.attempt(Path(folder) / "work", spec) as attempt:
            attempt.wait_for("batch", phase="training")
            first = time.perf_counter() - started
            attempt.wait_for("epoch")
            validation, epoch = attempt.wait_for("phase", phase="validation"), attempt.wait_for("epoch")
    return {"secondsToFirstBatch": first, "validationShare": (epoch["t"] - validation["t"]) / epoch["durationMs"]}


def serve(options: argparse.Namespace) -> None:
    """The process of an arm: an epoch for each line of stdin, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        epoch = bare_epoch(options) if options.arm == "bare" else trainer_epoch(options, Path(folder))
        for _ in sys.stdin:
            started = time.perf_counter()
            epoch()
            print(time.perf_counter() - started, flush=True)


def environment_of(checkout: Path, name: str) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "trainer")}
    # This process has those of its own checkout.
    del environment["OMP_WAIT_POLICY"], environment["GOMP_SPINCOUNT"]
    if name == "bare":
        return {**environment, "GOMP_SPINCOUNT": "300000"}  # libgomp's
    # As the server of that checkout starts its trainer.
    script = "import('./src/jobs/python.ts').then((m) => console.log(m.mallocTunables ?? ''))"
    tunables = subprocess.run(
        ["node", "-e", script], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()
    return {**environment, "GLIBC_TUNABLES": tunables}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="resnet50")
    for name, default in (("size", 32), ("batch", 32), ("threads", 2), ("workers", 0), ("rounds", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--parent", type=Path)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--arm")
    options = parser.parse_args()
    if options.arm:
        serve(options)
        return

    here = Path(__file__).resolve().parents[1]
    arms = {"trainer": here}
    if options.preset == "resnet50":
        arms["bare"] = here
    if options.compile:
        arms["compiled"] = here
    if options.parent:
        arms["parent"] = options.parent.resolve()
    # A parent may not know it.
    asked = [argument for argument in sys.argv[1:] if argument != "--compile"]
    running = {
        name: subprocess.Popen(
            [sys.executable, checkout / "bench/train.py", *asked, "--arm", name],
            env=environment_of(checkout, name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, checkout in arms.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(options.rounds + 1):
        for name in sorted(arms, reverse=number % 2 == 1):
            arm = running[name]
            assert arm.stdin is not None
            assert arm.stdout is not None
            print("epoch", file=arm.stdin, flush=True)
            taken = float(arm.stdout.readline())
            if number > 0:  # the first round warms up
                seconds[name].append(taken)
    for arm in running.values():
        arm.communicate()
    images = STEPS * options.batch
    speeds = {name: round(images / statistics.median(taken), 1) for name, taken in seconds.items()}
    ratios = {
        name: round(statistics.median(b / a for a, b in zip(seconds["trainer"], taken, strict=True)), 3)
        for name, taken in seconds.items()
        if name != "trainer"
    }
    result = {"imagesPerSecond": speeds, "ratioTo": ratios, **job_from_its_start(options)}
    print(json.dumps({**result, **vars(options), "parent": str(options.parent)}))


if __name__ == "__main__":
    main()
