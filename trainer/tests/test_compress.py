"""FP16 and INT8 of a classifier and a detector: the sizes, the budget, and what stays in 32-bit floats."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests import support
from tests.conftest import Trained
from tests.support import Json, Recorder, attempt, run_here
from whetstone_trainer.data import read_split
from whetstone_trainer.detection.gate import decisions
from whetstone_trainer.half import to_half
from whetstone_trainer.images import open_images
from whetstone_trainer.int8 import affordable, output_error
from whetstone_trainer.preprocess import normalise
from whetstone_trainer.protocol import DatasetRef, PreprocessSpec
from whetstone_trainer.protocol_json import build, validator
from whetstone_trainer.quantise import last_of, open_quantiser
from whetstone_trainer.tasks import TASKS


def gate_of(recorder: Recorder) -> Json:
    (gate,) = recorder.of("gate")
    numbers: Json = gate["numbers"]
    return numbers


def made(recorder: Recorder) -> list[str]:
    return [event["kind"] for event in recorder.of("artifact")]


# ------------------------------------------------------------------------------------------------- the digit ResNet18


@pytest.fixture(scope="module")
def int8(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder = tmp_path_factory.mktemp("int8")
    # Two epochs on 240 digits give hardly a model: one image of 60 is more than a point.
    spec = support.compress_spec(trained.model("ONNX"), trained.spec["dataset"], "INT8", 5)
    code, recorder = run_here(folder, spec)
    assert code == 0
    return folder, recorder


def test_int8_has_a_quarter_of_the_bytes_and_says_what_it_was_made_of(
    trained: Trained, int8: tuple[Path, Recorder]
) -> None:
    folder, recorder = int8
    assert made(recorder) == ["ONNX", "PROBE", "EVALUATION"]
    file = folder / "model.onnx"
    assert file.stat().st_size <= 0.30 * trained.path("ONNX").stat().st_size
    numbers = gate_of(recorder)
    assert numbers["metric"]["parent"] - numbers["metric"]["candidate"] <= 0.05 + 1e-9
    assert (numbers["problems"], numbers["images"], numbers["decisions"], numbers["quantisable"]) == ([], 60, 60, 21)
    assert numbers["steps"][-1]["sizeBytes"] == pytest.approx(file.stat().st_size, rel=0.01)
    assert numbers["calibration"]["images"] == 96
    for value, definition in ((numbers, "CompressionGate"), (recorder.events[-1]["result"], "CompressResult")):
        assert not list(validator(definition).iter_errors(value))
    metadata = {entry.key: entry.value for entry in onnx.load(str(file)).metadata_props}
    assert json.loads(metadata["whetstone.compression"]) == {
        "precision": "INT8",
        "calibration": numbers["calibration"],
    }
    assert json.loads(metadata["whetstone.classes"]) == trained.spec["dataset"]["classes"]


@pytest.mark.long
def test_the_same_inputs_give_the_same_bytes_in_another_process(
    trained: Trained, int8: tuple[Path, Recorder], tmp_path: Path
) -> None:
    spec = support.compress_spec(trained.model("ONNX"), trained.spec["dataset"], "INT8", 5)
    before = sorted(support.TRAINER.iterdir())
    with attempt(tmp_path / "again", spec, PYTHONHASHSEED="7") as running:
        assert running.end() == 0
    # ONNX Runtime's tools write into the working directory, which is the program's.
    assert sorted(support.TRAINER.iterdir()) == before
    for name in ("model.onnx", "probe.safetensors", "evaluation.json"):
        digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (int8[0], tmp_path / "again")]
        assert digests[0] == digests[1], name
    assert [event["numbers"] for event in running.of("gate")] == [gate_of(int8[1])]


def test_fp16_has_half_of_the_bytes_and_takes_32_bit_inputs_and_is_the_same_bytes_in_another_process(
    trained: Trained, tmp_path: Path
) -> None:
    spec = support.compress_spec(trained.model("ONNX"), trained.spec["dataset"], "FP16", 2)
    code, recorder = run_here(tmp_path, spec)
    assert code == 0
    with attempt(tmp_path / "again", spec, PYTHONHASHSEED="7") as running:
        assert running.end() == 0
    for name in ("model.onnx", "probe.safetensors", "evaluation.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    model = onnx.load(str(tmp_path / "model.onnx"))
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {
        TensorProto.FLOAT
    }
    assert (tmp_path / "model.onnx").stat().st_size <= 0.51 * trained.path("ONNX").stat().st_size
    numbers = gate_of(recorder)
    assert numbers["metric"]["parent"] - numbers["metric"]["candidate"] <= 0.02
    assert (numbers["problems"], numbers["calibration"], numbers["quantisable"]) == ([], None, 0)


def test_fp16_without_a_dataset_is_compared_by_its_outputs_on_noise(trained: Trained, tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, support.compress_spec(trained.model("ONNX"), None, "FP16"))
    assert code == 0
    assert recorder.events[-1]["result"] == {"metrics": None, "engine": None}
    assert made(recorder) == ["ONNX", "PROBE"]
    numbers = gate_of(recorder)
    assert (numbers["inputs"], numbers["metric"], numbers["images"]) == ("SEEDED", None, 128)
    (logits,) = numbers["outputs"]
    assert 0 < logits["largestDifference"] < 1e-2 * logits["largest"]


def test_int8_without_a_dataset_is_refused(trained: Trained, tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, support.compress_spec(trained.model("ONNX"), None, "INT8"))
    assert (code, recorder.events[-1]["code"]) == (64, "SPEC_INVALID")


# ---------------------------------------------------------------------------------------------------------- the budget


def small_network(dataset: Json, spec: Json, wide: str) -> ModelProto:
    """A network of 8 × 8 digits that learns in a second, as a foreign exporter writes it: nodes without names.

    One channel between two layers is a thousand times as large as the others, which INT8 then rounds to zero. It lies
    between the two convolutions, or (`wide`) before the layer that has nearly all of the weights.
    """
    preprocess = build(PreprocessSpec, spec)
    items = read_split(build(DatasetRef, dataset), "train")
    images = open_images(build(DatasetRef, dataset), items, TASKS["CLASSIFICATION"], preprocess)
    inputs = normalise(torch.stack([images[n] for n in range(len(images))]), preprocess)
    truths = torch.tensor(images.truths)
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.Conv2d(16, 32, 3, stride=2, padding=1)
    hidden, last = torch.nn.Linear(512, 128), torch.nn.Linear(128, 10)

    def logits(x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(second(torch.relu(first(x))))
        return last(torch.relu(hidden(x.flatten(1))))  # type: ignore[no-any-return]

    parameters = [p for layer in (first, second, hidden, last) for p in layer.parameters()]
    optimizer = torch.optim.Adam(parameters, 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(inputs), truths).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        before, after = (first.weight, second.weight) if wide == "convolutions" else (second.weight, hidden.weight)
        bias = first.bias if wide == "convolutions" else second.bias
        assert bias is not None
        before[0] *= 1000
        bias[0] *= 1000
        after[:, : after.shape[1] // len(before)] /= 1000
    tensors = {
        **{"w1": first.weight, "b1": first.bias, "w2": second.weight, "b2": second.bias},
        **{"w3": hidden.weight, "b3": hidden.bias, "w4": last.weight, "b4": last.bias},
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["g"], transB=1),
        helper.make_node("Relu", ["g"], ["r3"]),
        helper.make_node("Gemm", ["r3", "w4", "b4"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value.detach().numpy(), name) for name, value in tensors.items() if value is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def small_model(folder: Path, dataset: Json, wide: str) -> Json:
    preprocess = support.preprocess(8)
    file = folder / "foreign.onnx"
    onnx.save(small_network(dataset, preprocess, wide), str(file))
    about = {"format": "ONNX", "file": str(file), "task": "CLASSIFICATION", "preset": None, "outputLayout": None}
    return {**about, "classes": dataset["classes"], "preprocess": preprocess}


@pytest.mark.parametrize("method", ["MINMAX", "PERCENTILE", "ENTROPY"])
def test_operators_go_back_to_floats_until_the_metric_is_inside_the_budget(
    digits: Json, tmp_path: Path, method: str
) -> None:
    model = small_model(tmp_path, digits, "convolutions")
    code, recorder = run_here(tmp_path / "work", support.compress_spec(model, digits, "INT8", 0.1, method=method))
    assert code == 0
    numbers = gate_of(recorder)
    parent, steps = numbers["metric"]["parent"], numbers["steps"]
    assert parent > 0.85
    assert (steps[0]["operators"], numbers["quantisable"]) == (0, 4)
    assert 100 * (parent - numbers["metric"]["candidate"]) <= 0.1
    if method == "MINMAX":
        # The last Gemm alone would be as harmful as it is large; the channel lies between the convolutions.
        assert 100 * (parent - steps[0]["metric"]) > 0.1
        assert len(numbers["kept"]) == 2
        assert {name.split("_")[0] for name in (one["name"] for one in numbers["kept"])} == {"Conv"}
    assert (tmp_path / "work" / "model.onnx").stat().st_size < 0.5 * Path(model["file"]).stat().st_size
    assert made(recorder) == ["ONNX", "PROBE", "EVALUATION"]


def test_a_budget_that_cannot_be_reached_ends_with_what_was_tried_and_without_a_file(
    digits: Json, tmp_path: Path
) -> None:
    model = small_model(tmp_path, digits, "weights")
    code, recorder = run_here(tmp_path / "work", support.compress_spec(model, digits, "INT8", 0.5))
    assert code == 0
    assert made(recorder) == []
    assert recorder.events[-1]["result"] == {"metrics": None, "engine": None}
    numbers = gate_of(recorder)
    metric = numbers["metric"]
    assert 100 * (metric["parent"] - metric["candidate"]) > 0.5
    assert metric["candidate"] == max(step["metric"] for step in numbers["steps"])
    assert len({step["operators"] for step in numbers["steps"]}) == len(numbers["steps"]) >= 2


def test_a_command_stops_it_between_two_operators(digits: Json, tmp_path: Path) -> None:
    model = small_model(tmp_path, digits, "convolutions")
    code, recorder = run_here(tmp_path / "work", support.compress_spec(model, digits, "INT8", 0), phase="ranking")
    assert (code, recorder.events[-1]["status"]) == (75, "cancelled")


def test_the_file_is_worth_it_while_it_takes_at_most_half_of_the_bytes() -> None:
    weights = {"a": 10, "b": 10, "c": 80}
    assert affordable(["a", "b", "c"], weights, 400) == ["a", "b"]
    assert affordable(["c", "b", "a"], weights, 400) == ["b", "a"]
    assert affordable(["a", "b", "c"], weights, 4000) == ["a", "b"]
    assert affordable(["c", "b", "a"], weights, 210) == []


def test_the_error_of_an_output_does_not_depend_on_its_unit() -> None:
    boxes, scores = np.array([[0.0, 100.0]]), np.array([[0.0, 1.0]])
    far = [[boxes, scores + np.array([[0.0, 0.1]])]]
    assert output_error([[boxes, scores]], far) == pytest.approx(0.01 / 0.5)
    assert output_error([[boxes, scores]], [[boxes + np.array([[0.0, 10.0]]), scores]]) == pytest.approx(100 / 5000)


# ----------------------------------------------------------------------------------------------------------- detectors


def one_output(folder: Path) -> Path:
    """The end of a detector as other exporters write it: boxes are decoded by a small convolution over the bins of a
    distribution, and stand in one output with the scores."""
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.normal(size=(32, 3, 3, 3)) / 5,
        "wb": rng.normal(size=(64, 32, 1, 1)),
        "wc": rng.normal(size=(40, 32, 1, 1)),
        "bins": np.arange(16).reshape(1, 16, 1, 1),
        "stride": np.array([8.0]),
    }
    shapes = {"split": [0, 4, 16, 64], "boxes": [0, 4, 64], "flat": [0, 40, 64]}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "wb"], ["b"]),
        helper.make_node("Conv", ["r", "wc"], ["s"]),
        helper.make_node("Reshape", ["b", "split"], ["b4"]),
        helper.make_node("Transpose", ["b4"], ["bt"], perm=[0, 2, 1, 3]),
        helper.make_node("Softmax", ["bt"], ["p"], axis=1),
        helper.make_node("Conv", ["p", "bins"], ["d"]),
        helper.make_node("Reshape", ["d", "boxes"], ["distances"]),
        helper.make_node("Mul", ["distances", "stride"], ["pixels"]),
        helper.make_node("Reshape", ["s", "flat"], ["logits"]),
        helper.make_node("Reshape", ["s", "flat"], ["again"]),
        helper.make_node("Max", ["logits", "again"], ["both"]),
        helper.make_node("Sigmoid", ["both"], ["scores"]),
        helper.make_node("Concat", ["pixels", "scores"], ["found"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "end",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["n", 44, 64])],
        [
            *(numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()),
            *(numpy_helper.from_array(np.array(value), name) for name, value in shapes.items()),
        ],
    )
    path = folder / "end.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def test_what_decodes_boxes_and_puts_them_beside_the_scores_is_not_rounded(tmp_path: Path) -> None:
    quantiser = open_quantiser(one_output(tmp_path), tmp_path / "q")
    assert sorted(quantiser.weights.values()) == [32 * 27, 40 * 32, 64 * 32]
    assert quantiser.ends(quantiser.operators) == list(quantiser.operators[1:])
    assert quantiser.ends(quantiser.operators[:1]) == [quantiser.operators[0]]
    rng = np.random.default_rng(1)
    images = [rng.normal(size=(4, 3, 8, 8)).astype(np.float32) for _ in range(4)]
    quantiser.calibrate(({"image": image} for image in images), "MINMAX", 1)
    model = quantiser.quantised(quantiser.operators, quantiser.ends(quantiser.operators))
    onnx.checker.check_model(model, full_check=True)
    # The image and the result of the first convolution; the weights only have a DequantizeLinear.
    counts = Counter(node.op_type for node in model.graph.node)
    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (2, 2 + 3)
    session = onnx_run(model)
    exact = onnx_run(onnx.load(str(tmp_path / "end.onnx")))
    wanted, found = exact(images[0]), session(images[0])
    assert np.abs(wanted[:, 4:] - found[:, 4:]).max() < 0.1
    assert np.abs(wanted[:, :4] - found[:, :4]).max() < 8


def onnx_run(model: ModelProto):  # type: ignore[no-untyped-def]
    from whetstone_trainer.evaluate import onnx_session

    session = onnx_session(model.SerializeToString(), 1)
    return lambda image: session.run(None, {"image": image})[0]


def test_fp16_decodes_boxes_in_32_bits(tmp_path: Path) -> None:
    half = to_half(onnx.load(str(one_output(tmp_path))))
    onnx.checker.check_model(half, full_check=True)
    casts = Counter(node.attribute[0].i for node in half.graph.node if node.op_type == "Cast")
    # The input, and the results of the two last convolutions.
    assert casts == {TensorProto.FLOAT16: 1, TensorProto.FLOAT: 2}
    weights = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert (weights["wb"], weights["stride"]) == (TensorProto.FLOAT16, TensorProto.FLOAT)
    rng = np.random.default_rng(1)
    image = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
    wanted, found = onnx_run(onnx.load(str(tmp_path / "end.onnx")))(image), onnx_run(half)(image)
    assert np.abs(wanted - found).max() < 0.5


def test_last_operators_are_those_behind_which_no_other_comes(tmp_path: Path) -> None:
    model = onnx.load(str(one_output(tmp_path)))
    for n, node in enumerate(model.graph.node):
        node.name = str(n)
    assert last_of(model.graph, ["0", "2", "3", "7"]) == ["3", "7"]
    assert last_of(model.graph, ["0", "2"]) == ["2"]


def test_a_decision_of_a_detector_is_a_box_that_only_one_of_two_finds() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.0], [0.0, 0.8], [0.3, 0.0]]])
    moved = boxes + 1
    weaker = torch.tensor([[[0.9, 0.0], [0.8, 0.0], [0.2, 0.0]]])
    assert decisions((boxes, scores), (moved, scores)) == (3, 0)
    # Another class is a box too many and one too few; the third is no longer shown.
    assert decisions((boxes, scores), (boxes, weaker)) == (3, 3)
