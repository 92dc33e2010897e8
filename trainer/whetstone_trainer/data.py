"""A dataset's split: its manifest, and batches of its images in a seeded order."""

import json
import math
import mmap
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from whetstone_trainer.augment import SIDE, draws
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.images import Images, in_order
from whetstone_trainer.protocol import SCHEMA, DatasetItem, DatasetRef, Hyperparameters, PreprocessSpec, Split
from whetstone_trainer.protocol_json import build, validator
from whetstone_trainer.ranks import Ranks
from whetstone_trainer.task import Task

# Written from `src/jobs/specs.ts`.
MANIFEST_VERSION: int = SCHEMA["$defs"]["DatasetItem"]["properties"]["v"]["const"]


def _current(line: dict[str, Any]) -> dict[str, Any]:
    """A line of any version in the form of the present one. Stored manifests are never rewritten.

    Version 1 had no `v`; before there were detectors it had no `boxes`.
    """
    version = line.get("v", 1)
    if version == 1:
        return {"boxes": None, **line, "v": MANIFEST_VERSION}
    if version != MANIFEST_VERSION:
        raise TrainerError(
            "DATA_INVALID",
            f"The dataset's manifest has version {version}; this program reads up to {MANIFEST_VERSION}.",
            hint="A newer version of Whetstone imported the dataset: use that one or import the dataset again.",
        )
    return line


def read_split(dataset: DatasetRef, split: Split) -> tuple[DatasetItem, ...]:
    """The items of one split in the manifest's order. Raises DATA_INVALID, also when there is none. What the lines of
    other splits say is not looked at."""
    items = []
    try:
        lines = Path(dataset.manifest).read_bytes().splitlines()
    except OSError as error:
        raise TrainerError("DATA_INVALID", "The dataset's manifest cannot be read.") from error
    # The server wrote the manifest: the first line's form stands for all of them.
    for number, line in enumerate(lines, 1):
        try:
            value = _current(json.loads(line))
            if number == 1 and not validator("DatasetItem").is_valid(value):
                raise ValueError
            if value.get("split") != split:
                continue
            item = build(DatasetItem, value)
            path = PurePosixPath(item.path)
            labels = [item.label] if item.label is not None else [box.label for box in item.boxes or ()]
            if path.is_absolute() or ".." in path.parts:
                raise ValueError
            if (item.label is None) == (item.boxes is None) or not all(0 <= n < len(dataset.classes) for n in labels):
                raise ValueError
        except (ValueError, AttributeError, TypeError) as error:
            raise TrainerError("DATA_INVALID", f"Line {number} of the dataset's manifest is not valid.") from error
        items.append(item)
    if not items:
        raise TrainerError("DATA_INVALID", f"The dataset has no images in its split {split}.")
    return tuple(items)


@dataclass(frozen=True)
class Batch:
    """uint8 levels (N × 3 × H × W), what is true of each, and the images' random numbers (a row for each; none in
    validation)."""

    images: torch.Tensor
    truths: Sequence[Any]
    draws: NDArray[np.float64]


def batch_count(images: int, batch_size: int) -> int:
    """Of an epoch: an incomplete last batch is left out, and others come in the next epoch's order."""
    return max(1, images // batch_size)


# Batches that a worker process makes ahead.
AHEAD = 2


@dataclass
class BatchMaker:
    """Makes the training batch of (epoch, batch): the same one in any process, after any other.

    Args:
        ranks: it makes the part of this rank only; None: the whole batch.
    """

    images: Images
    task: Task
    parameters: Hyperparameters
    spec: PreprocessSpec
    seed: int
    ranks: Ranks | None = None

    def __post_init__(self) -> None:
        self._epoch, self._numbers = -1, np.empty(0, np.int64)

    @property
    def part(self) -> tuple[int, int]:
        """The first image of a batch that it takes, and the first behind."""
        return (self.ranks or Ranks(0, 1, min(self.parameters.batch_size, len(self.images)))).part

    def make(self, epoch: int, batch: int) -> tuple[tuple[torch.Tensor, ...], Sequence[Any], NDArray[np.float64]]:
        """Images, truths and random numbers."""
        if self._epoch != epoch:
            balanced = self.parameters.sampling == "BALANCED"
            labels = map(self.task.labels, self.images.truths) if balanced else None
            self._epoch, self._numbers = epoch, shown(len(self.images), self.seed, epoch, labels)
        size = self.parameters.batch_size
        whole = self._numbers[batch * size : (batch + 1) * size].tolist()
        first, end = self.part
        chosen = whole[first:end]
        drawn = np.stack([draws(self.seed, epoch, number) for number in chosen])
        if first > 0:
            # The first image's decides for the whole batch.
            drawn[0, SIDE] = draws(self.seed, epoch, whole[0])[SIDE]
        pixels, truths = zip(
            *(
                self.task.example(self.images, (self.seed, epoch, number), draw, self.parameters, self.spec)
                for number, draw in zip(chosen, drawn, strict=True)
            ),
            strict=True,
        )
        return pixels, truths, drawn


class SharedBatches(Dataset[Any]):
    """A BatchMaker for worker processes, which leave the images in memory that they share with the training.

    PyTorch's own way would need a file descriptor for each tensor, a socket whose path may be too long in a job's work
    folder, and room in /dev/shm, of which a container has 64 MB. A place is free again when the training asks for
    the next batch: by then the workers have `AHEAD` batches each, and the training has one.
    """

    def __init__(self, maker: BatchMaker, workers: int) -> None:
        self.maker, self.places = maker, AHEAD * workers + 1
        first, end = maker.part
        shape = (self.places, end - first, 3, maker.spec.height, maker.spec.width)
        self.memory = torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=torch.uint8).view(shape)

    def __getitem__(self, key: tuple[int, int, int]) -> Any:
        epoch, batch, place = key
        try:
            pixels, *others = self.maker.make(epoch, batch)
        except TrainerError as error:
            # As a value: PyTorch would make another exception of it.
            return error
        torch.stack(pixels, out=self.memory[place])
        return place, *others


