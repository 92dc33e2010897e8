"""Several processes that train together, on a CPU with gloo: they compute what one does, and end together."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import distributed, nn

from scenes import write_scenes
from tests import support
from tests.support import Json, attempt, run_here, train_spec
from whetstone_trainer.data import shown
from whetstone_trainer.ranks import Ranks

HYPERPARAMETERS = {
    "epochs": 2,
    "batchSize": 15,
    "accumulate": 2,
    "multiScale": 0.5,
    "optimizer": "SGD",
    "learningRate": 0.02,
}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """Of two processes with one thread each; three batches of 7 and 8 images, in two steps an epoch."""
    dataset = support.write_digits(tmp_path_factory.mktemp("digits"), 45, 10)
    return train_spec(dataset, HYPERPARAMETERS, processes=2, cpuThreads=1, workers=0)


def weights_of(running: support.Attempt) -> str:
    return next(str(event["meta"]["weightsHash"]) for event in running.of("artifact") if event["kind"] == "WEIGHTS")


def processes_of(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text("ascii").rsplit(") ", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(spec: Json, tmp_path_factory: pytest.TempPathFactory) -> support.Attempt:
    """An undisturbed training."""
    with attempt(tmp_path_factory.mktemp("whole"), spec) as running:
        assert running.end() == 0, running.events[-1]
        assert processes_of(running.process.pid) == []
    return running


def small_model() -> nn.Sequential:
    """With frozen batch normalisation too, and one that has an activation, as timm's have."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.Conv2d(5, 2, 1),
        nn.BatchNorm2d(2),
    ]
    model = nn.Sequential(*layers).train()
    layers[1].eval()
    layers[3].act = nn.SiLU()
    return model


def state_after_a_step(ranks: Ranks, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the small model after the gradient of this rank's part of the images: gradients and running statistics."""
    first, end = ranks.part
    model = cast(nn.Sequential, ranks.synchronised(small_model(), torch.device("cpu"))).double()
    if ranks.size == 1:
        model[3].register_forward_hook(lambda module, _, output: module.act(output))
    else:
        model[1].eval()
    (model(images[first:end]).square().mean() * ranks.share).backward()
    ranks.sum_gradients(model)
    gradients = {name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}
    return {**gradients, **dict(model.named_buffers())}


def as_a_rank(rank: int, folder: Path, images: torch.Tensor) -> None:
    torch.set_num_threads(1)
    ranks = Ranks(rank, 2, len(images))
    ranks.join(torch.device("cpu"), folder)
    torch.save(state_after_a_step(ranks, images), folder / str(rank))
    # As a training ends. Otherwise a thread of gloo may still run when the process ends, which aborts it.
    distributed.destroy_process_group()


def test_gradients_and_statistics_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    images = torch.rand(5, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = state_after_a_step(Ranks(0, 1, 5), images)
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=as_a_rank, args=(rank, tmp_path, images)) for rank in (0, 1)]
    for one in others:
        one.start()
    for one in others:
        one.join()
        assert one.exitcode == 0
    for rank in (0, 1):
        found = torch.load(tmp_path / str(rank), weights_only=True)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert torch.allclose(found[name], tensor, rtol=1e-9, atol=1e-12), name


@pytest.mark.long
def test_they_train_as_one_process_does(spec: Json, whole: support.Attempt, tmp_path: Path) -> None:
    """But for rounding, which batch normalisation over a few values makes larger."""
    code, alone = run_here(tmp_path, {**spec, "processes": 1})
    assert code == 0
    assert whole.events[0]["environment"]["processes"] == 2
    for one, two in zip(alone.of("epoch"), whole.of("epoch"), strict=True):
        assert one["step"] == two["step"]
        assert two["metrics"]["train.loss"] == pytest.approx(one["metrics"]["train.loss"], rel=1e-2)


def test_when_one_is_killed_the_attempt_crashes_and_the_next_one_ends_on_the_same_weights(
    spec: Json, whole: support.Attempt, tmp_path: Path
) -> None:
    spec = {**spec, "checkpointSeconds": 0}
    with attempt(tmp_path / "1", spec) as running:
        # All of them import PyTorch at the same time.
        running.wait_for("hello")
        assert len(processes_of(running.process.pid)) == 2
        # Between the batches of a step no checkpoint is written.
        checkpoint = running.wait_for("checkpoint")
        assert (checkpoint["epoch"], checkpoint["batch"]) == (0, 2)
        (other,) = set(processes_of(running.process.pid)) - {running.process.pid}
        os.kill(other, signal.SIGKILL)
        assert running.end() == 74
        error = running.events[-1]
        assert (error["type"], error["code"], error["retryable"]) == ("error", "PROCESS_DIED", True)
        assert "Process 2 of the 2 that train together was killed by SIGKILL." in error["message"]
        wait_until(lambda: processes_of(running.process.pid) == [])
    resume = str(tmp_path / "1" / running.of("checkpoint")[-1]["file"])
    with attempt(tmp_path / "2", {**spec, "resumeFrom": resume, "workers": 1}, 2) as running:
        assert running.end() == 0, running.events[-1]
    assert running.events[0]["resumed"] is not None
    assert weights_of(running) == weights_of(whole)
    assert running.of("epoch")[-1]["metrics"] == whole.of("epoch")[-1]["metrics"]


