"""Weights: their hash, and whether they fit the preset."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import preprocess
from whetstone_trainer.checkpoint import State
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.model import build_model, expected_state, fit, macs, read_state, weights_hash
from whetstone_trainer.protocol import PreprocessSpec
from whetstone_trainer.protocol_json import build


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return dict(build_model("resnet50", 10).state_dict())


def test_the_hash_is_the_same_in_any_order_and_format(tmp_path: Path) -> None:
    weights = {"b": torch.arange(16.0).reshape(1, 2, 2, 4), "a": torch.tensor([1, 2])}
    digest = weights_hash(weights)
    save_file(weights, tmp_path / "w.safetensors", {"note": "other bytes"})
    torch.save(weights, tmp_path / "w.pt")
    channels_last = {**weights, "b": weights["b"].to(memory_format=torch.channels_last)}
    for same in (
        load_file(tmp_path / "w.safetensors"),
        torch.load(tmp_path / "w.pt", weights_only=True),
        dict(reversed(weights.items())),
        channels_last,
    ):
        assert weights_hash(same) == digest


def test_the_hash_tells_names_types_shapes_and_values_apart() -> None:
    zeros = torch.zeros(2, 3)
    others = [{"a": zeros}, {"b": zeros}, {"a": zeros.reshape(3, 2)}, {"a": zeros.int()}, {"a": torch.eye(2, 3)}]
    others.append({"a": zeros, "b": zeros})
    assert len({weights_hash(other) for other in others}) == 6


def test_fitting_weights_stay_as_they_are(state: State) -> None:
    fitted, new_head = fit(state, "resnet50", 10, replace_head=True)
    assert not new_head
    assert weights_hash(fitted) == weights_hash(state)


def test_old_state_dicts_have_no_counters(state: State) -> None:
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    fitted, _ = fit(old, "resnet50", 10, replace_head=False)
    assert weights_hash(fitted) == weights_hash(state)


def test_half_precision_becomes_single(state: State) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    fitted, _ = fit(half, "resnet50", 10, replace_head=False)
    assert {tensor.dtype for tensor in fitted.values()} == {torch.float32, torch.int64}


def test_another_classifier_is_left_out_only_where_that_is_wanted(state: State) -> None:
    fitted, new_head = fit(state, "resnet50", 3, replace_head=True)
    assert new_head
    assert not {"fc.weight", "fc.bias"} & fitted.keys()
    without = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    assert fit(without, "resnet50", 3, replace_head=True)[1]
    with pytest.raises(TrainerError, match="2 tensors are of another shape") as caught:
        fit(state, "resnet50", 3, replace_head=False)
    assert caught.value.details == (
        "of another shape fc.weight: [10, 2048], expected [3, 2048]",
        "of another shape fc.bias: [10], expected [3]",
    )


def test_what_is_missing_and_unexpected_is_named_up_to_ten(state: State) -> None:
    renamed = {f"body.{name}" if name.startswith("layer1") else name: tensor for name, tensor in state.items()}
    with pytest.raises(TrainerError, match=r"50 tensors are missing .*, 60 tensors are unexpected") as caught:
        fit(renamed, "resnet50", 10, replace_head=True)
    assert caught.value.code == "WEIGHTS_INVALID"
    assert caught.value.details[0] == "missing layer1.0.conv1.weight"
    assert caught.value.details[10] == "unexpected body.layer1.0.conv1.weight"
    assert len(caught.value.details) == 20


def test_values_must_be_finite(state: State) -> None:
    broken = {**state, "fc.bias": torch.full((10,), float("nan"))}
    with pytest.raises(TrainerError, match=r"fc\.bias has values that are not finite"):
        fit(broken, "resnet50", 10, replace_head=False)


def test_an_unknown_preset_is_a_mistake_in_the_specification() -> None:
    with pytest.raises(TrainerError) as caught:
        build_model("resnet51", 10)
    assert caught.value.code == "SPEC_INVALID"


def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff" * 100)
    for file in (tmp_path / "x", tmp_path / "none"):
        with pytest.raises(TrainerError, match="not a readable safetensors file"):
            read_state(file)


def test_the_expected_state_takes_no_memory() -> None:
    assert {tensor.device.type for tensor in expected_state("resnet50", 7).values()} == {"meta"}


def test_the_work_of_a_model_grows_with_the_image_and_its_parameters_do_not() -> None:
    at_224 = macs("resnet50", 1000, build(PreprocessSpec, preprocess(224)))
    assert at_224 == pytest.approx(4.09e9, rel=0.01)
    assert macs("resnet50", 10, build(PreprocessSpec, preprocess(32))) < at_224 / 40
    small, large = (macs("yolov8n", 80, build(PreprocessSpec, preprocess(size))) for size in (320, 640))
    assert large == pytest.approx(4 * small, rel=0.01)
