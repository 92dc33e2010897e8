"""TRAIN, CONVERT and EVALUATE of a detector, on few small scenes."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from scenes import write_scenes
from tests import support
from tests.conftest import Trained, train_and_convert
from tests.support import Recorder, attempt, detector_spec, run_here
from whetstone_trainer import events, train
from whetstone_trainer.convert import Source, gate_numbers
from whetstone_trainer.data import read_split
from whetstone_trainer.detection import gate
from whetstone_trainer.detection import task as detection
from whetstone_trainer.evaluate import load_model, torch_predictor
from whetstone_trainer.events import Events
from whetstone_trainer.images import open_images
from whetstone_trainer.model import fit, match_classes, read_state, weights_hash
from whetstone_trainer.protocol import DatasetRef, ModelRef
from whetstone_trainer.protocol_json import build, validator


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> support.Json:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 16, 6, side=64)


@pytest.fixture(scope="module")
def trained(scenes: support.Json, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    # So fast that eight steps spread the scores: near ties are in another order in each engine.
    spec = detector_spec(scenes, 64, {"epochs": 2, "batchSize": 4, "learningRate": 0.01, "warmupSteps": 0})
    return train_and_convert(tmp_path_factory.mktemp("detector"), spec)


def test_a_detectors_training_says_what_it_does_and_ends_well(trained: Trained) -> None:
    assert trained.exit_code == 0
    epochs = [event for event in trained.events if event["type"] == "epoch"]
    assert [event["step"] for event in epochs] == [4, 8]
    assert epochs[0]["metrics"].keys() == {
        *("train.loss", "train.classLoss", "train.boxLoss", "train.distributionLoss", "learningRate"),
        *("val.map50", "val.map5095"),
    }
    artifacts = [event["kind"] for event in trained.events if event["type"] == "artifact"]
    assert artifacts == ["WEIGHTS", "CHECKPOINT", "EVALUATION"]
    meta = trained.artifact("WEIGHTS")["meta"]
    assert meta["weightsHash"] == weights_hash(read_state(trained.path("WEIGHTS")))
    evaluation = json.loads(trained.path("EVALUATION").read_text("utf-8"))
    assert evaluation["metrics"] == meta["metrics"]
    for value, definition in (
        (evaluation, "Evaluation"),
        (meta, "WeightsMeta"),
        (trained.artifact("ONNX")["meta"], "OnnxMeta"),
        (trained.events[-1]["result"], "TrainResult"),
    ):
        assert not list(validator(definition).iter_errors(value))


def test_killed_in_the_middle_of_an_epoch_it_ends_on_the_same_weights(trained: Trained, tmp_path: Path) -> None:
    spec = {**trained.spec, "checkpointSeconds": 0}
    with attempt(tmp_path / "1", spec) as running:
        checkpoint = running.wait_for("checkpoint", epoch=0, batch=2)
        running.wait_for("checkpoint", epoch=0, batch=3)
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
    resume = str(tmp_path / "1" / checkpoint["file"])
    _, recorder = run_here(tmp_path / "2", {**trained.spec, "resumeFrom": resume})
    assert recorder.of("hello")[0]["resumed"] == {"epoch": 0, "batch": 2}
    (weights,) = [event for event in recorder.of("artifact") if event["kind"] == "WEIGHTS"]
    assert weights["meta"]["weightsHash"] == trained.artifact("WEIGHTS")["meta"]["weightsHash"]


def test_with_mixed_precision_the_loss_is_computed_in_full(
    scenes: support.Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, set[torch.dtype]]] = []
    loss = detection.loss

    def recording(outputs: Any, *others: Any, **named: Any) -> Any:
        seen.append((torch.is_autocast_enabled("cpu"), {output.dtype for output in outputs}))
        return loss(outputs, *others, **named)

    monkeypatch.setattr(train, "autocast_dtype", lambda spec, device: torch.bfloat16)
    monkeypatch.setattr(detection, "loss", recording)
    code, recorder = run_here(tmp_path, detector_spec(scenes, 64, {"epochs": 1, "batchSize": 4}), phase="validation")
    assert code == 75, recorder.events[-1]
    assert seen == [(False, {torch.float32})] * 4


def test_the_file_has_two_outputs_and_says_how_to_use_it(trained: Trained) -> None:
    meta = trained.artifact("ONNX")["meta"]
    assert [port["name"] for port in meta["inputs"]] == ["input"]
    assert [(port["name"], port["shape"][1:]) for port in meta["outputs"]] == [("boxes", [84, 4]), ("scores", [84, 10])]
    metadata = {entry.key: entry.value for entry in onnx.load(str(trained.path("ONNX"))).metadata_props}
    assert metadata["whetstone.task"] == "DETECTION"
    assert json.loads(metadata["whetstone.classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(metadata["whetstone.preprocess"])["mode"] == "LETTERBOX"


# ----------------------------------------------------------------------------------------------------------------- gate


def test_a_good_export_is_far_below_both_tolerances(trained: Trained) -> None:
    (event,) = [event for event in trained.conversion if event["type"] == "gate"]
    found = event["numbers"]
    assert (found["problems"], found["inputs"], found["images"]) == ([], "VALIDATION", 6)
    assert (found["tolerance"], found["boxTolerance"]) == (1e-4, 1e-2)
    assert found["largestDifference"] < 1e-5
    assert found["largestBoxDifference"] < 1e-3
    assert (found["beyondTolerance"], found["detectionsDifferBeyondMargin"]) == (0, 0)
    assert [batch["batch"] for batch in found["batches"]] == [32, 1, 7, 64]


@pytest.mark.parametrize(("branch", "column"), [("classes", "largestDifference"), ("boxes", "largestBoxDifference")])
def test_a_twentieth_added_to_one_bias_of_the_head_is_beyond(
    trained: Trained, tmp_path: Path, branch: str, column: str
) -> None:
    file = onnx.load(str(trained.path("ONNX")))
    name = f"head.{branch}.0.2.bias"
    bias = next(tensor for tensor in file.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(bias).copy()
    values[15 if branch == "boxes" else 3] += 0.05
    bias.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(file, str(tmp_path / "changed.onnx"))

    reference = build(ModelRef, trained.model("CHECKPOINT"))
    source = Source(load_model(reference), "yolov8n", reference.classes, reference.preprocess, "0" * 64, None)
    dataset = build(DatasetRef, trained.spec["dataset"])
    images = open_images(dataset, read_split(dataset, "val"), detection, source.preprocess)
    predict = torch_predictor(source.model, source.preprocess, torch.device("cpu"))
    events = Events(Recorder(), "job-1", 1, tmp_path)
    found = gate_numbers(predict, tmp_path / "changed.onnx", images, source, 1e-4, threads=2, events=events)
    assert found["beyondTolerance"] == found["images"] == 6
    assert found[column] > (1e-4 if branch == "classes" else 1e-2)


def outputs(rows: list[tuple[list[float], float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and scores of one class."""
    return torch.tensor([[box for box, _ in rows]]), torch.tensor([[[score] for _, score in rows]])


