"""Where an attempt runs: the device, the thread count, deterministic algorithms, and the record of it for `hello`."""

import os
import re

import torch
from torch import nn

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.hello import CPU, Device, emit_hello
from whetstone_trainer.model import build_model, without_storage
from whetstone_trainer.protocol import CompressSpec, ConvertSpec, EvaluateSpec, Hyperparameters, MeasureSpec, TrainSpec

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
    torch.use_deterministic_algorithms(True, warn_only=True)
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


def autocast_dtype(parameters: Hyperparameters, device: torch.device, model: nn.Module) -> torch.dtype | None:
    """bfloat16 on a GPU that has it, float16 on an older one. On a processor None (float32), or bfloat16 if asked for.

    Instructions for bfloat16 make convolutions 1.6 times as fast. None suit grouped ones: EfficientNet takes twice as
    long with them.
    """
    if parameters.mixed_precision == "OFF":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if parameters.mixed_precision == "AUTO":
        return None
    found = torch.cpu.get_capabilities()
    if not (found.get("avx512_bf16") or found.get("amx_bf16")):
        return None
    grouped = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())
    return None if grouped else torch.bfloat16


PRECISIONS = {torch.bfloat16: "BF16", torch.float16: "FP16", None: "FP32"}


def precision_of(spec: TrainSpec, device: torch.device) -> str:
    model = without_storage(lambda: build_model(spec.preset, len(spec.dataset.classes)))
    return PRECISIONS[autocast_dtype(spec.hyperparameters, device, model)]


def say_hello(
    events: Events,
    spec: ComputingSpec,
    device: torch.device,
    resumed: tuple[int, int] | None = None,
) -> None:
    """The first event. `resumed` is (epoch, batch) of the checkpoint that will be loaded."""
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
        precision=precision_of(spec, device) if isinstance(spec, TrainSpec) else None,
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
