"""Manifests, the cache, and the order of batches."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import support
from tests.support import Recorder
from whetstone_trainer import classification
from whetstone_trainer.data import (
    BatchOrder,
    balanced_shares,
    balanced_weights,
    batch_count,
    fill_cache,
    in_order,
    open_images,
    ordered_batches,
    read_split,
    shown,
    training_batches,
)
from whetstone_trainer.detection import task as detection
from whetstone_trainer.detection.metric import DetectionMetrics
from whetstone_trainer.errors import Stopped, TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.protocol import DatasetRef, PreprocessSpec, build

SPEC = build(PreprocessSpec, support.preprocess(32))
PARAMETERS = build(ClassificationHyperparameters, {**support.defaults(), "batchSize": 16})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetRef:
    return build(DatasetRef, support.write_digits(tmp_path_factory.mktemp("digits"), 50, 20))


def test_a_split_is_read_in_order(dataset: DatasetRef) -> None:
    train, val = read_split(dataset, "train"), read_split(dataset, "val")
    assert [item.n for item in train] == list(range(50))
    assert [item.n for item in val] == list(range(50, 70))
    with pytest.raises(TrainerError, match="no images in its split test"):
        read_split(dataset, "test")


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../etc/passwd"},
        {"path": "/etc/passwd"},
        {"label": 10},
        {"label": -1},
        {"label": None},
        {"boxes": []},
        {"label": None, "boxes": [{"label": 10, "x": 0, "y": 0, "width": 1, "height": 1}]},
        {"path": 7},
        {"split": "dev"},
    ],
    ids=str,
)
def test_a_wrong_line_of_the_manifest_is_named(dataset: DatasetRef, tmp_path: Path, change: dict[str, Any]) -> None:
    manifest = tmp_path / "manifest.jsonl"
    line = json.loads(Path(dataset.manifest).read_text("utf-8").splitlines()[0])
    manifest.write_text(json.dumps({**line, **change}) + "\n", "utf-8")
    with pytest.raises(TrainerError, match="Line 1 of the dataset's manifest") as caught:
        read_split(replace(dataset, manifest=str(manifest)), "train")
    assert caught.value.code == "DATA_INVALID"


@pytest.mark.parametrize(
    "line",
    [
        # As the first imports wrote it, before there were detectors; as it was written before lines had a version; now.
        {"label": 3},
        {"label": 3, "boxes": None},
        {"label": 3, "boxes": None, "v": 2},
        {"label": None, "boxes": [{"label": 1, "x": 0, "y": 0, "width": 1, "height": 1}]},
        {"label": None, "boxes": [{"label": 1, "x": 0, "y": 0, "width": 1, "height": 1, "crowd": True}], "v": 2},
    ],
    ids=str,
)
def test_a_dataset_that_an_older_version_imported_can_be_trained(
    dataset: DatasetRef, tmp_path: Path, line: dict[str, Any]
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    image = {"n": 0, "split": "train", "path": "a.png", "sha256": "0" * 64, "width": 8, "height": 8}
    manifest.write_text(json.dumps({**image, **line}) + "\n", "utf-8")
    (item,) = read_split(replace(dataset, manifest=str(manifest)), "train")
    assert item.label == line["label"]
    assert item.boxes is None or item.boxes[0].crowd == line["boxes"][0].get("crowd")


def test_a_manifest_of_a_newer_version_is_refused_with_what_to_do(dataset: DatasetRef, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps({"v": 3}) + "\n", "utf-8")
    with pytest.raises(TrainerError, match="has version 3; this program reads up to 2") as caught:
        read_split(replace(dataset, manifest=str(manifest)), "train")
    assert caught.value.hint is not None


def test_a_manifest_that_is_not_there_is_bad_data(dataset: DatasetRef, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="manifest cannot be read"):
        read_split(replace(dataset, manifest=str(tmp_path / "none")), "train")


def test_the_cache_holds_what_fits_and_gives_the_same_images(dataset: DatasetRef, tmp_path: Path) -> None:
    recorder = Recorder()
    events = Events(recorder, "job-1", 1, tmp_path)
    items = read_split(dataset, "train")
    resized, originals = (open_images(dataset, items, classification, spec) for spec in (SPEC, None))
    fresh = open_images(dataset, items, classification, SPEC)
    assert fill_cache(resized, 10 * 3 * 32 * 32 + 1, 2, events) == 10 * 3 * 32 * 32
    assert fill_cache(originals, 2**30, 0, events) == 50 * 3 * 8 * 8
    assert [len(images.cache) for images in (resized, originals)] == [10, 50]
    assert all(torch.equal(resized[n], fresh[n]) for n in range(len(items)))
    assert originals[0].shape == (3, 8, 8)
    assert [event["total"] for event in recorder.of("phase")] == [10, 50]


def test_an_image_of_another_size_than_the_manifest_says_is_named(dataset: DatasetRef) -> None:
    first, *_ = read_split(dataset, "train")
    images = open_images(dataset, (replace(first, width=first.width + 1),), classification, None)
    with pytest.raises(TrainerError, match=r"decodes to \d+ x \d+ pixels, but the manifest says"):
        images.load(0)


def test_filling_the_cache_can_be_stopped(dataset: DatasetRef, tmp_path: Path) -> None:
    events = Events(Recorder(), "job-1", 1, tmp_path)
    events.stop_requested = "cancelled"
    images = open_images(dataset, read_split(dataset, "train"), classification, None)
    with pytest.raises(Stopped):
        fill_cache(images, 2**30, 2, events)
    assert len(images.cache) == 1


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(dataset: DatasetRef) -> None:
    items = read_split(dataset, "train")
    images = replace(open_images(dataset, items, classification, SPEC), truths=range(50))

    def epoch(number: int, first: int = 0, workers: int = 0) -> list[int]:
        order = BatchOrder(7, number, 16, first)
        batches = training_batches(images, order, classification, PARAMETERS, SPEC, workers=workers)
        return [truth for batch in batches for truth in batch.truths]

    shown = epoch(0)
    assert len(shown) == 48 == batch_count(50, 16) * 16
    assert len(set(shown)) == 48
    assert shown != epoch(1)
    assert epoch(0, first=2) == shown[32:]
    assert epoch(0, workers=3) == shown


def test_balanced_sampling_shows_rare_classes_as_often_as_frequent_ones() -> None:
    labels = [[0]] * 80 + [[1]] * 15 + [[2]] * 5
    epochs = [shown(100, BatchOrder(7, epoch, 16, 0), labels) for epoch in range(30)]
    for numbers in epochs:
        assert len(set(numbers.tolist())) == len(numbers) == 100
        counts = np.bincount([labels[number % 100][0] for number in numbers.tolist()])
        assert ((counts >= 32) & (counts <= 35)).all()
    # Over the epochs every image of the frequent class has its turn.
    assert len({number % 100 for numbers in epochs for number in numbers.tolist()}) == 100
    assert epochs[0].tolist() == shown(100, BatchOrder(7, 0, 16, 0), labels).tolist() != epochs[1].tolist()


def test_an_image_that_repeats_in_an_epoch_is_changed_in_another_way_each_time(dataset: DatasetRef) -> None:
    images = open_images(dataset, read_split(dataset, "train"), classification, None)
    images = replace(images, truths=[0, *[1] * 49])
    balanced = replace(PARAMETERS, sampling="BALANCED")
    batches = training_batches(images, BatchOrder(7, 0, 16, 0), classification, balanced, SPEC, workers=0)
    rare = [
        (picture, tuple(draw))
        for batch in batches
        for picture, truth, draw in zip(batch.images, batch.truths, batch.draws, strict=True)
        if truth == 0
    ]
    assert len(rare) >= 20
    assert len({draw for _, draw in rare}) == len(rare)
    assert len({picture.numpy().tobytes() for picture, _ in rare}) > 10


def test_an_image_counts_for_each_class_that_it_has_and_those_without_objects_are_a_class() -> None:
    assert balanced_shares([[0, 0], [0, 1], [], []]).tolist() == [0.5, 1.5, 0.5, 0.5]


def test_balanced_weights_let_all_classes_count_the_same() -> None:
    weights = balanced_weights([[0], [0], [0, 0], [2], []], 4)
    assert (weights * torch.tensor([4, 0, 1, 0])).tolist() == [2.5, 0, 2.5, 0]
    assert torch.isfinite(balanced_weights([[]], 2)).all()


def test_a_weighted_loss_is_the_mean_over_classes() -> None:
    truths = [0, 0, 0, 1]
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    weights = balanced_weights([[label] for label in truths], 3)
    plain = replace(PARAMETERS, label_smoothing=0.0)
    each = -logits.log_softmax(1)[range(4), truths]
    expected = (each[:3].mean() + each[3]) / 2
    assert float(classification.loss((logits,), truths, plain, SPEC, weights)[0]) == pytest.approx(float(expected))


def test_the_best_epoch_is_that_of_the_chosen_metric() -> None:
    often_right = classification.Metrics(images=9, loss=0.9, top1=0.9, top5=1.0, macro_top1=0.5)
    fair = classification.Metrics(images=9, loss=0.7, top1=0.8, top5=1.0, macro_top1=0.8)
    sure = classification.Metrics(images=9, loss=0.1, top1=0.7, top5=1.0, macro_top1=0.7)
    for metric, best in (("TOP1", often_right), ("MACRO_TOP1", fair), ("LOSS", sure)):
        assert max((often_right, fair, sure), key=lambda one: classification.rank(one, metric)) is best


def test_the_best_epoch_of_a_detector_is_that_of_the_chosen_metric() -> None:
    finds, fits = (
        DetectionMetrics(images=9, objects=9, map50=a, map5095=b, score_threshold=0.001, nms_iou=0.7, boxes_max=100)
        for a, b in ((0.9, 0.4), (0.8, 0.5))
    )
    assert detection.rank(fits, "MAP5095") > detection.rank(finds, "MAP5095")
    assert detection.rank(finds, "MAP50") > detection.rank(fits, "MAP50")


def test_a_batch_is_the_same_whoever_makes_it(dataset: DatasetRef) -> None:
    images = open_images(dataset, read_split(dataset, "train"), classification, None)
    (whole, *_), (threaded, *_) = [
        list(training_batches(images, BatchOrder(7, 3, 16, 0), classification, PARAMETERS, SPEC, workers=workers))
        for workers in (0, 2)
    ]
    assert whole.images.dtype == torch.uint8
    assert whole.images.shape == (16, 3, 32, 32)
    assert torch.equal(whole.images, threaded.images)
    assert (whole.draws == threaded.draws).all()


def test_validation_shows_every_image_in_the_manifests_order(dataset: DatasetRef) -> None:
    images = open_images(dataset, read_split(dataset, "val"), classification, SPEC)
    batches = list(ordered_batches(images, 16, 2))
    assert [len(batch.truths) for batch in batches] == [16, 4]
    assert [truth for batch in batches for truth in batch.truths] == images.truths
    assert torch.equal(batches[1].images[3], images[19])


def test_fewer_images_than_a_batch_make_one() -> None:
    assert (batch_count(3, 16), batch_count(16, 16), batch_count(33, 16)) == (1, 1, 2)


def test_a_failing_image_fails_the_batch_and_stops_the_threads() -> None:
    def make(key: int) -> int:
        if key == 3:
            raise TrainerError("DATA_INVALID", "three")
        return key

    for workers in (0, 2):
        values = in_order(make, range(1000), workers)
        assert [next(values) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TrainerError, match="three"):
            next(values)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("data")]
