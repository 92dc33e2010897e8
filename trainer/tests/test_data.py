"""Manifests, the cache, and the order of batches."""

import errno
import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from scenes import png, write_images, write_scenes
from tests import support
from tests.support import Recorder
from whetstone_trainer import classification
from whetstone_trainer.data import (
    BatchMaker,
    balanced_shares,
    balanced_weights,
    batch_count,
    ordered_batches,
    read_split,
    shown,
    training_batches,
)
from whetstone_trainer.detection import task as detection
from whetstone_trainer.detection.boxes import to_input
from whetstone_trainer.detection.metric import DetectionMetrics
from whetstone_trainer.errors import Stopped, TrainerError, disk_full
from whetstone_trainer.events import Events
from whetstone_trainer.hyperparameters import ClassificationHyperparameters, DetectionHyperparameters
from whetstone_trainer.images import CacheRoom, Images, fill_cache, in_order, open_images
from whetstone_trainer.preprocess import placement
from whetstone_trainer.protocol import DatasetItem, DatasetRef, LabelledBox, PreprocessSpec
from whetstone_trainer.protocol_json import build
from whetstone_trainer.stored_images import StoredImages

SPEC = build(PreprocessSpec, support.preprocess(32))
PARAMETERS = build(ClassificationHyperparameters, {**support.defaults(), "batchSize": 16})


def stored_in(folder: Path, files: dict[str, bytes]) -> StoredImages:
    return StoredImages(DatasetRef(**write_images(folder, files), manifest="", classes=("0",), content_hash=""))


def maker_of(images: Images, **changes: Any) -> BatchMaker:
    return BatchMaker(images, classification, replace(PARAMETERS, **changes), SPEC, 7)


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
    assert fill_cache(resized, CacheRoom(10 * 3 * 32 * 32 + 1, 0), 2, events) == CacheRoom(1, 0)
    assert fill_cache(originals, CacheRoom(50 * 3 * 8 * 8, 7), 0, events) == CacheRoom(0, 7)
    assert [len(images.cache) for images in (resized, originals)] == [10, 50]
    assert all(torch.equal(resized[n], fresh[n]) for n in range(len(items)))
    assert originals[0].shape == (3, 8, 8)
    assert [event["total"] for event in recorder.of("phase")] == [10, 50]


@pytest.mark.parametrize(("in_memory", "system"), [(0, "Linux"), (10, "Linux"), (0, "macOS")])
def test_what_memory_does_not_hold_is_kept_on_the_disk(
    dataset: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int, system: str
) -> None:
    if system == "macOS":
        monkeypatch.delattr(os, "posix_fallocate")
        monkeypatch.setattr("whetstone_trainer.images.ZEROS", 1000)
    size = 3 * 32 * 32
    events = Events(Recorder(), "job-1", 1, tmp_path)
    items = read_split(dataset, "train")
    images, fresh = (open_images(dataset, items, classification, SPEC) for _ in range(2))
    room = CacheRoom(in_memory * size + 1, 25 * size + 2)
    assert fill_cache(images, room, 2, events) == CacheRoom(1, 2)
    assert len(images.cache) == in_memory + 25
    assert all(torch.equal(images[n], fresh[n]) for n in range(len(items)))
    assert list(tmp_path.iterdir()) == []


