"""Imports of modules that need PyTorch, which takes seconds: only when they are asked for."""

import atexit
import gc
import importlib
import sys
from typing import Any


def imported(name: str) -> Any:
    """The module of that name. What its imports make stays to the end: looking for garbage in it meanwhile, and in
    every later search, would take a fifth of the time of the imports."""
    full = f"whetstone_trainer.{name}"
    if full not in sys.modules:
        gc.disable()
        try:
            importlib.import_module(full)
        finally:
            gc.freeze()
            gc.enable()
            # nanobind, with which Triton is made, reports what is not freed at the end.
            atexit.register(gc.unfreeze)
    return sys.modules[full]
