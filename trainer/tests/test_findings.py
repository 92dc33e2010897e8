"""What people should look at in an evaluation: worst images, wrong labels, confusions, thresholds, sizes."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import precision_recall_curve

from tests.support import Recorder
from tests.test_detection_found import scenes_found
from tests.test_evaluate import SPEC, described, pictures
from whetstone_trainer import classification
from whetstone_trainer.detection import task as detection
from whetstone_trainer.detection.findings import best_threshold, findings
from whetstone_trainer.detection.metric import SIZES, Truth, match_detections
from whetstone_trainer.detection.postprocess import Detections, find, read_outputs
from whetstone_trainer.evaluate import mirrored_too
from whetstone_trainer.events import Events


def evaluated(labels: torch.Tensor, logits: torch.Tensor, folder: Path) -> dict[str, Any]:
    events = Events(Recorder(), "job-1", 1, folder)
    rows = iter([logits[start : start + 32] for start in range(0, len(logits), 32)])
    count = logits.shape[1]
    images = pictures(labels)
    found = classification.evaluate(
        lambda levels: (next(rows),), images, class_count=count, batch_size=32, workers=0, events=events
    )
    written = classification.report(found, tuple(f"class {n}" for n in range(count)), events)
    noted: dict[str, Any] = written["findings"]
    return noted


@pytest.mark.parametrize("classes", [3, 40])
def test_images_whose_labels_were_exchanged_are_the_likely_label_errors(tmp_path: Path, classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shown = torch.arange(600) % classes
    logits = torch.randn(600, classes, generator=generator) + 10 * torch.nn.functional.one_hot(shown, classes)
    labels, exchanged = shown.clone(), torch.arange(0, 600, 41)
    labels[exchanged] = (shown[exchanged] + 1) % classes
    found = evaluated(labels, logits, tmp_path)["labelErrors"]

    # The definition of confident learning, over all classes.
    shares = logits.double().softmax(1)
    own = shares[torch.arange(600), labels]
    thresholds = torch.stack([own[labels == n].mean() for n in range(classes)])
    others = (shares >= thresholds) & (torch.arange(classes) != labels[:, None])
    suspects = (own < thresholds[labels]) & others.any(1)
    assert found["count"] == int(suspects.sum())
    assert {image["n"] for image in found["images"]} == set(torch.nonzero(suspects)[:, 0].tolist())
    # One may be a little less probable than the mean of the class that it shows.
    first = found["images"][: len(exchanged) - 1]
    assert {image["n"] for image in first} <= set(exchanged.tolist())
    assert all(image["predicted"] == shown[image["n"]] and image["label"] == labels[image["n"]] for image in first)
    assert all(image["probability"] == pytest.approx(float(shares[image["n"], image["predicted"]])) for image in first)
    margins = [image["ownProbability"] - image["probability"] for image in found["images"]]
    assert margins == sorted(margins)


def test_the_worst_images_and_the_pairs_are_those_of_the_logits(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 12, (400,), generator=generator)
    logits = torch.randn(400, 12, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 12)
    noted = evaluated(labels, logits, tmp_path)
    losses = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    assert [image["n"] for image in noted["worst"]] == losses.argsort(descending=True)[:50].tolist()
    assert [image["loss"] for image in noted["worst"]] == pytest.approx(
        losses.sort(descending=True).values[:50].tolist()
    )
    best = logits.argmax(1)
    assert len(noted["confused"]) == 20
    counts = [pair["count"] for pair in noted["confused"]]
    assert counts == sorted(counts, reverse=True)
    for pair in noted["confused"]:
        members = torch.nonzero((labels == pair["label"]) & (best == pair["predicted"]))[:, 0].tolist()
        assert pair["label"] != pair["predicted"]
        assert pair["count"] == len(members)
        assert set(pair["examples"]) <= set(members)
        assert len(pair["examples"]) == min(6, len(members))


def test_of_a_model_that_is_always_right_there_is_nothing_but_its_worst_images(tmp_path: Path) -> None:
    labels = torch.arange(40) % 4
    noted = evaluated(labels, 9.0 * torch.nn.functional.one_hot(labels, 4), tmp_path)
    assert noted["labelErrors"] == {"count": 0, "images": []}
    assert noted["confused"] == []
    assert sorted(image["n"] for image in noted["worst"]) == list(range(40))


# ------------------------------------------------------------------------------------------------------------ detection


def as_coco(rows: list[dict[str, Any]], images: int, classes: int) -> COCO:
    coco = COCO()
    dataset: Any = {
        "info": {},
        "images": [{"id": n} for n in range(images)],
        "annotations": [
            {"iscrowd": 0, **row, "id": n + 1, "area": row["bbox"][2] * row["bbox"][3]} for n, row in enumerate(rows)
        ],
        "categories": [{"id": n} for n in range(classes)],
    }
    coco.dataset = dataset
    coco.createIndex()
    return coco


def test_ap_by_size_is_that_of_pycocotools() -> None:
    found, truths = scenes_found()
    # Their boxes have 10 to 30 pixels; four times that is medium and large.
    scales = [1.0] * 4 + [4.0] * 8
    found = [Detections(one.boxes * by, one.scores, one.labels) for by, one in zip(scales, found, strict=True)]
    truths = [(labels, boxes * by, crowds) for by, (labels, boxes, crowds) in zip(scales, truths, strict=True)]
    sizes = match_detections(found, truths, 3).sizes

    def rows(image: int, labels: torch.Tensor, boxes: torch.Tensor, **more: Any) -> list[dict[str, Any]]:
        corners = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).double().tolist()
        return [
            {"image_id": image, "category_id": label, "bbox": box, **{name: values[n] for name, values in more.items()}}
            for n, (label, box) in enumerate(zip(labels.tolist(), corners, strict=True))
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = as_coco([row for n, (labels, boxes, _) in enumerate(truths) for row in rows(n, labels, boxes)], 12, 3)
        results = as_coco(
            [row for n, one in enumerate(found) for row in rows(n, one.labels, one.boxes, score=one.scores.tolist())],
            12,
            3,
        )
        reference = COCOeval(truth, results, "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    assert [sizes[name]["ap"] for name in SIZES] == pytest.approx(reference.stats[3:6].tolist(), abs=1e-9)
    assert 0 < sizes["medium"]["ap"] < sizes["medium"]["ap50"] <= 1
    assert sum(size["objects"] for size in sizes.values()) == sum(len(labels) for labels, _, _ in truths)


def test_the_best_threshold_is_that_of_scikit_learns_curve() -> None:
    generator = np.random.default_rng(3)
    scores = np.round(generator.random(500), 2)
    right = generator.random(500) < scores
    objects = int(right.sum()) + 40  # 40 were never found
    precision, recall, thresholds = precision_recall_curve(right, scores)
    recall = recall * right.sum() / objects
    f1 = (2 * precision * recall / (precision + recall))[:-1]
    best = best_threshold(scores, right, objects)
    assert best is not None
    assert best.f1 == pytest.approx(f1.max())
    at = int(np.flatnonzero(thresholds == best.score)[0])
    assert (best.precision, best.recall) == pytest.approx((precision[at], recall[at]))
    assert best_threshold(scores, np.zeros(500, bool), 40) is None
    assert best_threshold(np.empty(0), np.empty(0, bool), 40) is None


def detections(*rows: tuple[int, float, list[float]]) -> Detections:
    labels, scores, boxes = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


def truth_of(*rows: tuple[int, list[float], bool]) -> Truth:
    labels, boxes, crowds = zip(*rows, strict=True) if rows else ((), (), ())
    return (
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(crowds, dtype=torch.bool),
    )


A, B, C = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [0.0, 20, 40, 60]


def test_a_detectors_confusions_name_what_was_missed_taken_for_another_class_or_not_there() -> None:
    truths = [
        truth_of((0, A, False), (1, B, False)),  # A is found; B is taken for class 0
        truth_of((0, A, False), (1, C, True)),  # A is missed; what is found in the crowd C is ignored
        truth_of(),  # a box of class 1 where nothing is
        truth_of((1, B, False)),  # found
    ]
    found = [
        detections((0, 0.9, A), (0, 0.8, B)),
        detections((1, 0.7, [2.0, 22, 12, 32]), (0, 0.1, [0.0, 0, 3, 3])),
        detections((1, 0.6, A)),
        detections((1, 0.95, B)),
    ]
    noted, per_class = findings(match_detections(found, truths, 2), found, truths, [5, 6, 7, 8], 2)
    assert noted["best"] == pytest.approx({"score": 0.9, "f1": 2 * 2 / (2 + 4), "precision": 1, "recall": 0.5})
    # Beyond 0.9 nothing is wrong but the misses: two of them.
    assert noted["confusion"] == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert [None if best is None else round(best.score, 2) for best in per_class] == [0.9, 0.95]
    assert [(image["n"], image["missed"], image["false"]) for image in noted["worst"]] == [(5, 1, 0), (6, 1, 0)]

    # The others count where the threshold is low: as if all scores were the same.
    alike = [Detections(one.boxes, torch.ones_like(one.scores), one.labels) for one in found]
    noted, _ = findings(match_detections(alike, truths, 2), alike, truths, [5, 6, 7, 8], 2)
    assert noted["confusion"] == [[1, 0, 1], [1, 1, 0], [1, 1, 0]]
    assert [(pair["label"], pair["predicted"], pair["examples"]) for pair in noted["confused"]] == [
        (0, None, [6]),
        (1, 0, [5]),
        (None, 0, [6]),
        (None, 1, [7]),
    ]
    assert [(image["n"], image["missed"], image["false"]) for image in noted["worst"]] == [
        (5, 1, 1),
        (6, 1, 1),
        (7, 0, 1),
    ]
    missed, false = noted["worst"][0]["boxes"]
    assert missed == {"kind": "MISSED", "label": 1, "score": None, "x": 20, "y": 0, "width": 10, "height": 10}
    assert false == {"kind": "FALSE", "label": 0, "score": 1, "x": 20, "y": 0, "width": 10, "height": 10}


def test_confusions_of_many_scenes_add_up_to_their_objects_and_boxes() -> None:
    found, truths = scenes_found()
    matched = match_detections(found, truths, 3)
    noted, _ = findings(matched, found, truths, list(range(12)), 3)
    confusion, best = np.array(noted["confusion"]), noted["best"]
    objects = np.bincount(torch.cat([labels for labels, _, _ in truths]), minlength=3)
    assert (confusion[:3].sum(1) == objects).all()
    counted = torch.cat([one.labels[one.scores >= best["score"]] for one in found])
    assert (confusion[:, :3].sum(0) == np.bincount(counted, minlength=3)).all()
    right = confusion.trace()
    assert (right / len(counted), right / objects.sum()) == pytest.approx((best["precision"], best["recall"]))
    errors = sum(image["missed"] + image["false"] for image in noted["worst"])
    assert errors == objects.sum() + len(counted) - 2 * right


def test_without_boxes_or_objects_there_is_no_threshold() -> None:
    for truths in ([truth_of()], [truth_of((0, A, False))]):
        noted, per_class = findings(match_detections([detections()], truths, 2), [detections()], truths, [0], 2)
        assert (noted["best"], per_class) == (None, [None, None])
        assert np.sum(noted["confusion"]) == len(truths[0][0])
        assert [noted["sizes"][name]["ap"] for name in SIZES] == [0.0 if len(truths[0][0]) else None, None, None]


# ---------------------------------------------------------------------------------------------- test-time augmentation


def test_a_mirrored_image_counts_as_much_as_the_image() -> None:
    levels = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)

    def predict(inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (inputs[:, 0].float().mean(1)[:, :4] / 40,)

    (both,) = mirrored_too(predict, described(4))(levels)
    wanted = (predict(levels)[0].softmax(1) + predict(levels.flip(-1))[0].softmax(1)) / 2
    assert torch.allclose(both.softmax(1), wanted, atol=1e-6)
    (turned,) = mirrored_too(predict, described(4))(levels.flip(-1))
    assert torch.allclose(both, turned)


def test_boxes_of_the_mirrored_image_are_turned_back_and_suppressed_with_those_of_the_image() -> None:
    boxes = torch.tensor([[[1.0, 2, 4, 6], [5.0, 0, 8, 3]]])
    scores = torch.tensor([[[0.9, 0.0], [0.0, 0.4]]])
    mirrored = torch.tensor([[[4.0, 2, 7, 6], [0.0, 0, 3, 3]]])
    merged = detection.with_mirrored((boxes, scores), (mirrored, scores / 2), SPEC, 2)
    found = find(*(part[0] for part in merged))
    assert found.boxes.tolist() == boxes[0].tolist()
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])
    # The graph may suppress overlaps itself; what it fills its rows up with has no class.
    rows = np.array([[[1, 2, 4, 6, 0.9, 0], [5, 0, 8, 3, 0.4, 1], [0, 0, 0, 0, 0, -1]]], np.float32)
    turned = rows.copy()
    turned[0, :2, [0, 2]] = [[4, 0], [7, 3]]
    merged = detection.with_mirrored(
        read_outputs([rows], "SUPPRESSED", 2), read_outputs([turned], "SUPPRESSED", 2), SPEC, 2
    )
    found = find(*(part[0] for part in merged))
    assert (found.boxes.tolist(), found.labels.tolist()) == (boxes[0].tolist(), [0, 1])
