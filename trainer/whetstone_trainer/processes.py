"""The processes of a training beside the first: `python -m whetstone_trainer.processes <rank> <descriptor>` is one.

Rank 0, the attempt itself, starts them in its own process group and tells them to begin each epoch. They hold nothing
that it does not hold too, so it ends them whenever it likes by closing their stdin, which also happens when it dies.
One that fails says why on the descriptor; then, or when one was killed, rank 0 ends the attempt.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events, input_lines
from whetstone_trainer.imports import imported
from whetstone_trainer.protocol import ERROR_CODES, VERSION, TrainSpec
from whetstone_trainer.protocol_json import read_spec_line, to_json

# When one rank ends, the others get an error of the network. So long they wait until the cause is known.
PATIENCE_SECONDS = 10
END_SECONDS = 5
SAID_BYTES_MAX = 65536
# The file in the work folder by which they meet.
RENDEZVOUS = "rendezvous"


class OtherRanks:
    """All but rank 0, from the start of this until its first end as a context. Without others it does nothing."""

    def __init__(self, spec: TrainSpec, events: Events) -> None:
        self._events, self._size, self._ending = events, spec.processes, False
        self._processes: list[subprocess.Popen[bytes]] = []
        if self._size == 1:
            return
        (events.work_dir / RENDEZVOUS).unlink(missing_ok=True)
        asked = {"kind": "TRAIN", **to_json(spec)}
        read = {"v": VERSION, "job": "rank", "attempt": 1, "workDir": str(events.work_dir), "spec": asked}
        line = json.dumps(read).encode() + b"\n"
        for rank in range(1, self._size):
            self._start(rank, line)

    def _start(self, rank: int, line: bytes) -> None:
        reader, writer = os.pipe()
        # A worker process of the rank may hold the other end open.
        os.set_blocking(reader, False)
        process = subprocess.Popen(
            [sys.executable, "-m", "whetstone_trainer.processes", str(rank), str(writer)],
            stdin=subprocess.PIPE,
            pass_fds=(writer,),
        )
        os.close(writer)
        self._processes.append(process)
        self._write(process, line)
        threading.Thread(target=self._watch, args=(rank, process, reader), name=f"rank {rank}", daemon=True).start()

    def begin_epoch(self) -> None:
        for process in self._processes:
            self._write(process, b"epoch\n")

    def __enter__(self) -> "OtherRanks":
        return self

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._processes and _may_be_of_another(error):
            # The thread that watches the other rank ends this process meanwhile.
            time.sleep(PATIENCE_SECONDS)
        self._ending = True
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_initialized():
            distributed.destroy_process_group()

    @staticmethod
    def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended: the thread that watches it says so.

    def _watch(self, rank: int, process: subprocess.Popen[bytes], reader: int) -> None:
        code = process.wait()
        if self._ending:
            os.close(reader)
            return
        try:
            said = os.read(reader, SAID_BYTES_MAX)
        except BlockingIOError:
            said = b""
        error = TrainerError(**json.loads(said)) if said else self._died(rank, code)
        self._events.error(error)
        # The training's own thread may wait for that rank in a driver, for ever.
        os._exit(ERROR_CODES[error.code])

    def _died(self, rank: int, code: int) -> TrainerError:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return TrainerError(
            "PROCESS_DIED",
            f"Process {rank + 1} of the {self._size} that train together {how}. "
            "If this happens again, the machine may lack memory: use a smaller batchSize, or fewer processes.",
            retryable=True,
        )


def _may_be_of_another(error: BaseException | None) -> bool:
    """Whether the error may be that another rank has ended."""
    return isinstance(error, RuntimeError) and imported("environment").out_of_memory(error) is None


def main(rank: int, descriptor: int) -> None:
    """Trains as one of the other ranks, until stdin closes."""
    lines = input_lines(sys.stdin.fileno())
    line = read_spec_line(next(lines))
    epochs: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        for told in lines:
            epochs.put(told)
        os._exit(0)

    threading.Thread(target=listen, name="listener", daemon=True).start()
    try:
        assert isinstance(line.spec, TrainSpec)
        with open(os.devnull, "wb") as nowhere:
            events = Events(nowhere, line.job, line.attempt, Path(line.work_dir))
            imported("train").train_as(rank, line.spec, events, epochs.get)
    except Exception as error:
        traceback.print_exc()
        if _may_be_of_another(error):
            time.sleep(PATIENCE_SECONDS)
        os.write(descriptor, json.dumps(_said(error)).encode())
        os._exit(1)


def _said(error: Exception) -> dict[str, Any]:
    from whetstone_trainer.__main__ import typed_error  # noqa: PLC0415

    typed = typed_error(error)
    return {**vars(typed), "message": typed.message[:4000], "details": typed.details[:10]}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
