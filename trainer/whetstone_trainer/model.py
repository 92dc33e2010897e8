"""The presets' topologies, and weights from elsewhere fitted into them."""

import hashlib
import json
import socket
import urllib.error
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from whetstone_trainer.checkpoint import State
from whetstone_trainer.detection.network import Detector
from whetstone_trainer.errors import TrainerError

DETAILS_MAX = 10
DOWNLOAD_TIMEOUT_SECONDS = 30
# Counters of batch normalisation, which older state dicts lack and inference does not read.
OPTIONAL_SUFFIX = ".num_batches_tracked"


def _resnet50(class_count: int) -> nn.Module:
    model: nn.Module = resnet50(num_classes=class_count)
    return model


# Topology by preset: a function of the class count. Another preset is another row.
TOPOLOGIES: dict[str, Callable[[int], nn.Module]] = {
    "resnet50": _resnet50,
    "yolov8n": partial(Detector, "n"),
    "yolov8s": partial(Detector, "s"),
    "yolov8m": partial(Detector, "m"),
}
# How the names of the tensors begin whose shape depends on the class count.
HEADS = {"resnet50": "fc.", "yolov8n": "head.classes.", "yolov8s": "head.classes.", "yolov8m": "head.classes."}
# The tensor whose first dimension is the class count.
CLASS_TENSORS = {"resnet50": "fc.weight"} | dict.fromkeys(("yolov8n", "yolov8s", "yolov8m"), "head.classes.0.2.weight")
PUBLIC_WEIGHTS: dict[str, str] = {"resnet50": ResNet50_Weights.IMAGENET1K_V2.url}


def build_model(preset: str, class_count: int) -> nn.Module:
    """With random weights from PyTorch's main generator. Raises SPEC_INVALID."""
    if preset not in TOPOLOGIES:
        raise TrainerError("SPEC_INVALID", f"The preset {preset!r} is not one of {', '.join(TOPOLOGIES)}.")
    return TOPOLOGIES[preset](class_count)


def expected_state(preset: str, class_count: int) -> State:
    """Names, shapes and types without storage."""
    with torch.device("meta"):
        return dict(build_model(preset, class_count).state_dict())


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def weights_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over (name, dtype, shape, little-endian bytes) sorted by name: the same in any file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        header = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        digest.update(header.encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------- weights from elsewhere


def read_state(file: str | Path) -> State:
    """The tensors of a safetensors file. Raises WEIGHTS_INVALID."""
    try:
        with safe_open(str(file), framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise TrainerError("WEIGHTS_INVALID", f"The weights are not a readable safetensors file: {error}") from error


def fit(state: State, preset: str, class_count: int, replace_head: bool) -> tuple[State, tuple[str, ...]]:
    """The state for a model of `class_count` classes, and the tensors that have to be new.

    Only with `replace_head` may the head belong to another number of classes; what does not fit of it is then left out.
    Raises WEIGHTS_INVALID, naming up to ten missing, unexpected and misshapen tensors each.
    """
    wanted = expected_state(preset, class_count)
    head = [name for name in wanted if name.startswith(HEADS[preset])]
    other_head = any(name in state and state[name].shape != wanted[name].shape for name in head)
    new: tuple[str, ...] = ()
    if replace_head and (other_head or not any(name in state for name in head)):
        new = tuple(name for name in head if name not in state or state[name].shape != wanted[name].shape)
    compared = {name: tensor for name, tensor in wanted.items() if name not in new}
    missing = [name for name in compared if name not in state and not name.endswith(OPTIONAL_SUFFIX)]
    unexpected = [name for name in state if name not in wanted]
    misshapen = [
        f"{name}: {list(state[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in compared.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        raise TrainerError(
            "WEIGHTS_INVALID",
            f"The weights do not fit {preset} with {class_count} classes: {len(missing)} tensors are missing, "
            f"{len(unexpected)} unexpected, {len(misshapen)} of another shape.",
            details=tuple(
                f"{what} {name}"
                for what, names in (("missing", missing), ("unexpected", unexpected), ("shape", misshapen))
                for name in names[:DETAILS_MAX]
            ),
        )
    fitted = {name: state[name].to(tensor.dtype) for name, tensor in compared.items() if name in state}
    for name, tensor in fitted.items():
        if not torch.isfinite(tensor).all():
            raise TrainerError("WEIGHTS_INVALID", f"The tensor {name} has values that are not finite.")
    for name in compared.keys() - fitted.keys():
        fitted[name] = torch.zeros(compared[name].shape, dtype=compared[name].dtype)
    return fitted, new


def public_weights(preset: str, file: str | None) -> State:
    """torchvision's ImageNet weights of a preset, from `file` or downloaded once into TORCH_HOME. Raises
    WEIGHTS_UNAVAILABLE."""
    if preset not in PUBLIC_WEIGHTS:
        raise TrainerError(
            "WEIGHTS_UNAVAILABLE",
            f"There are no public weights of {preset}.",
            hint="Train from scratch, or from an earlier version of your own.",
        )
    url = PUBLIC_WEIGHTS[preset]
    if file is not None:
        return _read_torch(Path(file))
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    cached = folder / url.rsplit("/", 1)[1]
    if not cached.exists():
        _download(url, cached)
    return _read_torch(cached)


def _download(url: str, target: Path) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The name ends in the first digits of the file's SHA-256.
        prefix = target.stem.rsplit("-", 1)[1]
        torch.hub.download_url_to_file(url, str(target), hash_prefix=prefix, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise TrainerError(
            "WEIGHTS_UNAVAILABLE",
            f"The public weights {target.name} are not on this machine and cannot be downloaded: {reason}",
            hint=f"Copy {target.name} into the folder hub/checkpoints of TORCH_HOME, give the weights as a file, "
            "or train from scratch.",
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _read_torch(file: Path) -> State:
    """A state dict in PyTorch's format or in safetensors; only tensors are ever unpickled."""
    try:
        with file.open("rb") as opened:
            is_zip = opened.read(2) == b"PK"
        if not is_zip:
            return read_state(file)
        state: State = torch.load(file, map_location="cpu", weights_only=True)
    except TrainerError:
        raise
    except Exception as error:
        raise TrainerError("WEIGHTS_INVALID", f"The public weights cannot be read: {error}") from error
    return state
