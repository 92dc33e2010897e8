"""What a TRAIN job cannot do: it ends with a code, or says what it does instead."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import support
from tests.support import run_here, train_spec
from whetstone_trainer import public_weights
from whetstone_trainer.model import build_model


def test_a_loss_that_is_not_finite_ends_it(digits: support.Json, tmp_path: Path) -> None:
    """No learning rate makes it so on every processor: the weights do."""
    classes = digits["classes"]
    weights = build_model("resnet18", len(classes)).state_dict()
    weights["fc.weight"] *= 1e38
    save_file(weights, tmp_path / "large.safetensors")
    init = {"from": "WEIGHTS", "file": str(tmp_path / "large.safetensors"), "classes": classes}
    code, recorder = run_here(tmp_path / "work", train_spec(digits, init=init))
    error = recorder.events[-1]
    assert (code, error["code"], error["retryable"]) == (65, "DIVERGED", False)
    assert "learningRate" in error["hint"]


def test_public_weights_that_cannot_be_had_end_it_before_any_image_is_read(
    digits: support.Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(public_weights, "address", lambda preset: f"http://127.0.0.1:9/{preset}")
    spec = train_spec(digits, init={"from": "PRETRAINED", "file": None})
    code, recorder = run_here(tmp_path / "work", spec)
    assert (code, recorder.events[-1]["code"]) == (69, "WEIGHTS_UNAVAILABLE")
    assert [event["phase"] for event in recorder.of("phase")] == ["weights"]


def test_a_bad_image_is_named(tmp_path: Path) -> None:
    dataset = support.write_digits(tmp_path / "data", 20, 4)
    support.damage(dataset, 5)
    code, recorder = run_here(tmp_path / "work", train_spec(dataset))
    assert (code, recorder.events[-1]["code"]) == (65, "DATA_INVALID")
    assert "/0005.png is damaged in the stored dataset" in recorder.events[-1]["message"]
    assert str(tmp_path) not in recorder.events[-1]["message"]


def test_one_training_image_is_too_few(digits: support.Json, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    lines = Path(digits["manifest"]).read_text("utf-8").splitlines()
    manifest.write_text("\n".join([lines[0], *lines[240:]]) + "\n", "utf-8")
    code, recorder = run_here(tmp_path, train_spec({**digits, "manifest": str(manifest)}))
    assert (code, recorder.events[-1]["code"]) == (65, "DATA_INVALID")


def test_cuda_that_is_not_there_is_said(digits: support.Json, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, recorder = run_here(tmp_path, train_spec(digits, device="cuda"))
    assert (code, recorder.events[-1]["code"]) == (69, "DEVICE_UNAVAILABLE")


def test_a_gpu_of_the_slot_that_cannot_be_used_is_said(
    digits: support.Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    for device, warnings in (("auto", ["GPU_UNUSED"]), ("cpu", [])):
        _, recorder = run_here(tmp_path / device, train_spec(digits, device=device), phase="caching")
        assert [event["code"] for event in recorder.of("warning")] == warnings
