"""Writes model files for tests: `python model_files.py FOLDER NAME...`. Each name is a row of FILES."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 3
# Share of white that tells most zeros of MNIST from most ones.
INK = 0.12
ROWS = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
IMAGES = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
LOGITS = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])
SCALAR = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])


def tensor(value, name, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def onnx_file(nodes, inputs, outputs, initializers, domains=(), metadata=None):
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="test")
    if metadata:
        helper.set_model_props(model, metadata)
    return model.SerializeToString(deterministic=True)


def linear(dtype=np.float32, metadata=None):
    """y = x · w, with the weights in `dtype` and 32-bit inputs and outputs."""
    weights = tensor(np.arange(4 * CLASSES).reshape(4, CLASSES) / 10, "w", dtype)
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    return onnx_file(nodes, [ROWS], [LOGITS], [weights], metadata=metadata)


def quantised():
    scale, zero = tensor(0.1, "scale"), tensor(0, "zero", np.int8)
    weights = tensor(np.ones((4, CLASSES)), "w", np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wide"]),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    return onnx_file(nodes, [ROWS], [LOGITS], [weights, scale, zero])


def classifier(classes=CLASSES, metadata=None):
    """Of 8 × 8 images: one convolution, pooled."""
    weights = tensor(np.random.default_rng(0).normal(size=(classes, 3, 3, 3)), "w")
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return onnx_file(nodes, [IMAGES], [LOGITS], [weights], metadata=metadata)


def unroundable():
    """Of 8 × 8 images: 0 where there is much ink, else 1. In 8 bits both are the same: beside the ink stands a million."""
    mixed = np.zeros((64, 3, 3, 3))
    mixed[0, :, 1, 1] = 1 / 3
    constants = np.zeros(64)
    constants[1] = 1e6
    passed = np.zeros((64, 64, 1, 1))
    passed[0, 0] = 1
    read = np.zeros((64, CLASSES))
    read[0, 0] = 1
    limits = np.array([0, INK, -1])
    weights = {"a": mixed, "b": constants, "c": passed, "d": read, "e": limits}
    nodes = [
        helper.make_node("Conv", ["image", "a", "b"], ["m"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Conv", ["r", "c"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "d", "e"], ["y"]),
    ]
    return onnx_file(nodes, [IMAGES], [LOGITS], [tensor(value, name) for name, value in weights.items()])


def external(location):
    """Weights that lie in another file."""
    weights = tensor(np.zeros((4, CLASSES)), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * 4 * CLASSES))):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    return onnx_file([helper.make_node("MatMul", ["x", "w"], ["y"])], [ROWS], [LOGITS], [weights])


def endless_loop():
    """2⁶² rounds, whose count is known when the file is loaded."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Add", ["v", "one"], ["v_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, []),
        ],
        [tensor(1, "one")],
    )
    nodes = [
        helper.make_node("Loop", ["rounds", "go", "zero"], ["sum"], body=body),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "sum"], ["y"]),
    ]
    initializers = [
        tensor(2**62, "rounds", np.int64),
        tensor(True, "go", np.bool_),
        tensor(0, "zero"),
        tensor(np.zeros((4, CLASSES)), "w"),
    ]
    return onnx_file(nodes, [ROWS], [LOGITS], initializers)


def huge_constant():
    """160 GB of zeros, added up."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "sum"], ["y"]),
    ]
    initializers = [tensor([40_000_000_000], "shape", np.int64), tensor(np.zeros((4, CLASSES)), "w")]
    return onnx_file(nodes, [ROWS], [LOGITS], initializers)


def endless_folding(rounds=3000, side=1500):
    """A chain of products of constants, which an optimising engine computes while it loads: hours of work in a 9 MB file."""
    nodes = [helper.make_node("MatMul", [f"w{n}", "w0"], [f"w{n + 1}"]) for n in range(rounds)]
    nodes += [
        helper.make_node("ReduceSum", [f"w{rounds}"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "sum"], ["y"]),
    ]
    initializers = [tensor(np.full((side, side), 1 / side), "w0"), tensor(np.zeros((4, CLASSES)), "w")]
    return onnx_file(nodes, [ROWS], [LOGITS], initializers)


def unknown_domain():
    return onnx_file([helper.make_node("Steal", ["x"], ["y"], domain="org.evil")], [ROWS], [LOGITS], [], ["org.evil"])


def unknown_operator():
    """Of the default domain, so that only a checker or an engine can tell."""
    return onnx_file([helper.make_node("Steal", ["x"], ["y"])], [ROWS], [LOGITS], [])


PREPROCESS = {
    "version": 1,
    "width": 8,
    "height": 8,
    "mode": "STRETCH",
    "cropFraction": 1,
    "padColor": [0, 0, 0],
    "channels": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "layout": "NCHW",
}
OWN = {
    "whetstone.task": "CLASSIFICATION",
    "whetstone.preset": "resnet50",
    "whetstone.classes": json.dumps(["cat", "dog", "eel"]),
    "whetstone.preprocess": json.dumps(PREPROCESS),
}


def resnet50():
    # PyTorch and torchvision take 10 seconds to import: only where they are needed.
    import torch
    from torchvision.models import resnet50

    torch.manual_seed(0)
    return resnet50(num_classes=CLASSES)


def state():
    return resnet50().state_dict()


def without(name):
    tensors = state()
    del tensors[name]
    return tensors


def misshapen():
    tensors = state()
    return {**tensors, "conv1.weight": tensors["conv1.weight"][:, :, :5, :5].clone()}


class Evil:
    """Makes the file `executed` beside the one it was saved in, when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch {self.folder}/executed",)


def saved(make):
    def save(path):
        import torch

        torch.save(make(path.parent), path)

    return save


def safe(make):
    def save(path):
        from safetensors.torch import save_file

        save_file(make(), path)

    return save


def written(make):
    return lambda path: path.write_bytes(make())


def light(name):
    """A real topology that the onnx package brings along; its graph makes its weights."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return lambda path: shutil.copy(data / f"light_{name}.onnx", path)


FILES = {
    "squeezenet.onnx": light("squeezenet"),
    "linear.onnx": written(linear),
    "half.onnx": written(lambda: linear(np.float16)),
    "quantised.onnx": written(quantised),
    "classifier.onnx": written(classifier),
    "unroundable.onnx": written(unroundable),
    "own.onnx": written(lambda: classifier(metadata=OWN)),
    "external-up.onnx": written(lambda: external("../secret.bin")),
    "external-absolute.onnx": written(lambda: external("/etc/passwd")),
    "external-link.onnx": written(lambda: external("link.bin")),
    "external-folder.onnx": written(lambda: external("secret.bin")),
    "loop.onnx": written(endless_loop),
    "huge.onnx": written(huge_constant),
    "folding.onnx": written(endless_folding),
    "unknown-domain.onnx": written(unknown_domain),
    "unknown-operator.onnx": written(unknown_operator),
    "truncated.onnx": written(lambda: classifier()[:-100]),
    "text.onnx": written(lambda: b"This is not a model.\n" * 50),
    "resnet50.pt": saved(lambda _: state()),
    "resnet50.safetensors": safe(state),
    "missing.safetensors": safe(lambda: without("layer1.0.conv1.weight")),
    "misshapen.safetensors": safe(misshapen),
    "evil.pt": saved(lambda folder: {"fc.weight": Evil(folder)}),
    "module.pt": saved(lambda _: resnet50()),
}

if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    for name in names:
        FILES[name](Path(folder) / name)
