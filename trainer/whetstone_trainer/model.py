"""The presets' topologies, and weights from elsewhere fitted into them."""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from whetstone_trainer.checkpoint import State
from whetstone_trainer.detection.boxes import STRIDES
from whetstone_trainer.detection.network import STAGES, Detector
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.preprocess import channel_count
from whetstone_trainer.protocol import CLASSIFIERS, DETECTORS, PreprocessSpec
from whetstone_trainer.vision import get_model

DETAILS_MAX = 10
# Tensors of a kind that a message names.
NAMED_MAX = 3
# Counters of batch normalisation, which older state dicts lack and inference does not read.
OPTIONAL_SUFFIX = ".num_batches_tracked"
# The public weights of ViT have names of an earlier torchvision, which torchvision itself replaces when it loads them.
RENAMED = ((".mlp.linear_1.", ".mlp.0."), (".mlp.linear_2.", ".mlp.3."))
# How the names of a detector's backbone begin.
BACKBONE = "backbone."
TIMM = "timm:"


@dataclass(frozen=True)
class Topology:
    """What is known of a preset's layers, by how the names of their tensors begin.

    Args:
        head: whose shape depends on the class count; class_tensors: those of it that have one row for each class.
        stages: where the second, third and fourth stage begin; behind: what is no part of the backbone.
        classifier: the preset that `build` takes the backbone from, under the names of its tensors; None: no other one.
    """

    build: Callable[[int], nn.Module]
    head: str
    class_tensors: tuple[str, ...]
    stages: tuple[str, ...]
    behind: tuple[str, ...]
    classifier: str | None = None


def build_classifier(name: str, class_count: int) -> nn.Module:
    """torchvision's model of that name, or timm's behind `timm:`. Raises EXTRA_MISSING."""
    model: nn.Module
    if name.startswith(TIMM):
        model = _timm().create_model(name.removeprefix(TIMM), num_classes=class_count)
    else:
        model = get_model(name, num_classes=class_count)
    return model


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise TrainerError(
            "EXTRA_MISSING", "timm is not installed.", hint="Run `WHETSTONE_TIMM=1 node scripts/setup.mjs`."
        ) from error


def _classifier(name: str, head: str, stages: Sequence[str]) -> Topology:
    """`head` is its last layer."""
    build = partial(build_classifier, name)
    rows = (f"{head}.weight", f"{head}.bias")
    return Topology(build, f"{head}.", rows, tuple(f"{stage}." for stage in stages), (f"{head}.",))


def detector(size: str, backbone: str | None) -> Topology:
    """YOLOv8's neck and head in a size, on its own backbone or on that of a classifier."""
    stages = STAGES if backbone is None else CLASSIFIERS[backbone]["stages"]
    classifier = None if backbone is None else (backbone, stages)
    return Topology(
        build=partial(Detector, size, classifier=classifier),
        head="head.classes.",
        class_tensors=tuple(f"head.classes.{n}.2.{kind}" for n in range(len(STRIDES)) for kind in ("weight", "bias")),
        stages=tuple(f"{BACKBONE}{stage}." for stage in stages),
        behind=("lateral.", "neck.", "head."),
        classifier=backbone,
    )


# By preset. Their rows are in `src/jobs/classifiers.ts` and `detectors.ts`.
TOPOLOGIES = {
    **{name: _classifier(name, row["head"], row["stages"]) for name, row in CLASSIFIERS.items()},
    **{name: detector(row["size"], row["backbone"]) for name, row in DETECTORS.items()},
}


def topology_of(preset: str) -> Topology:
    """Raises SPEC_INVALID."""
    if preset not in TOPOLOGIES:
        raise TrainerError("SPEC_INVALID", f"The preset {preset!r} is not one of {', '.join(TOPOLOGIES)}.")
    return TOPOLOGIES[preset]


def build_model(preset: str, class_count: int, channels: int = 3) -> nn.Module:
    """With random weights from PyTorch's main generator. Raises SPEC_INVALID.

    Args:
        channels: of the input, 3 or 1.
    """
    model = topology_of(preset).build(class_count)
    if channels == 1:
        first = first_convolution(model)
        first.in_channels, first.weight = 1, nn.Parameter(of_one_channel(first.weight.detach()))
    return model


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """Which reads the image."""
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


def of_one_channel(weight: torch.Tensor) -> torch.Tensor:
    """What computes on grey what `weight` (C × 3 × H × W) computes where red, green and blue are equal."""
    return weight.sum(1, keepdim=True)


def expected_state(preset: str, class_count: int, channels: int = 3) -> State:
    """Names, shapes and types without storage."""
    return dict(without_storage(lambda: build_model(preset, class_count, channels)).state_dict())


def without_storage(build: Callable[[], nn.Module]) -> nn.Module:
    """The model on PyTorch's device `meta`: nothing is computed, and no random numbers are used up."""
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:
        # RegNet reads its widths from tensors while it is built.
        with torch.random.fork_rng([]):
            return build().to("meta")


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(preset: str, class_count: int, spec: PreprocessSpec) -> int:
    channels = channel_count(spec)
    return macs_of(lambda: build_model(preset, class_count, channels), spec.width, spec.height, channels)


