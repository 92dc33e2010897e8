"""Runs specifications of ASK and TRAIN jobs from stdin, one a line, and writes a line of JSON for each.

In one process, since PyTorch takes seconds to start. Of a training it gives the top-1 after each epoch; null in the
place of the epoch in which it diverged.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from whetstone_trainer import ask
from whetstone_trainer.environment import prepare
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.protocol_json import SpecLine, read_spec_line
from whetstone_trainer.state import Saver
from whetstone_trainer.train import train

# Nobody reads the checkpoints, and writing one takes as long as an epoch.
Saver.save = lambda self: ""  # type: ignore[method-assign]


class Curve:
    def __init__(self) -> None:
        self.top1: list[float | None] = []

    def write(self, line: bytes, /) -> None:
        event = json.loads(line)
        if event["type"] == "epoch":
            self.top1.append(event["metrics"]["val.top1"])


def answer(line: SpecLine) -> Any:
    curve = Curve()
    with tempfile.TemporaryDirectory() as folder:
        events = Events(curve, line.job, line.attempt, Path(folder))
        if line.kind == "ASK":
            return ask.run(line.spec, events)
        try:
            train(line.spec, prepare(line.spec), None, events)
        except TrainerError as error:
            if error.code != "DIVERGED":
                raise
            curve.top1.append(None)
        return curve.top1


# PyTorch writes to stdout too.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin.buffer:
    print(json.dumps(answer(read_spec_line(line))), file=answers, flush=True)
