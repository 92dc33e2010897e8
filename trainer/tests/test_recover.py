"""Fine-tuning with fake quantisation: what it rounds, what it gains, and that it is a function of its specification."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests import support
from tests.conftest import Trained, model_ref
from tests.support import Json, Recorder, run_here
from whetstone_trainer.checkpoint import save_tensors
from whetstone_trainer.convert import Source, export, write_onnx
from whetstone_trainer.data import read_split
from whetstone_trainer.environment import prepare
from whetstone_trainer.errors import Stopped
from whetstone_trainer.evaluate import onnx_session, torch_predictor
from whetstone_trainer.events import Events
from whetstone_trainer.images import Images, open_images
from whetstone_trainer.model import TOPOLOGIES, Topology, build_model, read_state, weights_hash
from whetstone_trainer.preprocess import normalise
from whetstone_trainer.protocol import CompressSpec, DatasetRef, PreprocessSpec, TrainSpec
from whetstone_trainer.protocol_json import build, read_spec_line
from whetstone_trainer.quantise import open_quantiser
from whetstone_trainer.recover import Rounded, find_ranges, recovered, with_rounding, without_rounding
from whetstone_trainer.tasks import TASKS
from whetstone_trainer.train import resumable

WIDE = 300


class Small(nn.Module):
    """As a ResNet is made: normalisation, one ReLU that works in place, a sum in place."""

    def __init__(self, class_count: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(256, class_count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        y += x
        return self.fc(self.relu(y).flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def small_preset() -> Iterator[None]:
    """`resnet18` is the small network, and the older exporter is used, which takes no seconds."""
    export = torch.onnx.export

    def older(*args: Any, dynamo: bool, **named: Any) -> Any:
        if dynamo:
            raise RuntimeError("not in this test")
        return export(*args, dynamo=False, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TOPOLOGIES, "resnet18", Topology(Small, "fc.", ("fc.weight", "fc.bias"), ("conv2.",), ("fc.",)))
        patch.setattr(torch.onnx, "export", older)
        yield


@pytest.fixture(scope="module")
def task(small_preset: None, digits: Json, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """A compression of a small classifier that naive INT8 harms, with its fine-tuning."""
    folder = tmp_path_factory.mktemp("small")
    training = support.train_spec(digits, {"cropScale": 1, "colorJitter": 0, "emaDecay": 0, "mixedPrecision": "OFF"})
    training |= {"preprocess": support.preprocess(8)}
    preprocess = build(PreprocessSpec, training["preprocess"])
    images = open_images(
        build(DatasetRef, digits), read_split(build(DatasetRef, digits), "train"), TASKS["CLASSIFICATION"], preprocess
    )
    inputs = normalise(torch.stack([images[n] for n in range(len(images))]), preprocess)
    torch.manual_seed(0)
    model = Small(10)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), torch.tensor(images.truths)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        # One scale for all channels of a tensor rounds the others to zero.
        for values in (model.bn2.weight, model.bn2.bias):
            values[0] *= WIDE
        model.conv3.weight[:, 0] /= WIDE
    save_tensors(folder / "weights.safetensors", model.state_dict(), {})
    exported, _ = export(model, ("logits",), preprocess, 18, Events(Recorder(), "job", 1, folder))
    write_onnx(
        exported, Source(model, "resnet18", tuple(digits["classes"]), preprocess, "", None), folder / "model.onnx"
    )
    spec = support.compress_spec(model_ref(training, "ONNX", folder / "model.onnx"), digits, "INT8", 4)
    init = {"from": "WEIGHTS", "file": str(folder / "weights.safetensors"), "classes": digits["classes"]}
    hyperparameters = {**training["hyperparameters"], "epochs": 3, "learningRate": 1e-4, "warmupSteps": 2}
    return {**spec, "recover": {**training, "hyperparameters": hyperparameters, "init": init}}


def test_a_network_that_int8_harms_keeps_its_metric_with_all_operators_in_int8(task: Json, tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, task)
    assert code == 0
    (gate,) = recorder.of("gate")
    numbers = gate["numbers"]
    before, after = numbers["steps"]
    assert [(step["operators"], step["recovered"]) for step in (before, after)] == [(0, False), (0, True)]
    parent = numbers["metric"]["parent"]
    assert 100 * (parent - before["metric"]) > 4 >= 100 * (parent - after["metric"])
    assert (numbers["kept"], numbers["metric"]["candidate"]) == ([], after["metric"])
    recovery = {"epochs": 3, "learningRate": 1e-4, "kept": True}
    assert numbers["recovery"] == {**recovery, "bestEpoch": numbers["recovery"]["bestEpoch"]}
    assert [event["epoch"] for event in recorder.of("epoch")] == [1, 2, 3]
    metadata = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "model.onnx")).metadata_props}
    assert json.loads(metadata["whetstone.compression"])["recovery"] == numbers["recovery"]
    assert json.loads(metadata["whetstone.classes"]) == task["dataset"]["classes"]
    support.check_in_engines(tmp_path, "INT8")


def fine_tuned(folder: Path, task: Json, events: Events | None = None, **changes: Any) -> str:
    """The hash of the weights of a fine-tuning, in a folder that may have a checkpoint of it."""
    folder.mkdir(exist_ok=True)
    events = events or Events(Recorder(), "job", 1, folder)
    spec = read_spec_line(support.spec_line(folder, {**task, "recover": {**task["recover"], **changes}})).spec
    assert isinstance(spec, CompressSpec)
    assert spec.recover is not None
    device = prepare(spec)
    images = training_images(spec.recover)
    model, _ = recovered(spec.recover, device, resumable(spec.recover, events), events, images=images, method="MINMAX")
    return weights_hash(model.state_dict())


def training_images(spec: TrainSpec) -> Images:
    return open_images(spec.dataset, read_split(spec.dataset, "train"), TASKS["CLASSIFICATION"], spec.preprocess)


def test_one_that_was_stopped_in_an_epoch_and_continues_ends_with_the_weights_of_an_undisturbed_one(
    task: Json, tmp_path: Path
) -> None:
    undisturbed = fine_tuned(tmp_path / "once", task)
    recorder = Recorder()
    events = Events(recorder, "job", 1, tmp_path / "twice")

    def stop_in_second_epoch(event: Json) -> None:
        if (event.get("epoch"), event.get("batch")) == (1, 3):
            events.stop_requested = "suspended"

    recorder.listener = stop_in_second_epoch
    with pytest.raises(Stopped):
        fine_tuned(tmp_path / "twice", task, events, checkpointSeconds=0)
    assert [event["epoch"] for event in recorder.of("epoch")] == [1]
    assert fine_tuned(tmp_path / "twice", task) == undisturbed


def test_cancelled_while_it_trains_it_leaves_no_artifact(task: Json, tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, task, phase="training")
    assert (code, recorder.events[-1]["status"]) == (75, "cancelled")
    assert (recorder.of("artifact"), recorder.of("gate")) == ([], [])


def test_what_int8_quantises_of_a_detector_is_rounded_and_nothing_else_changes_its_outputs() -> None:
    torch.manual_seed(0)
    model = build_model("yolov8n", 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var = torch.rand(module.num_features) + 0.5
            nn.init.uniform_(module.weight, 0.5, 2)
    spec = build(PreprocessSpec, support.preprocess(64))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model.eval()(image)
    adapted = with_rounding(model, spec)
    rounded = [module for module in adapted.modules() if isinstance(module, Rounded)]
    # Of the detector's 63 convolutions three at the end are too small; those before them are the ends then.
    assert (len(rounded), sum(module.end for module in rounded)) == (60, 6)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in adapted.modules())
    with torch.no_grad():
        found = without_rounding(adapted).eval()(image)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


def test_the_rounding_of_the_fine_tuning_is_that_of_onnx_runtime(task: Json, tmp_path: Path) -> None:
    spec = read_spec_line(support.spec_line(tmp_path, task)).spec
    assert isinstance(spec, CompressSpec)
    assert spec.recover is not None
    images, preprocess = training_images(spec.recover), spec.recover.preprocess
    levels = torch.stack([images[n] for n in range(len(images))])
    quantiser = open_quantiser(Path(spec.model.file), tmp_path / "quantisation")
    quantiser.calibrate([{"input": normalise(levels, preprocess).numpy()}], "MINMAX", 1)
    int8 = quantiser.quantised(quantiser.operators, quantiser.ends(quantiser.operators))
    (wanted,) = onnx_session(int8.SerializeToString(), 1).run(None, {"input": normalise(levels, preprocess).numpy()})
    model = Small(10)
    model.load_state_dict(read_state(spec.recover.init.file or ""))
    adapted = with_rounding(model, preprocess)
    assert [module.relu for module in adapted.modules() if isinstance(module, Rounded)] == [True, True, False, False]
    events = Events(Recorder(), "job", 1, tmp_path)
    find_ranges(adapted, spec.recover, torch.device("cpu"), events, images=images, method="MINMAX")
    (found,) = torch_predictor(adapted, preprocess, torch.device("cpu"))(levels)
    # Only the summand beside the last convolution is not rounded here, and sums have another order.
    exact = onnx_session(spec.model.file, 1).run(None, {"input": normalise(levels, preprocess).numpy()})[0]
    assert np.abs(found.numpy() - wanted).mean() < 0.05 * np.abs(exact - wanted).mean()


@pytest.mark.long
def test_killed_in_its_fine_tuning_a_compression_ends_with_the_bytes_of_an_undisturbed_one(
    trained: Trained, tmp_path: Path
) -> None:
    init = {"from": "WEIGHTS", "file": str(trained.path("WEIGHTS")), "classes": trained.spec["dataset"]["classes"]}
    parameters = {**trained.spec["hyperparameters"], "epochs": 2, "learningRate": 1e-4, "emaDecay": 0}
    training = {**trained.spec, "init": init, "hyperparameters": {**parameters, "mixedPrecision": "OFF"}}
    spec = {**support.compress_spec(trained.model("ONNX"), trained.spec["dataset"], "INT8", 10), "recover": training}
    with support.attempt(tmp_path / "once", spec) as running:
        assert running.end() == 0
    folder = tmp_path / "killed"
    with support.attempt(folder, {**spec, "recover": {**training, "checkpointSeconds": 0}}) as running:
        running.wait_for("checkpoint", epoch=1)
        running.process.kill()
    with support.attempt(folder, spec, 2) as running:
        assert running.end() == 0
    assert running.events[0]["resumed"]["epoch"] == 1
    for name in ("model.onnx", "probe.safetensors", "evaluation.json"):
        assert (folder / name).read_bytes() == (tmp_path / "once" / name).read_bytes(), name
