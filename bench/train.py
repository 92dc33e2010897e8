"""Images a second of the trainer's loop against a bare PyTorch loop, in one process, alternating epoch by epoch.

Both train ResNet50 with the same batch, threads, image size, fused AdamW and memory format. The bare loop has its
inputs ready in memory: no augmentation, no normalisation, no moving average, no metrics. Goal: ratio ≥ 0.95.

    PYTHONPATH=trainer trainer/.venv/bin/python bench/train.py [--size 32] [--batch 32] [--threads 2] [--rounds 8]
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests import support  # before PyTorch: the package sets how OpenMP's threads wait

# isort: split
import torch
from torchvision.models import resnet50

from whetstone_trainer.data import batch_count, fill_cache, open_images, read_split
from whetstone_trainer.environment import prepare
from whetstone_trainer.events import Events
from whetstone_trainer.protocol import TrainSpec, read_spec_line
from whetstone_trainer.state import Job, Saver, new_run
from whetstone_trainer.tasks import task_of
from whetstone_trainer.train import train_epoch

STEPS = 10


class Nowhere:
    def write(self, line: bytes, /) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("size", 32), ("batch", 32), ("threads", 2), ("rounds", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        images = STEPS * options.batch
        dataset = support.write_digits(Path(folder), images, 10)
        changes = {"imageSize": options.size, "batchSize": options.batch, "epochs": 1000}
        spec = support.train_spec(
            dataset, changes, preprocess=support.preprocess(options.size), cpuThreads=options.threads
        )
        read = read_spec_line(support.spec_line(Path(folder), {**spec, "checkpointSeconds": 86_400})).spec
        assert isinstance(read, TrainSpec)
        device = prepare(read)
        events = Events(Nowhere(), "bench", 1, Path(folder))
        task = task_of(read.preset)
        originals = open_images(read.dataset, read_split(read.dataset, "train"), task, None)
        fill_cache(originals, 2**30, 2, events)
        labels = torch.tensor(originals.truths)
        job = Job(read, device, batch_count(images, options.batch), events)
        training = new_run(job)
        saver = Saver(training, job)

        model = resnet50(num_classes=10).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
        inputs = torch.randn(images, 3, options.size, options.size).contiguous(memory_format=torch.channels_last)

        def bare() -> None:
            for step in range(STEPS):
                part = slice(step * options.batch, (step + 1) * options.batch)
                loss = torch.nn.functional.cross_entropy(model(inputs[part]), labels[part])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

        def trainer() -> None:
            train_epoch(training, originals, job, saver)
            training.progress.epoch, training.progress.batch = training.progress.epoch + 1, 0

        arms = {"bare": bare, "trainer": trainer}
        speeds: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(options.rounds + 1):
            for name in sorted(arms, reverse=number % 2 == 1):
                started = time.perf_counter()
                arms[name]()
                if number > 0:  # the first round warms up
                    speeds[name].append(images / (time.perf_counter() - started))
        ratios = [mine / other for mine, other in zip(speeds["trainer"], speeds["bare"], strict=True)]
        medians = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
        print(json.dumps({"imagesPerSecond": medians, "ratio": round(statistics.median(ratios), 3), **vars(options)}))


if __name__ == "__main__":
    main()
