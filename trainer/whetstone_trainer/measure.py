"""The job MEASURE: how long ONNX Runtime takes for one image of each size, on the CPU.

The models have random weights: the time of an inference does not depend on them. All sizes are measured in each round,
so that what happens on the machine meanwhile meets all of them alike.
"""

import statistics
import time
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from whetstone_trainer.convert import export
from whetstone_trainer.environment import prepare, say_hello
from whetstone_trainer.evaluate import onnx_session
from whetstone_trainer.events import Events
from whetstone_trainer.model import build_model
from whetstone_trainer.preprocess import channel_count
from whetstone_trainer.protocol import MeasureSpec, PreprocessSpec
from whetstone_trainer.tasks import task_of

ROUNDS = 12
BLOCK_SECONDS = 0.25
BLOCK_RUNS_MIN = 5
OPSET = 18


def run(spec: MeasureSpec, events: Events) -> dict[str, Any]:
    """Returns `MeasureResult` of the protocol."""
    say_hello(events, spec, prepare(spec))
    events.phase("export", len(spec.preprocess))
    sessions = [_session(spec, preprocess, events) for preprocess in spec.preprocess]
    noise = np.random.default_rng(spec.seed)
    shapes = [(1, channel_count(size), size.height, size.width) for size in spec.preprocess]
    inputs = [noise.standard_normal(shape, np.float32) for shape in shapes]
    events.phase("measurement", (ROUNDS + 1) * len(sessions))
    rounds = []
    for _ in range(ROUNDS + 1):
        rounds.append([_block(*cell) for cell in zip(sessions, inputs, strict=True)])
        events.advance(len(sessions))
        events.check_stop()
    # The first round warms up.
    return {"latenciesMs": [round(statistics.median(blocks), 3) for blocks in zip(*rounds[1:], strict=True)]}


def _session(spec: MeasureSpec, preprocess: PreprocessSpec, events: Events) -> ort.InferenceSession:
    model = build_model(spec.preset, spec.class_count, channel_count(preprocess))
    exported, _ = export(model, task_of(spec.preset).OUTPUTS, preprocess, OPSET, events)
    events.advance()
    events.check_stop()
    return onnx_session(exported.SerializeToString(), spec.cpu_threads)


def _block(session: ort.InferenceSession, image: NDArray[np.float32]) -> float:
    """The median of a block of runs, in milliseconds."""
    times: list[float] = []
    end = time.perf_counter() + BLOCK_SECONDS
    while len(times) < BLOCK_RUNS_MIN or time.perf_counter() < end:
        started = time.perf_counter()
        session.run(None, {"input": image})
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)
