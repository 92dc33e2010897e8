"""A training whose model PyTorch compiles (`compile`): its forward and backward pass, for one shape of its input.

Everything is compiled before the first batch, on an input without meaning, and the state of the run stays as it is. So
a stop meanwhile loses nothing, and a batch takes no minutes. All batches have the same number of images. Weights,
average, validation and checkpoints belong to the plain model: the compiled one shares its tensors.
"""

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from whetstone_trainer import toolchain
from whetstone_trainer.environment import out_of_memory
from whetstone_trainer.errors import TrainerError, disk_full
from whetstone_trainer.evaluate import as_outputs
from whetstone_trainer.events import Events
from whetstone_trainer.protocol import EXIT_STOPPED, TrainSpec
from whetstone_trainer.state import Forward, Job, Run, autocast

# In the work folder: code that was generated and compiled. It goes with the attempt.
FOLDER = "compiled"
# Triton's oldest GPUs.
CAPABILITY_MIN = (7, 0)
LOOK_SECONDS = 0.25
# The endings of what a compiler has made of one kernel.
MADE = (".so", ".cubin")


def compiler_of(spec: TrainSpec, device: torch.device) -> str | None:
    """Name and version of the compiler, None where nothing is to be compiled. Raises COMPILER_MISSING."""
    if not spec.hyperparameters.compile:
        return None
    kind: toolchain.Device = "cuda" if device.type == "cuda" else "cpu"
    problem = toolchain.problem(kind)
    if kind == "cuda" and problem is None and torch.cuda.get_device_capability(device) < CAPABILITY_MIN:
        problem = f"The GPU {torch.cuda.get_device_name(device)} is too old for Triton, which compiles for GPUs."
    if problem is not None:
        raise TrainerError("COMPILER_MISSING", problem, hint="Or train with `compile: false`.")
    return toolchain.name(kind)


def compiled(training: Run, job: Job, images: torch.Tensor) -> Forward:
    """The model's forward pass as compiled code, for inputs like `images`. Raises COMPILE_FAILED."""
    folder = job.events.work_dir / FOLDER
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    # Compilers run one after the other in this process, which leaves no other one behind.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    from torch._inductor import config  # noqa: PLC0415 (its import takes seconds)

    config.compile_threads = 1
    # On a GPU the fastest of several kernels would be chosen by its time, and each rounds in another way.
    config.deterministic = True
    # A compiled header halves the time. PyTorch needs the command openssl for it.
    config.cpp_cache_precompile_headers = shutil.which("openssl") is not None
    job.events.phase("compilation")
    try:
        with _temporary_files(folder), _watched(folder, job.events), _unchanged(training, job.device):
            # The whole model or an error: parts that stay as they are would take the gain unnoticed.
            forward: Forward = torch.compile(training.model, fullgraph=True, dynamic=False)
            with autocast(job):
                outputs = as_outputs(forward(images))
            learning = [parameter for parameter in training.model.parameters() if parameter.requires_grad]
            torch.autograd.grad([output.float().sum() for output in outputs], learning, allow_unused=True)
    except Exception as error:
        raise _typed(error, job.spec.preset) from error
    # Whatever may be compiled later does without the header, which is gone.
    config.cpp_cache_precompile_headers = False
    return forward


def _typed(error: Exception, preset: str) -> Exception:
    if known := disk_full(error) or out_of_memory(error):
        return known
    text = str(error)
    if "No space left on device" in text:
        return OSError(errno.ENOSPC, "No space left on device")
    if "Killed signal" in text:
        message = "The compiler was killed, probably because the machine's memory is used up."
        return TrainerError("OUT_OF_MEMORY", message, hint="Train with `compile: false`, or with fewer jobs at a time.")
    cause: BaseException = error
    while inner := getattr(cause, "inner_exception", None) or cause.__cause__:
        cause = inner
    return TrainerError(
        "COMPILE_FAILED",
        f"PyTorch could not compile the model {preset} ({type(cause).__name__}). The job's log has what it said.",
        hint="Train with `compile: false`.",
    )


@contextmanager
def _temporary_files(folder: Path) -> Iterator[None]:
    """PyTorch keeps compiled headers, of 150 MB, in the folder for temporary files: here that is one of ours, which is
    removed."""
    folder.mkdir(exist_ok=True)
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as ours:
        tempfile.tempdir = ours
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextmanager
def _unchanged(training: Run, device: torch.device) -> Iterator[None]:
    """Statistics of batch normalisation and generators of random numbers are put back."""
    buffers = list(training.model.buffers())
    kept = [buffer.clone() for buffer in buffers]
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        yield
    with torch.no_grad():
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)


@contextmanager
def _watched(folder: Path, events: Events) -> Iterator[None]:
    """While the compiler works, a thread counts what it has made, and ends the attempt when a stop is requested.

    A compiler cannot be interrupted. Nothing is lost: the state is still that of the checkpoint the attempt began with.
    The server ends what is left of the process group.
    """
    done = threading.Event()

    def watch() -> None:
        made = 0
        while not done.wait(LOOK_SECONDS):
            if events.stop_requested is not None:
                events.emit("done", status=events.stop_requested, result={})
                os._exit(EXIT_STOPPED)
            now = sum(1 for path in folder.rglob("*") if path.suffix in MADE)
            if now > made:
                events.advance(now - made)
                made = now

    thread = threading.Thread(target=watch, name="compilation", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
