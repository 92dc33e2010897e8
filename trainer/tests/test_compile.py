"""Trainings whose model is compiled. The quick tests trace the model, and leave its operations as they are."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests import support
from whetstone_trainer import toolchain
from whetstone_trainer.model import build_model, train_mode
from whetstone_trainer.protocol import SCHEMA


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> support.Json:
    # Three batches of 8 in an epoch; an incomplete fourth one is left out.
    return support.write_digits(tmp_path_factory.mktemp("digits"), 28, 8)


def spec_of(digits: support.Json, **hyperparameters: Any) -> support.Json:
    asked = {"batchSize": 8, "epochs": 2, "warmupSteps": 2, "compile": True, **hyperparameters}
    return support.train_spec(digits, asked)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The compiled models; nothing is made into machine code, so any program will do as a compiler."""
    monkeypatch.setenv("CXX", sys.executable)
    made: list[Any] = []
    real = torch.compile

    @functools.wraps(real)
    def compile(model: Any, **options: Any) -> Any:
        made.append(real(model, backend="eager", **options))
        return made[-1]

    monkeypatch.setattr(torch, "compile", compile)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return made


def weights_of(recorder: support.Recorder) -> str:
    return str(recorder.of("artifact")[0]["meta"]["weightsHash"])


def test_it_is_compiled_once_before_the_first_batch_and_leaves_the_state_alone(
    digits: support.Json, traced: list[Any], tmp_path: Path
) -> None:
    code, compiled = support.run_here(tmp_path / "compiled", spec_of(digits))
    assert (code, len(traced)) == (0, 1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    phases = [event["phase"] for event in compiled.of("phase")]
    assert phases[:5] == ["weights", "compilation", "caching", "caching", "training"]
    assert compiled.events[0]["environment"]["compiler"] == toolchain.name("cpu")

    # A checkpoint of a compiled run is of another run: the plain one starts from zero.
    file = tmp_path / "compiled" / compiled.of("checkpoint")[-1]["file"]
    code, plain = support.run_here(tmp_path / "plain", {**spec_of(digits, compile=False), "resumeFrom": str(file)})
    assert (code, plain.events[0]["resumed"]) == (0, None)
    assert "compiler" not in plain.events[0]["environment"]
    # The operations are those of the plain training, so the whole run is.
    assert weights_of(compiled) == weights_of(plain)

    with safe_open(file, "pt") as checkpoint:
        assert not [key for key in checkpoint.keys() if "_orig_mod" in key]  # noqa: SIM118 (it is no dict)


def test_a_missing_compiler_ends_it_before_any_work(
    digits: support.Json, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, recorder = support.run_here(tmp_path, spec_of(digits))
    error = recorder.events[-1]
    assert (code, error["code"], error["retryable"]) == (69, "COMPILER_MISSING", False)
    assert "C++ compiler is missing on the server (no-such-compiler)" in error["message"]
    assert not recorder.of("phase")


def test_the_server_asks_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(**environment: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "whetstone_trainer.toolchain", "cpu"]
        told = subprocess.run(
            command, cwd=support.TRAINER, capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )
        return told.returncode, told.stderr

    assert ask(CXX=sys.executable) == (0, "")
    code, said = ask(CXX="no-such-compiler")
    assert (code, said.count("\n")) == (1, 1)
    assert "g++" in said
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": "/nowhere"})
    assert "Python.h" in str(toolchain.problem("cpu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "triton" in str(toolchain.problem("cuda"))


def test_a_compiler_that_fails_ends_it_with_a_plain_message(
    digits: support.Json, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "false"))
    code, recorder = support.run_here(tmp_path, spec_of(digits))
    error = recorder.events[-1]
    assert (code, error["code"]) == (70, "COMPILE_FAILED")
    assert error["message"].startswith("PyTorch could not compile the model resnet18 (")
    assert "\n" not in error["message"]


# ------------------------------------------------------------------------------------------------------------ compiled


@pytest.mark.long
def test_compiled_code_resumes_bit_by_bit_and_trains_as_well(digits: support.Json, tmp_path: Path) -> None:
    # It has dropout, so random numbers count.
    spec = {**spec_of(digits, accumulate=2), "preset": "mobilenet_v3_small", "checkpointSeconds": 0}
    outside = [tmp_path / "home", tmp_path / "temporary"]
    for folder in outside:
        folder.mkdir()
    home, temporary = map(str, outside)
    with support.attempt(tmp_path / "whole", {**spec, "workers": 1}, HOME=home, TMPDIR=temporary) as whole:
        assert whole.end() == 0
    expected = whole.of("artifact")[0]["meta"]["weightsHash"]

    with support.attempt(tmp_path / "first", spec) as first:
        first.wait_for("checkpoint", epoch=0, batch=1)
        first.send("suspend")
        assert first.end() == 75
    left = first.of("checkpoint")[-1]
    # In the middle of an epoch, and of an optimizer step.
    assert left["epoch"] == 0
    resume = str(tmp_path / "first" / left["file"])
    with support.attempt(tmp_path / "second", {**spec, "resumeFrom": resume}) as second:
        assert second.end() == 0
    assert second.of("hello")[0]["resumed"] == {"epoch": 0, "batch": left["batch"]}
    assert second.of("artifact")[0]["meta"]["weightsHash"] == expected

    _, plain = support.run_here(
        tmp_path / "plain", {**spec, "hyperparameters": {**spec["hyperparameters"], "compile": False}}
    )
    losses = [run.of("epoch")[-1]["metrics"]["train.loss"] for run in (whole, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    # Each kernel moved the step, and nothing was written elsewhere.
    assert [event for event in whole.of("batch") if event["phase"] == "compilation"]
    assert any((tmp_path / "whole" / "compiled").rglob("*.so"))
    assert [list(folder.iterdir()) for folder in outside] == [[], []]
    assert not any((tmp_path / "whole" / "compiled").rglob("*.gch"))


@pytest.mark.long
@pytest.mark.parametrize("command", ["cancel", "suspend"])
def test_it_stops_while_the_compiler_works(command: str, digits: support.Json, tmp_path: Path) -> None:
    with support.attempt(tmp_path / "work", spec_of(digits)) as attempt:
        attempt.wait_for("batch", phase="compilation")
        told = time.monotonic()
        attempt.send(command)
        assert attempt.end() == 75
        assert time.monotonic() - told < 5
        assert attempt.events[-1]["status"] == {"cancel": "cancelled", "suspend": "suspended"}[command]
        # As the server does when an attempt has ended.
        try:
            os.killpg(attempt.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        else:
            while (
                subprocess.run(
                    ["pgrep", "-g", str(attempt.process.pid)], check=False, stdout=subprocess.DEVNULL
                ).returncode
                == 0
            ):
                assert time.monotonic() - told < 15
                time.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize("preset", sorted(SCHEMA["classifiers"] | SCHEMA["detectors"]))
def test_each_preset_is_one_graph(preset: str) -> None:
    if preset.startswith("timm:"):
        pytest.importorskip("timm")
    torch._dynamo.reset()
    model = build_model(preset, 3)
    train_mode(model)
    # Transformers take no other size.
    size = 64 if preset in SCHEMA["detectors"] else 224
    images = torch.zeros(2, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.compile(model, backend="eager", fullgraph=True, dynamic=False)(images)
