"""The child that opens a hostile file: `python -m whetstone_trainer.inspect_file '<request in JSON>'`.

It limits itself before it touches the file, writes `result.json` (and weights as safetensors) into its working folder,
and exits with 0; with 74 where the disk is full. Any other ending means that a limit ended it. Nothing of the file is
ever run.
"""

import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from whetstone_trainer.errors import TrainerError, disk_full
from whetstone_trainer.import_model import READERS, RESULT_FILE
from whetstone_trainer.protocol import ERROR_CODES


def reader(request: dict[str, Any]) -> ModuleType:
    """The module for the file. PyTorch and torchvision take 10 s to import, and ONNX does not need them."""
    return importlib.import_module(f"whetstone_trainer.{READERS[request['ending']]}")


def read_file(request: dict[str, Any]) -> dict[str, Any]:
    """The content of `result.json`."""
    try:
        data = request.get("data")
        beside = data and (data["fileName"], Path(data["file"]))
        result = reader(request).read(Path(request["file"]), request["ending"], request["preset"], beside)
        return cast(dict[str, Any], result)
    except TrainerError as error:
        if disk_full(error):
            raise
        return {"error": _json(error)}
    except MemoryError:
        return {"error": _json(TrainerError("LIMIT_EXCEEDED", "Reading the file takes more memory than is allowed."))}


def _json(error: TrainerError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint, "details": list(error.details[:50])}


def address_space_bytes() -> int | None:
    """None where there is no /proc, as on macOS: address space has no limit there, only time and file size."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def limit(memory_bytes: int, output_bytes: int, seconds: int) -> None:
    """What this process may use from here on: memory beyond what it has, CPU time, file size; no process or core."""
    used = address_space_bytes()
    if used is not None:
        resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output_bytes, output_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A file that grows too large shall be an error, not a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def main(request: dict[str, Any]) -> None:
    reader(request)
    limit(request["memoryBytesMax"], request["outputBytesMax"], request["secondsMax"])
    result = read_file(request)
    Path(RESULT_FILE).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except Exception as error:
        if full := disk_full(error):
            sys.exit(ERROR_CODES[full.code])
        raise
