"""How a training starts: without PyTorch's compiler, whose import takes a third of the time to the first batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scenes import write_scenes
from tests import support

# Runs a specification to its first batch in a process of its own, and prints which large packages it has imported.
SCRIPT = """
import os, sys, threading
from whetstone_trainer.__main__ import attempt

class Stream:
    def write(self, line):
        if b'"type":"batch"' in line.replace(b" ", b"") and b'"train.loss"' in line:
            print([name for name in ("torch._dynamo", "torch._inductor", "sympy", "triton") if name in sys.modules])
            sys.stdout.flush()
            os._exit(0)

def lines():
    yield sys.stdin.buffer.readline()
    threading.Event().wait()  # The end of the lines would be the end of the server.

attempt(lines(), Stream())
"""

# Calls what torchvision has instead of the functions of the compiler.
CALLS = """
import json, sys
from whetstone_trainer import vision
import torchvision, torch

before = "torch._dynamo" in sys.modules

supported = torchvision.ops.roi_align.__globals__["is_compile_supported"]("cpu")
from torch._dynamo.utils import is_compile_supported

image = torchvision.tv_tensors.Image(torch.zeros(3, 8, 8))
wrapped = torchvision.tv_tensors.wrap(torch.ones(3, 8, 8), like=image)

same = supported == is_compile_supported("cpu")
print(json.dumps([before, "torch._dynamo" in sys.modules, same, type(wrapped).__name__]))
"""


@pytest.mark.parametrize("preset", ["resnet18", "yolov8n"])
def test_it_comes_to_its_first_batch_without_the_compiler(preset: str, tmp_path: Path) -> None:
    changes = {"batchSize": 4, "epochs": 1}
    if preset == "yolov8n":
        spec = support.detector_spec(write_scenes(tmp_path / "data", 8, 4, side=64), 64, changes)
    else:
        spec = support.train_spec(support.write_digits(tmp_path / "data", 8, 4), changes)
    (tmp_path / "work").mkdir()
    line = support.spec_line(tmp_path / "work", spec)
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=line,
        cwd=support.TRAINER,
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    assert result.stdout == b"[]\n", result.stderr.decode()[-2000:]


def test_what_torchvision_was_given_instead_of_the_compiler_imports_it_when_it_is_called() -> None:
    result = subprocess.run([sys.executable, "-c", CALLS], cwd=support.TRAINER, capture_output=True, check=True)
    assert json.loads(result.stdout) == [False, True, True, "Image"]
