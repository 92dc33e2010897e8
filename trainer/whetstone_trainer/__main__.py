"""`python -m whetstone_trainer`: one job attempt. Commands come in on stdin, events go out on fd 3, logs on stderr."""

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from whetstone_trainer.errors import Stopped, TrainerError, disk_full
from whetstone_trainer.events import Events, Stream, input_lines, kill_process_group, start_heartbeat, start_watcher
from whetstone_trainer.imports import imported
from whetstone_trainer.processes import OtherRanks
from whetstone_trainer.protocol import ERROR_CODES, EXIT_STOPPED, TrainSpec
from whetstone_trainer.protocol_json import SpecLine, read_spec_line

EVENTS_FD = 3
# The module that runs a kind.
MODULES = {
    "TRAIN": "train",
    "CONVERT": "convert",
    "COMPRESS": "compress",
    "EVALUATE": "evaluate",
    "IMPORT_MODEL": "import_model",
    "ASK": "ask",
    "MEASURE": "measure",
}


def main() -> int:
    try:
        stream = os.fdopen(EVENTS_FD, "wb", buffering=0)
    except OSError:
        print(
            "The trainer is started by the Whetstone server: it writes its events to file descriptor 3.",
            file=sys.stderr,
        )
        return ERROR_CODES["SPEC_INVALID"]
    # A group of its own, so that killing it takes the threads' and children's processes along and nobody else's.
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    os.set_inheritable(EVENTS_FD, False)
    return attempt(input_lines(sys.stdin.fileno()), stream)


def attempt(lines: Iterator[bytes], stream: Stream) -> int:
    """Runs the job of the first line; returns the exit code."""
    try:
        line = read_spec_line(next(lines, b""))
        work_dir = Path(line.work_dir)
        if not work_dir.is_dir():
            raise TrainerError("SPEC_INVALID", "workDir is not a folder.")
    except TrainerError as error:
        # A specification that cannot be read is reported by the log and the exit code only.
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return ERROR_CODES[error.code]
    events = Events(stream, line.job, line.attempt, work_dir)
    start_watcher(lines, events, on_close=kill_process_group)
    stop_heartbeat = start_heartbeat(events)
    try:
        return run(line, events)
    finally:
        stop_heartbeat()


def run(line: SpecLine, events: Events) -> int:
    """Runs the job and says how it ended."""
    try:
        if isinstance(line.spec, TrainSpec):
            # All of them import PyTorch at the same time.
            with OtherRanks(line.spec, events) as others:
                result = imported(MODULES[line.kind]).run(line.spec, events, others)
        else:
            result = imported(MODULES[line.kind]).run(line.spec, events)
    except Stopped as stopped:
        events.emit("done", status=stopped.status, result={})
        return EXIT_STOPPED
    except Exception as error:
        traceback.print_exc()
        typed = typed_error(error)
        events.error(typed)
        return ERROR_CODES[typed.code]
    events.emit("done", status="ok", result=result)
    return 0


def typed_error(error: Exception) -> TrainerError:
    """The failure as the protocol knows it."""
    if full := disk_full(error):
        return full
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return TrainerError(
            "EXTRA_MISSING", f"The Python package {error.name} is missing.", hint="Run the set-up again."
        )
    if isinstance(error, OSError):
        return TrainerError("IO", f"Reading or writing failed: {error.strerror or error}", retryable=True)
    # Only now: a job that has not come so far as to import PyTorch cannot have used up its memory.
    from whetstone_trainer.environment import out_of_memory  # noqa: PLC0415

    return out_of_memory(error) or TrainerError("INTERNAL", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
