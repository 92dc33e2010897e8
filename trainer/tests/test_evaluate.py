"""Metrics, and the job EVALUATE on checkpoints and ONNX files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn import metrics as sklearn_metrics

from tests import support
from tests.conftest import Trained
from tests.support import Recorder, evaluate_spec, run_here
from whetstone_trainer.classification import evaluate, report
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.evaluate import as_input, onnx_session, open_onnx
from whetstone_trainer.events import Events
from whetstone_trainer.images import Images
from whetstone_trainer.protocol import DatasetItem, ModelRef, PreprocessSpec
from whetstone_trainer.protocol_json import build, validator

SPEC = build(PreprocessSpec, support.preprocess(8, mean=[0, 0, 0], std=[1, 1, 1]))


def pictures(labels: torch.Tensor) -> Images:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (len(labels), 3, 8, 8), generator=generator, dtype=torch.uint8)
    items = tuple(DatasetItem(n, "val", f"{n}.png", "", 8, 8, int(label), None) for n, label in enumerate(labels))
    return Images(items, labels.tolist(), None, None, draft=False, cache=list(levels))


def test_metrics_are_those_of_scikit_learn(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 7, (100,), generator=generator)  # the classes 7 and 8 have no image
    logits = torch.randn(100, 9, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 9)
    logits[:, 8] = -50  # never predicted
    rows = iter([logits[start : start + 32] for start in range(0, 100, 32)])
    events = Events(Recorder(), "job-1", 1, tmp_path)
    found = evaluate(
        lambda levels: (next(rows),), pictures(labels), class_count=9, batch_size=32, workers=0, events=events
    )

    best = logits.argmax(1)
    names = list(range(9))
    assert (found.confusion == sklearn_metrics.confusion_matrix(labels, best, labels=names)).all()
    assert found.metrics.top1 == sklearn_metrics.accuracy_score(labels, best)
    assert found.metrics.top5 == sklearn_metrics.top_k_accuracy_score(labels, logits, k=5, labels=names)
    assert found.metrics.loss == pytest.approx(sklearn_metrics.log_loss(labels, logits.softmax(1), labels=names))
    recalls = sklearn_metrics.recall_score(labels, best, average=None, labels=names, zero_division=0)
    assert found.metrics.macro_top1 == pytest.approx(recalls[:7].mean())

    written = report(found, tuple("abcdefghi"), events)
    assert not list(validator("Evaluation").iter_errors(written))
    precisions = sklearn_metrics.precision_score(labels, best, average=None, labels=names, zero_division=np.nan)
    for n, row in enumerate(written["perClass"]):
        assert row["recall"] == (pytest.approx(recalls[n]) if n < 7 else None)
        assert row["precision"] == (None if np.isnan(precisions[n]) else pytest.approx(precisions[n]))


def test_with_fewer_than_five_classes_top5_is_all(tmp_path: Path) -> None:
    labels = torch.tensor([0, 1, 2])
    events = Events(Recorder(), "job-1", 1, tmp_path)
    found = evaluate(
        lambda x: (torch.zeros(3, 3),), pictures(labels), class_count=3, batch_size=8, workers=0, events=events
    )
    assert found.metrics.top5 == 1.0
    assert found.metrics.top1 == pytest.approx(1 / 3)


# ----------------------------------------------------------------------------------------------------------- ONNX files


def small_onnx(
    path: Path, batch: int | str = "n", kind: int = TensorProto.FLOAT, softmax: bool = False, inputs: int = 1
) -> Path:
    """Input n × 3 × 8 × 8, output n × 4: means of pairs of the first channel's columns, optionally as probabilities."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = np.zeros((192, 4), dtype)
    for column in range(64):
        weights[column, column % 8 // 2] = 1 / 16
    nodes = [
        helper.make_node("Flatten", ["input0"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores" if softmax else "output"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], ["output"], axis=1))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(f"input{n}", kind, [batch, 3, 8, 8]) for n in range(inputs)],
        [helper.make_tensor_value_info("output", kind, [batch, 4])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def described(classes: int, spec: PreprocessSpec = SPEC) -> ModelRef:
    names = tuple("abcdefghi"[:classes])
    return ModelRef("ONNX", "", "CLASSIFICATION", None, names, spec, None)


def expected(levels: torch.Tensor) -> torch.Tensor:
    return (levels[:, 0].float() / 255).mean(1).reshape(-1, 4, 2).mean(2)


LEVELS = torch.stack(pictures(torch.zeros(7, dtype=torch.int64)).cache)


@pytest.mark.parametrize(
    ("batch", "kind"),
    [("n", TensorProto.FLOAT), (3, TensorProto.FLOAT), (7, TensorProto.FLOAT16), ("n", TensorProto.DOUBLE)],
)
def test_onnx_runs_with_a_free_or_a_fixed_batch(tmp_path: Path, batch: int | str, kind: int) -> None:
    predict = open_onnx(onnx_session(small_onnx(tmp_path / "m.onnx", batch, kind), 1), described(4)).predict
    (found,) = predict(LEVELS)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected(LEVELS), atol=1e-2 if kind == TensorProto.FLOAT16 else 1e-5)


def test_levels_are_rounded_and_kept_in_a_byte() -> None:
    values = np.array([-0.1, 0.49, 0.5, 254.5, 256], np.float32)
    assert as_input(values, np.uint8).tolist() == [0, 0, 1, 255, 255]


def test_probabilities_become_logits_of_the_same_loss(tmp_path: Path) -> None:
    (logits,) = open_onnx(onnx_session(small_onnx(tmp_path / "a.onnx"), 1), described(4)).predict(LEVELS)
    (found,) = open_onnx(onnx_session(small_onnx(tmp_path / "b.onnx", softmax=True), 1), described(4)).predict(LEVELS)
    labels = torch.arange(7) % 4
    loss = torch.nn.functional.cross_entropy
    assert float(loss(found, labels)) == pytest.approx(float(loss(logits, labels)), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "classes", "message"),
    [
        ({"inputs": 2}, 4, r"one input of four dimensions, .*; this one has input0"),
        ({"kind": TensorProto.INT32}, 4, r"tensor\(uint8\); this one has input0 tensor\(int32\)"),
        ({}, 5, r"shape \[7, 4\], expected \[7, 5\]"),
    ],
)
def test_an_onnx_file_that_is_no_classifier_is_refused(
    tmp_path: Path, changes: dict[str, Any], classes: int, message: str
) -> None:
    session = onnx_session(small_onnx(tmp_path / "m.onnx", **changes), 1)
    with pytest.raises(TrainerError, match=message) as caught:
        open_onnx(session, described(classes)).predict(LEVELS)
    assert caught.value.code == "MODEL_INVALID"


def test_an_image_size_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    predict = open_onnx(onnx_session(small_onnx(tmp_path / "m.onnx"), 1), described(4, replace(SPEC, width=9))).predict
    with pytest.raises(TrainerError, match="does not run") as caught:
        predict(torch.zeros(1, 3, 8, 9, dtype=torch.uint8))
    assert str(tmp_path) not in caught.value.message


# -------------------------------------------------------------------------------------------------------------- the job


def test_an_onnx_version_that_is_to_be_evaluated_on_cuda_is_not_evaluated_on_the_cpu(
    trained: Trained, tmp_path: Path
) -> None:
    spec = {**evaluate_spec(trained.model("ONNX"), trained.spec["dataset"]), "device": "cuda"}
    code, recorder = run_here(tmp_path, spec)
    assert (code, recorder.events[-1]["code"]) == (69, "DEVICE_UNAVAILABLE")
    assert "evaluated on the CPU" in recorder.events[-1]["message"]


@pytest.mark.parametrize("format", ["CHECKPOINT", "ONNX"])
def test_checkpoint_and_onnx_are_as_good_as_the_training_said(trained: Trained, tmp_path: Path, format: str) -> None:
    code, recorder = run_here(tmp_path, evaluate_spec(trained.model(format), trained.spec["dataset"]))
    assert code == 0
    result, said = recorder.events[-1]["result"], trained.artifact("WEIGHTS")["meta"]["metrics"]
    assert result["engine"].startswith("onnxruntime" if format == "ONNX" else "torch")
    assert result["metrics"]["top1"] == said["top1"]
    assert result["metrics"]["loss"] == pytest.approx(said["loss"], abs=1e-4)
    assert not list(validator("EvaluateResult").iter_errors(result))


def test_classes_are_matched_by_name(trained: Trained, tmp_path: Path) -> None:
    """The same images, their classes declared in the opposite order."""
    dataset = trained.spec["dataset"]
    manifest = tmp_path / "manifest.jsonl"
    items = [json.loads(line) for line in Path(dataset["manifest"]).read_text("utf-8").splitlines()]
    manifest.write_text("".join(json.dumps({**item, "label": 9 - item["label"]}) + "\n" for item in items), "utf-8")
    turned = {**dataset, "manifest": str(manifest), "classes": dataset["classes"][::-1]}
    code, recorder = run_here(tmp_path / "work", evaluate_spec(trained.model("ONNX"), turned))
    assert code == 0
    assert recorder.events[-1]["result"]["metrics"]["top1"] == trained.artifact("WEIGHTS")["meta"]["metrics"]["top1"]


def test_classes_that_the_model_does_not_know_are_named(trained: Trained, tmp_path: Path) -> None:
    dataset = {**trained.spec["dataset"], "classes": [*trained.spec["dataset"]["classes"][:9], "cat"]}
    code, recorder = run_here(tmp_path, evaluate_spec(trained.model("CHECKPOINT"), dataset))
    assert (code, recorder.events[-1]["code"]) == (65, "DATA_INVALID")
    assert recorder.events[-1]["details"] == ["cat"]


def test_a_split_without_images_is_said(trained: Trained, tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, evaluate_spec(trained.model("ONNX"), trained.spec["dataset"], "test"))
    assert (code, recorder.events[-1]["code"]) == (65, "DATA_INVALID")


def test_a_file_that_is_not_onnx_is_refused(trained: Trained, tmp_path: Path) -> None:
    model = {**trained.model("ONNX"), "file": trained.model("CHECKPOINT")["file"]}
    code, recorder = run_here(tmp_path, evaluate_spec(model, trained.spec["dataset"]))
    assert (code, recorder.events[-1]["code"]) == (65, "MODEL_INVALID")
    assert str(trained.work_dir) not in recorder.events[-1]["message"]
