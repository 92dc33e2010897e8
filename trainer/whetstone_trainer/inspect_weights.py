"""State dicts from outside: read without running anything, fitted to their preset, written as safetensors."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import torch

from whetstone_trainer.checkpoint import State, save_tensors
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.import_model import WEIGHTS_FILE
from whetstone_trainer.model import (
    build_model,
    expected_state,
    first_of,
    fit,
    parameter_count,
    read_state,
    topology_of,
    weights_hash,
    without_storage,
)

# Where training scripts put a state dict beside other things: of several the first, since averaged weights are the ones
# that a training script evaluates.
NESTED = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "net", "module")
NESTING_MAX = 3
# What wrappers leave in front of all names.
PREFIXES = ("module.", "_orig_mod.", "model.")
# The counter of torch.optim.swa_utils.AveragedModel.
COUNTER = "n_averaged"
HINT = "Save only the weights: torch.save(model.state_dict(), file), or safetensors."


def read(file: Path, ending: str, preset: str | None, data: None) -> dict[str, Any]:
    """`WeightsMeta` of the protocol and warnings; writes the weights. Raises WEIGHTS_INVALID, MODEL_UNSAFE."""
    warnings: list[str] = []
    state = read_state(file) if ending == ".safetensors" else _state_in(_read_pickle(file), warnings)
    return _store(_without_prefixes(state, warnings), preset, warnings)


def _read_pickle(file: Path) -> object:
    """A pickle, of which only tensors and plain containers are unpickled. Raises MODEL_UNSAFE."""
    try:
        value: object = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        text = str(error)
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in text:
            raise TrainerError(
                "MODEL_UNSAFE", "The file holds code or objects, not only tensors: it was not opened.", hint=HINT
            ) from error
        raise TrainerError(
            "WEIGHTS_INVALID", f"The file is not a whole PyTorch state dict: {text[:500]}", hint=HINT
        ) from error
    return value


def _state_in(value: object, warnings: list[str]) -> State:
    """The state dict that a file holds, alone or beside other things. Raises WEIGHTS_INVALID."""
    if _is_state(value):
        return value
    found = dict(_nested_states(value, ()))
    known = [path for path in found if all(name in NESTED for name in path)]
    known.sort(key=lambda path: [NESTED.index(name) for name in path])
    candidates = known or list(found)
    if not candidates or (len(candidates) > 1 and not known):
        held = f" It holds {', '.join(map(str, list(value)[:10]))}." if isinstance(value, dict) else ""
        raise TrainerError(
            "WEIGHTS_INVALID",
            f"The file is not a state dict, a map from names to tensors, nor does it hold exactly one.{held}",
            hint=HINT,
        )
    chosen, *others = candidates
    if others:
        listed = ", ".join(".".join(path) for path in others)
        warnings.append(f"The weights under {'.'.join(chosen)} were taken, not those under {listed}.")
    return found[chosen]


def _is_state(value: object) -> TypeGuard[State]:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    )


def _nested_states(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], State]]:
    if not isinstance(value, dict) or len(path) == NESTING_MAX:
        return
    for name, part in value.items():
        if not isinstance(name, str):
            continue
        if part and _is_state(part):
            yield (*path, name), part
        else:
            yield from _nested_states(part, (*path, name))


def _without_prefixes(state: State, warnings: list[str]) -> State:
    state = {name: tensor for name, tensor in state.items() if name != COUNTER}
    while prefix := next((p for p in PREFIXES if state and all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        warnings.append(f"The prefix {prefix} was taken off the names.")
    return state


def _store(state: State, preset: str | None, warnings: list[str]) -> dict[str, Any]:
    """Checks the weights against the preset, whose class count they decide, and writes them as float32."""
    if preset is None:
        raise TrainerError("SPEC_INVALID", "A state dict needs the preset that it belongs to.")
    odd = [name for name, tensor in state.items() if tensor.layout != torch.strided or tensor.is_quantized]
    if odd:
        raise TrainerError(
            "WEIGHTS_INVALID", "Sparse and quantised tensors are not supported.", details=tuple(odd[:10])
        )
    name = topology_of(preset).class_tensors[0]
    head = state.get(name)
    if head is None or head.ndim == 0 or head.shape[0] < 1:
        raise TrainerError(
            "WEIGHTS_INVALID",
            f"The weights have no tensor {name}, so they are not of {preset}. Their names are "
            f"{first_of(list(state))}; those of {preset} are {first_of(list(expected_state(preset, 1)))}.",
        )
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
    parameters = parameter_count(without_storage(lambda: build_model(preset, class_count)))
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
