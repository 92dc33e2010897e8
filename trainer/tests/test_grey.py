"""Models of one channel: their weights, a training with its conversion, and what a package of them answers."""

from pathlib import Path

import onnx
import pytest
import torch

from tests import support
from tests.conftest import train_and_convert
from tests.support import run_here, train_spec
from whetstone_trainer.checkpoint import save_tensors
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.model import build_model, fit
from whetstone_trainer.preprocess import normalise
from whetstone_trainer.protocol import PreprocessSpec
from whetstone_trainer.protocol_json import build

GREY = support.preprocess(channels="GREY", mean=[0.45], std=[0.226])
PRESET = "mobilenet_v3_small"


def spec_of(dataset: support.Json, **changes: object) -> support.Json:
    parameters = {"epochs": 1, "batchSize": 4, "channels": "GREY", "rotation": 10}
    return train_spec(dataset, parameters, preset=PRESET, preprocess=GREY, **changes)


@pytest.mark.parametrize("preset", [PRESET, pytest.param("yolov8_resnet18", marks=pytest.mark.long)])
def test_weights_for_colours_answer_the_same_on_a_grey_image_in_one_channel(preset: str) -> None:
    torch.manual_seed(0)
    colours = build_model(preset, 3)
    state, new = fit(dict(colours.state_dict()), preset, 3, replace_head=True, channels=1)
    assert new == ()
    grey = build_model(preset, 3, channels=1)
    grey.load_state_dict(state)
    image = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        found, wanted = grey.eval()(image), colours.eval()(image.expand(2, 3, 64, 64))
    for one, other in zip(*((part if isinstance(part, tuple) else (part,)) for part in (found, wanted)), strict=True):
        assert torch.allclose(one, other, atol=1e-3)
    # Only where a training starts: a version of it is what it is.
    with pytest.raises(TrainerError, match="1 tensors are of another shape"):
        fit(dict(colours.state_dict()), preset, 3, replace_head=False, channels=1)


def test_a_grey_pixel_keeps_its_level() -> None:
    spec = build(PreprocessSpec, {**GREY, "mean": [0], "std": [1 / 255]})
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    assert torch.allclose(normalise(levels, spec)[0, 0, 0], torch.arange(256.0), atol=1e-3)


@pytest.mark.long
def test_a_training_in_grey_starts_from_weights_for_colours(tmp_path: Path) -> None:
    dataset = support.write_digits(tmp_path / "digits", 8, 4)
    torch.manual_seed(1)
    save_tensors(tmp_path / "colours.safetensors", dict(build_model(PRESET, 10).state_dict()), {})
    init = {"from": "WEIGHTS", "file": str(tmp_path / "colours.safetensors"), "classes": dataset["classes"]}
    code, recorder = run_here(tmp_path / "run", spec_of(dataset, init=init))
    assert code == 0, recorder.events[-1]
    assert recorder.of("warning") == []


@pytest.mark.long
def test_a_model_of_one_channel_is_exported_within_the_tolerance_and_compressed(tmp_path: Path) -> None:
    dataset = support.write_digits(tmp_path / "digits", 96, 16)
    made = train_and_convert(tmp_path / "run", spec_of(dataset))
    assert made.exit_code == 0, made.events[-1]
    (gate,) = [event["numbers"] for event in made.conversion if event["type"] == "gate"]
    assert (gate["problems"], gate["images"], gate["beyondTolerance"]) == ([], 16, 0)
    (port,) = onnx.load(str(made.path("ONNX"))).graph.input
    assert [dim.dim_value for dim in port.type.tensor_type.shape.dim][1:] == [1, 32, 32]
    for precision in ("FP16", "INT8"):
        spec = support.compress_spec(made.model("ONNX"), dataset, precision, budget=100)
        code, recorder = run_here(tmp_path / precision, spec)
        assert code == 0, recorder.events[-1]
