"""Files from outside: what they are, and that hostile ones do nothing but fail."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from tests import support
from tests.conftest import Trained
from tests.support import Recorder, run_here
from tests.test_evaluate import small_onnx
from whetstone_trainer import inspect_file
from whetstone_trainer.checkpoint import State
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.inspect_onnx import TENSOR_BYTES_MAX, describe, infer_shapes, refuse_unsafe
from whetstone_trainer.model import build_model, read_state, weights_hash
from whetstone_trainer.protocol import validator

LIMITS = {"memoryBytesMax": 2 * 2**30, "outputBytesMax": 2**30, "secondsMax": 120}


def import_spec(file: Path, name: str | None = None, preset: str | None = None, **limits: int) -> support.Json:
    return {
        **support.common("IMPORT_MODEL"),
        "file": str(file),
        "fileName": name or file.name,
        "preset": preset,
        "limits": {**LIMITS, **limits},
    }


def import_file(tmp_path: Path, file: Path, **options: Any) -> tuple[int, Recorder]:
    """Runs the job; whatever happens, its inspection folder is gone."""
    code, recorder = run_here(tmp_path / "work", import_spec(file, **options))
    assert not (tmp_path / "work" / "inspection").exists()
    return code, recorder


# ----------------------------------------------------------------------------------------------------------------- ONNX


def test_an_onnx_file_is_described_and_stays_as_it_is(trained: Trained, tmp_path: Path) -> None:
    path = trained.path("ONNX")
    code, recorder = import_file(tmp_path, path)
    assert code == 0
    (artifact,) = recorder.of("artifact")
    assert (artifact["kind"], artifact["file"]) == ("ONNX", None)
    assert artifact["sha256"] == trained.artifact("ONNX")["sha256"]
    meta = artifact["meta"]
    assert not list(validator("OnnxMeta").iter_errors(meta))
    assert meta["inputs"] == [{"name": "input", "elementType": "FLOAT", "shape": ["batch", 3, 32, 32]}]
    assert meta["outputs"] == [{"name": "logits", "elementType": "FLOAT", "shape": ["batch", 10]}]
    assert meta["operators"]["Conv"] == 53
    assert meta["opsets"] == {"ai.onnx": 18}
    assert meta["producer"].startswith("pytorch")
    assert meta["parameters"] > 23_000_000
    assert meta["labels"] == trained.spec["dataset"]["classes"]
    assert meta["preprocess"] == trained.spec["preprocess"]
    assert "whetstone.classes" not in meta["metadata"]
    assert meta["elementTypes"]["FLOAT"] > 23_000_000
    assert recorder.events[-1]["result"] == {"format": "ONNX"}


def model_of(
    nodes: list[onnx.NodeProto],
    *initializers: onnx.TensorProto,
    output: tuple[int | str | None, ...] | None = ("n", 4),
    **options: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.acme", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **options)


def external(location: str) -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "secret")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model_of([helper.make_node("Add", ["x", "secret"], ["y"])], tensor)


def hidden_external() -> onnx.ModelProto:
    """External data of a constant inside a branch inside a function."""
    tensor = external("../../etc/passwd").graph.initializer[0]
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [4])],
    )
    inner = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    flag = helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True), "flag"))
    function = helper.make_function("com.acme", "Hidden", ["x"], ["y"], [flag, inner], [helper.make_opsetid("", 18)])
    return model_of([helper.make_node("Hidden", ["x"], ["y"], domain="com.acme")], functions=[function])


def constant_of_shape(elements: int) -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([elements], np.int64), "shape")
    return model_of([helper.make_node("ConstantOfShape", ["shape"], ["y"])], shape, output=(None,))


def look_at(model: onnx.ModelProto) -> dict[str, Any]:
    refuse_unsafe(model)
    meta = describe(model)
    infer_shapes(model)
    return meta


def endless_loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 4]),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, ["n", 4]),
        ],
    )
    trips = numpy_helper.from_array(np.array(2**62, np.int64), "trips")
    return model_of([helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)], trips)


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        (external("../../etc/passwd"), "MODEL_UNSAFE", "1 tensors lie outside the file"),
        (external("weights.bin"), "MODEL_UNSAFE", "without external data"),
        (hidden_external(), "MODEL_UNSAFE", "1 tensors lie outside the file"),
        (model_of([helper.make_node("Magic", ["x"], ["y"], domain="com.acme")]), "MODEL_INVALID", "unknown domains"),
        (model_of([helper.make_node("Magic", ["x"], ["y"])]), "MODEL_INVALID", "No Op registered for Magic"),
        (model_of([helper.make_node("Add", ["x", "nowhere"], ["y"])]), "MODEL_INVALID", "nowhere"),
        (constant_of_shape(40 * 10**9), "MODEL_UNSAFE", "would take 160 GB"),
        (
            model_of(
                [helper.make_node("MatMul", ["x", "w"], ["y"])],
                numpy_helper.from_array(np.zeros((5, 2), np.float32), "w"),
            ),
            "MODEL_INVALID",
            "Incompatible dimensions",
        ),
    ],
    ids=["up", "beside", "hidden", "domain", "operator", "input", "160 GB", "shapes"],
)
def test_hostile_graphs_are_refused(model: onnx.ModelProto, code: str, message: str) -> None:
    with pytest.raises(TrainerError, match=message) as caught:
        look_at(model)
    assert caught.value.code == code


def test_unknown_operators_and_external_tensors_are_named() -> None:
    with pytest.raises(TrainerError) as caught:
        refuse_unsafe(model_of([helper.make_node("Magic", ["x"], ["y"], domain="com.acme")]))
    assert caught.value.details == ("com.acme::Magic",)
    with pytest.raises(TrainerError) as caught:
        refuse_unsafe(external("../../etc/passwd"))
    assert caught.value.details == ("secret",)
    assert "passwd" not in caught.value.message


def test_a_loop_of_2_to_the_62_is_only_looked_at() -> None:
    assert look_at(endless_loop())["operators"] == {"Identity": 2, "Loop": 1}


def test_a_description_is_bounded() -> None:
    model = constant_of_shape(TENSOR_BYTES_MAX // 8)
    for n in range(600):
        model.graph.node.add(op_type=f"Op{n:04d}" + "x" * 500)
        model.metadata_props.add(key=f"key{n}", value="v" * 100)
    model.graph.input[0].name = "x" * 10_000
    meta = describe(model)
    assert len(meta["operators"]) == 500
    assert meta["metadataTruncated"]
    assert len(json.dumps(meta["metadata"])) < 20_000
    assert len(meta["inputs"][0]["name"]) == 200
    model.graph.output.extend([helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, []) for n in range(100)])
    with pytest.raises(TrainerError, match="101 outputs"):
        describe(model)


def described(tmp_path: Path, change: Callable[[onnx.ModelProto], Any]) -> dict[str, Any]:
    """What the reader says of a small model with a change."""
    model = model_of([helper.make_node("Identity", ["x"], ["y"])])
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return inspect_file.read_file({"file": str(tmp_path / "model.onnx"), "ending": ".onnx", "preset": None})


def test_a_description_that_no_event_can_carry_is_refused(tmp_path: Path) -> None:
    long = ["é" * 200] * 8
    inputs = [helper.make_tensor_value_info(f"{n}", TensorProto.FLOAT, long) for n in range(60)]
    error = described(tmp_path, lambda model: model.graph.input.extend(inputs))["error"]
    assert (error["code"], error["message"][:22]) == ("LIMIT_EXCEEDED", "The names in the file ")
    wide = helper.make_tensor_value_info("wide", TensorProto.FLOAT, [2**60])
    error = described(tmp_path, lambda model: model.graph.input.append(wide))["error"]
    assert (error["code"], "53 bits" in error["message"]) == ("MODEL_INVALID", True)


PREPROCESS = {
    "version": 1,
    "width": 8,
    "height": 8,
    "mode": "STRETCH",
    "cropFraction": 1,
    "padColor": [0, 0, 0],
    "channels": "RGB",
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "layout": "NCHW",
}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("labels", json.dumps(["cat", "dögs"]), ["cat", "dögs"]),
        ("labels", json.dumps([f"class {n:04d}" for n in range(1000)]), [f"class {n:04d}" for n in range(1000)]),
        ("labels", json.dumps(["x" * 200] * 200), None),
        ("labels", '["cat", 1]', None),
        ("labels", "[]", None),
        ("labels", '"cat"', None),
        ("labels", "[" * 100_000, None),
        ("preprocess", json.dumps(PREPROCESS), PREPROCESS),
        ("preprocess", json.dumps({**PREPROCESS, "width": 0}), None),
        ("preprocess", "not JSON", None),
    ],
    ids=["two", "a thousand", "too long", "numbers", "none", "text", "nested", "a spec", "no width", "no JSON"],
)
def test_labels_and_preprocessing_are_read_from_a_file_of_ours(tmp_path: Path, key: str, text: str, value: Any) -> None:
    own = {"labels": "whetstone.classes", "preprocess": "whetstone.preprocess"}[key]
    meta = described(tmp_path, lambda model: helper.set_model_props(model, {own: text, "author": "ann"}))["meta"]
    assert meta[key] == value
    assert (meta["metadata"], meta["metadataTruncated"]) == ({"author": "ann"}, False)


def test_element_types_of_the_weights_are_counted(tmp_path: Path) -> None:
    def add(model: onnx.ModelProto) -> None:
        for name, values in (("a", np.zeros((2, 3), np.float16)), ("b", np.zeros(4, np.int8)), ("c", np.float32(1))):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))

    meta = described(tmp_path, add)["meta"]
    assert meta["elementTypes"] == {"FLOAT": 1, "FLOAT16": 6, "INT8": 4}
    assert meta["parameters"] == 11


def test_shapes_say_what_is_known_of_them() -> None:
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], output=None)
    model.graph.input.append(helper.make_tensor_value_info("free", TensorProto.INT64, [None, "h", 3]))
    model.graph.input.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None))
    ports = {port["name"]: port for port in describe(model)["inputs"]}
    assert ports["free"] == {"name": "free", "elementType": "INT64", "shape": ["?", "h", 3]}
    assert ports["list"] == {"name": "list", "elementType": "SEQUENCE", "shape": None}
    assert describe(model)["outputs"][0]["shape"] is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08\x0a\x12", b"not onnx at all" * 100, "truncated", "symlink"],
    ids=["empty", "header", "text", "truncated", "symlink"],
)
def test_a_file_that_is_not_whole_onnx_is_refused(trained: Trained, tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "model.onnx"
    if content == "symlink":
        path.symlink_to("/etc/hostname")
    else:
        path.write_bytes(content if isinstance(content, bytes) else trained.path("ONNX").read_bytes()[:1_000_000])
    code, recorder = import_file(tmp_path, path)
    assert code == 65
    assert recorder.events[-1]["code"] == "MODEL_INVALID"
    assert str(tmp_path) not in json.dumps(recorder.events)


def test_hostile_files_leave_the_next_good_one_alone(tmp_path: Path) -> None:
    """Through the whole job: the file that asks for 160 GB and the one with external data, then a good one."""
    for name, model in (("shape.onnx", constant_of_shape(40 * 10**9)), ("external.onnx", external("/etc/passwd"))):
        (tmp_path / name).write_bytes(model.SerializeToString())
        code, recorder = import_file(tmp_path, tmp_path / name)
        assert (code, recorder.events[-1]["code"]) == (65, "MODEL_UNSAFE")
        assert recorder.of("artifact") == []
    code, _ = import_file(tmp_path, small_onnx(tmp_path / "good.onnx"))
    assert code == 0


# ---------------------------------------------------------------------------------------------------------- state dicts


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(3)
    return dict(build_model("resnet50", 4).state_dict())


WRITERS: dict[str, Callable[[State, Path], Any]] = {
    "safetensors": lambda state, path: save_file(state, path.with_suffix(".safetensors")),
    "pt": lambda state, path: torch.save(state, path.with_suffix(".pt")),
    "wrapped": lambda state, path: torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        path.with_suffix(".pth"),
    ),
}


def read_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path, preset: str = "resnet50") -> support.Json:
    """What the child would write into `result.json`, without a child: PyTorch takes seconds to start."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return inspect_file.read_file({"file": str(file), "ending": file.suffix, "preset": preset})