FAR, NEAR = [50.0, 50.0, 70.0, 70.0], [51.0, 50.0, 71.0, 70.0]


@pytest.mark.parametrize(
    ("wanted", "found", "differ", "beyond"),
    [
        ([(FAR, 0.9), (NEAR, 0.5)], [(FAR, 0.9), (NEAR, 0.5)], 0, 0),
        # The two overlap and score nearly the same: either may stay.
        ([(FAR, 0.50001), (NEAR, 0.5)], [(FAR, 0.5), (NEAR, 0.50001)], 2, 0),
        ([(FAR, 0.05001)], [(FAR, 0.04999)], 1, 0),
        # An overlap of just 0.7.
        ([(FAR, 0.9), ([53.53, 50, 73.53, 70], 0.5)], [(FAR, 0.9), ([53.52, 50, 73.52, 70], 0.5)], 1, 0),
        ([(FAR, 0.9)], [(FAR, 0.01)], 1, 1),
        ([(FAR, 0.9), (NEAR, 0.5)], [(FAR, 0.4), (NEAR, 0.5)], 2, 2),
    ],
)
def test_a_box_of_one_list_only_is_excused_where_a_threshold_is_near(
    wanted: Any, found: Any, differ: int, beyond: int
) -> None:
    (row,) = gate.compare(outputs(wanted), outputs(found), 1e-4)
    assert (row[gate.DIFFER], row[gate.BEYOND]) == (differ, beyond)


def test_a_box_that_no_score_makes_count_may_be_anywhere() -> None:
    (row,) = gate.compare(outputs([(FAR, 0.9), (NEAR, 0.0005)]), outputs([(FAR, 0.9), ([0, 0, 9, 9], 0.0005)]), 1e-4)
    assert row[gate.BOX] == 0
    (row,) = gate.compare(outputs([(FAR, 0.9), (NEAR, 0.0005)]), outputs([(FAR, 0.9), ([0, 0, 9, 9], 0.0011)]), 1e-4)
    assert row[gate.BOX] == 62
    (row,) = gate.compare(outputs([(NEAR, 0.0)]), outputs([(FAR, 0.0)]), 1e-4)
    assert row[gate.BOX] == 0


def test_what_is_not_a_number_is_beyond_every_tolerance() -> None:
    rows = gate.compare(outputs([(FAR, 0.9)]), outputs([(FAR, float("nan"))]), 1e-4)
    assert gate.numbers(rows, 1e-4)["beyondTolerance"] == 1


# ------------------------------------------------------------------------------------------------------------- EVALUATE


def evaluate(folder: Path, model: support.Json, dataset: support.Json) -> tuple[int, Recorder]:
    return run_here(folder, support.evaluate_spec(model, dataset, batchSize=4))


@pytest.mark.parametrize("format", ["CHECKPOINT", "ONNX"])
def test_checkpoint_and_onnx_find_what_the_training_said(trained: Trained, tmp_path: Path, format: str) -> None:
    code, recorder = evaluate(tmp_path, trained.model(format), trained.spec["dataset"])
    assert code == 0
    result = recorder.events[-1]["result"]
    assert not list(validator("EvaluateResult").iter_errors(result))
    assert result["metrics"] == pytest.approx(trained.artifact("WEIGHTS")["meta"]["metrics"], abs=1e-3)


