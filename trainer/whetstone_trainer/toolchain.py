"""What PyTorch's compiler needs on the machine at run time, beside PyTorch. Without PyTorch, which is slow to import.

`python -m whetstone_trainer.toolchain cpu|cuda` says on stderr what is missing, and ends with 1: the server asks it
before it queues a training that is to be compiled.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda"]


def problem(device: Device) -> str | None:
    """What is missing and how to install it, or None."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "The Python package triton is missing, which compiles for GPUs: run the set-up again."
    if _compiler(device) is None:
        variable, names = _wanted(device)
        return (
            f"A {'C' if device == 'cuda' else 'C++'} compiler is missing on the server ({' or '.join(names)}). Install "
            f"one (Debian and Ubuntu: the package g++; macOS: `xcode-select --install`), or name it in {variable}."
        )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return (
            f"The headers of Python {version} (Python.h) are missing on the server: install the package "
            f"python{version}-dev (Debian and Ubuntu), or a Python with its headers."
        )
    return None


def name(device: Device) -> str:
    """The compiler with its version. Only where there is no problem."""
    if device == "cuda":
        return f"triton {metadata.version('triton')}"
    command = _compiler(device)
    assert command is not None
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    return said.split("\n", 1)[0] or Path(command).name


def _wanted(device: Device) -> tuple[str, tuple[str, ...]]:
    """The environment variable, and the names that PyTorch and Triton look for."""
    if device == "cuda":
        return "CC", (os.environ["CC"],) if "CC" in os.environ else ("clang", "gcc")
    return "CXX", (os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"),)


def _compiler(device: Device) -> str | None:
    return next(filter(None, map(shutil.which, _wanted(device)[1])), None)


if __name__ == "__main__":
    asked: Device = "cuda" if sys.argv[1] == "cuda" else "cpu"
    if found := problem(asked):
        sys.exit(found)
