"""Where an attempt runs: the device, the thread count, deterministic algorithms, and the record of it for `hello`."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

import torch

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.protocol import ConvertSpec, EvaluateSpec, TrainSpec

PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxscript", "pillow", "safetensors", "torch", "torchvision")


def prepare(spec: TrainSpec | ConvertSpec | EvaluateSpec) -> torch.device:
    """Sets threads, seed and deterministic algorithms; picks the device. Raises DEVICE_UNAVAILABLE."""
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise TrainerError(
            "DEVICE_UNAVAILABLE",
            "CUDA is not available here.",
            hint="Use the device auto, or look at the GPU's driver.",
        )
    torch.set_num_threads(spec.cpu_threads)
    torch.manual_seed(spec.seed)
    # Has to be set before the first call of cuBLAS, see torch.use_deterministic_algorithms.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda" if spec.device != "cpu" and torch.cuda.is_available() else "cpu")


def say_hello(events: Events, code_version: str, device: torch.device, resumed: tuple[int, int] | None = None) -> None:
    """The first event. `resumed` is (epoch, batch) of the checkpoint that will be loaded."""
    cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if cuda else None
    events.emit(
        "hello",
        pid=os.getpid(),
        device={
            "type": device.type,
            "name": properties.name if properties else processor(),
            "memoryBytes": properties.total_memory if properties else None,
        },
        versions=versions(),
        environment={
            "codeVersion": code_version,
            "platform": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cuda": torch.version.cuda if cuda else None,
        },
        resumed={"epoch": resumed[0], "batch": resumed[1]} if resumed else None,
    )


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def processor() -> str:
    """The model's name where /proc/cpuinfo has it (Linux on x64), else the architecture."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def out_of_memory(error: BaseException) -> TrainerError | None:
    """The typed form of an allocation that failed, on the GPU or in main memory; None for any other failure."""
    hint = "Use a smaller batchSize or imageSize."
    if isinstance(error, torch.OutOfMemoryError):
        return TrainerError("OUT_OF_MEMORY", "The GPU's memory is used up.", hint=hint)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return TrainerError("OUT_OF_MEMORY", "The machine's memory is used up.", hint=hint)
    return None
