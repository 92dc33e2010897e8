"""torchvision's and timm's classifiers as presets: their rows, and a few steps of each."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import support
from tests.conftest import train_and_convert
from tests.support import train_spec, weights_after_a_stop
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.model import build_model, expected_state, fit, topology_of, without_storage
from whetstone_trainer.preset_facts import facts_of
from whetstone_trainer.protocol import CLASSIFIERS, DETECTORS, PreprocessSpec
from whetstone_trainer.protocol_json import build
from whetstone_trainer.recover import Rounded, with_rounding, without_rounding
from whetstone_trainer.vision import get_model_weights

TORCHVISION = [name for name, row in CLASSIFIERS.items() if row["weights"]]
TIMM = [name for name in CLASSIFIERS if name not in TORCHVISION]
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed (WHETSTONE_TIMM=1 at the set-up)"
)
FACTS = json.loads((support.TRAINER.parent / "src" / "jobs" / "presets.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "preset",
    [
        "mobilenet_v3_small",
        "regnet_y_400mf",
        pytest.param("timm:mobilenetv4_conv_small", marks=needs_timm),
        *(pytest.param(preset, marks=pytest.mark.long) for preset in (*TORCHVISION, *DETECTORS)),
        *(pytest.param(preset, marks=[pytest.mark.long, needs_timm]) for preset in TIMM),
    ],
)
def test_what_a_preset_says_of_its_size_and_weights_is_what_its_library_has(preset: str) -> None:
    assert list(FACTS) == [*CLASSIFIERS, *DETECTORS]
    assert facts_of(preset, {**CLASSIFIERS, **DETECTORS}[preset]) == FACTS[preset], "run `npm run protocol`"


@pytest.mark.parametrize("preset", [*TORCHVISION, *(pytest.param(preset, marks=needs_timm) for preset in TIMM)])
def test_every_classifier_is_built_for_three_classes_at_its_image_size(preset: str) -> None:
    """Without computing. Its stages are layers of it, in this order."""
    side, row = FACTS[preset]["imageSize"], CLASSIFIERS[preset]
    model = without_storage(lambda: build_model(preset, 3))
    assert model(torch.empty(2, 3, side, side, device="meta")).shape == (2, 3)
    names = [name for name, _ in model.named_parameters()]
    assert tuple(names[-2:]) == topology_of(preset).class_tensors
    begins = [next(n for n, name in enumerate(names) if name.startswith(stage)) for stage in row["stages"]]
    assert 0 < begins[0] < begins[1] < begins[2] < len(names) - 2
    # Every preset normalises in the same way.
    about: Any = model
    made = get_model_weights(preset).DEFAULT.transforms() if row["weights"] else SimpleNamespace(**about.pretrained_cfg)
    assert ([*made.mean], [*made.std]) == (support.preprocess()["mean"], support.preprocess()["std"])


@needs_timm
def test_a_classifier_of_timm_trains_resumes_and_is_exported_within_the_tolerance(tmp_path: Path) -> None:
    train_resume_and_convert("timm:mobilenetv4_conv_small", tmp_path)


@needs_timm
def test_a_normalisation_of_timm_keeps_its_activation_in_fine_tuning_for_int8() -> None:
    spec = build(PreprocessSpec, support.preprocess(64))
    model = build_model("timm:mobilenetv4_conv_small", 3).eval()
    images = torch.rand(2, 3, 64, 64)
    wanted = model(images).detach()
    rounding = with_rounding(model, spec)
    layers = [module for module in rounding.modules() if isinstance(module, Rounded)]
    assert layers
    found = without_rounding(rounding)(images).detach()
    assert torch.allclose(found, wanted, atol=1e-4)


def test_without_timm_its_presets_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TrainerError, match="timm is not installed") as raised:
        build_model("timm:mobilenetv4_conv_small", 3)
    assert (raised.value.code, raised.value.hint) == ("EXTRA_MISSING", "Run `WHETSTONE_TIMM=1 node scripts/setup.mjs`.")


def test_the_public_weights_of_vit_fit_although_their_names_are_older() -> None:
    wanted = expected_state("vit_b_16", 1000)
    older = {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): torch.zeros(1).expand(
            tensor.shape
        )
        for name, tensor in wanted.items()
    }
    assert older.keys() != wanted.keys()
    fitted, new = fit(older, "vit_b_16", 3, replace_head=True)
    assert new == ("heads.head.weight", "heads.head.bias")
    assert fitted.keys() == wanted.keys() - set(new)


@pytest.mark.long
@pytest.mark.parametrize("preset", [*TORCHVISION, *(pytest.param(preset, marks=needs_timm) for preset in TIMM)])
def test_each_trains_two_epochs_of_two_steps_resumes_and_is_exported_within_the_tolerance(
    preset: str, tmp_path: Path
) -> None:
    train_resume_and_convert(preset, tmp_path)


def train_resume_and_convert(preset: str, tmp_path: Path) -> None:
    side = FACTS[preset]["imageSize"] if FACTS[preset]["onlyImageSize"] else 64
    dataset = support.write_digits(tmp_path / "digits", 4, 4)
    changes = {"epochs": 2, "batchSize": 2, "imageSize": side}
    spec = train_spec(dataset, changes, preset=preset, preprocess=support.preprocess(side))
    made = train_and_convert(tmp_path / "whole", spec)
    assert made.exit_code == 0, made.events[-1]
    (gate,) = [event["numbers"] for event in made.conversion if event["type"] == "gate"]
    assert (gate["problems"], gate["images"], gate["beyondTolerance"]) == ([], 4, 0)
    assert gate["top1DifferBeyondMargin"] == 0

    # With dropout and stochastic depth.
    assert weights_after_a_stop(tmp_path, spec) == made.artifact("WEIGHTS")["meta"]["weightsHash"]
