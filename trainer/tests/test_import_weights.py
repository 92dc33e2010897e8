"""Weights from outside: they become safetensors and nothing of them runs; and the limits of reading any file."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support import Json, import_file
from tests.test_evaluate import small_onnx
from whetstone_trainer import inspect_file
from whetstone_trainer.checkpoint import State
from whetstone_trainer.model import build_model, read_state, weights_hash
from whetstone_trainer.protocol_json import validator


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(3)
    return dict(build_model("resnet50", 4).state_dict())


WRITERS: dict[str, Callable[[State, Path], Any]] = {
    "safetensors": lambda state, path: save_file(state, path.with_suffix(".safetensors")),
    "pt": lambda state, path: torch.save(state, path.with_suffix(".pt")),
    "wrapped": lambda state, path: torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        path.with_suffix(".pth"),
    ),
}


def read_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path, preset: str = "resnet50") -> Json:
    """What the child would write into `result.json`, without a child: PyTorch takes seconds to start."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return inspect_file.read_file({"file": str(file), "ending": file.suffix, "preset": preset})


@pytest.mark.parametrize("form", WRITERS)
def test_weights_of_a_preset_become_safetensors(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    WRITERS[form](state, tmp_path / "weights")
    (path,) = tmp_path.glob("weights.*")
    result = read_here(monkeypatch, tmp_path, path)
    stored = read_state(tmp_path / "folder" / "weights.safetensors")
    assert weights_hash(stored) == result["meta"]["weightsHash"] == weights_hash(state)
    assert result["meta"]["classCount"] == 4
    assert result["warnings"] == (["The prefix module. was taken off the names."] if form == "wrapped" else [])


def renamed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
FOUND: dict[str, Callable[[State], Any]] = {
    "compiled, then in parallel": lambda s: renamed(s, "module._orig_mod."),
    "in parallel, then compiled": lambda s: renamed(s, "_orig_mod.module."),
    "of a Lightning module": lambda s: {
        "state_dict": renamed(s, "model."),
        "optimizer_states": [OPTIMIZER],
        "epoch": 1,
    },
    "compiled in a Lightning module": lambda s: {"state_dict": renamed(s, "model._orig_mod."), "loops": {}},
    "averaged, not the last": lambda s: {"state_dict": {n: t * 0 for n, t in s.items()}, "state_dict_ema": s},
    "averaged by PyTorch": lambda s: {**renamed(s, "module."), "n_averaged": torch.tensor(5)},
    "ema": lambda s: {"ema": s, "optimizer": OPTIMIZER},
    "net": lambda s: {"net": s, "acc": 0.9, "epoch": 3},
    "model in a checkpoint": lambda s: {"checkpoint": {"model": s}, "optimizer": OPTIMIZER},
    "under another name": lambda s: {"weights_of_the_best_epoch": s, "step": 3},
}


@pytest.mark.parametrize("form", FOUND)
def test_weights_are_found_where_training_scripts_put_them(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    torch.save(FOUND[form](state), tmp_path / "weights.pt")
    result = read_here(monkeypatch, tmp_path, tmp_path / "weights.pt")
    assert result["meta"]["weightsHash"] == weights_hash(state)
    chosen = [warning for warning in result["warnings"] if "were taken" in warning]
    assert chosen == (
        ["The weights under state_dict_ema were taken, not those under state_dict."] if "not the last" in form else []
    )


@pytest.mark.parametrize("name", ["a.ckpt", "pytorch_model.bin", "model_best.pth.tar", "A.PTH"])
def test_the_usual_endings_of_state_dicts_are_read(state: State, tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": state}, tmp_path / "weights")
    code, recorder = import_file(tmp_path, tmp_path / "weights", name=name, preset="resnet50")
    assert (code, recorder.events[-1].get("result")) == (0, {"format": "CHECKPOINT"})


def test_without_proc_as_on_macos_a_model_is_imported(tmp_path: Path) -> None:
    """The job and its child in a mount namespace whose /proc is empty."""
    hidden = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if subprocess.run([*hidden, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine makes no mount namespaces")
    small_onnx(tmp_path / "model.onnx")
    script = (
        "import pathlib, sys; from tests.support import import_file;"
        "assert not pathlib.Path('/proc/self').exists();"
        "folder = pathlib.Path(sys.argv[1]); code, recorder = import_file(folder, folder / 'model.onnx');"
        "print(code, recorder.events[-1])"
    )
    command = [*hidden, sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert ended.stdout.startswith("0 "), ended.stdout


def test_an_imported_state_dict_is_an_artifact(state: State, tmp_path: Path) -> None:
    WRITERS["pt"](state, tmp_path / "weights")
    code, recorder = import_file(tmp_path, tmp_path / "weights.pt", preset="resnet50")
    assert code == 0
    (artifact,) = recorder.of("artifact")
    assert not list(validator("WeightsMeta").iter_errors(artifact["meta"]))
    assert (artifact["kind"], artifact["file"]) == ("WEIGHTS", "weights.safetensors")
    assert weights_hash(read_state(tmp_path / "work" / artifact["file"])) == weights_hash(state)
    assert recorder.events[-1]["result"] == {"format": "CHECKPOINT"}


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path) -> None:
    path, target = tmp_path / "weights.pt", tmp_path / "was-here"
    torch.save({"fc.weight": Attack(target)}, path)
    code, recorder = import_file(tmp_path, path, preset="resnet50")
    error = recorder.events[-1]
    assert (code, error["code"]) == (65, "MODEL_UNSAFE")
    assert "state_dict" in error["hint"]
    assert not target.exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_weights_of_a_detector_say_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = dict(build_model("yolov8n", 7).state_dict())
    torch.save(state, tmp_path / "weights.pt")
    meta = read_here(monkeypatch, tmp_path, tmp_path / "weights.pt", "yolov8n")["meta"]
    assert (meta["classCount"], meta["weightsHash"]) == (7, weights_hash(state))


@pytest.mark.parametrize("kind", ["module", "torchscript"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_whole_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "model.pt"
    if kind == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    error = read_here(monkeypatch, tmp_path, path)["error"]
    assert error["code"] == "MODEL_UNSAFE"
    assert "torch.save(model.state_dict(), file)" in error["hint"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "extra": torch.ones(1)}, "1 tensors are unexpected (extra)"),
        (lambda s: {n: t for n, t in s.items() if n != "bn1.bias"}, "1 tensors are missing (bn1.bias)"),
        (lambda s: {**s, "bn1.bias": torch.ones(3)}, "of another shape (bn1.bias: [3], expected [64])"),
        (lambda s: {**s, "bn1.bias": torch.full((64,), float("inf"))}, "bn1.bias has values that are not finite"),
        (lambda s: {name: tensor for name, tensor in s.items() if not name.startswith("fc.")}, "no tensor fc.weight"),
        (lambda s: {**s, "bn1.bias": torch.ones(64).to_sparse()}, "Sparse and quantised"),
        (lambda s: {}, "no tensor fc.weight"),
        (
            lambda s: {"features.0.weight": torch.ones(1)},
            "Their names are features.0.weight; those of resnet50 are conv1.",
        ),
        (lambda s: {"a": 1}, "It holds a."),
        (lambda s: {"student": s, "teacher": s}, "nor does it hold exactly one. It holds student, teacher."),
        (lambda s: [1, 2], "not a state dict"),
    ],
)
def test_weights_that_do_not_fit_are_described(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[State], Any], message: str
) -> None:
    torch.save(change(state), tmp_path / "weights.pt")
    error = read_here(monkeypatch, tmp_path, tmp_path / "weights.pt")["error"]
    assert error["code"] == "WEIGHTS_INVALID"
    assert message in error["message"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_half_precision_is_stored_as_single_and_said(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({name: t.half() if t.is_floating_point() else t for name, t in state.items()}, tmp_path / "w.safetensors")
    result = read_here(monkeypatch, tmp_path, tmp_path / "w.safetensors")
    assert result["warnings"] == ["The weights were float16 and are stored as float32."]
    assert read_state(tmp_path / "folder" / "weights.safetensors")["fc.weight"].dtype == torch.float32


def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    assert read_here(monkeypatch, tmp_path, tmp_path / "w.safetensors")["error"]["code"] == "WEIGHTS_INVALID"


def test_a_file_that_takes_too_much_memory_is_stopped(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    code, recorder = import_file(tmp_path, tmp_path / "w.safetensors", preset="resnet50", memoryBytesMax=40 * 2**20)
    assert (code, recorder.events[-1]["code"]) == (65, "LIMIT_EXCEEDED")
    assert recorder.of("artifact") == []


def test_a_file_that_writes_too_much_is_stopped(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    code, _ = import_file(tmp_path, tmp_path / "w.safetensors", preset="resnet50", outputBytesMax=2**20)
    assert code in (65, 74)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_file_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    """A pipe that nobody writes to: reading it would never end."""
    os.mkfifo(tmp_path / "endless.pt")
    code, recorder = import_file(tmp_path, tmp_path / "endless.pt", preset="resnet50", secondsMax=1)
    assert (code, recorder.events[-1]["code"]) == (65, "LIMIT_EXCEEDED")
    assert "1 s" in recorder.events[-1]["message"]


@pytest.mark.parametrize(
    ("name", "preset", "code"), [("model.exe", None, "MODEL_INVALID"), ("weights.pt", None, "SPEC_INVALID")]
)
def test_what_cannot_be_read_is_said_at_once(tmp_path: Path, name: str, preset: str | None, code: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    _, recorder = import_file(tmp_path, tmp_path / "file", name=name, preset=preset)
    assert recorder.events[-1]["code"] == code
