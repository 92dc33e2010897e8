"""Mosaic, scale, moves and flips: boxes stay on what they mark, and the same place gives the same picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import support
from whetstone_trainer.augment import draws, quarter_turns
from whetstone_trainer.detection.augment import Picture, compose, flip, lay
from whetstone_trainer.hyperparameters import DetectionHyperparameters
from whetstone_trainer.protocol import PreprocessSpec
from whetstone_trainer.protocol_json import build

SPEC = PreprocessSpec(1, 96, 96, "LETTERBOX", 1.0, (114, 114, 114), "RGB", (0, 0, 0), (1, 1, 1), "NCHW")
PARAMETERS = build(DetectionHyperparameters, {**support.defaults("Detection"), "mosaicUntil": 1})
PLAIN = replace(PARAMETERS, mosaic=0.0, scale=0.0, flip=0.0)


def marked(index: int) -> Picture:
    """A black 96 × 64 image with a filled rectangle of a level of its own, and its box."""
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    x, y, level = 10 + index % 5 * 12, 8 + index % 3 * 10, 150 + index % 10 * 10
    image[:, y : y + 24, x : x + 30] = level
    box = torch.tensor([[x, y, x + 30, y + 24]], dtype=torch.float32)
    return Picture(image, torch.tensor([index % 10]), box, torch.tensor([False]))


def composed(index: int, epoch: int = 0, parameters: DetectionHyperparameters = PARAMETERS) -> Picture:
    return compose(marked, 40, (0, epoch, index), parameters, SPEC, draw=np.full(20, 0.25))


@pytest.mark.parametrize("index", range(12))
def test_a_box_is_filled_with_what_it_marks(index: int) -> None:
    made = composed(index)
    assert made.image.shape == (3, 96, 96)
    for label, box in zip(made.labels.tolist(), made.boxes, strict=True):
        x1, y1, x2, y2 = box.tolist()
        assert 0 <= x1 < x2 <= 96
        assert 0 <= y1 < y2 <= 96
        inner = made.image[0, round(y1) + 2 : round(y2) - 2, round(x1) + 2 : round(x2) - 2].float()
        assert inner.numel() == 0 or (inner - (150 + label * 10)).abs().mean() < 2


@pytest.mark.parametrize(
    ("side", "mosaic", "learned"), [(96, 1, 1.0), (48, 1, 0.75), (12, 1, 0.9), (96, 0, 1.0), (48, 0, 0.9), (12, 0, 0.9)]
)
def test_what_can_be_seen_of_an_object_is_never_learned_as_background(side: int, mosaic: int, learned: float) -> None:
    """Objects that fill their image, half of its sides, and an eighth. Of the pixels that show one, all lie in a box
    that is learned or ignored, and at least the share `learned` in one that is learned."""

    def single(index: int) -> Picture:
        image = torch.zeros(3, 96, 96, dtype=torch.uint8)
        x, y = (int(left) for left in np.random.default_rng(index).integers(0, 97 - side, 2))
        image[:, y : y + side, x : x + side] = 200
        box = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
        return Picture(image, torch.tensor([0]), box, torch.tensor([False]))

    shown = in_a_box = in_a_learned_box = 0
    parameters = replace(PARAMETERS, mosaic=float(mosaic))
    for index in range(200):
        made = compose(single, 200, (0, 0, index), parameters, SPEC, draw=np.full(20, 0.25))
        object_seen = made.image[0] >= 160
        boxed, learned_box = torch.zeros_like(object_seen), torch.zeros_like(object_seen)
        for (x1, y1, x2, y2), ignored in zip(made.boxes.round().int().tolist(), made.ignored.tolist(), strict=True):
            boxed[y1:y2, x1:x2] = True
            learned_box[y1:y2, x1:x2] |= not ignored
        shown += int(object_seen.sum())
        in_a_box += int((object_seen & boxed).sum())
        in_a_learned_box += int((object_seen & learned_box).sum())
    assert in_a_box >= 0.99 * shown
    assert in_a_learned_box >= learned * 0.99 * shown


def test_the_same_place_gives_the_same_picture() -> None:
    first, again = composed(3), composed(3)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    assert not torch.equal(first.image, composed(3, epoch=1).image)
    assert not torch.equal(first.image, composed(4).image)


def test_a_repeat_shows_the_same_image_changed_in_another_way() -> None:
    once, again = composed(3, parameters=PLAIN), composed(3 + 7 * 40, parameters=PLAIN)
    assert once.labels.tolist() == again.labels.tolist()
    assert not torch.equal(once.image, again.image)


def test_mosaics_end_with_their_share_of_the_epochs() -> None:
    parameters = replace(PARAMETERS, epochs=10, mosaic=1.0, mosaic_until=0.5, scale=0.0)
    counts = [sum(len(composed(index, epoch, parameters).labels) for index in range(20)) for epoch in (4, 5)]
    assert counts[0] > 20
    assert counts[1] == 20


def test_with_everything_off_the_image_is_as_it_was_but_for_its_place() -> None:
    made = composed(2, parameters=PLAIN)
    top = int((made.boxes[0, 1] - marked(2).boxes[0, 1]).item())
    assert torch.equal(made.image[:, top : top + 64], marked(2).image)
    assert (made.image[:, :top] == 114).all()


def test_a_flip_turned_twice_is_none() -> None:
    for horizontal in (True, False):
        turned = flip(marked(1), horizontal=horizontal)
        x1, y1, x2, y2 = turned.boxes[0].int().tolist()
        assert (turned.image[:, y1:y2, x1:x2] == 160).all()
        assert torch.equal(flip(turned, horizontal=horizontal).boxes, marked(1).boxes)


def test_quarter_turns_come_in_their_share_and_boxes_stay_on_what_they_mark() -> None:
    always, plain = replace(PLAIN, quarter_turns=1.0), composed(1, parameters=PLAIN)
    for turns in (1, 2, 3):
        draw = np.full(20, (turns - 0.5) / 3)
        made = compose(marked, 40, (0, 0, 1), always, SPEC, draw=draw)
        assert torch.equal(made.image, plain.image.rot90(turns, (1, 2)))
        x1, y1, x2, y2 = made.boxes[0].int().tolist()
        assert (made.image[:, y1:y2, x1:x2] == 160).all()
        assert made.image.eq(160).sum() == 3 * (x2 - x1) * (y2 - y1)
    drawn = [quarter_turns(draws(0, 0, n), replace(PLAIN, quarter_turns=0.3)) for n in range(400)]
    assert [drawn.count(turns) / 400 for turns in range(4)] == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.05)


def test_what_is_mostly_cut_off_is_ignored() -> None:
    canvas = torch.zeros(3, 96, 96, dtype=torch.uint8)
    # Of the image 96 × 64, exactly the left 20 columns fit into the region: 10 of the box's 30.
    for seed in range(20):
        region = (0, 0, 20, 64)
        seen = lay(canvas, region, marked(0), 0.0, np.random.default_rng(seed))
        for box, ignored in zip(seen.boxes, seen.ignored, strict=True):
            assert ignored == (bool(box[2] - box[0] < 0.4 * 30))


def test_a_crowd_stays_ignored() -> None:
    crowd = replace(marked(0), ignored=torch.tensor([True]))
    made = compose(lambda index: crowd, 40, (0, 0, 3), PARAMETERS, SPEC, draw=np.full(20, 0.25))
    assert len(made.ignored) > 0
    assert made.ignored.all()