def macs_of(build: Callable[[], nn.Module], width: int, height: int, channels: int = 3) -> int:
    """Multiplications with an addition for one image, in convolutions and matrix products. Nothing is computed."""
    # Only now: it imports Triton, which takes 0.2 s.
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

    counter = FlopCounterMode(display=False)
    model = without_storage(build).eval()
    with torch.device("meta"), counter:
        model(torch.empty(1, channels, height, width))
    return counter.get_total_flops() // 2


def freeze(model: nn.Module, preset: str, last: str) -> None:
    """Keeps the parameters up to the end of a stage, or all of the backbone: they get no gradient.

    Args:
        last: as in the hyperparameter `freeze`.
    """
    topology = topology_of(preset)
    # A topology defines its layers in their order.
    ends = {"NONE": ("",), "BACKBONE": topology.behind} | {
        f"STAGE{n}": (name,) for n, name in enumerate(topology.stages, 1)
    }
    for _, parameter in takewhile(lambda named: not named[0].startswith(ends[last]), model.named_parameters()):
        parameter.requires_grad_(False)


def train_mode(model: nn.Module) -> None:
    """Training, but frozen batch normalisation keeps its statistics and uses them."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and not module.weight.requires_grad:
            module.eval()


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


def first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED_MAX]) + (", …" if len(names) > NAMED_MAX else "")


def fit(
    state: State, preset: str, class_count: int, replace_head: bool, channels: int = 3
) -> tuple[State, tuple[str, ...]]:
    """The state for a model of `class_count` classes, and the tensors that have to be new.

    Only with `replace_head` may the head belong to another number of classes; what does not fit of it is then left out.
    Only then may the weights be those of the classifier that the backbone is from, and those for red, green and blue
    fit a model of one channel. Raises WEIGHTS_INVALID, naming up to ten missing, unexpected and misshapen tensors each.
    """
    topology = topology_of(preset)
    wanted = expected_state(preset, class_count, channels)
    state = {_renamed(name, wanted): tensor for name, tensor in state.items()}
    head = [name for name in wanted if name.startswith(topology.head)]
    other_head = any(name in state and state[name].shape != wanted[name].shape for name in head)
    new: tuple[str, ...] = ()
    if replace_head and topology.classifier is not None and not any(name.startswith(BACKBONE) for name in state):
        # What is not in the backbone is the classifier's head.
        state = {BACKBONE + name: tensor for name, tensor in state.items() if BACKBONE + name in wanted}
        new = tuple(name for name in wanted if name.startswith(topology.behind))
    elif replace_head and (other_head or not any(name in state for name in head)):
        new = tuple(name for name in head if name not in state or state[name].shape != wanted[name].shape)
    if replace_head and channels == 1:
        state = {name: _in_grey(tensor, wanted.get(name)) for name, tensor in state.items()}
    compared = {name: tensor for name, tensor in wanted.items() if name not in new}
    missing = [name for name in compared if name not in state and not name.endswith(OPTIONAL_SUFFIX)]
    unexpected = [name for name in state if name not in wanted]
    misshapen = [
        f"{name}: {list(state[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in compared.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        wrong = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
        raise TrainerError(
            "WEIGHTS_INVALID",
            f"The weights do not fit {preset} with {class_count} classes: "
            + ", ".join(
                f"{len(names)} tensors are {what} ({first_of(names)})" for what, names in wrong.items() if names
            )
            + ".",
            details=tuple(f"{what} {name}" for what, names in wrong.items() for name in names[:DETAILS_MAX]),
        )
    fitted = {name: state[name].to(tensor.dtype) for name, tensor in compared.items() if name in state}
    for name, tensor in fitted.items():
        if not torch.isfinite(tensor).all():
            raise TrainerError("WEIGHTS_INVALID", f"The tensor {name} has values that are not finite.")
    for name in compared.keys() - fitted.keys():
        fitted[name] = torch.zeros(compared[name].shape, dtype=compared[name].dtype)
    return fitted, new


def _in_grey(tensor: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
    """Only the first convolution has three channels where one is wanted."""
    is_first = wanted is not None and tensor.ndim == 4 and (tensor.shape[1], wanted.shape[1]) == (3, 1)
    return of_one_channel(tensor) if is_first else tensor


def _renamed(name: str, wanted: State) -> str:
    return next((new for old, now in RENAMED if (new := name.replace(old, now)) in wanted), name)


def match_classes(
    state: State, fresh: State, preset: str, earlier: tuple[str, ...], classes: tuple[str, ...]
) -> tuple[State, tuple[str, ...]]:
    """The state with the rows of `classes` where those of `earlier` were, and the classes that are new.

    A new class has its rows from `fresh`: a head is never taken over by position.
    """
    row_of = {name: row for row, name in enumerate(earlier)}
    new = tuple(name for name in classes if name not in row_of)
    matched = dict(state)
    for tensor in topology_of(preset).class_tensors:
        rows = [state[tensor][row_of[name]] if name in row_of else fresh[tensor][n] for n, name in enumerate(classes)]
        matched[tensor] = torch.stack(rows)
    return matched, new
