"""What several files of tests share: one training on real digits."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from tests import support

# The exporter's trace, thousands of lines that pytest would keep and print under each failure.
logging.getLogger("torch.__trace").disabled = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `long` run only when asked for with -m."""
    if config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session", autouse=True)
def untraced_exporter() -> Iterator[None]:
    """Coverage does not follow PyTorch's exporter, which is not ours: an export takes 10 s in place of 20."""
    export = torch.onnx.export

    def untraced(*args: Any, **named: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return export(*args, **named)
        finally:
            sys.settrace(tracer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", untraced)
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> support.Json:
    """300 digits, 240 of them to train."""
    return support.write_digits(tmp_path_factory.mktemp("digits"), 240, 60)


@dataclass(frozen=True)
class Trained:
    """A whole job TRAIN of two epochs, undisturbed, and the job CONVERT that follows it."""

    spec: support.Json
    work_dir: Path
    exit_code: int
    events: list[support.Json]
    conversion: list[support.Json]

    def artifact(self, kind: str) -> support.Json:
        """Of the training, or else of the conversion."""
        return next(e for e in (*self.events, *self.conversion) if e["type"] == "artifact" and e["kind"] == kind)

    def path(self, kind: str) -> Path:
        folder = self.work_dir / "conversion" if kind in ("ONNX", "PROBE") else self.work_dir
        return folder / str(self.artifact(kind)["file"])

    def model(self, format: str) -> support.Json:
        """A ModelRef of its checkpoint or its ONNX."""
        path = self.path("WEIGHTS" if format == "CHECKPOINT" else "ONNX")
        return model_ref(self.spec, format, path)


def model_ref(spec: support.Json, format: str, path: Path) -> support.Json:
    """What a training of this specification has made, as another job reads it."""
    return {
        "format": format,
        "file": str(path),
        "task": "DETECTION" if spec["preset"].startswith("yolo") else "CLASSIFICATION",
        "preset": spec["preset"],
        "classes": spec["dataset"]["classes"],
        "preprocess": spec["preprocess"],
        "outputLayout": None,
    }


def train_and_convert(folder: Path, spec: support.Json) -> Trained:
    exit_code, recorder = support.run_here(folder, spec)
    model = model_ref(spec, "CHECKPOINT", folder / "weights.safetensors")
    _, converted = support.run_here(folder / "conversion", support.convert_spec(model, spec["dataset"]))
    return Trained(spec, folder, exit_code, recorder.events, converted.events)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Trained:
    """Made by the first process of pytest-xdist that asks for it; the others read it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "trained"
    said = folder / "trained.json"
    with FileLock(f"{folder}.lock"):
        if not said.exists():
            spec = support.train_spec(support.write_digits(folder / "digits", 240, 60), {"epochs": 2})
            made = train_and_convert(folder, spec)
            said.write_text(json.dumps([spec, made.exit_code, made.events, made.conversion]), "utf-8")
    spec, exit_code, events, conversion = json.loads(said.read_text("utf-8"))
    return Trained(spec, folder, exit_code, events, conversion)
