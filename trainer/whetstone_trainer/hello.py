"""The first event of an attempt: where it runs, and on which versions. Without PyTorch, which is slow to import."""

import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from whetstone_trainer.events import Events

PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxscript", "optuna", "pillow", "safetensors", "torch", "torchvision")


def versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in PACKAGES}
    with suppress(metadata.PackageNotFoundError):
        found["timm"] = metadata.version("timm")
    return {"python": platform.python_version(), **found}


def processor() -> str:
    """The model's name where /proc/cpuinfo has it (Linux on x64), else the architecture."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Device:
    type: str
    name: str
    memory_bytes: int | None


CPU = Device("cpu", processor(), None)


def emit_hello(
    events: Events,
    code_version: str,
    *,
    device: Device = CPU,
    threads: int,
    workers: int | None = None,
    processes: int | None = None,
    cuda: str | None = None,
    precision: str | None = None,
    compiler: str | None = None,
    resumed: tuple[int, int] | None = None,
) -> None:
    """`threads` is PyTorch's; `workers` are processes that prepare training batches, `processes` train together in
    `precision`; `compiler` compiles the model; `resumed` is (epoch, batch) of the checkpoint that will be loaded."""
    events.emit(
        "hello",
        pid=os.getpid(),
        device={"type": device.type, "name": device.name, "memoryBytes": device.memory_bytes},
        versions=versions(),
        environment={
            "codeVersion": code_version,
            "platform": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": threads,
            **({} if workers is None else {"workers": workers}),
            **({} if processes is None else {"processes": processes}),
            "cuda": cuda,
            **({} if precision is None else {"precision": precision}),
            **({} if compiler is None else {"compiler": compiler}),
        },
        resumed={"epoch": resumed[0], "batch": resumed[1]} if resumed else None,
    )
