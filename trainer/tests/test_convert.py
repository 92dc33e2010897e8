"""The conversion gate: tiny differences for a good file, large ones for a file that was changed."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors import safe_open

from tests import support
from tests.conftest import Trained
from tests.support import Recorder, run_here
from whetstone_trainer import classification, convert
from whetstone_trainer.convert import Source, gate_numbers
from whetstone_trainer.data import read_split
from whetstone_trainer.evaluate import load_model, torch_predictor
from whetstone_trainer.events import Events
from whetstone_trainer.images import Images, open_images
from whetstone_trainer.model import build_model, read_state
from whetstone_trainer.protocol import DatasetRef, ModelRef
from whetstone_trainer.protocol_json import build, validator
from whetstone_trainer.task import NOT_FINITE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(trained: Trained) -> Source:
    reference = build(ModelRef, trained.model("CHECKPOINT"))
    dataset = trained.spec["dataset"]["contentHash"]
    return Source(load_model(reference), "resnet18", reference.classes, reference.preprocess, "0" * 64, dataset)


@pytest.fixture(scope="module")
def images(trained: Trained, source: Source) -> Images:
    dataset = build(DatasetRef, trained.spec["dataset"])
    return open_images(dataset, read_split(dataset, "val"), source.task, source.preprocess)


def numbers(path: Path, images: Images, source: Source, tmp_path: Path) -> dict[str, Any]:
    reference = torch_predictor(source.model, source.preprocess, CPU)
    events = Events(Recorder(), "job-1", 1, tmp_path)
    return gate_numbers(reference, path, images, source, 1e-4, threads=2, events=events)


def test_a_good_export_is_far_below_the_tolerance(trained: Trained) -> None:
    (gate,) = [event for event in trained.conversion if event["type"] == "gate"]
    found = gate["numbers"]
    assert gate["file"] == "model.onnx"
    assert (found["problems"], found["inputs"], found["images"]) == ([], "VALIDATION", 60)
    assert found["tolerance"] == pytest.approx(1e-4 * max(1, found["largestLogit"]))
    assert 0 < found["largestDifference"] < found["tolerance"] / 3
    assert (found["beyondTolerance"], found["top1Differ"], found["top1DifferBeyondMargin"]) == (0, 0, 0)
    assert [(batch["batch"], batch["images"]) for batch in found["batches"]] == [(32, 60), (1, 60), (7, 60), (64, 60)]


def test_a_hundredth_added_to_one_bias_is_beyond_it(
    trained: Trained, images: Images, source: Source, tmp_path: Path
) -> None:
    model = onnx.load(str(trained.path("ONNX")))
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.bias")
    values = numpy_helper.to_array(bias).copy()
    values[3] += 0.01
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, str(tmp_path / "changed.onnx"))
    found = numbers(tmp_path / "changed.onnx", images, source, tmp_path)
    assert found["largestDifference"] == pytest.approx(0.01, rel=0.01)
    assert found["beyondTolerance"] == found["images"] == 60
    assert found["problems"] == []


def test_large_images_go_through_in_batches_that_fit_into_memory(
    trained: Trained, images: Images, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if 5 images of this size were as many pixels as a batch may have."""
    assert [
        convert.batch_max(replace(source.preprocess, width=side, height=side)) for side in (32, 640, 1280, 4096)
    ] == [*(12800, 32, 8, 1)]
    monkeypatch.setattr(convert, "BATCH_PIXELS_MAX", 5 * 32 * 32)
    seen: list[int] = []

    def reference(levels: torch.Tensor) -> Any:
        seen.append(len(levels))
        return torch_predictor(source.model, source.preprocess, CPU)(levels)

    events = Events(Recorder(), "job-1", 1, tmp_path)
    found = gate_numbers(reference, trained.path("ONNX"), images, source, 1e-4, threads=2, events=events)
    assert [(batch["batch"], batch["images"]) for batch in found["batches"]] == [(5, 60), (1, 20), (5, 20)]
    assert (found["images"], found["beyondTolerance"]) == (60, 0)
    convert.write_probe(reference, images, source.preprocess, events)
    assert max(seen) == 5
    with safe_open(str(tmp_path / "probe.safetensors"), framework="np") as probe:
        assert probe.get_tensor("output").shape == (32, 10)


