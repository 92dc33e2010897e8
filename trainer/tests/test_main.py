"""The process as the server sees it: exit codes, the process group, what is on which descriptor."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import support
from tests.conftest import Trained
from tests.support import Recorder, attempt, start
from whetstone_trainer import __main__ as module
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.protocol import ERROR_CODES, ImportModelSpec
from whetstone_trainer.protocol_json import SpecLine, build


def test_without_the_events_descriptor_it_says_what_it_is() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "whetstone_trainer"],
        cwd=support.TRAINER,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 64
    assert b"started by the Whetstone server" in ended.stderr


def test_onnx_runtime_sends_nothing_home_whatever_the_environment_says() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import os, whetstone_trainer; print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        cwd=support.TRAINER,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "0"},
        capture_output=True,
        check=True,
    )
    assert said.stdout == b"1\n"


@pytest.mark.parametrize("line", [b"hello\n", b'{"v":2}\n', b'{"v":1,"spec":{"kind":"TRAIN"}}\n'])
def test_a_bad_specification_ends_with_64_and_no_event(line: bytes) -> None:
    with start(line) as (process, lines):
        assert list(lines) == []
        assert process.wait() == 64


def test_a_work_folder_that_is_not_there_is_a_bad_specification(trained: Trained, tmp_path: Path) -> None:
    with start(support.spec_line(tmp_path / "none", trained.spec)) as (process, lines):
        assert list(lines) == []
        assert process.wait() == 64


def test_stdin_that_closes_kills_the_whole_group(trained: Trained, tmp_path: Path) -> None:
    with attempt(tmp_path, trained.spec) as running:
        running.wait_for("batch", phase="training")
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.end() == -signal.SIGKILL
        assert "done" not in [event["type"] for event in running.events]
        with pytest.raises(ProcessLookupError):
            os.killpg(running.process.pid, 0)


def test_a_whole_job_in_a_process_of_its_own(trained: Trained, tmp_path: Path) -> None:
    """EVALUATE of the ONNX file: events on descriptor 3 only, whatever the libraries print."""
    spec = support.evaluate_spec(trained.model("ONNX"), trained.spec["dataset"], batchSize=7)
    with attempt(tmp_path, spec) as running:
        assert running.end() == 0
        assert running.events[0]["pid"] == running.process.pid
        assert running.events[-1]["status"] == "ok"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (TrainerError("DATA_INVALID", "a"), "DATA_INVALID"),
        (ModuleNotFoundError("no", name="onnxscript"), "EXTRA_MISSING"),
        (OSError(5, "Input/output error"), "IO"),
        (OSError(28, "No space left on device"), "DISK_FULL"),
        (OSError(122, "Disk quota exceeded"), "DISK_FULL"),
        (TrainerError("DATA_INVALID", "I/O error: No space left on device (os error 28)"), "DATA_INVALID"),
        (torch.OutOfMemoryError("CUDA out of memory"), "OUT_OF_MEMORY"),
        (MemoryError(), "OUT_OF_MEMORY"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), "OUT_OF_MEMORY"),
        (KeyError("x"), "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_every_failure_is_an_error_event_and_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, code: str
) -> None:
    from whetstone_trainer import import_model

    def fails(spec: Any, events: Events) -> Any:
        raise failure

    monkeypatch.setattr(import_model, "run", fails)
    recorder = Recorder()
    (line,) = [
        json.loads(text)
        for text in (Path(support.TRAINER).parent / "test/fixtures/protocol/specs.jsonl")
        .read_text("utf-8")
        .splitlines()
        if "futureField" in text
    ]
    spec = SpecLine("job-1", 1, str(tmp_path), "IMPORT_MODEL", build(ImportModelSpec, line["spec"]))
    assert module.run(spec, Events(recorder, "job-1", 1, tmp_path)) == ERROR_CODES[code]
    (error,) = recorder.events
    assert (error["type"], error["code"]) == ("error", code)
    assert error["retryable"] == (code in ("IO", "DISK_FULL"))
    assert (error["hint"] is not None) == (code in ("OUT_OF_MEMORY", "EXTRA_MISSING"))
