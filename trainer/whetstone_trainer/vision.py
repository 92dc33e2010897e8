"""The parts of torchvision that are used here. Every other module imports them from this one.

torchvision reads two functions of `torch._dynamo`, PyTorch's compiler, while it is imported. Nothing is compiled here,
and that import takes a second: a third of the time until a training's first batch. So for as long as torchvision is
imported, stand-ins have these functions; they import the compiler when they are called. A torchvision that reads
anything else of it imports it as always: later, but with the same result.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


class _StandIn(ModuleType):
    """A module of the compiler that is imported when something else than its known functions is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # The import system looks for such names in every module.
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _remove_stand_ins() -> None:
    for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
        del sys.modules[name]


@contextmanager
def _compiler_not_imported() -> Iterator[None]:
    if COMPILER in sys.modules:
        yield
        return
    compiler, utils = _StandIn(COMPILER), _StandIn(f"{COMPILER}.utils")

    def disable(function: Any, recursive: bool = True, *, reason: str | None = None) -> Any:
        return torch._disable_dynamo(function, recursive)  # type: ignore[attr-defined]

    def is_compile_supported(device_type: Any) -> Any:
        return importlib.import_module(utils.__name__).is_compile_supported(device_type)

    compiler.disable = disable  # type: ignore[attr-defined]
    utils.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {module.__name__: module for module in (compiler, utils)}
    try:
        yield
    finally:
        _remove_stand_ins()


with _compiler_not_imported():
    from torchvision.models import get_model, get_model_weights
    from torchvision.ops import box_iou, complete_box_iou_loss, nms
    from torchvision.transforms.v2 import functional

__all__ = ["box_iou", "complete_box_iou_loss", "functional", "get_model", "get_model_weights", "nms"]