def test_another_best_class_is_counted_and_excused_only_within_the_margin() -> None:
    wanted = torch.tensor([[1.0, 0.99995, 0.0], [1.0, 0.5, 0.0], [1.0, 0.5, 0.0]])
    found = torch.tensor([[1.0, 1.0001, 0.0], [0.4, 0.5, 0.0], [float("nan"), 0.5, 0.0]])
    rows = classification.compare((wanted,), (found,), 1e-4)
    assert rows[:, classification.TOP1_DIFFERS].tolist()[:2] == [1, 1]
    assert rows[:2, classification.MARGIN] == pytest.approx([5e-5, 0.5], rel=1e-3)
    assert rows[2, classification.DIFFERENCE] == NOT_FINITE
    assert classification.furthest(rows) == {"largestDifference": NOT_FINITE}


@pytest.mark.parametrize("damage", ["truncated", "other classes"])
def test_a_file_that_does_not_run_is_a_problem_not_a_crash(
    trained: Trained, images: Images, source: Source, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(trained.path("ONNX").read_bytes()[: 1000 if damage == "truncated" else None])
    expected = source if damage == "truncated" else replace(source, classes=source.classes[:9])
    (problem,) = numbers(path, images, expected, tmp_path)["problems"]
    assert str(tmp_path) not in problem
    assert ("does not load" if damage == "truncated" else "shape [32, 10], expected [32, 9]") in problem


def test_the_checker_finds_a_graph_that_is_not_valid(trained: Trained) -> None:
    model = onnx.load(str(trained.path("ONNX")))
    assert convert.check(model) == []
    model.graph.node[0].op_type = "Convolve"
    assert "Convolve" in convert.check(model)[0]


def test_a_full_disk_does_not_change_the_exporter(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **named: (_ for _ in ()).throw(full))
    recorder = Recorder()
    with pytest.raises(OSError, match="No space left"):
        convert.export(source.model, source.task.OUTPUTS, source.preprocess, 18, Events(recorder, "job-1", 1, tmp_path))
    assert recorder.of("warning") == []


def test_the_older_exporter_takes_over_and_that_is_said(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = torch.onnx.export

    def fails(*args: Any, dynamo: bool, **named: Any) -> Any:
        if dynamo:
            raise RuntimeError("no such conversion")
        return current(*args, dynamo=dynamo, **named)

    monkeypatch.setattr(torch.onnx, "export", fails)
    recorder = Recorder()
    exported, exporter = convert.export(
        source.model, source.task.OUTPUTS, source.preprocess, 18, Events(recorder, "job-1", 1, tmp_path)
    )
    assert exporter == "TORCHSCRIPT"
    assert recorder.of("warning")[0]["code"] == "EXPORT_FALLBACK"
    assert convert.check(exported) == []
    assert exported.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setattr(torch.onnx, "export", lambda *args, **named: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(Exception, match="Neither exporter") as caught:
        convert.export(source.model, source.task.OUTPUTS, source.preprocess, 18, Events(recorder, "job-1", 1, tmp_path))
    assert getattr(caught.value, "code", None) == "EXPORT_FAILED"


def test_without_a_dataset_seeded_noise_goes_through(trained: Trained, tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, support.convert_spec(trained.model("CHECKPOINT"), None))
    assert code == 0
    (gate,) = recorder.of("gate")
    assert (gate["numbers"]["inputs"], gate["numbers"]["images"]) == ("SEEDED", 128)
    assert gate["numbers"]["beyondTolerance"] == 0
    assert [event["kind"] for event in recorder.of("artifact")] == ["ONNX", "PROBE"]
    assert recorder.of("artifact")[0]["meta"]["exporter"] == "DYNAMO"
    result = recorder.events[-1]["result"]
    assert result == {
        "weightsHash": trained.artifact("WEIGHTS")["meta"]["weightsHash"],
        "metrics": None,
        "engine": None,
    }


def test_noise_is_the_same_for_the_same_seed(source: Source) -> None:
    first, again, other = (convert.seeded_noise(seed, source.preprocess) for seed in (1, 1, 2))
    assert torch.equal(first[5], again[5])
    assert not torch.equal(first[5], other[5])
    assert np.unique(first[0].numpy()).size > 200


@pytest.mark.parametrize("change", [{"preset": None}, {"format": "ONNX"}], ids=str)
def test_only_a_checkpoint_of_a_preset_is_converted(trained: Trained, tmp_path: Path, change: dict[str, Any]) -> None:
    model = {**trained.model("CHECKPOINT"), **change}
    code, recorder = run_here(tmp_path, support.convert_spec(model, None))
    assert (code, recorder.events[-1]["code"]) == (64, "SPEC_INVALID")


def test_a_layout_that_the_preset_does_not_take_is_refused(trained: Trained, tmp_path: Path) -> None:
    model = {**trained.model("CHECKPOINT"), "preprocess": support.preprocess(layout="NHWC")}
    code, recorder = run_here(tmp_path, support.convert_spec(model, None))
    assert code == 64
    assert "NCHW" in recorder.events[-1]["message"]


def test_the_onnx_file_is_as_good_as_the_training_said(trained: Trained) -> None:
    artifacts = [event for event in trained.conversion if event["type"] == "artifact"]
    assert [event["kind"] for event in artifacts] == ["ONNX", "PROBE", "EVALUATION"]
    for event in artifacts:
        assert (trained.work_dir / "conversion" / event["file"]).stat().st_size == event["sizeBytes"]
    assert not list(validator("OnnxMeta").iter_errors(trained.artifact("ONNX")["meta"]))
    result, said = trained.conversion[-1]["result"], trained.artifact("WEIGHTS")["meta"]["metrics"]
    assert not list(validator("ConvertResult").iter_errors(result))
    assert result["engine"].startswith("onnxruntime")
    assert result["metrics"]["top1"] == said["top1"]
    assert result["metrics"]["loss"] == pytest.approx(said["loss"], abs=1e-4)


def test_on_data_of_other_classes_it_goes_through_the_gate_and_is_not_evaluated(
    trained: Trained, tmp_path: Path
) -> None:
    dataset = {**trained.spec["dataset"], "classes": [f"other {digit}" for digit in range(10)]}
    code, recorder = run_here(tmp_path, support.convert_spec(trained.model("CHECKPOINT"), dataset))
    assert code == 0
    (gate,) = recorder.of("gate")
    assert gate["numbers"]["inputs"] == "VALIDATION"
    assert [event["kind"] for event in recorder.of("artifact")] == ["ONNX", "PROBE"]
    assert recorder.events[-1]["result"]["metrics"] is None


def test_the_onnx_file_carries_what_is_needed_to_use_it(trained: Trained) -> None:
    exported = onnx.load(str(trained.path("ONNX")))
    metadata = {entry.key: entry.value for entry in exported.metadata_props}
    assert json.loads(metadata["whetstone.classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(metadata["whetstone.preprocess"]) == trained.spec["preprocess"]
    assert metadata["whetstone.weightsHash"] == trained.artifact("WEIGHTS")["meta"]["weightsHash"]
    assert metadata["whetstone.datasetHash"] == trained.spec["dataset"]["contentHash"]
    assert metadata["whetstone.task"] == "CLASSIFICATION"
    text = trained.path("ONNX").read_bytes()
    assert str(support.TRAINER).encode() not in text
    assert trained.artifact("ONNX")["meta"]["inputs"] == [
        {"name": "input", "elementType": "FLOAT", "shape": ["batch", 3, 32, 32]}
    ]


def test_the_probe_set_is_preprocessed_validation_images_with_pytorchs_outputs(trained: Trained) -> None:
    with safe_open(str(trained.path("PROBE")), framework="np") as probe:
        inputs, outputs = probe.get_tensor("input"), probe.get_tensor("output")
    assert inputs.shape == (32, 3, 32, 32)
    assert outputs.shape == (32, 10)
    assert np.abs(inputs).max() < 3
    state = read_state(trained.path("WEIGHTS"))
    network = build_model("resnet18", 10)
    network.load_state_dict(state)
    with torch.inference_mode():
        again = network.eval()(torch.from_numpy(inputs)).numpy()
    assert np.abs(again - outputs).max() < 1e-4