def training_batches(maker: BatchMaker, first: tuple[int, int], workers: int) -> Generator[Batch, None, None]:
    """The batches of all epochs from (epoch, batch) on. A batch is valid until the next one is asked for.

    Worker processes are started once, and are ahead of the training in validation too. They are forks: what is cached
    by now is in memory once.
    """
    count = batch_count(len(maker.images), maker.parameters.batch_size)
    keys = (
        (epoch, batch)
        for epoch in range(first[0], maker.parameters.epochs)
        for batch in range(first[1] if epoch == first[0] else 0, count)
    )
    if workers == 0:
        for key in keys:
            with one_thread():
                pixels, truths, drawn = maker.make(*key)
            yield Batch(torch.stack(pixels), truths, drawn)
        return
    shared = SharedBatches(maker, workers)
    loader = DataLoader(
        shared,
        batch_size=None,
        sampler=((*key, n % shared.places) for n, key in enumerate(keys)),
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",
        # Otherwise it draws from the generator of the training.
        generator=torch.Generator(),
    )
    for made in loader:
        if isinstance(made, TrainerError):
            raise made
        place, truths, drawn = made
        yield Batch(shared.memory[place], truths, drawn)


def _as_it_is(value: Any) -> Any:
    return value


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a worker process: sums depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def shown(count: int, seed: int, epoch: int, labels: Iterable[Sequence[int]] | None) -> NDArray[np.int64]:
    """What an epoch shows of `count` images, in its order: each once, or by the `labels` of each image all classes
    equally often.

    Of a number, the image is number % count; the rest counts its repeats in this epoch. So each repeat has random
    changes of its own, which are a function of (seed, epoch, number).
    """
    rng = np.random.default_rng((seed, epoch))
    if labels is None:
        return rng.permutation(count)
    ends = np.cumsum(balanced_shares(labels))
    # Systematic sampling: an image comes as often as its share says, rounded up or down.
    at = (rng.random() + np.arange(count)) * (ends[-1] / count)
    chosen = np.minimum(np.searchsorted(ends, at, side="right"), count - 1)
    repeats = np.arange(count) - np.searchsorted(chosen, chosen)
    return rng.permutation(chosen + count * repeats)


def balanced_shares(labels: Iterable[Sequence[int]]) -> NDArray[np.float64]:
    """How probable each image is, up to a factor, where first a class is drawn, then an image that has it. Images
    without objects are a class of their own."""
    classes = [sorted(set(of_image)) or [-1] for of_image in labels]
    images_of = Counter(label for of_image in classes for label in of_image)
    return np.array([sum(1 / images_of[label] for label in of_image) for of_image in classes])


def balanced_weights(labels: Iterable[Sequence[int]], class_count: int) -> torch.Tensor:
    """How much an example of each class counts where all classes count the same in total; 1 is the mean of all
    examples."""
    every = np.array([label for of_image in labels for label in of_image], np.int64)
    counts = np.bincount(every, minlength=class_count)
    wanted = len(every) / max(1, int((counts > 0).sum()))
    return torch.tensor(wanted / np.maximum(counts, 1), dtype=torch.float32)


def ordered_batches(images: Images, size: int, workers: int) -> Iterator[Batch]:
    """Every image once, in the manifest's order."""

    def make(start: int) -> Batch:
        end = min(start + size, len(images))
        pixels = torch.stack([images[index] for index in range(start, end)])
        return Batch(pixels, images.truths[start:end], np.empty((end - start, 0)))

    return in_order(make, range(0, len(images), size), workers)
