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
    """A whole job TRAIN of two epochs, undisturbed, conversion included."""

    spec: support.Json
    work_dir: Path
    exit_code: int
    events: list[support.Json]

    def artifact(self, kind: str) -> support.Json:
        (found,) = [event for event in self.events if event["type"] == "artifact" and event["kind"] == kind]
        return found

    def path(self, kind: str) -> Path:
        return self.work_dir / str(self.artifact(kind)["file"])

    def model(self, format: str) -> support.Json:
        """A ModelRef of its checkpoint or its ONNX."""
        file = self.path("WEIGHTS" if format == "CHECKPOINT" else "ONNX")
        return {
            "format": format,
            "file": str(file),
            "task": "CLASSIFICATION",
            "preset": "resnet50",
            "classes": self.spec["dataset"]["classes"],
            "preprocess": self.spec["preprocess"],
            "outputLayout": None,
        }


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Trained:
    """Made by the first process of pytest-xdist that asks for it; the others read it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "trained"
    said = folder / "events.json"
    with FileLock(f"{folder}.lock"):
        if not said.exists():
            spec = support.train_spec(support.write_digits(folder / "digits", 240, 60), {"epochs": 2})
            exit_code, recorder = support.run_here(folder, spec)
            said.write_text(json.dumps([spec, exit_code, recorder.events]), "utf-8")
    spec, exit_code, events = json.loads(said.read_text("utf-8"))
    return Trained(spec, folder, exit_code, events)
