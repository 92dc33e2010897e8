"""FP16: an ONNX graph with 16-bit weights and results, by ONNX Runtime's converter, whose casts are mended."""

from onnx import GraphProto, ModelProto, TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from whetstone_trainer.quantise import WEIGHTED, as_model_invalid, name_nodes, tensors_before
from whetstone_trainer.sorted_nodes import sort_nodes


def to_half(model: ModelProto) -> ModelProto:
    """The weights and the results as 16-bit floats; inputs, outputs and what comes behind the last operator with
    weights stay in 32 bits. There a detector decodes boxes: 16 bits tell pixel 513 from 514, but not from 513.2."""
    copy = ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy.graph)
    ahead = tensors_before(copy.graph, [node.name for node in copy.graph.node if node.op_type in WEIGHTED])
    behind = [
        node.name
        for node in copy.graph.node
        if node.op_type not in WEIGHTED and not any(name in ahead for name in node.output)
    ]
    with as_model_invalid("The model cannot be converted to FP16"):
        half: ModelProto = convert_float_to_float16(copy, keep_io_types=True, node_block_list=behind)
    mend_casts(half.graph)
    sort_nodes(half.graph)
    return half


def mend_casts(graph: GraphProto) -> None:
    """The converter casts the result of each 32-bit operator to 16 bits, also where the next one needs 32 again, and
    casts a tensor once for each of its 32-bit readers, under one name."""
    rounded = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast" and node.name.endswith("_cast_to_fp16_node")
    }
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT and node.input[0] in rounded:
            node.op_type, node.input[0] = "Identity", rounded[node.input[0]]
            del node.attribute[:]
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    nodes = {tuple(node.output): node for node in graph.node if node.output[0] in read or node.output[0] not in rounded}
    values = {value.name: value for value in graph.value_info if value.name in read}
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes.values())
    graph.value_info.extend(values.values())