@pytest.mark.parametrize("form", WRITERS)
def test_weights_of_a_preset_become_safetensors(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    WRITERS[form](state, tmp_path / "weights")
    (path,) = tmp_path.glob("weights.*")
    result = read_here(monkeypatch, tmp_path, path)
    stored = read_state(tmp_path / "folder" / "weights.safetensors")
    assert weights_hash(stored) == result["meta"]["weightsHash"] == weights_hash(state)
    assert result["meta"]["classCount"] == 4
    assert result["warnings"] == (["The prefix module. was taken off the names."] if form == "wrapped" else [])


def test_an_imported_state_dict_is_an_artifact(state: State, tmp_path: Path) -> None:
    WRITERS["pt"](state, tmp_path / "weights")
    code, recorder = import_file(tmp_path, tmp_path / "weights.pt", preset="resnet50")
    assert code == 0
    (artifact,) = recorder.of("artifact")
    assert not list(validator("WeightsMeta").iter_errors(artifact["meta"]))
    assert (artifact["kind"], artifact["file"]) == ("WEIGHTS", "weights.safetensors")
    assert weights_hash(read_state(tmp_path / "work" / artifact["file"])) == weights_hash(state)
    assert recorder.events[-1]["result"] == {"format": "CHECKPOINT"}


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path) -> None:
    path, target = tmp_path / "weights.pt", tmp_path / "was-here"
    torch.save({"fc.weight": Attack(target)}, path)
    code, recorder = import_file(tmp_path, path, preset="resnet50")
    error = recorder.events[-1]
    assert (code, error["code"]) == (65, "MODEL_UNSAFE")
    assert "state_dict" in error["hint"]
    assert not target.exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_weights_of_a_detector_say_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = dict(build_model("yolov8n", 7).state_dict())
    torch.save(state, tmp_path / "weights.pt")
    meta = read_here(monkeypatch, tmp_path, tmp_path / "weights.pt", "yolov8n")["meta"]
    assert (meta["classCount"], meta["weightsHash"]) == (7, weights_hash(state))