def test_a_cache_for_which_the_disk_has_no_room_is_told(
    dataset: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    events = Events(Recorder(), "job-1", 1, tmp_path)
    images = open_images(dataset, read_split(dataset, "train"), classification, SPEC)
    with pytest.raises(OSError, match="No space") as caught:
        fill_cache(images, CacheRoom(0, 2**20), 0, events)
    told = disk_full(caught.value)
    assert told is not None
    assert told.retryable


def test_an_image_of_another_size_than_the_manifest_says_is_named(dataset: DatasetRef) -> None:
    first, *_ = read_split(dataset, "train")
    images = open_images(dataset, (replace(first, width=first.width + 1),), classification, None)
    with pytest.raises(TrainerError, match=r"decodes to \d+ x \d+ pixels, but the manifest says"):
        images.load(0)


@pytest.mark.parametrize(("orientation", "mode"), [(1, "LETTERBOX"), (6, "LETTERBOX"), (1, "CROP"), (1, "STRETCH")])
def test_a_box_is_where_it_was_in_a_large_jpeg_that_is_decoded_in_less_detail(
    tmp_path: Path, orientation: int, mode: Literal["LETTERBOX", "CROP", "STRETCH"]
) -> None:
    """Sides that no power of two divides: the decoder rounds them up."""
    width, height = (1207, 903) if orientation == 1 else (903, 1207)
    box = LabelledBox(label=0, x=301.0, y=257.0, width=450.0, height=300.0, crowd=None)
    upright = np.full((height, width, 3), 255, np.uint8)
    upright[257 : 257 + 300, 301 : 301 + 450] = 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, file = Image.fromarray(upright), io.BytesIO()
    (image if orientation == 1 else image.transpose(Image.Transpose.ROTATE_90)).save(
        file, "JPEG", quality=95, exif=exif
    )
    stored = stored_in(tmp_path, {"a.jpg": file.getvalue()})
    item = DatasetItem(
        n=0, split="train", path="a.jpg", sha256="", width=width, height=height, label=None, boxes=(box,)
    )
    spec = replace(SPEC, width=128, height=128, mode=mode, pad_color=(255, 255, 255))
    whole, less = (Images((item,), [None], stored, spec, draft, []) for draft in (False, True))
    assert (whole.reduction(item), less.reduction(item)) == (1, 4 if mode == "LETTERBOX" else 2)
    where = placement(width, height, spec)
    expected = to_input(torch.tensor([[box.x, box.y, box.x + box.width, box.y + box.height]]), where)[0]
    for images in (whole, less):
        dark = 1 - images[0].float().mean(0) / 255
        for axis, low, high in ((0, expected[0], expected[2]), (1, expected[1], expected[3])):
            line = dark.sum(axis) / dark.sum(axis).max()
            assert float(line.sum()) == pytest.approx(float(high - low), abs=0.3)
            centre = float((line * (torch.arange(128) + 0.5)).sum() / line.sum())
            assert centre == pytest.approx(float(low + high) / 2, abs=0.3)
    assert not torch.equal(whole[0], less[0])
    assert torch.equal(less[0], less.load(0))


def test_images_for_random_crops_are_kept_no_larger_than_the_crops_need(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    large = io.BytesIO()
    Image.fromarray(levels).resize((1600, 1200), Image.Resampling.BICUBIC).save(large, "JPEG")
    stored = stored_in(tmp_path, {"large.jpg": large.getvalue(), "small.png": png(levels)})
    items = tuple(
        DatasetItem(n=n, split="train", path=path, sha256="", width=width, height=height, label=0, boxes=None)
        for n, (path, width, height) in enumerate((("large.jpg", 1600, 1200), ("small.png", 40, 30)))
    )
    kept = classification.kept_as(replace(PARAMETERS, crop_scale=0.5), SPEC)
    # The smallest crop has half of the area; the narrowest of them is this side times √(3/4 · 1/2) wide: 32 pixels.
    assert kept == 53
    images = Images(items, [0, 0], stored, kept, True, [])
    fresh = replace(images, cache=[])
    events = Events(Recorder(), "job-1", 1, tmp_path)
    assert fill_cache(images, CacheRoom(2**20, 0), 0, events).memory == 2**20 - 3 * (71 * 53 + 40 * 30)
    assert [tuple(image.shape) for image in images.cache] == [(3, 53, 71), (3, 30, 40)]
    assert all(torch.equal(images[n], fresh[n]) for n in (0, 1))


def test_filling_the_cache_can_be_stopped(dataset: DatasetRef, tmp_path: Path) -> None:
    events = Events(Recorder(), "job-1", 1, tmp_path)
    events.stop_requested = "cancelled"
    images = open_images(dataset, read_split(dataset, "train"), classification, None)
    with pytest.raises(Stopped):
        fill_cache(images, CacheRoom(2**30, 0), 2, events)
    assert len(images.cache) == 1


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(dataset: DatasetRef) -> None:
    items = read_split(dataset, "train")
    images = replace(open_images(dataset, items, classification, SPEC), truths=range(50))

    def shown(first: tuple[int, int], workers: int = 0) -> list[int]:
        batches = training_batches(maker_of(images, epochs=2), first, workers)
        return [truth for batch in batches for truth in batch.truths]

    whole = shown((0, 0))
    assert len(whole) == 96 == 2 * batch_count(50, 16) * 16
    assert len(set(whole[:48])) == len(set(whole[48:])) == 48
    assert whole[:48] != whole[48:]
    assert shown((0, 2)) == whole[32:]
    assert shown((1, 1)) == whole[64:]
    assert shown((0, 2), workers=2) == whole[32:]


def test_balanced_sampling_shows_rare_classes_as_often_as_frequent_ones() -> None:
    labels = [[0]] * 80 + [[1]] * 15 + [[2]] * 5
    epochs = [shown(100, 7, epoch, labels) for epoch in range(30)]
    for numbers in epochs:
        assert len(set(numbers.tolist())) == len(numbers) == 100
        counts = np.bincount([labels[number % 100][0] for number in numbers.tolist()])
        assert ((counts >= 32) & (counts <= 35)).all()
    # Over the epochs every image of the frequent class has its turn.
    assert len({number % 100 for numbers in epochs for number in numbers.tolist()}) == 100
    assert epochs[0].tolist() == shown(100, 7, 0, labels).tolist() != epochs[1].tolist()


def test_an_image_that_repeats_in_an_epoch_is_changed_in_another_way_each_time(dataset: DatasetRef) -> None:
    images = open_images(dataset, read_split(dataset, "train"), classification, None)
    images = replace(images, truths=[0, *[1] * 49])
    batches = training_batches(maker_of(images, epochs=1, sampling="BALANCED"), (0, 0), workers=0)
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
    # Larger than what PyTorch divides among threads: the mean of a picture, for its contrast, depends on their number.
    spec = replace(SPEC, width=224, height=224)
    maker = replace(maker_of(images, batch_size=8, epochs=4, trivial_augment=1, mix_up=0.5), spec=spec)
    made = []
    for workers in (0, 1, 2):
        # A batch is valid until the next one is asked for.
        batches = [replace(batch, images=batch.images.clone()) for batch in training_batches(maker, (3, 1), workers)]
        made.append(batches)
    assert made[0][0].images.dtype == torch.uint8
    assert made[0][0].images.shape == (8, 3, 224, 224)
    assert len(made[0]) == 5
    for alone, one, two in zip(*made, strict=True):
        for other in (one, two):
            assert torch.equal(alone.images, other.images)
            assert alone.truths == other.truths
            assert (alone.draws == other.draws).all()


def test_a_detectors_batch_is_the_same_whoever_makes_it(tmp_path: Path) -> None:
    scenes = build(DatasetRef, write_scenes(tmp_path, 6, 2, side=64))
    parameters = build(DetectionHyperparameters, {**support.defaults("Detection"), "epochs": 2, "mosaic": 1})
    images = open_images(scenes, read_split(scenes, "train"), detection, SPEC)
    maker = BatchMaker(images, detection, parameters, SPEC, 7)
    alone, shared = (next(training_batches(maker, (0, 0), workers)) for workers in (0, 1))
    assert torch.equal(alone.images, shared.images)
    for objects, others in zip(alone.truths, shared.truths, strict=True):
        assert torch.equal(objects.boxes, others.boxes)
        assert torch.equal(objects.labels, others.labels)
        assert torch.equal(objects.ignored, others.ignored)


def test_an_image_that_a_worker_process_cannot_read_is_named(dataset: DatasetRef) -> None:
    first, *rest = read_split(dataset, "train")
    items = (replace(first, path="train/lost.png", n=60_000), *rest)
    images = open_images(dataset, items, classification, None)
    with pytest.raises(TrainerError, match=r"train/lost\.png is damaged") as caught:
        list(training_batches(maker_of(images, batch_size=50), (0, 0), workers=1))
    assert caught.value.code == "DATA_INVALID"


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
