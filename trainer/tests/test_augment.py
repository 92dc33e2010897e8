"""Augmentation is a pure function of (seed, epoch, index), and each change is what its name says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import support
from whetstone_trainer import augment, classification
from whetstone_trainer.augment import color, draws, erase, geometry
from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.preprocess import resize
from whetstone_trainer.protocol import PreprocessSpec
from whetstone_trainer.protocol_json import build
from whetstone_trainer.vision import functional

PARAMETERS = build(ClassificationHyperparameters, support.defaults())
SPEC = build(PreprocessSpec, support.preprocess(32))
IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8))
OFF = replace(PARAMETERS, crop_scale=1.0, flip=0.0, color_jitter=0.0, erasing=0.0)
SQUARE = resize(IMAGE, SPEC)


def test_numbers_depend_on_seed_epoch_and_index_only() -> None:
    assert np.array_equal(draws(1, 2, 3), draws(1, 2, 3))
    different = {tuple(draws(seed, epoch, index)) for seed in (1, 2) for epoch in (1, 2) for index in (1, 2, 12)}
    assert len(different) == 12


def test_turned_off_it_is_the_preprocessing() -> None:
    assert torch.equal(geometry(IMAGE, draws(0, 0, 0), OFF, SPEC), resize(IMAGE, SPEC))
    ready = resize(IMAGE, SPEC)
    assert geometry(ready, draws(0, 0, 0), OFF, SPEC) is ready


def test_a_flip_turns_left_and_right() -> None:
    always = replace(OFF, flip=1.0)
    assert torch.equal(geometry(IMAGE, draws(0, 0, 0), always, SPEC), resize(IMAGE, SPEC).flip(-1))


def test_a_vertical_flip_turns_up_and_down_in_its_share_of_the_images_and_changes_nothing_else() -> None:
    still, upside_down = resize(IMAGE, SPEC), resize(IMAGE, SPEC).flip(-2)
    assert torch.equal(geometry(IMAGE, draws(0, 0, 0), replace(OFF, vertical_flip=1.0), SPEC), upside_down)
    quarter = replace(OFF, vertical_flip=0.25)
    flipped = [torch.equal(geometry(IMAGE, draws(0, 0, n), quarter, SPEC), upside_down) for n in range(400)]
    assert 70 < sum(flipped) < 130
    # What an image of a training from before it was there has drawn.
    assert np.array_equal(draws(1, 2, 3)[:12], np.random.default_rng((1, 2, 3)).random(12))
    assert torch.equal(geometry(IMAGE, draws(1, 2, 3), replace(OFF, vertical_flip=0.0), SPEC), still)


@pytest.mark.parametrize("size", [(40, 60), (1, 1), (3, 200), (8, 8)])
def test_crops_have_the_input_size_whatever_the_image(size: tuple[int, int]) -> None:
    image = IMAGE[:, :1, :1].repeat(1, *size)
    for index in range(20):
        cropped = geometry(image, draws(0, 0, index), replace(PARAMETERS, crop_scale=0.05), SPEC)
        assert cropped.shape == (3, 32, 32)
        assert torch.equal(cropped, image[:, :1, :1].expand(3, 32, 32))


@pytest.mark.parametrize("size", [(28, 28), (40, 60), (200, 50), (3, 200), (8, 8), (1, 1)])
def test_a_crop_keeps_the_share_of_the_area_that_it_promises(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def cropped(image: torch.Tensor, top: int, left: int, height: int, width: int, *others: object, **more: object):  # type: ignore[no-untyped-def]
        assert 0 <= top <= top + height <= size[0]
        assert 0 <= left <= left + width <= size[1]
        kept.append(height * width / (size[0] * size[1]))
        return image

    monkeypatch.setattr(functional, "resized_crop", cropped)
    for smallest in (0.05, 0.5, 0.9):
        kept.clear()
        parameters = replace(PARAMETERS, crop_scale=smallest, flip=0.0)
        for index in range(200):
            geometry(torch.zeros(3, *size, dtype=torch.uint8), draws(0, 0, index), parameters, SPEC)
        assert min(kept) >= smallest
        # Not all of them the whole image, where it has pixels to crop.
        assert size[0] * size[1] < 64 or np.mean(kept) < (smallest + 1) / 2 + 0.1


def test_crops_keep_at_least_the_share() -> None:
    """On a ramp from left to right the range of a crop tells its width."""
    ramp = torch.arange(200, dtype=torch.uint8).repeat(3, 200, 1)
    widths = []
    for index in range(50):
        cropped = geometry(ramp, draws(0, 0, index), replace(PARAMETERS, crop_scale=0.5, flip=0.0), SPEC)[0, 0].float()
        widths.append(float(cropped.max() - cropped.min()) * 32 / 31 / 200)
    assert min(widths) > np.sqrt(0.5 * 3 / 4) - 0.02
    assert max(widths) > 0.95


def test_colour_is_torchvisions() -> None:
    levels = torch.stack([IMAGE, IMAGE.flip(-1)]).float()
    draw = torch.from_numpy(np.stack([draws(0, 0, 0), draws(0, 0, 1)]))
    found = color(levels, draw, 0.4)
    for n in range(2):
        brightness, contrast, saturation = (
            float(1 + 0.4 * (2 * draw[n, which] - 1))
            for which in (augment.BRIGHTNESS, augment.CONTRAST, augment.SATURATION)
        )
        expected = functional.adjust_brightness(levels[n] / 255, brightness)
        expected = functional.adjust_contrast(expected, contrast)
        expected = functional.adjust_saturation(expected, saturation)
        # torchvision rounds the weights of red, green and blue to four digits.
        assert torch.allclose(found[n] / 255, expected, atol=2e-3)
    assert color(levels, draw, 0.0) is levels


def test_erasing_takes_a_square_of_some_images() -> None:
    draw = np.stack([draws(0, 0, index) for index in range(200)])
    erased = erase(torch.ones(200, 3, 32, 32), draw, 0.25) == 0
    shares = erased[:, 0].float().mean((1, 2))
    assert torch.equal(erased[:, 0], erased[:, 2])
    assert 0.15 < float((shares > 0).float().mean()) < 0.35
    assert float(shares[shares > 0].min()) > 0.01
    assert float(shares.max()) < 0.36
    assert not (erase(torch.ones(200, 3, 8, 8), draw, 0.0) == 0).any()


def test_turned_off_the_later_changes_leave_a_picture_as_it_was() -> None:
    assert torch.equal(augment.picture(IMAGE, draws(0, 0, 0), OFF, SPEC), SQUARE)
    assert augment.mixing((0, 0, 0), 8, OFF) is None


def test_a_rotation_stays_inside_its_range_and_fills_corners_with_the_mean_colour() -> None:
    turned = replace(OFF, rotation=20.0)
    for index in range(20):
        draw = draws(0, 0, index)
        found = augment.picture(SQUARE, draw, turned, SPEC)
        angle = 20 * (2 * draw[augment.ROTATION] - 1)
        assert torch.equal(found, augment.turn(SQUARE, angle, SPEC))
        assert abs(angle) <= 20
    corner = augment.turn(SQUARE, 45, SPEC)[:, 0, 0]
    assert torch.allclose(corner.float(), torch.tensor([124.0, 116.0, 104.0]), atol=1)
    assert torch.equal(augment.turn(SQUARE, 180, SPEC), SQUARE.flip(-1, -2))


def test_hue_turns_the_colours_and_leaves_grey_alone() -> None:
    grey = SQUARE[:1].expand(3, 32, 32)
    found = augment.picture(grey, draws(0, 0, 0), replace(OFF, hue=0.5), SPEC)
    assert torch.equal(found, grey)
    assert not torch.equal(augment.picture(SQUARE, draws(0, 0, 0), replace(OFF, hue=0.5), SPEC), SQUARE)


def test_quarter_turns_turn_the_picture() -> None:
    turned = replace(OFF, quarter_turns=0.6)
    for index in range(20):
        draw = draws(0, 0, index)
        expected = SQUARE.rot90(augment.quarter_turns(draw, turned), (1, 2))
        assert torch.equal(augment.picture(SQUARE, draw, turned, SPEC), expected)


def test_multi_scale_gives_each_batch_a_side_that_is_a_multiple_of_32_inside_its_range() -> None:
    large = replace(SPEC, width=224, height=224)
    drawn = np.stack([draws(0, 0, n) for n in range(200)])

    def sides(parameters: ClassificationHyperparameters, spec: PreprocessSpec = large) -> set[int]:
        return {augment.batch_spec(drawn[n:], parameters, spec).width for n in range(200)}

    assert sides(OFF) == {224}
    assert sides(replace(OFF, multi_scale=0.25)) == {192, 224, 256}
    assert sides(replace(OFF, multi_scale=0.25), SPEC) == {32}
    assert sides(replace(OFF, multi_scale=0.5), replace(SPEC, width=1024, height=1024)) == set(range(512, 1025, 32))
    levels = SQUARE[None].float()
    larger = augment.batch_spec(drawn, replace(OFF, multi_scale=0.25), large)
    made = classification.inputs(levels, drawn[:1], OFF, larger)
    assert made.shape == (1, 3, larger.height, larger.width)


def test_each_change_of_trivial_augment_comes_up_and_keeps_the_form() -> None:
    for change in augment.TRIVIAL_CHANGES:
        for strength in (-1.0, 0.0, 0.6, 1.0):
            made = change(SQUARE, strength, SPEC)
            assert (made.shape, made.dtype) == (SQUARE.shape, torch.uint8)
    drawn = {int(draws(0, 0, n)[augment.TRIVIAL_CHANGE] * len(augment.TRIVIAL_CHANGES)) for n in range(200)}
    assert drawn == set(range(14))
    half = replace(OFF, trivial_augment=0.5)
    changed = [not torch.equal(augment.picture(SQUARE, draws(0, 0, n), half, SPEC), SQUARE) for n in range(200)]
    # One of 14 changes is none.
    assert 60 < sum(changed) < 130


def test_mixed_pictures_show_both_images_by_their_share() -> None:
    black, white = torch.zeros(3, 20, 30, dtype=torch.uint8), torch.full((3, 20, 30), 255, dtype=torch.uint8)
    shares = []
    for index in range(100):
        up = augment.mixing((0, 0, index), 8, replace(OFF, mix_up=1.0))
        cut = augment.mixing((0, 0, index), 8, replace(OFF, cut_mix=1.0))
        assert up is not None
        assert cut is not None
        assert 0 <= up.index < 8
        for how in (up, cut):
            mixed, share = augment.mix(white, black, how)
            assert float(mixed.float().mean()) / 255 == pytest.approx(share, abs=2e-3)
        blended, _ = augment.mix(white, black, up)
        assert blended.min() == blended.max()
        pasted, share = augment.mix(white, black, cut)
        assert ((pasted == 0) | (pasted == 255)).all()
        shares.append(share)
    assert min(shares) < 0.3
    assert max(shares) > 0.95
    # Each comes in its part of the images, MixUp first.
    both = replace(OFF, mix_up=0.5, cut_mix=0.5)
    kinds = [augment.mixing((0, 0, n), 8, both) for n in range(400)]
    assert 160 < sum(how is not None and how.centre is None for how in kinds) < 240
    assert 70 < sum(how is None for how in kinds) < 130


@pytest.mark.parametrize("weighted", [False, True])
def test_a_mixed_picture_is_of_both_classes_in_the_loss(weighted: bool) -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0]) if weighted else None
    truths: list[int | classification.Mixed] = [2, classification.Mixed(0, 1, 0.75), classification.Mixed(3, 2, 0.25)]
    found, sums = classification.loss((logits,), truths, PARAMETERS, SPEC, weights)
    targets = torch.tensor([[0, 0, 1, 0], [0.75, 0.25, 0, 0], [0, 0, 0.75, 0.25]])
    smooth = targets * 0.9 + 0.1 / 4
    if weights is None:
        expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
        assert torch.allclose(found, expected)
        correct = (logits.argmax(1) == torch.tensor([2, 0, 2])).sum()
        assert sums.tolist() == pytest.approx([3 * float(expected), int(correct), 3])
    else:
        alone = [classification.loss((logits[1:2],), [label], PARAMETERS, SPEC, weights)[0] for label in (0, 1)]
        only, _ = classification.loss((logits[1:2],), truths[1:2], PARAMETERS, SPEC, weights)
        assert torch.allclose(only, 0.75 * alone[0] + 0.25 * alone[1])
