"""Detectors whose backbone is that of a classifier of torchvision, and its weights."""

from pathlib import Path

import pytest
import torch

from scenes import write_scenes
from tests import support
from tests.conftest import train_and_convert
from tests.support import detector_spec, preprocess, run_here, weights_after_a_stop
from whetstone_trainer.checkpoint import load_checkpoint, save_tensors
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.model import build_model, expected_state, fit, topology_of, without_storage
from whetstone_trainer.protocol import DETECTORS

ON_CLASSIFIERS = [name for name, row in DETECTORS.items() if row["backbone"]]
# The one that trains fastest.
PRESET = "yolov8_mobilenet_v3_large"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> support.Json:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 8, 4, side=64)


def spec_of(scenes: support.Json, changes: support.Json, **more: object) -> support.Json:
    made = preprocess(64, mode="LETTERBOX")
    return detector_spec(scenes, 64, {"batchSize": 4, **changes}, preset=PRESET, preprocess=made, **more)


@pytest.mark.parametrize("preset", ON_CLASSIFIERS)
def test_the_weights_of_a_classifier_are_those_of_the_backbone_and_only_the_rest_is_new(preset: str) -> None:
    model = without_storage(lambda: build_model(preset, 7))
    distributions, logits = model(torch.empty(2, 3, 64, 96, device="meta"))
    places = 8 * 12 + 4 * 6 + 2 * 3
    assert (distributions.shape, logits.shape) == ((2, places, 64), (2, places, 7))
    classifier = str(DETECTORS[preset]["backbone"])
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in expected_state(classifier, 1000).items()}
    fitted, new = fit(state, preset, 7, replace_head=True)
    assert {name for name in new if not name.startswith(("lateral.", "neck.", "head."))} == set()
    assert fitted.keys() | set(new) == model.state_dict().keys()
    # All of its layers but those behind the last map.
    left_out = {name for name in state if f"backbone.{name}" not in fitted}
    assert left_out == {name for name in state if name.startswith(("fc.", "classifier."))}
    with pytest.raises(TrainerError, match="do not fit"):
        fit({name: state[name] for name in sorted(state)[:9]}, preset, 7, replace_head=True)
    with pytest.raises(TrainerError, match="do not fit"):
        fit(state, preset, 7, replace_head=False)


def test_a_frozen_backbone_keeps_the_weights_of_its_classifier_while_neck_and_head_learn(
    scenes: support.Json, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    public = dict(build_model("mobilenet_v3_large", 1000).state_dict())
    torch.save(public, tmp_path / "public.pth")
    init = {"from": "PRETRAINED", "file": str(tmp_path / "public.pth")}
    changes = {"epochs": 1, "freeze": "BACKBONE", "mosaic": 0.5, "quarterTurns": 0.5, "multiScale": 0.5}
    code, recorder = run_here(tmp_path / "run", spec_of(scenes, changes, init=init), phase="validation")
    assert code == 75, recorder.events[-1]
    (warning,) = recorder.of("warning")
    assert (warning["code"], "neck and head" in warning["message"]) == ("HEAD_REPLACED", True)
    after = load_checkpoint(tmp_path / "run" / str(recorder.of("checkpoint")[-1]["file"])).tensors["model"]
    kept = {name.removeprefix("backbone."): after[name] for name in after if name.startswith("backbone.")}
    assert all(torch.equal(tensor, public[name]) for name, tensor in kept.items())
    torch.manual_seed(0)
    fresh = build_model(PRESET, 10).state_dict()
    assert not torch.equal(after["lateral.to_p3.0.weight"], fresh["lateral.to_p3.0.weight"])


@pytest.mark.long
@pytest.mark.parametrize("preset", [name for name in DETECTORS if name != "yolov8n"])
def test_each_trains_two_epochs_of_two_steps_resumes_and_is_exported_within_the_tolerance(
    preset: str, scenes: support.Json, tmp_path: Path
) -> None:
    changes = {"epochs": 2, "quarterTurns": 0.5, "multiScale": 0.5}
    spec = {**spec_of(scenes, changes), "preset": preset}
    if topology_of(preset).classifier is not None:
        torch.manual_seed(1)
        state = dict(build_model(str(topology_of(preset).classifier), 3).state_dict())
        save_tensors(tmp_path / "weights.safetensors", state, {})
        spec["init"] = {"from": "WEIGHTS", "file": str(tmp_path / "weights.safetensors"), "classes": ["a", "b", "c"]}
    made = train_and_convert(tmp_path / "whole", spec)
    assert made.exit_code == 0, made.events[-1]
    (gate,) = [event["numbers"] for event in made.conversion if event["type"] == "gate"]
    assert (gate["problems"], gate["images"], gate["beyondTolerance"]) == ([], 4, 0)
    assert gate["detectionsDifferBeyondMargin"] == 0

    assert weights_after_a_stop(tmp_path, spec) == made.artifact("WEIGHTS")["meta"]["weightsHash"]
