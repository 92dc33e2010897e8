"""The images of a split, each decoded when it is asked for, or kept decoded in memory and on the disk."""

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.preprocess import decode, place_in, placement, resample
from whetstone_trainer.protocol import DatasetItem, DatasetRef, PreprocessSpec
from whetstone_trainer.stored_images import StoredImages
from whetstone_trainer.task import Task

T = TypeVar("T")

# Bytes that are written at once.
ZEROS = 2**20
# A JPEG is decoded at a fraction of its size if that has so many times the wanted pixels of each side. Pillow's
# `thumbnail` has the same limit.
DRAFT_MARGIN = 2


@dataclass(frozen=True)
class Images:
    """The images of a split; the first `len(cache)` are kept decoded.

    Args:
        truths: of each image, in its task's form.
        stored: where their bytes are; None: all are in the cache.
        resized: what each image is brought to: the model's input, or its own form with a short side of at most so many
            pixels. None: its own size.
        draft: large JPEG files are decoded in less detail, which is good enough to train with. What is measured is
            decoded whole, as docs/preprocessing.md defines it.
        cache: 3 × height × width each, uint8.
    """

    items: tuple[DatasetItem, ...]
    truths: Sequence[Any]
    stored: StoredImages | None
    resized: PreprocessSpec | int | None
    draft: bool
    cache: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.truths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.cache[index] if index < len(self.cache) else self.load(index)

    def load(self, index: int) -> torch.Tensor:
        item = self.items[index]
        reduction = self.reduction(item)
        if self.stored is None:
            raise IndexError(index)
        image = decode(self.stored.read(item.n, item.path), item.path, reduction)
        height, width = image.shape[1:]
        if (width, height) == (item.width, item.height):
            reduction = 1
        elif (width, height) != (-(-item.width // reduction), -(-item.height // reduction)):
            raise TrainerError(
                "DATA_INVALID",
                f"{item.path} decodes to {width} x {height} pixels, "
                f"but the manifest says {item.width} x {item.height}.",
                hint="Import the dataset again.",
            )
        if isinstance(self.resized, PreprocessSpec):
            return place_in(image, placement(item.width, item.height, self.resized), self.resized, reduction)
        wanted = self.size(item)
        return image if (width, height) == wanted else resample(image, *wanted)

    def size(self, item: DatasetItem) -> tuple[int, int]:
        """Width and height that the image is brought to."""
        if isinstance(self.resized, PreprocessSpec):
            return self.resized.width, self.resized.height
        short = min(item.width, item.height)
        if self.resized is None or short <= self.resized:
            return item.width, item.height
        return round(item.width * self.resized / short), round(item.height * self.resized / short)

    def reduction(self, item: DatasetItem) -> int:
        """By how much the sides of a JPEG may shrink while it is decoded."""
        if not self.draft:
            return 1
        if isinstance(self.resized, PreprocessSpec):
            place = placement(item.width, item.height, self.resized)
            part, target = place.part[2:], place.target[2:]
        else:
            part, target = (item.width, item.height), self.size(item)
        scale = min(part[0] / target[0], part[1] / target[1]) / DRAFT_MARGIN
        return next((reduction for reduction in (8, 4, 2) if reduction <= scale), 1)


def open_images(
    dataset: DatasetRef,
    items: tuple[DatasetItem, ...],
    task: Task,
    resized: PreprocessSpec | int | None,
    *,
    draft: bool = False,
) -> Images:
    """Images that are read from their files each time, until `fill_cache`. Raises DATA_INVALID for data of another
    task."""
    return Images(items, [task.truth(item) for item in items], StoredImages(dataset), resized, draft, [])


@dataclass(frozen=True)
class CacheRoom:
    """Bytes for decoded images, in memory and on the disk."""

    memory: int
    disk: int


def fill_cache(images: Images, room: CacheRoom, threads: int, events: Events) -> CacheRoom:
    """Decodes as many images as fit, once and for all: the first into memory, those after them into a file. Returns the
    room that is left."""
    ends = np.cumsum([3 * width * height for width, height in map(images.size, images.items)])
    in_memory = int(np.searchsorted(ends, room.memory, side="right"))
    memory = int(ends[in_memory - 1]) if in_memory > 0 else 0
    kept = max(in_memory, int(np.searchsorted(ends, memory + room.disk, side="right")))
    disk = int(ends[kept - 1]) - memory if kept > in_memory else 0
    events.phase("caching", kept)
    file = _unnamed_file(events.work_dir, disk) if disk > 0 else b""
    for index, image in enumerate(in_order(images.load, range(kept), threads)):
        if index < in_memory:
            images.cache.append(image)
        else:
            begins = int(ends[index]) - image.numel() - memory
            place = torch.frombuffer(file, dtype=torch.uint8, count=image.numel(), offset=begins)
            images.cache.append(place.view(image.shape).copy_(image))
        events.advance()
        events.check_stop()
    return CacheRoom(room.memory - memory, room.disk - disk)


def _unnamed_file(folder: Path, size: int) -> mmap.mmap:
    """A file that ends with the process, however that ends, as memory. Its room on the disk is taken at once: to write
    to a page for which there is none would kill the process."""
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS
            for start in range(0, size, ZEROS):
                file.write(bytes(min(ZEROS, size - start)))
            file.flush()
        return mmap.mmap(file.fileno(), size)


def in_order(make: Callable[[int], T], keys: Sequence[int], workers: int) -> Iterator[T]:
    """`make(key)` for each key, in order; made ahead by threads where `workers` > 0, at most two for each of them.

    Threads are enough: decoding and resizing leave the interpreter's lock.
    """
    if workers == 0:
        yield from map(make, keys)
        return
    with ThreadPoolExecutor(workers, "data") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for key in keys:
                waiting.append(pool.submit(make, key))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
