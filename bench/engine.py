"""ONNX Runtime alone, beside the host in `bench/serve.ts`: `python engine.py RUNS THREADS`.

For each line `<file> <ms>` on stdin it runs the model for so long, RUNS at a time with THREADS each, on zeros of 1 x 3 x 224 x 224. It
prints the runs in a second. Runs that end after that time do not count.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

runs, threads = int(sys.argv[1]), int(sys.argv[2])
image = np.zeros((1, 3, 224, 224), np.float32)
sessions: dict[str, list[ort.InferenceSession]] = {}


def open_session(file: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def count_runs(session: ort.InferenceSession, end: float) -> int:
    count = 0
    while True:
        session.run(["y"], {"image": image})
        if time.perf_counter() > end:
            return count
        count += 1


with ThreadPoolExecutor(runs) as pool:
    for line in sys.stdin:
        file, ms = line.split()
        if file not in sessions:
            sessions[file] = [open_session(file) for _ in range(runs)]
        end = time.perf_counter() + float(ms) / 1000
        counts = pool.map(count_runs, sessions[file], [end] * runs)
        print(1000 * sum(counts) / float(ms), flush=True)
