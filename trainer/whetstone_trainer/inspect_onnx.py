"""What an ONNX file is, read from its bytes without running anything; and what is refused."""

import ast
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from whetstone_trainer.errors import TrainerError, mask_paths
from whetstone_trainer.external_data import ONNX_BYTES_MAX, join, unpack
from whetstone_trainer.import_model import ONNX_FILE
from whetstone_trainer.protocol_json import validator
from whetstone_trainer.sorted_nodes import graphs_of, sort_nodes

PORTS_MAX = 64
NAME_LENGTH_MAX = 200
# The report about a file must fit an event line, which has 64 KiB. 1,000 class names take about 25 KB.
METADATA_BYTES_MAX = 16_000
LABELS_BYTES_MAX = 32_000
DESCRIPTION_BYTES_MAX = 60_000
INTEGER_MAX = 2**53 - 1
LABELS, PREPROCESS = "whetstone.classes", "whetstone.preprocess"
# Under which other exporters write the class names.
NAMES = "names"
OPERATORS_MAX = 500
# No tensor of a vision model that fits a machine is larger; a graph may ask for 160 GB in twelve bytes.
TENSOR_BYTES_MAX = 16 * 2**30
# By their first bytes.
HEAD_BYTES = 40
OTHER_FILES = (
    (b"PK\x03\x04", "a zip, as PyTorch's .pt and .pth are: name it so, or export the model to ONNX"),
    (b"\x80", "a pickle: export the model to ONNX, or save its state dict as .safetensors"),
    (b"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull`, then upload the file"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"<", "a web page or XML: download the file itself"),
)
DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}


def read(file: Path, ending: str, preset: str | None, data: tuple[str, Path] | None) -> dict[str, Any]:
    """`OnnxMeta` of the protocol, and warnings of what was changed: then the model is written into the working folder.
    Raises MODEL_INVALID, MODEL_UNSAFE.

    Args:
        data: name and path of the upload that holds the tensors outside the file.
    """
    file, sources = unpack(file, Path()) if ending == ".zip" else (file, dict([data] if data else []))
    if file.stat().st_size > ONNX_BYTES_MAX:
        raise TrainerError("MODEL_INVALID", "An ONNX file can have 2 GiB at most.")
    try:
        model = onnx.load(str(file), format="protobuf", load_external_data=False)
    except Exception as error:  # google.protobuf's DecodeError, without a type of its own in every version
        with file.open("rb") as start:
            head = start.read(HEAD_BYTES)
        what = next((what for begins, what in OTHER_FILES if head.startswith(begins)), None)
        reason = f"The file is {what}, not ONNX." if what else "The file is not ONNX, or not all of it is there."
        raise TrainerError("MODEL_INVALID", reason) from error
    warnings = []
    if joined := join(_tensors(model), sources):
        warnings.append(f"The tensors in {', '.join(joined[:10])} were put into the model's file.")
    if sort_nodes(model.graph):
        warnings.append("The nodes of the graph were sorted: each has to come after those that it needs.")
    refuse_unknown_operators(model)
    if warnings or ending == ".zip":
        Path(ONNX_FILE).write_bytes(model.SerializeToString(deterministic=True))
    open_negative_dimensions(model.graph)
    meta = describe(model)
    infer_shapes(model)
    if _size(meta) > DESCRIPTION_BYTES_MAX:
        raise TrainerError("LIMIT_EXCEEDED", "The names in the file are too long, or too many, to describe it.")
    if any(abs(number) > INTEGER_MAX for number in _integers(meta)):
        raise TrainerError("MODEL_INVALID", "A dimension or a version in the file has more than 53 bits.")
    return {"meta": {**meta, "weightsHash": None, "exporter": None}, "warnings": warnings}


def open_negative_dimensions(graph: GraphProto) -> None:
    """Some converters write −1 for a dimension of no fixed size. The engine reads it so; shape inference takes it for a
    number."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")


def refuse_unknown_operators(model: ModelProto) -> None:
    """Raises MODEL_INVALID for operators that no engine of ours has."""
    known = DOMAINS | {function.domain for function in model.functions}
    unknown = sorted({_operator(node) for node in _nodes(model) if node.domain not in known})
    if unknown:
        raise TrainerError(
            "MODEL_INVALID", f"The model uses {len(unknown)} operators of unknown domains.", details=tuple(unknown)
        )


def infer_shapes(model: ModelProto) -> None:
    """Checker and strict shape inference. Raises MODEL_INVALID, and MODEL_UNSAFE for a tensor of more than 16 GiB."""
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:  # ValidationError, InferenceError, and what protobuf raises
        raise TrainerError("MODEL_INVALID", f"The model is not valid ONNX: {mask_paths(str(error))[:1500]}") from error
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        size = math.prod(dim.dim_value for dim in tensor.shape.dim) * 4
        if size > TENSOR_BYTES_MAX:
            raise TrainerError("MODEL_UNSAFE", f"The tensor {_cut(value.name)} would take {size / 1e9:.0f} GB.")


def describe(model: ModelProto) -> dict[str, Any]:
    """`OnnxMeta` of the protocol, without what only the exporter knows. Raises MODEL_INVALID."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    for what, ports in (("inputs", inputs), ("outputs", list(graph.output))):
        if len(ports) > PORTS_MAX or not ports:
            raise TrainerError(
                "MODEL_INVALID", f"The model has {len(ports)} {what}; between 1 and {PORTS_MAX} are possible."
            )
    operators = Counter(_operator(node) for node in _nodes(model))
    metadata, truncated = _metadata(model)
    elements: Counter[str] = Counter()
    for tensor in (*graph.initializer, *_constants(graph)):
        elements[_element_type(tensor.data_type)] += math.prod(tensor.dims)
    return {
        "inputs": [_port(value) for value in inputs],
        "outputs": [_port(value) for value in graph.output],
        "operators": dict(sorted(operators.items())[:OPERATORS_MAX]),
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import[:PORTS_MAX]},
        "irVersion": model.ir_version,
        "producer": _cut(f"{model.producer_name} {model.producer_version}".strip()),
        "parameters": elements.total(),
        "elementTypes": dict(sorted(elements.items())),
        "labels": _labels(model),
        "preprocess": _own_preprocess(model),
        "metadata": metadata,
        "metadataTruncated": truncated,
    }


