"""Trainings whose first layers keep their weights, or learn more slowly than the head."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests import support
from tests.support import run_here, train_spec
from whetstone_trainer.checkpoint import State, load_checkpoint, save_tensors
from whetstone_trainer.model import build_model, read_state, without_storage
from whetstone_trainer.model import freeze as model_freeze

# A small one: its checkpoints are written fast.
PRESET = "mobilenet_v3_small"

# The specification, the folder and the weights of a run.
Whole = tuple[support.Json, Path, State]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> support.Json:
    return support.write_digits(tmp_path_factory.mktemp("digits"), 8, 4)


@pytest.fixture(scope="module")
def start(dataset: support.Json, tmp_path_factory: pytest.TempPathFactory) -> support.Json:
    """Weights to start from, of the dataset's classes."""
    file = tmp_path_factory.mktemp("start") / "weights.safetensors"
    torch.manual_seed(1)
    save_tensors(file, dict(build_model(PRESET, 10).state_dict()), {})
    return {"from": "WEIGHTS", "file": str(file), "classes": dataset["classes"]}


SHORT = {"epochs": 2, "batchSize": 4, "learningRate": 0.01, "warmupSteps": 0}


def spec_of(dataset: support.Json, changes: support.Json, init: support.Json) -> support.Json:
    return train_spec(dataset, {**SHORT, **changes}, preset=PRESET, init=init)


def trained(folder: Path, spec: support.Json) -> State:
    code, recorder = run_here(folder, spec)
    assert code == 0, recorder.events[-1]
    return read_state(folder / "weights.safetensors")


@pytest.mark.parametrize(
    ("preset", "freeze", "first"),
    [
        ("resnet50", "NONE", "conv1."),
        ("resnet50", "STAGE1", "layer2."),
        ("resnet50", "STAGE3", "layer4."),
        ("resnet50", "BACKBONE", "fc."),
        ("vit_b_16", "STAGE2", "encoder.layers.encoder_layer_6."),
        ("mobilenet_v3_large", "BACKBONE", "classifier.3."),
        ("yolov8n", "STAGE2", "backbone.to_p4."),
        ("yolov8_resnet18", "STAGE1", "backbone.layer2."),
        ("yolov8_mobilenet_v3_large", "BACKBONE", "lateral."),
    ],
)
def test_the_layers_up_to_a_stage_are_frozen_and_all_others_are_not(preset: str, freeze: str, first: str) -> None:
    model = without_storage(lambda: build_model(preset, 3))
    model_freeze(model, preset, freeze)
    names = [name for name, _ in model.named_parameters()]
    begin = next(n for n, name in enumerate(names) if name.startswith(first))
    assert [parameter.requires_grad for parameter in model.parameters()] == [n >= begin for n in range(len(names))]


@pytest.fixture(scope="module")
def whole(dataset: support.Json, start: support.Json, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An undisturbed run: with frozen layers, a backbone that hardly learns, dropout and all augmentation."""
    changes = {"freeze": "STAGE2", "backboneLearningRateFactor": 1e-6}
    changes |= {"rotation": 30, "hue": 0.1, "trivialAugment": 0.5, "mixUp": 0.5, "cutMix": 0.5, "erasing": 0.5}
    spec, folder = spec_of(dataset, changes, start), tmp_path_factory.mktemp("whole")
    return spec, folder, trained(folder, spec)


def test_frozen_layers_keep_their_weights_and_statistics(whole: Whole) -> None:
    spec, _, after = whole
    before = read_state(spec["init"]["file"])
    frozen = tuple(f"features.{n}." for n in range(4))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    learning = {name for name in before if not name.startswith(frozen)}
    assert changed <= learning
    assert {name for name in learning if name.endswith("running_mean")} <= changed
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before if name.endswith(".weight")}
    assert moved["classifier.3.weight"] > 1e-4
    assert max(by for name, by in moved.items() if name != "classifier.3.weight") < 1e-6


def test_with_dropout_and_all_augmentation_it_resumes_to_the_same_weights(whole: Whole, tmp_path: Path) -> None:
    spec, _, after = whole
    code, first = run_here(tmp_path / "1", spec, type="epoch", epoch=1)
    assert code == 75
    resume = str(tmp_path / "1" / first.of("checkpoint")[-1]["file"])
    assert first.of("checkpoint")[-1]["batch"] == 1
    again = trained(tmp_path / "2", {**spec, "resumeFrom": resume})
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_a_run_that_continues_with_fewer_frozen_layers_keeps_the_memory_of_the_others(
    dataset: support.Json, whole: Whole, tmp_path: Path
) -> None:
    (file,) = whole[1].glob("checkpoint-00002-*")
    trained(tmp_path, spec_of(dataset, {"epochs": 3}, {"from": "CHECKPOINT", "file": str(file)}))
    (file,) = tmp_path.glob("checkpoint-00003-*")
    optimizer = load_checkpoint(file).tensors["optimizer"]
    steps = Counter(int(step) for name, step in optimizer.items() if name.endswith("/step"))
    # Two batches an epoch: layers that were frozen have learned in the last one only.
    model = without_storage(lambda: build_model(PRESET, 10))
    model_freeze(model, PRESET, "STAGE2")
    learned = [parameter.requires_grad for parameter in model.parameters()]
    assert steps == {6: sum(learned), 2: len(learned) - sum(learned)}
