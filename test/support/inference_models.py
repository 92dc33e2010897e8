"""Writes small models for the inference host: `python -P inference_models.py FOLDER NAME...`."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DETECTIONS = Path(__file__).parent.parent / "fixtures" / "detections"

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(data, name, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(data, dtype), name)


def model(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def types(without):
    """Every type, unchanged: input `in_FP32` to output `out_FP32`, and so on. `types-FP64,UINT64` has all others."""
    names = [name for name in TYPES if name not in without.split(",")]
    nodes = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in names]
    inputs = [value(f"in_{name}", ["n"], TYPES[name]) for name in names]
    return model(nodes, inputs, [value(f"out_{name}", ["n"], TYPES[name]) for name in names])


def identity():
    """4 numbers an item, unchanged."""
    return model([helper.make_node("Identity", ["x"], ["y"])], [value("x", ["n", 4])], [value("y", ["n", 4])])


def echo():
    """Its input is an output too, beside a copy."""
    return model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", ["n", 4])],
        [value("x", ["n", 4]), value("y", ["n", 4])],
    )


def plus(number):
    """4 numbers an item, each greater by `number`."""
    nodes = [helper.make_node("Add", ["x", "n"], ["y"])]
    return model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [tensor(float(number), "n")])


def scalar():
    """A number and the same one plus 1, neither with a dimension."""
    return model([helper.make_node("Add", ["x", "one"], ["y"])], [value("x", [])], [value("y", [])], [tensor(1, "one")])


def arithmetic():
    """Sum and difference of 16 32-bit integers, as the examples of NVIDIA's clients have it."""
    ports = [value(name, ["n", 16], TensorProto.INT32) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    return model(nodes, ports[:2], ports[2:])


def spin():
    """`rounds` rounds of some microseconds each: how long a run takes is the client's to say."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("MatMul", ["v", "w"], ["v_out"])],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("v", [64, 64])],
        [value("c_out", [], TensorProto.BOOL), value("v_out", [64, 64])],
        [tensor(np.eye(64), "w")],
    )
    nodes = [
        helper.make_node("Squeeze", ["rounds"], ["count"]),
        helper.make_node("Loop", ["count", "go", "start"], ["end"], body=body),
        helper.make_node("ReduceMean", ["end"], ["mean"], keepdims=0),
        helper.make_node("Identity", ["rounds"], ["y"]),
    ]
    constants = [tensor(True, "go", bool), tensor(np.eye(64), "start")]
    outputs = [value("y", [1], TensorProto.INT64), value("mean", [])]
    return model(nodes, [value("rounds", [1], TensorProto.INT64)], outputs, constants)


def matmuls():
    """400 products with the identity, one after the other: a long run for thousands of rows, though each kernel is short."""
    names = ["x", *(f"x{n}" for n in range(1, 400)), "y"]
    nodes = [helper.make_node("MatMul", [given, "w"], [made]) for given, made in itertools.pairwise(names)]
    return model(nodes, [value("x", ["n", 512])], [value("y", ["n", 512])], [tensor(np.eye(512), "w")])


def products():
    """The greatest product of each two of `m` numbers, and a whole copy of all products meanwhile: memory for 2 · m² numbers."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["column"]),
        helper.make_node("Unsqueeze", ["x", "middle"], ["row"]),
        helper.make_node("Mul", ["column", "row"], ["all"]),
        helper.make_node("Transpose", ["all"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("ReduceMax", ["turned", "both"], ["y"], keepdims=0),
    ]
    constants = [tensor([2], "last", np.int64), tensor([1], "middle", np.int64), tensor([1, 2], "both", np.int64)]
    return model(nodes, [value("x", ["n", "m"])], [value("y", ["n"])], constants)


def stubborn():
    """Suppression among `rounds` boxes that do not overlap: one kernel, which takes minutes for 300,000 and cannot be stopped."""
    return suppression([], value("rounds", [1], TensorProto.INT64))


def patient():
    """The same among as many boxes as there are `numbers`: with many, its warm-up takes minutes."""
    return suppression([helper.make_node("Shape", ["numbers"], ["rounds"])], value("numbers", ["m"]))


def suppression(before, given):
    nodes = [
        *before,
        helper.make_node("Squeeze", ["rounds"], ["count"]),
        helper.make_node("Range", ["zero", "count", "one"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["left"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["left", "edges"], ["x"]),
        helper.make_node("Add", ["x", "corners"], ["box"]),
        helper.make_node("Unsqueeze", ["box", "batch"], ["boxes"]),
        helper.make_node("Unsqueeze", ["left", "batch2"], ["scores"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "rounds", "overlap"], ["kept"]),
        helper.make_node("Identity", ["rounds"], ["y"]),
    ]
    constants = [
        tensor(0, "zero", np.int64),
        tensor(1, "one", np.int64),
        tensor([1], "edges", np.int64),
        tensor([[0, 0, 0.5, 0.5]], "corners"),
        tensor([0], "batch", np.int64),
        tensor([0, 1], "batch2", np.int64),
        tensor([0.5], "overlap"),
    ]
    outputs = [value("y", [1], TensorProto.INT64), value("kept", ["k", 3], TensorProto.INT64)]
    return model(nodes, [given], outputs, constants)


def lookup():
    """Row `index` of a table of three; another index fails while it runs."""
    nodes = [helper.make_node("Gather", ["table", "index"], ["y"])]
    table = tensor([[1, 2], [3, 4], [5, 6]], "table")
    return model(nodes, [value("index", ["n"], TensorProto.INT64)], [value("y", ["n", 2])], [table])


def unchecked(kind):
    """What of 4 numbers the integers `at` ask for, which OpenVINO does not check: `unchecked-Slice`, or in a branch: `unchecked-branch`.

    `unchecked-least` has a constant that OpenVINO does not check either.
    """
    inputs = {
        "GatherND": ["x", "at"],
        "ScatterElements": ["x", "at", "x"],
        "Slice": ["x", "zero", "four", "zero", "at"],
        "Split": ["x", "at"],
        "Pad": ["x", "at"],
        "Range": ["none", "most", "delta"],
    }
    inputs["least"] = [*inputs["Slice"][:4], "step"]
    operator = kind if kind in inputs else "GatherND"
    nodes = [helper.make_node("Squeeze", ["at"], ["delta"])] if operator == "Range" else []
    nodes.append(helper.make_node("Slice" if kind == "least" else operator, inputs[operator], ["found"], "unsafe"))
    made = TensorProto.INT64 if operator == "Range" else TensorProto.FLOAT
    functions = []
    if kind == "branch":
        branch = helper.make_graph(nodes, "branch", [], [value("found", [1, 4])])
        nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    elif kind == "function":
        opset = [helper.make_opsetid("", 18)]
        functions.append(helper.make_function("own", "Pick", ["x", "at"], ["found"], nodes, opset))
        nodes = [helper.make_node("Pick", ["x", "at"], ["y"], domain="own")]
    else:
        nodes.append(helper.make_node("Identity", ["found"], ["y"]))
    constants = [
        tensor([0], "zero", np.int64),
        tensor([4], "four", np.int64),
        tensor(0, "none", np.int64),
        tensor(4, "most", np.int64),
        tensor(True, "yes", bool),
        tensor([-(2**31)], "step", np.int64),
    ]
    shape = {"GatherND": [1, 1], "ScatterElements": [1, 4], "Pad": [4]}.get(operator, [1])
    built = model(
        nodes, [value("x", [1, 4]), value("at", shape, TensorProto.INT64)], [value("y", ["m"] if operator == "Range" else ["m", "l"], made)], constants
    )
    built.functions.extend(functions)
    built.opset_import.append(helper.make_opsetid("own", 1))
    return built


def checked():
    """What `unchecked` does, by constants: 4 numbers are turned round and get a 0 on both sides, and a row of a table is added."""
    nodes = [
        helper.make_node("Constant", [], ["step"], value_ints=[-1]),
        helper.make_node("Slice", ["x", "last", "first", "zero", "step"], ["turned"]),
        helper.make_node("Pad", ["turned", "sides"], ["wide"]),
        helper.make_node("Range", ["none", "count", "one"], ["places"]),
        helper.make_node("Gather", ["table", "places"], ["row"]),
        helper.make_node("Add", ["wide", "row"], ["y"]),
    ]
    constants = [
        tensor([-1], "last", np.int64),
        tensor([-9], "first", np.int64),
        tensor([0], "zero", np.int64),
        tensor([1, 1], "sides", np.int64),
        tensor(0, "none", np.int64),
        tensor(1, "one", np.int64),
        tensor(range(10, 20), "table"),
    ]
    return model(nodes, [value("x", [4]), value("count", [], TensorProto.INT64)], [value("y", [6])], constants)


def dense():
    """2 sums of 4 numbers an item; that there must be 4, only the matrix says."""
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", ["n", "m"])],
        [value("y", ["n", 2])],
        [tensor(np.ones((4, 2)), "w")],
    )


def cut():
    """`dense` of as many of the 4 numbers as a value says."""
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["part"]),
        helper.make_node("MatMul", ["part", "w"], ["y"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array([0], np.int64), "starts"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
        tensor(np.ones((4, 2)), "w"),
    ]
    return model(nodes, [value("x", ["n", 4]), value("ends", [1], TensorProto.INT64)], [value("y", ["n", 2])], initializers)


def normal():
    """4 numbers an item, normalized; that there must be 4, only the scale says."""
    nodes = [helper.make_node("LayerNormalization", ["x", "scale"], ["y"])]
    return model(nodes, [value("x", ["n", "m"])], [value("y", ["n", "m"])], [tensor(np.ones(4), "scale")])


def double(kind):
    """A number that is FP64 within: by a cast, a constant or an initializer."""
    numbers = numpy_helper.from_array(np.asarray([1], np.float64), "more")
    nodes = {
        "cast": [helper.make_node("Cast", ["x"], ["wide"], "unsafe", to=TensorProto.DOUBLE)],
        "constant": [helper.make_node("Constant", [], ["wide"], "unsafe", value=numbers)],
        "initializer": [helper.make_node("Identity", ["unsafe"], ["wide"])],
    }[kind]
    numbers.name = "unsafe"
    nodes.append(helper.make_node("Cast", ["wide"], ["y"], to=TensorProto.FLOAT))
    return model(nodes, [value("x", [1])], [value("y", [1])], [numbers] if kind == "initializer" else [])


def picked(first):
    """Where a row of 4 is above `first`, 0.5, 0.5, 0.5: [row, column] of each such place. That its rows are the batch's is not true."""
    nodes = [
        helper.make_node("Greater", ["x", "threshold"], ["above"]),
        helper.make_node("NonZero", ["above"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["y"]),
    ]
    threshold = tensor([[float(first or 0.5), 0.5, 0.5, 0.5]], "threshold")
    return model(nodes, [value("x", ["n", 4])], [value("y", ["n", 2], TensorProto.INT64)], [threshold])


def renamed():
    """4 numbers an item, unchanged; input and output call their first dimension differently."""
    return model([helper.make_node("Identity", ["x"], ["y"])], [value("x", ["n", 4])], [value("y", ["m", 4])])


def brightness():
    """A classifier of 32 × 32 images: the means of red, green and blue are the logits."""
    nodes = [helper.make_node("GlobalAveragePool", ["image"], ["p"]), helper.make_node("Flatten", ["p"], ["logits"])]
    return model(nodes, [value("image", ["batch", 3, 32, 32])], [value("logits", ["batch", 3])])


def grey():
    """A classifier of 32 × 32 images of one channel: four times its mean, and the same below zero, are the logits."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"]),
    ]
    return model(nodes, [value("image", ["batch", 1, 32, 32])], [value("logits", ["batch", 2])], [tensor([[4, -4]], "w")])


def dim():
    """Of a batch of 32 × 32 images those that are less bright than 0.9, with the means of red, green and blue. So its rows may be fewer than the batch's."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("ReduceMean", ["f", "columns"], ["mean"], keepdims=0),
        helper.make_node("Less", ["mean", "threshold"], ["chosen"]),
        helper.make_node("Compress", ["f", "chosen"], ["logits"], axis=0),
    ]
    constants = [tensor([1], "columns", np.int64), tensor(0.9, "threshold")]
    return model(nodes, [value("image", ["batch", 3, 32, 32])], [value("logits", ["batch", 3])], constants)


def logarithm():
    """A classifier that has no number for what is black: the logarithms of brightness are the logits."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Log", ["f"], ["logits"]),
    ]
    return model(nodes, [value("image", ["batch", 3, 32, 32])], [value("logits", ["batch", 3])])


def rectangle():
    """A detector of 64 × 64 images, classes red and green: the box around what is brighter than 0.75 in blue."""
    starts, ends = tensor([2], "start", np.int64), tensor([3], "end", np.int64)
    nodes = [
        helper.make_node("Slice", ["image", "start", "end", "channel"], ["blue"]),
        helper.make_node("Greater", ["blue", "threshold"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("GlobalMaxPool", ["image"], ["peaks"]),
        helper.make_node("Slice", ["peaks", "zero", "start", "channel"], ["two"]),
        helper.make_node("Reshape", ["two", "places"], ["scores"]),
    ]
    for axis, (first, last) in ((3, ("left", "right")), (2, ("top", "bottom"))):
        nodes += [
            helper.make_node("ReduceMax", ["mask", f"across{axis}"], [f"line{axis}"], keepdims=1),
            helper.make_node("ArgMax", [f"line{axis}"], [f"{first}0"], axis=axis),
            helper.make_node("ArgMax", [f"line{axis}"], [f"{last}0"], axis=axis, select_last_index=1),
            helper.make_node("Add", [f"{last}0", "one"], [f"{last}1"]),
        ]
    edges = ["left0", "top0", "right1", "bottom1"]
    nodes += [
        helper.make_node("Concat", edges, ["edges"], axis=3),
        helper.make_node("Squeeze", ["edges", "channel"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["boxes"], to=TensorProto.FLOAT),
    ]
    constants = [
        starts,
        ends,
        tensor([0], "zero", np.int64),
        tensor([1], "one", np.int64),
        tensor([1], "channel", np.int64),
        tensor([0, 1, -1], "places", np.int64),
        tensor(0.75, "threshold"),
        tensor([2], "across3", np.int64),
        tensor([3], "across2", np.int64),
    ]
    outputs = [value("boxes", ["batch", 1, 4]), value("scores", ["batch", 1, 2])]
    return model(nodes, [value("image", ["batch", 3, 64, 64])], outputs, constants)


def always(found, side):
    """A detector whose output is `found`, whatever the image of `side` × `side`."""
    nodes = [
        helper.make_node("ReduceMin", ["image"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["found", "nothing"], ["y"]),
    ]
    constants = [tensor(found, "found"), tensor(0, "zero")]
    return model(nodes, [value("image", [1, 3, side, side])], [value("y", list(found.shape))], constants)


def fixture(name):
    """A detector that finds what a case of test/fixtures/detections has."""
    cases = json.loads((DETECTIONS / "cases.json").read_text())["cases"]
    case = next(one for one in cases if one["output"] == f"{name}.f32")
    found = np.frombuffer((DETECTIONS / case["output"]).read_bytes(), "<f4").reshape(1, *case["shape"])
    return always(found, case["side"])


def places(kind):
    """What foreign detectors of 64 × 64 images answer in one output, by what is wrong with it."""
    rng = np.random.default_rng(0)
    box = np.concatenate([rng.uniform(8, 56, (84, 2)), rng.uniform(4, 12, (84, 2))], 1)
    scores = rng.uniform(0, 1, (84, 3))
    corners = np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], 1)
    suppressed = np.concatenate([corners, scores[:, :1], np.arange(84)[:, None] % 3], 1)
    found = {
        "logits": np.concatenate([box, 10 * scores - 5], 1).T,
        "named": np.concatenate([box, scores], 1).T,
        "fractions": np.concatenate([box / 64, scores], 1).T,
        "suppressed": suppressed,
        "classless": suppressed + [0, 0, 0, 0, 0, 0.4],
        "sized": np.concatenate([box, suppressed[:, 4:]], 1),
    }[kind]
    made = always(found[None], 64)
    if kind == "named":
        helper.set_model_props(made, {"names": "{0: 'cat', 1: \"dog's\", 2: 'eel'}"})
    return made


def classifier(kind):
    """Of 32 × 32 images: the means of red, green and blue, computed in 32-bit floats, from another input or into another output."""
    types = {"halves": TensorProto.FLOAT16, "doubles": TensorProto.DOUBLE, "bytes": TensorProto.UINT8}
    of = types.get(kind, TensorProto.FLOAT)
    size = ["height", "width"] if kind == "open" else ["size", "size"] if kind == "square" else [32, 32]
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["floats"], ["p"]),
        helper.make_node("Flatten", ["p"], ["means"]),
        helper.make_node("Softmax", ["means"], ["shares"]),
        helper.make_node(
            "Cast", ["shares" if kind == "softmax" else "means"], ["y"], to=TensorProto.FLOAT if kind == "bytes" else of
        ),
    ]
    inputs = [value("image", ["batch", 3, *size], of)]
    if kind == "two":
        inputs.append(value("other", ["batch", 3, 32, 32]))
        nodes.append(helper.make_node("Identity", ["other"], ["unused"]))
    return model(nodes, inputs, [value("y", ["batch", 3], TensorProto.FLOAT if kind == "bytes" else of)])


def chain(rounds):
    """`rounds` products of 256 × 256 matrices, from 602 KB like an image of 224 × 224: some time that depends on `rounds` alone."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("ReduceMean", ["f", "axis"], ["m"], keepdims=0),
    ]
    last = "m0"
    nodes.append(helper.make_node("Add", ["m", "w"], [last]))
    for n in range(int(rounds)):
        nodes.append(helper.make_node("MatMul", [last, "w"], [f"m{n + 1}"]))
        last = f"m{n + 1}"
    nodes += [
        helper.make_node("ReduceMean", [last], ["r"], keepdims=1),
        helper.make_node("Add", ["f", "r"], ["y"]),
    ]
    constants = [tensor(np.eye(256), "w"), tensor([0, 1], "axis", np.int64)]
    return model(nodes, [value("image", [1, 3, 224, 224])], [value("y", [1, 3])], constants)


def null():
    """An image of 224 × 224 in, its shape out: nothing is computed."""
    nodes = [helper.make_node("Shape", ["image"], ["y"])]
    return model(nodes, [value("image", [1, 3, 224, 224])], [value("y", [4], TensorProto.INT64)])


def weights(megabytes):
    """Products with as many matrices of 512 × 512 numbers, 1 MiB each."""
    count = int(megabytes)
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", [f"h{n}" if n else "x", f"w{n}"], [f"h{n + 1}" if n + 1 < count else "y"])
        for n in range(count)
    ]
    matrices = [tensor(rng.normal(size=(512, 512)) / 512, f"w{n}") for n in range(count)]
    return model(nodes, [value("x", ["n", 512])], [value("y", ["n", 512])], matrices)


def text():
    kind = TensorProto.STRING
    return model([helper.make_node("Identity", ["x"], ["y"])], [value("x", ["n"], kind)], [value("y", ["n"], kind)])


def absurd():
    """Its input has 2⁶² values."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return model(nodes, [value("x", ["n", 2**31, 2**31])], [value("y", ["n", 2**31, 2**31])])


def swollen(numbers):
    """From one number to so many (160 GB without a count), while it runs."""
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "count"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["y"]),
    ]
    return model(
        nodes, [value("x", [1])], [value("y", ["m"])], [tensor([int(numbers or 40_000_000_000)], "count", np.int64)]
    )


def external(location="weights.bin"):
    """Its weights lie in another file."""
    weights = tensor(np.ones((4, 4)), "w")
    onnx.external_data_helper.set_external_data(weights, location)
    weights.ClearField("raw_data")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [weights])


MODELS = {
    "identity": identity,
    "echo": echo,
    "arithmetic": arithmetic,
    "scalar": scalar,
    "spin": spin,
    "matmuls": matmuls,
    "products": products,
    "stubborn": stubborn,
    "patient": patient,
    "lookup": lookup,
    "checked": checked,
    "dense": dense,
    "cut": cut,
    "normal": normal,
    "brightness": brightness,
    "grey": grey,
    "dim": dim,
    "logarithm": logarithm,
    "rectangle": rectangle,
    "renamed": renamed,
    "null": null,
    "absurd": absurd,
    "text": text,
    "external": external,
}

# Their names end with what distinguishes them: `chain-30`.
FAMILIES = {
    "types": types,
    "unchecked": unchecked,
    "double": double,
    "plus": plus,
    "chain": chain,
    "fixture": fixture,
    "picked": picked,
    "swollen": swollen,
    "places": places,
    "classifier": classifier,
    "weights": weights,
}

if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    for name in names:
        kind, _, detail = name.partition("-")
        made = FAMILIES[kind](detail) if kind in FAMILIES else MODELS[name]()
        (Path(folder) / f"{name}.onnx").write_bytes(made.SerializeToString())
