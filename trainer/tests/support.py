"""Real digits as image files, specifications, and attempts run as the server runs them."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from scenes import png, write_images
from whetstone_trainer.__main__ import run
from whetstone_trainer.events import Events
from whetstone_trainer.protocol import LINE_BYTES_MAX, SCHEMA
from whetstone_trainer.protocol_json import read_spec_line, validator
from whetstone_trainer.stored_images import ROW

TRAINER = Path(__file__).parents[1]
Json = dict[str, Any]


def write_digits(folder: Path, train: int, val: int) -> Json:
    """The first `train` + `val` of scikit-learn's 1,797 digits in a seeded order, 8 × 8 PNGs. Returns a DatasetRef."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    lines, files = [], {}
    for n, index in enumerate(order[: train + val]):
        label, split = int(digits.target[index]), "train" if n < train else "val"
        path = f"{split}/{label}/{n:04d}.png"
        files[path] = png((digits.images[index] * (255 / 16)).astype(np.uint8))
        item = {"n": n, "split": split, "path": path, "sha256": "0" * 64, "width": 8, "height": 8}
        lines.append(json.dumps({**item, "label": label, "boxes": None}))
    images = write_images(folder, files)
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    return {
        **images,
        "manifest": str(manifest),
        "classes": [str(digit) for digit in range(10)],
        "contentHash": hashlib.sha256(manifest.read_bytes()).hexdigest(),
    }


