"""ONNX files from outside: what they are, and that hostile ones do nothing but fail."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import Trained
from tests.support import Json, Recorder, import_file, preprocess
from tests.test_evaluate import small_onnx
from whetstone_trainer import inspect_file
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.external_data import join
from whetstone_trainer.inspect_onnx import TENSOR_BYTES_MAX, _tensors, describe, infer_shapes, refuse_unknown_operators
from whetstone_trainer.protocol_json import validator


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
    assert meta["operators"]["Conv"] == 20
    assert meta["opsets"] == {"ai.onnx": 18}
    assert meta["producer"].startswith("pytorch")
    assert meta["parameters"] > 11_000_000
    assert meta["labels"] == trained.spec["dataset"]["classes"]
    assert meta["preprocess"] == trained.spec["preprocess"]
    assert "whetstone.classes" not in meta["metadata"]
    assert meta["elementTypes"]["FLOAT"] > 11_000_000
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
    join(_tensors(model), {})
    refuse_unknown_operators(model)
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
        (external("../../etc/passwd"), "MODEL_UNSAFE", "1 tensors lie in files of other folders"),
        (external("weights.bin"), "MODEL_UNSAFE", "in weights.bin, which was not uploaded.*external_data=False"),
        (hidden_external(), "MODEL_UNSAFE", "1 tensors lie in files of other folders"),
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
        refuse_unknown_operators(model_of([helper.make_node("Magic", ["x"], ["y"], domain="com.acme")]))
    assert caught.value.details == ("com.acme::Magic",)
    with pytest.raises(TrainerError) as caught:
        join(_tensors(external("../../etc/passwd")), {})
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


PREPROCESS = preprocess(8, mode="STRETCH", mean=[0, 0, 0], std=[1, 1, 1])


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


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{0: 'person', 1: \"crow's nest\"}", ["person", "crow's nest"]),
        ("{1: 'b', 0: 'a'}", ["a", "b"]),
        ("['cat', 'dög']", ["cat", "dög"]),
        ('{"0": "cat", "1": "dog"}', ["cat", "dog"]),
        ('["cat", "dog"]', ["cat", "dog"]),
        ("{0: 'a', 2: 'c'}", None),
        ("{0: 'a', 1: 2}", None),
        ("__import__('os').system('false')", None),
        ("{" * 50_000, None),
        ("(" * 60_000 + ")" * 4_000, None),
        ("'a' * 10**9", None),
        ("cat,dog", None),
        ("", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_class_names_that_another_exporter_wrote_are_read(tmp_path: Path, text: str, labels: list[str] | None) -> None:
    meta = described(tmp_path, lambda model: helper.set_model_props(model, {"names": text}))["meta"]
    assert meta["labels"] == labels


def test_our_own_class_names_count_before_those_of_another_exporter(tmp_path: Path) -> None:
    both = {"whetstone.classes": '["cat"]', "names": "{0: 'dog'}"}
    assert described(tmp_path, lambda model: helper.set_model_props(model, both))["meta"]["labels"] == ["cat"]


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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04model/data.pkl", "is a zip, as PyTorch's .pt and .pth are"),
        (pickle.dumps({"conv.weight": [1.0]}), "is a pickle: export the model to ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "run `git lfs pull`"),
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page or XML"),
        (b"\x89PNG\r\n\x1a\n", "is an image"),
    ],
)
def test_a_file_that_is_something_else_is_told_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    code, recorder = import_file(tmp_path, path)
    assert (code, recorder.events[-1]["code"]) == (65, "MODEL_INVALID")
    assert says in recorder.events[-1]["message"]


def test_hostile_files_leave_the_next_good_one_alone(tmp_path: Path) -> None:
    """Through the whole job: the file that asks for 160 GB and the one with external data, then a good one."""
    for name, model in (("shape.onnx", constant_of_shape(40 * 10**9)), ("external.onnx", external("/etc/passwd"))):
        (tmp_path / name).write_bytes(model.SerializeToString())
        code, recorder = import_file(tmp_path, tmp_path / name)
        assert (code, recorder.events[-1]["code"]) == (65, "MODEL_UNSAFE")
        assert recorder.of("artifact") == []
    code, _ = import_file(tmp_path, small_onnx(tmp_path / "good.onnx"))
    assert code == 0


def joined(tmp_path: Path, code: int, recorder: Recorder) -> tuple[Any, list[Json]]:
    """What the joined model computes for ones, and the warnings."""
    assert code == 0, recorder.events[-1]
    (artifact,) = recorder.of("artifact")
    assert artifact["file"] == "model.onnx"
    session = ort.InferenceSession(str(tmp_path / "work" / "model.onnx"))
    return session.run(None, {"x": np.ones((1, 4), np.float32)})[0][0].tolist(), recorder.of("warning")


def test_nodes_that_are_not_sorted_are_sorted(tmp_path: Path) -> None:
    """Also those inside a node, which take from outside what a later node makes."""
    branch = helper.make_graph(
        [helper.make_node("Add", ["half", "late"], ["out"]), helper.make_node("Identity", ["x"], ["half"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Add", ["chosen", "ones"], ["y"]),
        helper.make_node("If", ["flag"], ["chosen"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["x", "ones"], ["late"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(True), "flag"),
        numpy_helper.from_array(np.ones(4, np.float32), "ones"),
    ]
    model = model_of(nodes, *constants)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    outputs, (warning,) = joined(tmp_path, *import_file(tmp_path, tmp_path / "m.onnx"))
    assert outputs == [4.0] * 4
    assert "were sorted" in warning["message"]


def test_nodes_that_need_each_other_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"])]
    nodes.append(helper.make_node("Identity", ["b"], ["y"]))
    (tmp_path / "m.onnx").write_bytes(model_of(nodes).SerializeToString())
    error = inspect_file.read_file({"file": str(tmp_path / "m.onnx"), "ending": ".onnx", "preset": None})["error"]
    assert "3 nodes of the graph need each other in a circle" in error["message"]


def test_a_negative_dimension_is_an_open_one(tmp_path: Path) -> None:
    def minus(model: onnx.ModelProto) -> None:
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = -1
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1

    meta = described(tmp_path, minus)["meta"]
    assert (meta["inputs"][0]["shape"], meta["outputs"][0]["shape"]) == (["?", "?"], ["?", 4])
