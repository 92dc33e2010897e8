"""Pictures of a training before it starts: those that it learns from."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenes import write_scenes
from tests import support
from whetstone_trainer import classification
from whetstone_trainer.data import BatchMaker, read_split, training_batches
from whetstone_trainer.images import open_images
from whetstone_trainer.preview import preview
from whetstone_trainer.protocol import DatasetRef, TrainSpec
from whetstone_trainer.protocol_json import build, read_spec_line


def spec_of(spec: support.Json) -> TrainSpec:
    read = read_spec_line(support.spec_line(Path("/"), spec)).spec
    assert isinstance(read, TrainSpec)
    return read


def decoded(picture: support.Json) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(picture["jpeg"]))) as image:
        assert image.format == "JPEG"
        return np.asarray(image)


def test_a_preview_shows_what_the_first_batch_of_the_training_holds(tmp_path: Path) -> None:
    dataset = support.write_digits(tmp_path / "digits", 40, 4)
    spec = spec_of(support.train_spec(dataset, {"batchSize": 16, "mixUp": 0.5, "colorJitter": 0}, seed=3))
    shown = preview(spec, 6)
    assert len(shown) == 6
    ref = build(DatasetRef, dataset)
    images = open_images(ref, read_split(ref, "train"), classification, None)
    maker = BatchMaker(images, classification, spec.hyperparameters, spec.preprocess, 3)
    batch = next(training_batches(maker, (0, 0), workers=0))
    for n, picture in enumerate(shown):
        levels = batch.images[n].permute(1, 2, 0).numpy().astype(float)
        assert np.abs(decoded(picture) - levels).mean() < 4
        truth = batch.truths[n]
        label = truth.label if isinstance(truth, classification.Mixed) else truth
        assert picture["classes"][0][0] == label
        assert sum(share for _, share in picture["classes"]) == pytest.approx(1)
    assert {len(picture["classes"]) for picture in shown} == {1, 2}


def test_a_preview_of_a_detector_has_boxes_inside_the_picture(tmp_path: Path) -> None:
    dataset = write_scenes(tmp_path, 4, 2, side=64)
    spec = support.detector_spec(dataset, 96, {"mosaic": 1, "quarterTurns": 1, "multiScale": 0.4}, seed=7)
    shown = preview(spec_of(spec), 16)
    # What the first batch of this seed has.
    side = 128
    # There are four images.
    assert len(shown) == 4
    for picture in shown:
        assert decoded(picture).shape == (side, side, 3)
        assert picture["classes"] == []
        for box in picture["boxes"]:
            assert min(box["x"], box["y"]) >= 0
            assert max(box["x"] + box["width"], box["y"] + box["height"]) <= side
            assert isinstance(box["ignored"], bool)
    assert any(picture["boxes"] for picture in shown)