def damage(dataset: Json, n: int) -> None:
    """Changes a byte of image `n` on the disk."""
    with Path(dataset["images"]).open("rb") as table:
        rows = np.frombuffer(table.read()[:-8], ROW)
    with Path(dataset["zip"]).open("r+b") as archive:
        archive.seek(int(rows[n]["offset"]) + int(rows[n]["stored"]) // 2)
        (byte,) = archive.read(1)
        archive.seek(-1, os.SEEK_CUR)
        archive.write(bytes([byte ^ 0xFF]))


def defaults(task: str = "Classification") -> Json:
    """The hyperparameters as the protocol presets them."""
    fields = SCHEMA["$defs"][f"{task}Hyperparameters"]["properties"]
    return {name: field["default"] for name, field in fields.items()}


def preprocess(size: int = 32, **changes: Any) -> Json:
    return {
        "version": 1,
        "width": size,
        "height": size,
        "mode": "CROP",
        "cropFraction": 1,
        "padColor": [114, 114, 114],
        "channels": "RGB",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "layout": "NCHW",
        **changes,
    }


def common(kind: str) -> Json:
    return {"kind": kind, "specVersion": 1, "codeVersion": "test", "cpuThreads": 2}


def computing(kind: str) -> Json:
    return {**common(kind), "device": "cpu", "seed": 0}


CONVERSION = {"opset": 18, "relativeTolerance": 1e-4}


def train_spec(dataset: Json, hyperparameters: Json | None = None, **changes: Any) -> Json:
    """A short training at 32 px; no flips, since digits have a left and a right."""
    return {
        **computing("TRAIN"),
        "processes": 1,
        "preset": "resnet18",
        "dataset": dataset,
        "preprocess": preprocess(),
        "hyperparameters": {**defaults(), "imageSize": 32, "flip": 0, **(hyperparameters or {})},
        "init": {"from": "SCRATCH"},
        "resumeFrom": None,
        "checkpointSeconds": 60,
        "cacheBytesMax": 2**30,
        "cacheDiskBytesMax": 0,
        "workers": None,
        "stopAfterEpoch": None,
        **changes,
    }


def convert_spec(model: Json, dataset: Json | None, **changes: Any) -> Json:
    return {**computing("CONVERT"), "model": model, "dataset": dataset, "conversion": CONVERSION, **changes}


def compress_spec(model: Json, dataset: Json | None, precision: str, budget: float = 1, **calibration: Any) -> Json:
    settings = {"method": "MINMAX", "images": 96, **calibration} if precision == "INT8" else None
    compression = {"precision": precision, "budget": budget, "calibration": settings}
    return {**computing("COMPRESS"), "model": model, "dataset": dataset, "compression": compression, "recover": None}


def evaluate_spec(model: Json, dataset: Json, split: str = "val", **changes: Any) -> Json:
    asked = {"split": split, "batchSize": 32, "testTimeAugmentation": "NONE", **changes}
    return {**computing("EVALUATE"), "model": model, "dataset": dataset, **asked}


def detector_spec(dataset: Json, size: int, hyperparameters: Json | None = None, **changes: Any) -> Json:
    """A training of the smallest detector; no flips, since digits have a left and a right."""
    return {
        **train_spec(dataset),
        "preset": "yolov8n",
        "preprocess": preprocess(size, mode="LETTERBOX", mean=[0, 0, 0], std=[1, 1, 1]),
        "hyperparameters": {**defaults("Detection"), "imageSize": size, "flip": 0, **(hyperparameters or {})},
        **changes,
    }


IMPORT_LIMITS = {"memoryBytesMax": 2 * 2**30, "outputBytesMax": 2**30, "secondsMax": 120}


def import_spec(
    file: Path, name: str | None = None, preset: str | None = None, data: Json | None = None, **limits: int
) -> Json:
    return {
        **common("IMPORT_MODEL"),
        "file": str(file),
        "fileName": name or file.name,
        "preset": preset,
        "data": data,
        "limits": {**IMPORT_LIMITS, **limits},
    }


class Recorder:
    """A stream that keeps the events written to it and checks each against the protocol's schema."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self.written = threading.Condition()
        self.listener: Callable[[Json], None] = lambda event: None

    def write(self, line: bytes, /) -> None:
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert len(line) <= LINE_BYTES_MAX
        event = json.loads(line)
        assert validator("Event").is_valid(event), event
        with self.written:
            self.events.append(event)
            self.written.notify_all()
        self.listener(event)

    def of(self, type: str) -> list[Json]:
        return [event for event in self.events if event["type"] == type]


def spec_line(work_dir: Path, spec: Json, number: int = 1) -> bytes:
    line = {"v": 1, "job": "job-1", "attempt": number, "workDir": str(work_dir), "spec": spec}
    return json.dumps(line).encode() + b"\n"


def weights_after_a_stop(folder: Path, spec: Json) -> str:
    """The hash of the weights of a training of two epochs that was stopped after the first, and resumed."""
    code, first = run_here(folder / "1", spec, type="epoch", epoch=1)
    assert code == 75, first.events[-1]
    resume = str(folder / "1" / first.of("checkpoint")[-1]["file"])
    _, second = run_here(folder / "2", {**spec, "resumeFrom": resume})
    assert second.events[0]["resumed"] == {"epoch": 1, "batch": 1}
    return str(second.of("artifact")[0]["meta"]["weightsHash"])


def run_here(work_dir: Path, spec: Json, **stop_at: Any) -> tuple[int, Recorder]:
    """Runs an attempt in this process; returns the exit code and the events.

    Args:
        stop_at: fields of an event; a `cancel` comes with the first one that has them.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    recorder = Recorder()
    line = read_spec_line(spec_line(work_dir, spec))
    events = Events(recorder, line.job, line.attempt, work_dir)

    def cancel(event: Json) -> None:
        if stop_at and stop_at.items() <= event.items():
            events.stop_requested = "cancelled"

    recorder.listener = cancel
    return run(line, events), recorder


def check_in_engines(work: Path, precision: str) -> None:
    """Each engine that is here opens work / "model.onnx", and its outputs are those of the probe set."""
    program, folder = TRAINER.parent / "test" / "support" / "measureEngines.ts", work / "engines"
    folder.mkdir()
    node = TRAINER.parent / "node_modules" / ".bin" / "node"
    command: list[str | Path] = [node, program, work / "model.onnx", work / "probe.safetensors", precision, folder]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(found)
    assert {"ONNXRUNTIME_CPU"} <= found.keys()
    for gate in found.values():
        assert (gate["reference"], gate["failures"]) == ("PROBE", [])


def import_file(tmp_path: Path, file: Path, **options: Any) -> tuple[int, Recorder]:
    """Runs the job; whatever happens, its inspection folder is gone."""
    code, recorder = run_here(tmp_path / "work", import_spec(file, **options))
    assert not (tmp_path / "work" / "inspection").exists()
    return code, recorder


@dataclass
class Attempt:
    """A running `python -m whetstone_trainer`. Every event it writes is checked against the protocol's schema."""

    process: subprocess.Popen[bytes]
    work_dir: Path
    lines: Iterator[bytes]
    events: list[Json]

    def read(self) -> Iterator[Json]:
        """Events as they come, until the attempt closes its end."""
        for line in self.lines:
            event = json.loads(line)
            assert not (errors := [error.message for error in validator("Event").iter_errors(event)]), (event, errors)
            assert event["n"] == len(self.events) + 1
            self.events.append(event)
            yield event

    def wait_for(self, type: str, **fields: Any) -> Json:
        for event in self.read():
            if event["type"] == type and all(event.get(name) == value for name, value in fields.items()):
                return event
        raise AssertionError(f"no {type} event; the last was {self.events[-1:]}")

    def send(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"v": 1, "command": command}).encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Reads to the end; returns the exit code."""
        for _ in self.read():
            pass
        return self.process.wait()

    def of(self, type: str) -> list[Json]:
        return [event for event in self.events if event["type"] == type]


@contextlib.contextmanager
def attempt(work_dir: Path, spec: Json, number: int = 1, **environment: str) -> Iterator[Attempt]:
    """Starts an attempt as the server does: its own process group, specification on stdin, events on fd 3."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with start(spec_line(work_dir, spec, number), **environment) as (process, lines):
        yield Attempt(process, work_dir, lines, [])


@contextlib.contextmanager
def start(first_line: bytes, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[bytes]]]:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3>&{writer} {writer}>&-', "-", sys.executable, "-m", "whetstone_trainer"],
        cwd=TRAINER,
        stdin=subprocess.PIPE,
        pass_fds=(writer,),
        start_new_session=True,
        env={**os.environ, **environment},
    )
    os.close(writer)
    try:
        assert process.stdin is not None
        with os.fdopen(reader, "rb") as lines:
            process.stdin.write(first_line)
            process.stdin.flush()
            yield process, lines
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