@pytest.mark.parametrize("kind", ["module", "torchscript"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_whole_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "model.pt"
    if kind == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    error = read_here(monkeypatch, tmp_path, path)["error"]
    assert error["code"] == "MODEL_UNSAFE"
    assert "torch.save(model.state_dict(), file)" in error["hint"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "extra": torch.ones(1)}, "1 unexpected"),
        (lambda s: {name: tensor for name, tensor in s.items() if name != "bn1.bias"}, "1 tensors are missing"),
        (lambda s: {**s, "bn1.bias": torch.ones(3)}, "1 of another shape"),
        (lambda s: {**s, "bn1.bias": torch.full((64,), float("inf"))}, "bn1.bias has values that are not finite"),
        (lambda s: {name: tensor for name, tensor in s.items() if not name.startswith("fc.")}, "no tensor fc.weight"),
        (lambda s: {**s, "bn1.bias": torch.ones(64).to_sparse()}, "Sparse and quantised"),
        (lambda s: {}, "no tensor fc.weight"),
        (lambda s: {"a": 1}, "not a state dict"),
        (lambda s: [1, 2], "not a state dict"),
    ],
)
def test_weights_that_do_not_fit_are_described(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[State], Any], message: str
) -> None:
    torch.save(change(state), tmp_path / "weights.pt")
    error = read_here(monkeypatch, tmp_path, tmp_path / "weights.pt")["error"]
    assert error["code"] == "WEIGHTS_INVALID"
    assert message in error["message"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_half_precision_is_stored_as_single_and_said(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({name: t.half() if t.is_floating_point() else t for name, t in state.items()}, tmp_path / "w.safetensors")
    result = read_here(monkeypatch, tmp_path, tmp_path / "w.safetensors")
    assert result["warnings"] == ["The weights were float16 and are stored as float32."]
    assert read_state(tmp_path / "folder" / "weights.safetensors")["fc.weight"].dtype == torch.float32


def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    assert read_here(monkeypatch, tmp_path, tmp_path / "w.safetensors")["error"]["code"] == "WEIGHTS_INVALID"


# --------------------------------------------------------------------------------------------------------------- limits


def test_a_file_that_takes_too_much_memory_is_stopped(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    code, recorder = import_file(tmp_path, tmp_path / "w.safetensors", preset="resnet50", memoryBytesMax=40 * 2**20)
    assert (code, recorder.events[-1]["code"]) == (65, "LIMIT_EXCEEDED")
    assert recorder.of("artifact") == []


def test_a_file_that_writes_too_much_is_stopped(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    code, _ = import_file(tmp_path, tmp_path / "w.safetensors", preset="resnet50", outputBytesMax=2**20)
    assert code in (65, 74)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_file_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    """A pipe that nobody writes to: reading it would never end."""
    os.mkfifo(tmp_path / "endless.pt")
    code, recorder = import_file(tmp_path, tmp_path / "endless.pt", preset="resnet50", secondsMax=1)
    assert (code, recorder.events[-1]["code"]) == (65, "LIMIT_EXCEEDED")
    assert "1 s" in recorder.events[-1]["message"]


@pytest.mark.parametrize(
    ("name", "preset", "code"), [("model.exe", None, "MODEL_INVALID"), ("weights.pt", None, "SPEC_INVALID")]
)
def test_what_cannot_be_read_is_said_at_once(tmp_path: Path, name: str, preset: str | None, code: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    _, recorder = import_file(tmp_path, tmp_path / "file", name=name, preset=preset)
    assert recorder.events[-1]["code"] == code
