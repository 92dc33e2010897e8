"""What an attempt says on fd 3 and hears on stdin.

Three threads: the job's own, which advances `step` with each unit of work; the heartbeat, which reports the step, so
that a job that hangs shows; and the watcher, which turns command lines into `stop_requested` and kills the process
group when stdin closes, so that no orphan outlives the server.
"""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from whetstone_trainer.errors import Stopped, TrainerError, mask_paths
from whetstone_trainer.protocol import LINE_BYTES_MAX, VERSION

HEARTBEAT_SECONDS = 5.0
TICK_SECONDS = 0.25
INPUT_LINE_BYTES_MAX = 16 * 2**20


class Stream(Protocol):
    def write(self, line: bytes, /) -> object: ...


class Events:
    """The voice of one attempt. Every method may be called from any thread.

    Args:
        stream: unbuffered; each event is one write.
        work_dir: where artifacts and checkpoints are written.
    """

    def __init__(self, stream: Stream, job: str, attempt: int, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.stop_requested: str | None = None
        self._stream = stream
        self._envelope = {"v": VERSION, "job": job, "attempt": attempt}
        self._lock = threading.Lock()
        self._n = 0
        self._ended = False
        self._step = 0
        self._phase = "start"
        self._done = 0
        self._total: int | None = None
        self._last_tick = 0.0

    def emit(self, type: str, **fields: Any) -> None:
        """Writes one event. Nothing comes after `done` or `error`, whatever another thread still wants to say."""
        with self._lock:
            if self._ended:
                return
            event = {**self._envelope, "n": self._n + 1, "t": time.time_ns() // 1_000_000, "type": type, **fields}
            line = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
            if len(line) > LINE_BYTES_MAX:
                raise ValueError(f"{type} event of {len(line)} bytes")
            self._n += 1
            self._ended = type in ("done", "error")
            try:
                self._stream.write(line)
            except BrokenPipeError:
                # The server has gone, though stdin may still be open: nobody would end this process.
                kill_process_group()

    def phase(self, phase: str, total: int | None = None) -> None:
        """A new phase of `total` units begins."""
        self._phase, self._done, self._total, self._last_tick = phase, 0, total, 0.0
        self._step += 1
        self.emit("phase", phase=phase, total=total)

    def advance(
        self,
        count: int = 1,
        *,
        epoch: tuple[int, int] | None = None,
        metrics: Callable[[], dict[str, float]] = dict,
        items_per_second: float | None = None,
        eta_seconds: float | None = None,
    ) -> None:
        """`count` units of the phase are done; says so at most 4 times a second. `epoch` is (number, of)."""
        self._step += count
        self._done += count
        now = time.monotonic()
        if now - self._last_tick < TICK_SECONDS:
            return
        self._last_tick = now
        self.emit(
            "batch",
            phase=self._phase,
            step=self._step,
            done=self._done,
            total=self._total,
            epoch=epoch[0] if epoch else None,
            epochs=epoch[1] if epoch else None,
            metrics=metrics(),
            itemsPerSecond=items_per_second,
            etaMs=None if eta_seconds is None else round(eta_seconds * 1000),
        )

    def heartbeat(self) -> None:
        if self._n == 0:
            return  # hello comes first
        self.emit("heartbeat", phase=self._phase, step=self._step, rssBytes=_resident_bytes())

    def warn(self, code: str, message: str) -> None:
        self.emit("warning", code=code, message=mask_paths(message)[:4000])

    def artifact(self, kind: str, file: str, meta: dict[str, Any]) -> None:
        """A finished file of the work folder."""
        sha256, size = file_hash(self.work_dir / file)
        self.emit("artifact", kind=kind, file=file, sha256=sha256, sizeBytes=size, meta=meta)

    def error(self, error: TrainerError) -> None:
        details = [mask_paths(detail)[:500] for detail in error.details[:50]]
        while len(json.dumps(details, ensure_ascii=False).encode()) > LINE_BYTES_MAX // 2:
            details.pop()
        hint = None if error.hint is None else mask_paths(error.hint)[:4000]
        self.emit(
            "error",
            code=error.code,
            message=mask_paths(error.message)[:4000],
            retryable=error.retryable,
            hint=hint,
            details=details,
        )

    def check_stop(self) -> None:
        """Raises Stopped after a command. Called where nothing is lost by stopping."""
        if self.stop_requested is not None:
            raise Stopped(self.stop_requested)


def start_heartbeat(events: Events) -> Callable[[], None]:
    """Starts the heartbeat thread and returns the function that ends it."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            events.heartbeat()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()

    def stop() -> None:
        ended.set()
        thread.join()

    return stop


def input_lines(fd: int) -> Iterator[bytes]:
    """Lines of a file descriptor, without a lock that would be held at exit. An over-long line ends the input."""
    rest = b""
    while len(rest) < INPUT_LINE_BYTES_MAX and (chunk := os.read(fd, 65536)):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def start_watcher(lines: Iterator[bytes], events: Events, on_close: Callable[[], None]) -> None:
    """Reads commands until stdin closes, then calls `on_close`."""

    def watch() -> None:
        try:
            for line in lines:
                _obey(line, events)
        finally:
            on_close()

    threading.Thread(target=watch, name="watcher", daemon=True).start()


def kill_process_group() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _obey(line: bytes, events: Events) -> None:
    try:
        command = json.loads(line)
    except ValueError:
        command = None
    name = command.get("command") if isinstance(command, dict) and command.get("v") == VERSION else None
    if name == "cancel":
        events.stop_requested = "cancelled"
    elif name == "suspend":
        # A cancel that came before is not taken back.
        events.stop_requested = events.stop_requested or "suspended"
    else:
        events.warn("COMMAND_UNKNOWN", "A line on stdin is not a command of this protocol version; it was ignored.")


def _resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return None  # macOS has no /proc
    return pages * os.sysconf("SC_PAGE_SIZE")


def file_hash(path: Path) -> tuple[str, int]:
    """SHA-256 in hex, and the size in bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size
