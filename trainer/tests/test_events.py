"""What an attempt says and hears."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from tests.support import Recorder
from whetstone_trainer import events as module
from whetstone_trainer.errors import Stopped, TrainerError
from whetstone_trainer.events import Events, input_lines, start_heartbeat, start_watcher
from whetstone_trainer.protocol import LINE_BYTES_MAX


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def events(recorder: Recorder, tmp_path: Path) -> Events:
    return Events(recorder, "job-1", 3, tmp_path)


def test_lines_are_numbered_without_gaps_from_any_thread(events: Events, recorder: Recorder) -> None:
    def talk() -> None:
        for _ in range(50):
            events.warn("CODE", "text")

    threads = [threading.Thread(target=talk) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["n"] for event in recorder.events] == list(range(1, 401))
    assert {(event["v"], event["job"], event["attempt"]) for event in recorder.events} == {(1, "job-1", 3)}


def test_a_phase_counts_its_units_and_the_step_never_goes_back(
    events: Events, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.0)
    events.phase("caching", 2)
    events.advance()
    events.advance()
    events.phase("training", 7)
    events.advance(epoch=(2, 10), metrics=lambda: {"train.loss": 0.5}, items_per_second=73.0, eta_seconds=1.5)
    ticks = recorder.of("batch")
    assert [(tick["phase"], tick["done"], tick["total"]) for tick in ticks] == [
        ("caching", 1, 2),
        ("caching", 2, 2),
        ("training", 1, 7),
    ]
    assert [tick["step"] for tick in ticks] == sorted({tick["step"] for tick in ticks})
    assert (ticks[2]["epoch"], ticks[2]["epochs"], ticks[2]["etaMs"]) == (2, 10, 1500)
    assert ticks[2]["metrics"] == {"train.loss": 0.5}


def test_ticks_are_dropped_between_two_that_are_near(
    events: Events, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    events.phase("training", None)
    for _ in range(100):
        events.advance(metrics=lambda: {"asked": float(len(recorder.of("batch")))})
        now[0] += 0.01
    ticks = recorder.of("batch")
    assert len(ticks) == 4
    assert [tick["metrics"]["asked"] for tick in ticks] == [
        0,
        1,
        2,
        3,
    ]  # nothing is computed for a tick that is dropped


def test_a_line_that_is_too_long_or_not_finite_is_a_bug(events: Events, recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="bytes"):
        events.emit("done", status="ok", result={"text": "x" * LINE_BYTES_MAX})
    with pytest.raises(ValueError, match="Out of range float"):
        events.emit("done", status="ok", result={"loss": float("nan")})
    events.emit("done", status="ok", result={})
    assert [event["n"] for event in recorder.events] == [1]


def test_nothing_comes_after_the_end(events: Events, recorder: Recorder) -> None:
    events.emit("done", status="ok", result={})
    events.heartbeat()
    events.warn("LATE", "from another thread")
    assert [event["type"] for event in recorder.events] == ["done"]


def test_errors_fit_a_line_and_name_no_folder(events: Events, recorder: Recorder) -> None:
    details = tuple(f"/data/datasets/x/{'ü' * 600}{n}.png" for n in range(200))
    events.error(
        TrainerError("DATA_INVALID", "cannot read /data/secret/a.png", hint="see /data/log/x", details=details)
    )
    (error,) = recorder.events
    assert error["message"] == "cannot read a.png"
    assert error["hint"] == "see x"
    assert 0 < len(error["details"]) <= 50
    assert not any(detail.startswith("/") for detail in error["details"])


def test_the_heartbeat_starts_after_hello_and_shows_the_step(
    events: Events, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.001)
    events.heartbeat()
    assert recorder.events == []
    events.phase("export", 3)
    stop = start_heartbeat(events)
    with recorder.written:
        assert recorder.written.wait_for(lambda: len(recorder.of("heartbeat")) >= 2, 30)
    events.advance()
    step = recorder.of("batch")[0]["step"]
    with recorder.written:
        assert recorder.written.wait_for(lambda: recorder.events[-1].get("step") == step, 30)
    stop()
    beats = recorder.of("heartbeat")
    assert beats[0]["phase"] == "export"
    assert beats[0]["rssBytes"] > 1_000_000
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def listen(events: Events, lines: list[bytes]) -> None:
    """Hands over the lines and waits until stdin is closed."""
    reader, writer = os.pipe()
    closed = threading.Event()
    start_watcher(input_lines(reader), events, closed.set)
    for line in lines:
        os.write(writer, line)
    os.close(writer)
    assert closed.wait(30)
    os.close(reader)


@pytest.mark.parametrize(
    ("commands", "status"),
    [
        (["cancel"], "cancelled"),
        (["suspend"], "suspended"),
        (["suspend", "cancel"], "cancelled"),
        (["cancel", "suspend"], "cancelled"),
    ],
    ids="-".join,
)
def test_commands_stop_the_job(events: Events, commands: list[str], status: str) -> None:
    events.check_stop()
    listen(events, [json.dumps({"v": 1, "command": command}).encode() + b"\n" for command in commands])
    with pytest.raises(Stopped) as caught:
        events.check_stop()
    assert caught.value.status == status


def test_other_lines_are_warned_of_and_ignored(events: Events, recorder: Recorder) -> None:
    listen(events, [b"nonsense\n", b'{"v":2,"command":"cancel"}\n', b'{"v":1,"command":"dance"}\n[]\n', b"no line end"])
    events.check_stop()
    assert [event["code"] for event in recorder.events] == ["COMMAND_UNKNOWN"] * 4


def test_lines_are_put_together_from_pieces() -> None:
    reader, writer = os.pipe()
    for piece in (b"on", b"e\ntwo\nth", b"ree\n"):
        os.write(writer, piece)
    os.close(writer)
    assert list(input_lines(reader)) == [b"one", b"two", b"three"]
    os.close(reader)


def test_a_server_that_does_not_read_any_more_ends_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[bool] = []
    monkeypatch.setattr(module, "kill_process_group", lambda: killed.append(True))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as stream:
        Events(stream, "job-1", 1, tmp_path).warn("CODE", "text")
    assert killed == [True]
