"""State dicts from outside: read without running anything, fitted to their preset, written as safetensors."""

import pickle
from pathlib import Path
from typing import Any

import torch

from whetstone_trainer.checkpoint import State, save_tensors
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.import_model import WEIGHTS_FILE
from whetstone_trainer.model import build_model, fit, parameter_count, read_state, topology_of, weights_hash

# Where training scripts put a state dict beside other things, and what wrappers leave in front of names.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
HINT = "Save only the weights: torch.save(model.state_dict(), file), or safetensors."


def read(file: Path, ending: str, preset: str | None) -> dict[str, Any]:
    """`WeightsMeta` of the protocol and warnings; writes the weights. Raises WEIGHTS_INVALID, MODEL_UNSAFE."""
    return _store(read_state(file) if ending == ".safetensors" else _read_pickle(file), preset)


def _read_pickle(file: Path) -> State:
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
    return dict(value)


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
    name = topology_of(preset).class_tensors[0]
    head = state.get(name)
    if head is None or head.ndim == 0 or head.shape[0] < 1:
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