def test_a_training_resumes_with_as_many_as_it_began_with(spec: Json, whole: support.Attempt, tmp_path: Path) -> None:
    file = next(event["file"] for event in whole.of("artifact") if event["kind"] == "CHECKPOINT")
    code, recorder = run_here(tmp_path, {**spec, "processes": 1, "resumeFrom": str(whole.work_dir / file)})
    assert code == 64
    assert "was written by 2 processes that trained together, and this job has 1" in recorder.events[-1]["message"]


@pytest.mark.long
def test_after_a_stop_they_end_on_the_same_weights(spec: Json, whole: support.Attempt, tmp_path: Path) -> None:
    with attempt(tmp_path / "1", spec) as running:
        running.wait_for("epoch")
        running.send("suspend")
        assert running.end() == 75
        wait_until(lambda: processes_of(running.process.pid) == [])
    resume = str(tmp_path / "1" / running.of("checkpoint")[-1]["file"])
    with attempt(tmp_path / "2", {**spec, "resumeFrom": resume}, 2) as running:
        assert running.end() == 0, running.events[-1]
    assert running.events[0]["resumed"] is not None
    assert weights_of(running) == weights_of(whole)


@pytest.mark.long
def test_what_goes_wrong_in_one_of_them_is_why_the_attempt_fails(spec: Json, tmp_path: Path) -> None:
    """An image that only the second process reads is damaged."""
    dataset = support.write_digits(tmp_path / "digits", 45, 10)
    number = int(shown(45, spec["seed"], 0, None)[14])
    lines = [json.loads(line) for line in Path(dataset["manifest"]).read_text("utf-8").splitlines()]
    path = lines[number]["path"]
    support.damage(dataset, number)
    with attempt(tmp_path / "work", {**spec, "dataset": dataset, "cacheBytesMax": 0}) as running:
        assert running.end() == 65
        error = running.events[-1]
        assert (error["type"], error["code"]) == ("error", "DATA_INVALID")
        assert path in error["message"]
        wait_until(lambda: processes_of(running.process.pid) == [])


def test_a_batch_has_an_image_for_each(spec: Json, tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, {**spec, "processes": 16})
    assert code == 64
    assert recorder.events[-1]["message"].startswith("A batch has 15 images, too few for 16 processes.")


@pytest.mark.long
def test_a_detector_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Its loss is a mean over the assigned quality of the whole batch, which is not known to either."""
    dataset = write_scenes(tmp_path / "scenes", 24, 8)
    spec = support.detector_spec(dataset, 96, {"epochs": 1, "batchSize": 6}, cpuThreads=1, workers=0)
    code, alone = run_here(tmp_path / "1", spec)
    assert code == 0
    with attempt(tmp_path / "2", {**spec, "processes": 2}) as running:
        assert running.end() == 0, running.events[-1]
    one, two = alone.of("epoch")[0]["metrics"], running.of("epoch")[0]["metrics"]
    for name in ("train.loss", "train.classLoss", "train.boxLoss", "train.distributionLoss"):
        assert two[name] == pytest.approx(one[name], rel=1e-2)


@pytest.mark.long
def test_killed_ten_times_they_end_on_the_same_weights(spec: Json, whole: support.Attempt, tmp_path: Path) -> None:
    spec, resume = {**spec, "checkpointSeconds": 0}, None
    moments = np.random.default_rng(0)
    for number in range(1, 11):
        with attempt(tmp_path / str(number), {**spec, "resumeFrom": resume}, number) as running:
            running.wait_for("phase", phase="training")
            time.sleep(moments.uniform(0, 3))
            victim = moments.choice(processes_of(running.process.pid))
            os.kill(int(victim), signal.SIGKILL)
            running.end()
            wait_until(lambda group=running.process.pid: processes_of(group) == [])  # type: ignore[misc]
        found = sorted((tmp_path / str(number)).glob("checkpoint-*.safetensors"))
        resume = str(found[-1]) if found else resume
    with attempt(tmp_path / "last", {**spec, "resumeFrom": resume}, 11) as running:
        assert running.end() == 0, running.events[-1]
    assert weights_of(running) == weights_of(whole)


@pytest.mark.long
def test_stdin_that_closes_ends_all_of_them(spec: Json, tmp_path: Path) -> None:
    with attempt(tmp_path, spec) as running:
        running.wait_for("batch", phase="training")
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.end() == -signal.SIGKILL
        wait_until(lambda: processes_of(running.process.pid) == [])
