"""torchvision's classifiers as presets: their rows, and a few steps of each."""

import json
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model_weights

from tests import support
from tests.conftest import train_and_convert
from tests.support import run_here, train_spec
from whetstone_trainer.model import DETECTORS, build_model, expected_state, fit, topology_of, without_storage
from whetstone_trainer.preset_facts import facts_of
from whetstone_trainer.protocol import CLASSIFIERS

FACTS = json.loads((support.TRAINER.parent / "src" / "jobs" / "presets.json").read_text("utf-8"))


def test_what_presets_say_of_their_size_and_weights_is_what_torchvision_has() -> None:
    assert list(FACTS) == [*CLASSIFIERS, *DETECTORS]
    for preset, said in FACTS.items():
        assert facts_of(preset) == said, f"{preset}: run `npm run protocol`"


@pytest.mark.parametrize("preset", CLASSIFIERS)
def test_every_classifier_is_built_for_three_classes(preset: str) -> None:
    """Without computing. Its stages are layers of it, in this order."""
    side = FACTS[preset]["imageSize"]
    model = without_storage(lambda: build_model(preset, 3))
    assert model(torch.empty(2, 3, side, side, device="meta")).shape == (2, 3)
    public, own = expected_state(preset, 1000), expected_state(preset, 3)
    assert {name for name in own if own[name].shape != public[name].shape} == set(topology_of(preset).class_tensors)
    names = [name for name, _ in model.named_parameters()]
    begins = [
        next(n for n, name in enumerate(names) if name.startswith(stage)) for stage in CLASSIFIERS[preset]["stages"]
    ]
    assert 0 < begins[0] < begins[1] < begins[2] < len(names) - 2
    # Every preset normalises in the same way.
    made = get_model_weights(preset).DEFAULT.transforms()  # type: ignore[attr-defined]
    assert (made.mean, made.std) == (support.preprocess()["mean"], support.preprocess()["std"])


def test_the_public_weights_of_vit_fit_although_their_names_are_older() -> None:
    wanted = expected_state("vit_b_16", 1000)
    older = {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): torch.zeros(tensor.shape)
        for name, tensor in wanted.items()
    }
    assert older.keys() != wanted.keys()
    fitted, new = fit(older, "vit_b_16", 3, replace_head=True)
    assert new == ("heads.head.weight", "heads.head.bias")
    assert fitted.keys() == wanted.keys() - set(new)


def resumed_in_the_middle(folder: Path, spec: support.Json, whole: str) -> None:
    """Stopped in the second epoch it ends on the weights `whole`."""
    code, first = run_here(folder / "1", spec, type="epoch", epoch=1)
    assert code == 75, first.events[-1]
    resume = str(folder / "1" / first.of("checkpoint")[-1]["file"])
    _, second = run_here(folder / "2", {**spec, "resumeFrom": resume})
    assert second.events[0]["resumed"] == {"epoch": 1, "batch": 1}
    assert second.of("artifact")[0]["meta"]["weightsHash"] == whole


def test_a_classifier_with_dropout_stochastic_depth_and_all_augmentation_resumes_to_the_same_weights(
    tmp_path: Path,
) -> None:
    dataset = support.write_digits(tmp_path / "digits", 8, 4)
    changes = {"rotation": 30, "hue": 0.1, "trivialAugment": 0.5, "mixUp": 0.5, "cutMix": 0.5, "erasing": 0.5}
    spec = train_spec(dataset, {"epochs": 2, "batchSize": 4, **changes}, preset="efficientnet_b0")
    _, whole = run_here(tmp_path / "whole", spec)
    resumed_in_the_middle(tmp_path, spec, whole.of("artifact")[0]["meta"]["weightsHash"])


@pytest.mark.long
@pytest.mark.parametrize("preset", CLASSIFIERS)
def test_each_trains_two_epochs_of_two_steps_resumes_and_is_exported_within_the_tolerance(
    preset: str, tmp_path: Path
) -> None:
    side = FACTS[preset]["imageSize"] if FACTS[preset]["onlyImageSize"] else 64
    dataset = support.write_digits(tmp_path / "digits", 4, 4)
    changes = {"epochs": 2, "batchSize": 2, "imageSize": side}
    spec = train_spec(dataset, changes, preset=preset, preprocess=support.preprocess(side))
    made = train_and_convert(tmp_path / "whole", spec)
    assert made.exit_code == 0, made.events[-1]
    (gate,) = [event["numbers"] for event in made.conversion if event["type"] == "gate"]
    assert (gate["problems"], gate["images"], gate["beyondTolerance"]) == ([], 4, 0)
    assert gate["top1DifferBeyondMargin"] == 0
    resumed_in_the_middle(tmp_path, spec, made.artifact("WEIGHTS")["meta"]["weightsHash"])
