"""Where an attempt runs: the device, the thread count, deterministic algorithms, and the record of it for `hello`."""

import os
import re

import torch

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.hello import CPU, Device, emit_hello
from whetstone_trainer.protocol import CompressSpec, ConvertSpec, EvaluateSpec, MeasureSpec, TrainSpec

ComputingSpec = TrainSpec | ConvertSpec | CompressSpec | EvaluateSpec | MeasureSpec


def prepare(spec: ComputingSpec, rank: int = 0) -> torch.device:
    """Sets threads, seed and deterministic algorithms; picks the device. Raises DEVICE_UNAVAILABLE.

    Args:
        rank: of the processes that train together. Each has a GPU of its own.
    """
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
    # As torch.use_deterministic_algorithms(True, warn_only=True), which imports the compiler (see `vision.py`).
    torch.set_deterministic_debug_mode("warn")
    # That also fills each new tensor with NaN before it is written, which takes time in every operation. Nothing here
    # reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # TensorFloat-32 would put a GPU's convolutions 1e-3 away from a CPU's: beyond the conversion gate's tolerance.
    torch.backends.cudnn.allow_tf32 = False
    if spec.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    processes = spec.processes if isinstance(spec, TrainSpec) else 1
    if processes == 1:
        return torch.device("cuda")
    if torch.cuda.device_count() < processes:
        raise TrainerError(
            "DEVICE_UNAVAILABLE",
            f"{processes} processes that train together need a GPU each; this job has {torch.cuda.device_count()}.",
            hint="Use fewer processes, or the device cpu.",
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def workers_of(spec: TrainSpec, device: torch.device) -> int:
    """Processes that prepare batches. By default none on a CPU, where they would only take time from the training."""
    if spec.workers is not None:
        return spec.workers
    return spec.cpu_threads if device.type == "cuda" else 0


def say_hello(
    events: Events,
    spec: ComputingSpec,
    device: torch.device,
    resumed: tuple[int, int] | None = None,
    *,
    precision: str | None = None,
    compiler: str | None = None,
) -> None:
    """The first event. `resumed` is (epoch, batch) of the checkpoint that will be loaded; `precision` is that of a
    training, and `compiler` what compiles its model."""
    cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if cuda else None
    emit_hello(
        events,
        spec.code_version,
        device=Device(device.type, properties.name, properties.total_memory) if properties else CPU,
        threads=torch.get_num_threads(),
        workers=workers_of(spec, device) if isinstance(spec, TrainSpec) else None,
        processes=spec.processes if isinstance(spec, TrainSpec) else None,
        cuda=torch.version.cuda if cuda else None,
        precision=precision,
        compiler=compiler,
        resumed=resumed,
    )
    # The server names the GPUs of the slot here.
    if spec.device == "auto" and os.environ.get("CUDA_VISIBLE_DEVICES") and not torch.cuda.is_available():
        events.warn(
            "GPU_UNUSED",
            "The slot has a GPU, but PyTorch cannot use it: the job runs on the CPU. Check the GPU's driver. With the "
            "device cuda such a job fails.",
        )


def out_of_memory(error: BaseException) -> TrainerError | None:
    """The typed form of an allocation that failed, on the GPU or in main memory; None for any other failure."""
    hint = "Use a smaller batchSize (accumulate keeps the steps as large) or imageSize."
    if isinstance(error, torch.OutOfMemoryError):
        return TrainerError("OUT_OF_MEMORY", "The GPU's memory is used up.", hint=hint)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return TrainerError("OUT_OF_MEMORY", "The machine's memory is used up.", hint=hint)
    if re.search(r"DataLoader worker .*(killed by signal|exited unexpectedly)", str(error)):
        message = "A process that prepares batches was killed, probably because the machine's memory is used up."
        return TrainerError("OUT_OF_MEMORY", message, hint="Use fewer workers, or a smaller batchSize.")
    return None