def _metadata(model: ModelProto) -> tuple[dict[str, str], bool]:
    """Without labels and preprocess, which have fields of their own; and whether values had to be left out."""
    told = [entry for entry in model.metadata_props if entry.key not in (LABELS, PREPROCESS)]
    metadata: dict[str, str] = {}
    room = METADATA_BYTES_MAX
    for entry in told:
        size = _size([entry.key, entry.value])
        if size <= room:
            metadata[entry.key] = entry.value
            room -= size
    return metadata, len(metadata) < len(told)


def _labels(model: ModelProto) -> list[str] | None:
    """The class names in the file's metadata: those that Whetstone wrote, else those of another exporter."""
    return _as_labels(_own(model, LABELS)) or _as_labels(_foreign_names(model))


def _as_labels(value: object) -> list[str] | None:
    """Names in a list, or by their indices, from 0 without a gap."""
    if isinstance(value, dict):
        by_index = {str(index): name for index, name in value.items()}
        value = [by_index.get(str(n)) for n in range(len(value))]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        return None
    return value if _size(value) <= LABELS_BYTES_MAX else None


def _foreign_names(model: ModelProto) -> object:
    """What exporters write under `names`: JSON, or a dictionary or list as Python prints it. Only literals are read."""
    text = next((entry.value for entry in model.metadata_props if entry.key == NAMES), "")
    if len(text) > 2 * LABELS_BYTES_MAX:
        return None
    try:
        return cast(object, json.loads(text))
    except (ValueError, RecursionError):
        pass
    try:
        return cast(object, ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _own_preprocess(model: ModelProto) -> dict[str, Any] | None:
    value = _own(model, PREPROCESS)
    return value if isinstance(value, dict) and validator("PreprocessSpec").is_valid(value) else None


def _own(model: ModelProto, key: str) -> object:
    try:
        return json.loads(next((entry.value for entry in model.metadata_props if entry.key == key), "null"))
    except (ValueError, RecursionError):
        return None


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _integers(value: object) -> Iterator[int]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _integers(part)
    elif isinstance(value, int):
        yield value


def _element_type(number: int) -> str:
    known: dict[int, str] = {value: name for name, value in TensorProto.DataType.items()}
    return known.get(number, str(number))


def _port(value: ValueInfoProto) -> dict[str, Any]:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return {
            "name": _cut(value.name),
            "elementType": (kind or "unknown").removesuffix("_type").upper(),
            "shape": None,
        }
    tensor = value.type.tensor_type
    shape = [
        dim.dim_value if dim.WhichOneof("value") == "dim_value" else _cut(dim.dim_param) or "?"
        for dim in tensor.shape.dim
    ]
    return {
        "name": _cut(value.name),
        "elementType": _element_type(tensor.elem_type),
        "shape": shape[:PORTS_MAX] if tensor.HasField("shape") else None,
    }


def _operator(node: NodeProto) -> str:
    return _cut(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}")


def _cut(name: str) -> str:
    return name[:NAME_LENGTH_MAX]


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node: of the graph, of the graphs inside nodes, of functions."""
    for node in model.graph.node:
        yield from _with_inner(node)
    for function in model.functions:
        for node in function.node:
            yield from _with_inner(node)


def _with_inner(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for graph in graphs_of(node):
        for inner in graph.node:
            yield from _with_inner(inner)


def _constants(graph: GraphProto) -> Iterator[TensorProto]:
    """Weights that some exporters (PaddlePaddle's) write as nodes instead of initializers."""
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every stored tensor: initializers of each graph, dense and sparse, and attributes."""
    graphs = [model.graph, *(graph for node in _nodes(model) for graph in graphs_of(node))]
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    attributes = [attribute for node in _nodes(model) for attribute in node.attribute]
    attributes += [attribute for function in model.functions for attribute in function.attribute_proto]
    for attribute in attributes:
        yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
    for training in model.training_info:
        yield from (*training.initialization.initializer, *training.algorithm.initializer)
