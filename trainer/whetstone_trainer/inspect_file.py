"""The child that opens a hostile file: `python -m whetstone_trainer.inspect_file '<request in JSON>'`.

It limits itself before it touches the file, writes `result.json` (and weights as safetensors) into its working folder,
and exits with 0. Any other ending means that a limit ended it. Nothing of the file is ever run.
"""

import json
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch

from whetstone_trainer.checkpoint import save_tensors
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.inspect_onnx import describe, infer_shapes, refuse_unsafe
from whetstone_trainer.model import HEADS, State, build_model, fit, parameter_count, read_state, weights_hash

RESULT_FILE = "result.json"
WEIGHTS_FILE = "weights.safetensors"
ONNX_BYTES_MAX = 2**31 - 1
# Where training scripts put a state dict beside other things, and what wrappers leave in front of names.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
HINT = "Save only the weights: torch.save(model.state_dict(), file), or safetensors."


def read_onnx(file: Path, preset: str | None) -> dict[str, Any]:
    """`OnnxMeta` of the protocol. Raises MODEL_INVALID, MODEL_UNSAFE."""
    if file.stat().st_size > ONNX_BYTES_MAX:
        raise TrainerError("MODEL_INVALID", "An ONNX file can have 2 GiB at most.")
    try:
        model = onnx.load(str(file), format="protobuf", load_external_data=False)
    except Exception as error:  # google.protobuf's DecodeError, without a type of its own in every version
        raise TrainerError("MODEL_INVALID", "The file is not ONNX, or not all of it is there.") from error
    refuse_unsafe(model)
    meta = describe(model)
    infer_shapes(model)
    return {"meta": {**meta, "weightsHash": None, "exporter": None}, "warnings": []}


def read_safetensors(file: Path, preset: str | None) -> dict[str, Any]:
    """`WeightsMeta` of the protocol; writes the weights. Raises WEIGHTS_INVALID."""
    return _store(read_state(file), preset)


def read_pickle(file: Path, preset: str | None) -> dict[str, Any]:
    """A `.pt` or `.pth` file, of which only tensors and plain containers are unpickled. Raises MODEL_UNSAFE."""
    try:
        value = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        text = str(error)
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in text:
            raise TrainerError(
                "MODEL_UNSAFE", "The file holds code or objects, not only tensors: it was not opened.", hint=HINT
            ) from error
        raise TrainerError(
            "WEIGHTS_INVALID", f"The file is not a whole PyTorch state dict: {text[:500]}", hint=HINT
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    ):
        raise TrainerError("WEIGHTS_INVALID", "The file is not a state dict: a map from names to tensors.", hint=HINT)
    return _store(dict(value), preset)


def _store(state: State, preset: str | None) -> dict[str, Any]:
    """Checks the weights against the preset, whose class count they decide, and writes them as float32."""
    if preset is None:
        raise TrainerError("SPEC_INVALID", "A state dict needs the preset that it belongs to.")
    warnings = []
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            warnings.append(f"The prefix {prefix} was taken off the names.")
    odd = [name for name, tensor in state.items() if tensor.layout != torch.strided or tensor.is_quantized]
    if odd:
        raise TrainerError(
            "WEIGHTS_INVALID", "Sparse and quantised tensors are not supported.", details=tuple(odd[:10])
        )
    head = state.get(HEADS[preset][0]) if preset in HEADS else None
    if head is None or head.ndim == 0 or head.shape[0] < 1:
        name = HEADS.get(preset, ("classifier",))[0]
        raise TrainerError("WEIGHTS_INVALID", f"The weights have no tensor {name}, so they are not of {preset}.")
    class_count = int(head.shape[0])
    types = sorted(
        {str(tensor.dtype).removeprefix("torch.") for tensor in state.values() if tensor.is_floating_point()}
    )
    if types != ["float32"]:
        warnings.append(f"The weights were {', '.join(types) or 'not floating point'} and are stored as float32.")
    fitted, _ = fit(state, preset, class_count, replace_head=False)
    # A copy of each: tensors of a state dict may share their memory, those of a safetensors file may not.
    fitted = {name: tensor.clone() for name, tensor in fitted.items()}
    digest = weights_hash(fitted)
    save_tensors(Path(WEIGHTS_FILE), fitted, {"preset": preset, "weightsHash": digest})
    with torch.device("meta"):
        parameters = parameter_count(build_model(preset, class_count))
    meta = {
        "preset": preset,
        "weightsHash": digest,
        "classCount": class_count,
        "parameters": parameters,
        "preprocess": None,
        "epoch": None,
        "metrics": None,
    }
    return {"meta": meta, "warnings": warnings}


# How a file is read, by the ending of its name.
READERS: dict[str, Callable[[Path, str | None], dict[str, Any]]] = {
    ".onnx": read_onnx,
    ".safetensors": read_safetensors,
    ".pt": read_pickle,
    ".pth": read_pickle,
}


def read_file(request: dict[str, Any]) -> dict[str, Any]:
    """The content of `result.json`."""
    try:
        return READERS[request["ending"]](Path(request["file"]), request["preset"])
    except TrainerError as error:
        return {"error": _json(error)}
    except MemoryError:
        return {"error": _json(TrainerError("LIMIT_EXCEEDED", "Reading the file takes more memory than is allowed."))}


def _json(error: TrainerError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint, "details": list(error.details[:50])}


def limit(memory_bytes: int, output_bytes: int, seconds: int) -> None:
    """What this process may use from here on: memory beyond what it has, CPU time, file size; no process or core."""
    used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output_bytes, output_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A file that grows too large shall be an error, not a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def main(request: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    limit(request["memoryBytesMax"], request["outputBytesMax"], request["secondsMax"])
    result = read_file(request)
    Path(RESULT_FILE).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
