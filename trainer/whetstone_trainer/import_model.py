"""The job IMPORT_MODEL: a file from outside, opened by a child (`inspect_file.py`) with limits and an empty folder.

Whatever the file does, it does it to that child: this process only waits, up to the limit, and reads the result.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone_trainer.errors import TrainerError, mask_paths
from whetstone_trainer.events import Events, file_hash
from whetstone_trainer.hello import emit_hello
from whetstone_trainer.protocol import ERROR_CODES, ImportModelSpec

RESULT_FILE = "result.json"
WEIGHTS_FILE = "weights.safetensors"
# Where the child had to change an ONNX file.
ONNX_FILE = "model.onnx"
# The module that reads a file, by the ending of its name.
READERS = {
    ".onnx": "inspect_onnx",
    # Of an ONNX file and its data.
    ".zip": "inspect_onnx",
    ".safetensors": "inspect_weights",
    ".pt": "inspect_weights",
    ".pth": "inspect_weights",
    ".ckpt": "inspect_weights",
    ".bin": "inspect_weights",
    ".pth.tar": "inspect_weights",
}
RESULT_BYTES_MAX = 2**20
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Inspected:
    """What the child found: `meta` of the artifact, and what it changed in the weights."""

    meta: dict[str, Any]
    warnings: tuple[str, ...]


def run(spec: ImportModelSpec, events: Events) -> dict[str, Any]:
    """Inspects the file and reports it as an artifact: ONNX as one file, weights as safetensors."""
    emit_hello(events, spec.code_version, threads=1)
    ending = next((ending for ending in READERS if spec.file_name.lower().endswith(ending)), None)
    if ending is None:
        raise TrainerError("MODEL_INVALID", f"The file's name must end in {', '.join(READERS)}.")
    onnx = READERS[ending] == "inspect_onnx"
    if not onnx and spec.preset is None:
        raise TrainerError("SPEC_INVALID", "A state dict needs the preset that it belongs to.")
    events.phase("inspection")
    folder = events.work_dir / "inspection"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        inspected = inspect(spec, ending, folder, events)
        for warning in inspected.warnings:
            events.warn("MODEL_CHANGED" if onnx else "WEIGHTS_CHANGED", warning)
        if onnx and (folder / ONNX_FILE).exists():
            (folder / ONNX_FILE).replace(events.work_dir / ONNX_FILE)
            events.artifact("ONNX", ONNX_FILE, inspected.meta)
            return {"format": "ONNX"}
        if onnx:
            sha256, size = file_hash(Path(spec.file))
            events.emit("artifact", kind="ONNX", file=None, sha256=sha256, sizeBytes=size, meta=inspected.meta)
            return {"format": "ONNX"}
        (folder / WEIGHTS_FILE).replace(events.work_dir / WEIGHTS_FILE)
        events.artifact("WEIGHTS", WEIGHTS_FILE, inspected.meta)
        return {"format": "CHECKPOINT"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def inspect(spec: ImportModelSpec, ending: str, folder: Path, events: Events) -> Inspected:
    """Runs the child in `folder`. Raises what it found, or LIMIT_EXCEEDED where a limit ended it."""
    request = {
        "file": spec.file,
        "ending": ending,
        "preset": spec.preset,
        "data": spec.data and {"file": spec.data.file, "fileName": spec.data.file_name},
        "memoryBytesMax": spec.limits.memory_bytes_max,
        "outputBytesMax": spec.limits.output_bytes_max,
        "secondsMax": spec.limits.seconds_max,
    }
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "whetstone_trainer.inspect_file", json.dumps(request)],
        cwd=folder,
        # Nothing of the server's environment; one thread, since the limits forbid others.
        env={
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
        },
        stdin=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + spec.limits.seconds_max
    try:
        while child.poll() is None:
            events.check_stop()
            if time.monotonic() > deadline:
                raise TrainerError("LIMIT_EXCEEDED", f"Reading the file took more than {spec.limits.seconds_max} s.")
            try:
                child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    finally:
        child.kill()
        child.wait()
    return _result(folder / RESULT_FILE, child.returncode)


def _result(file: Path, exit_code: int) -> Inspected:
    if exit_code == ERROR_CODES["DISK_FULL"]:
        raise TrainerError("DISK_FULL", "The disk is full: free some space.", retryable=True)
    if exit_code != 0:
        raise TrainerError(
            "LIMIT_EXCEEDED", f"Reading the file went beyond a limit of memory, time or size (exit {exit_code})."
        )
    if file.is_symlink() or file.stat().st_size > RESULT_BYTES_MAX:
        raise TrainerError("LIMIT_EXCEEDED", "The description of the file is too large.")
    result = json.loads(file.read_bytes())
    if "error" in result:
        error = result["error"]
        raise TrainerError(
            error["code"], mask_paths(error["message"]), hint=error["hint"], details=tuple(error["details"])
        )
    return Inspected(result["meta"], tuple(result["warnings"]))
