"""Writes models for benchmarks and their probe sets: `python -P benchmark_models.py FOLDER`."""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save_file


def tensor(value, name, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def model(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def classifier(batch="batch", size=8, kind=TensorProto.FLOAT, dtype=np.float32):
    """One convolution, pooled, of 3 classes."""
    weights = tensor(np.random.default_rng(0).normal(size=(3, 3, 3, 3)), "w", dtype)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return model(nodes, [value("image", [batch, 3, size, size], kind)], [value("y", [batch, 3], kind)], [weights])


def tokens():
    """The mean of the embeddings of a sentence, where its mask is set."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["u"]),
        helper.make_node("Mul", ["e", "u"], ["masked"]),
        helper.make_node("ReduceMean", ["masked", "second"], ["y"], keepdims=0),
    ]
    ids, mask = value("ids", ["n", "length"], TensorProto.INT64), value("mask", ["n", "length"], TensorProto.BOOL)
    constants = [
        tensor(np.arange(8).reshape(2, 4), "table"),
        tensor([2], "last", np.int64),
        tensor([1], "second", np.int64),
    ]
    return model(nodes, [ids, mask], [value("y", ["n", 4])], constants)


def text():
    kind = TensorProto.STRING
    return model([helper.make_node("Identity", ["x"], ["y"])], [value("x", ["n"], kind)], [value("y", ["n"], kind)])


def not_a_number():
    return model([helper.make_node("Sqrt", ["x"], ["y"])], [value("x", ["n", 2])], [value("y", ["n", 2])])


def slow():
    """Some milliseconds for an inference."""
    nodes = [helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(10)]
    nodes.append(helper.make_node("ReduceMean", ["x10"], ["y"], keepdims=0))
    weights = tensor(np.eye(300), "w")
    return model(nodes, [value("x0", ["n", 300, 300])], [value("y", [])], [weights])


def detector(scores=(1.0, 0.6, 0.1), shift=0.0):
    """Boxes of hundreds of pixels, moved by so many, beside scores of three classes."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Mul", ["f", "pixels"], ["b"]),
        helper.make_node("Add", ["b", "shift"], ["boxes"]),
        helper.make_node("Mul", ["f", "s"], ["scores"]),
    ]
    outputs = [value("boxes", ["n", 3]), value("scores", ["n", 3])]
    return model(nodes, [value("image", ["n", 3, 8, 8])], outputs, [tensor(640, "pixels"), tensor(shift, "shift"), tensor(scores, "s")])


def probe(of, path, count=32, change=0.0):
    image = np.random.default_rng(1).uniform(0, 1, (count, 3, 8, 8)).astype(np.float32)
    outputs = ReferenceEvaluator(of).run(None, {"image": image})
    # As it lies in memory, safetensors would write it transposed.
    tensors = [np.ascontiguousarray(output + change, dtype=np.float32) for output in outputs]
    save_file({"input": image, **{f"output{n or ''}": tensor for n, tensor in enumerate(tensors)}}, path)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    models = {
        "classifier": classifier(),
        "fixed": classifier(batch=2),
        "open": classifier(batch=None, size=None),
        "half": classifier(kind=TensorProto.FLOAT16, dtype=np.float16),
        "tokens": tokens(),
        "text": text(),
        "nan": not_a_number(),
        "slow": slow(),
        "detector": detector(),
        "blind": detector(scores=(0.0, 0.0, 0.0)),
        "shifted": detector(shift=2.0),
        "swapped": detector(scores=(0.6, 1.0, 0.1)),
    }
    for name, made in models.items():
        onnx.save(made, folder / f"{name}.onnx")
    (folder / "broken.onnx").write_bytes(b"not a model")
    probe(models["classifier"], folder / "classifier.probe")
    probe(models["classifier"], folder / "few.probe", count=5)
    probe(models["classifier"], folder / "wrong.probe", change=0.01)
    probe(models["detector"], folder / "detector.probe")