def test_while_boxes_are_compared_the_step_moves_so_that_it_is_no_hang_and_a_cancel_is_heard(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "TICK_SECONDS", 0)
    spec = support.evaluate_spec(trained.model("CHECKPOINT"), trained.spec["dataset"], batchSize=4)
    code, recorder = run_here(tmp_path / "whole", spec)
    assert code == 0
    totals = [event["total"] for event in recorder.of("phase") if event["phase"] == "matching"]
    assert len(totals) == 2
    ticks = [event for event in recorder.of("batch") if event["phase"] == "matching"]
    assert [tick["done"] for tick in ticks] == [done for total in totals for done in range(1, total + 1)]
    steps = [tick["step"] for tick in ticks]
    assert steps == sorted(set(steps))

    code, recorder = run_here(tmp_path / "cancelled", spec, type="batch", phase="matching", done=2)
    assert code == 75
    assert recorder.of("batch")[-1]["done"] == 2


@pytest.mark.parametrize("said", [None, "CENTRES_FIRST", "BOXES_SCORES"])
def test_a_foreign_detector_that_knows_the_answers_scores_one(
    scenes: support.Json, tmp_path: Path, said: str | None
) -> None:
    """One output (1 × 14 × A) with the true boxes of the one image that it is asked about, at a fixed batch of 1."""
    item = next(
        json.loads(line) for line in Path(scenes["manifest"]).read_text("utf-8").splitlines() if '"val"' in line
    )
    columns = np.zeros((14, 20), np.float32)
    for n, box in enumerate(item["boxes"]):
        columns[:4, n] = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"], box["height"]]
        columns[4 + box["label"], n] = 0.9
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["answers", "nothing"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 14, 20])],
        [numpy_helper.from_array(columns[None], "answers"), numpy_helper.from_array(np.array(0, np.float32), "zero")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(tmp_path / "f"))
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps(item) + "\n", "utf-8")
    model = {
        **{"format": "ONNX", "file": str(tmp_path / "f"), "task": "DETECTION", "preset": None, "outputLayout": said},
        **{"classes": scenes["classes"], "preprocess": support.preprocess(64, mode="LETTERBOX")},
    }
    code, recorder = evaluate(tmp_path, model, {**scenes, "manifest": str(manifest)})
    if said == "BOXES_SCORES":
        assert (code, recorder.events[-1]["code"]) == (65, "MODEL_INVALID")
    else:
        assert recorder.events[-1]["result"]["metrics"]["map5095"] == pytest.approx(1)


# ------------------------------------------------------------------------------------------------------- other starts


def test_a_dataset_of_the_other_task_is_refused(scenes: support.Json, digits: support.Json, tmp_path: Path) -> None:
    for n, (spec, what) in enumerate(
        ((detector_spec(digits, 64), "no boxes"), (support.train_spec(scenes), "a class for each image"))
    ):
        code, recorder = run_here(tmp_path / str(n), spec)
        assert (code, recorder.events[-1]["code"]) == (65, "DATA_INVALID")
        assert what in recorder.events[-1]["message"]


def test_weights_of_other_classes_keep_all_but_the_last_layers(trained: Trained, tmp_path: Path) -> None:
    state = read_state(trained.path("WEIGHTS"))
    fitted, new = fit(state, "yolov8n", 3, replace_head=True)
    assert len(new) == 6
    assert all(name.startswith("head.classes.") and ".2." in name for name in new)
    assert torch.equal(fitted["head.boxes.0.2.bias"], state["head.boxes.0.2.bias"])
    with pytest.raises(Exception, match="6 tensors are of another shape"):
        fit(state, "yolov8n", 3, replace_head=False)


def test_a_detectors_classes_are_matched_by_name_in_all_of_its_maps(trained: Trained) -> None:
    state = read_state(trained.path("WEIGHTS"))
    fresh = {name: torch.full_like(tensor, 7) for name, tensor in state.items()}
    earlier = tuple(trained.spec["dataset"]["classes"])
    matched, new = match_classes(state, fresh, "yolov8n", earlier, (*earlier[1:], "none"))
    assert new == ("none",)
    changed = [name for name in state if not torch.equal(state[name], matched[name])]
    assert sorted(changed) == sorted(f"head.classes.{n}.2.{kind}" for n in range(3) for kind in ("weight", "bias"))
    for name in changed:
        assert torch.equal(matched[name][:-1], state[name][1:])
        assert (matched[name][-1] == 7).all()


def test_there_are_no_public_weights_of_a_detector(trained: Trained, tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, {**trained.spec, "init": {"from": "PRETRAINED", "file": None}})
    assert (code, recorder.events[-1]["code"]) == (69, "WEIGHTS_UNAVAILABLE")
    assert "from scratch" in recorder.events[-1]["hint"]
