"""What a training will see: `python -m whetstone_trainer.preview <count>` reads its specification from stdin.

Writes JSON to stdout: the first pictures of the first epoch as JPEG, made by the training's own code, with what is true
of each. On a failure it says on stderr why.
"""

import base64
import io
import json
import sys
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from whetstone_trainer.augment import batch_spec
from whetstone_trainer.classification import Mixed
from whetstone_trainer.data import BatchMaker, read_split, training_batches
from whetstone_trainer.detection.task import Objects
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.images import open_images
from whetstone_trainer.protocol import PreprocessSpec, TrainSpec
from whetstone_trainer.protocol_json import read_spec_line
from whetstone_trainer.tasks import task_of

JPEG_QUALITY = 90


def preview(spec: TrainSpec, count: int) -> list[dict[str, Any]]:
    """At most `count` pictures."""
    task, parameters = task_of(spec.preset), spec.hyperparameters
    items = read_split(spec.dataset, "train")
    images = open_images(spec.dataset, items, task, task.kept_as(parameters, spec.preprocess), draft=True)
    maker = BatchMaker(images, task, replace(parameters, batch_size=count), spec.preprocess, spec.seed)
    batch = next(training_batches(maker, (0, 0), workers=0))
    shown = batch_spec(batch.draws, parameters, spec.preprocess)
    inputs = task.inputs(batch.images.float(), batch.draws, parameters, shown)
    return [
        {"jpeg": _jpeg(picture, shown), **_truth(truth, shown)}
        for picture, truth in zip(inputs, batch.truths, strict=True)
    ]


def _jpeg(picture: torch.Tensor, spec: PreprocessSpec) -> str:
    """Of a normalised input, in base64."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    levels = ((picture * std + mean) * 255).round_().clamp_(0, 255).to(torch.uint8)
    file = io.BytesIO()
    # Grey has one channel.
    Image.fromarray(levels.expand(3, -1, -1).permute(1, 2, 0).numpy()).save(
        file, "JPEG", quality=JPEG_QUALITY, subsampling=0
    )
    return base64.b64encode(file.getvalue()).decode()


def _truth(truth: int | Mixed | Objects, spec: PreprocessSpec) -> dict[str, Any]:
    """Classes with their shares of the picture; objects as left, top, width and height, in pixels of that size."""
    if isinstance(truth, int):
        return {"classes": [[truth, 1.0]], "boxes": []}
    if isinstance(truth, Mixed):
        return {"classes": [[truth.label, truth.share], [truth.other, 1 - truth.share]], "boxes": []}
    rows = zip(
        truth.labels.tolist(), (truth.boxes * (spec.width / truth.width)).tolist(), truth.ignored.tolist(), strict=True
    )
    boxes = [
        {"label": label, "x": left, "y": top, "width": right - left, "height": bottom - top, "ignored": ignored}
        for label, (left, top, right, bottom), ignored in rows
    ]
    return {"classes": [], "boxes": boxes}


if __name__ == "__main__":
    try:
        read = read_spec_line(sys.stdin.buffer.readline()).spec
        assert isinstance(read, TrainSpec)
        torch.set_num_threads(read.cpu_threads)
        json.dump(preview(read, int(sys.argv[1])), sys.stdout)
    except TrainerError as error:
        sys.exit(error.message)
