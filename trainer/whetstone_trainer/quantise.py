"""INT8: static quantisation of an ONNX graph with QuantizeLinear and DequantizeLinear nodes, by ONNX Runtime's tools.

Only operators with stored weights are quantised. What comes behind the last of them stays in 32-bit floats, and so
does their own result: there boxes of hundreds of pixels and scores of at most 1 are put together, and one scale for
both would round every score to zero.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.calibrate import HistogramCollector, TensorsData, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from whetstone_trainer.errors import TrainerError, disk_full, mask_paths
from whetstone_trainer.evaluate import onnx_session

WEIGHTED = ("Conv", "Gemm", "MatMul")
# The quantiser makes them a part of the operator before them.
FOLDED = ("Relu", "Clip")
# An operator at the end with fewer weights stays as it is: it decodes what the others have found, and its weights
# take less room than the nodes that quantisation adds.
FEW_WEIGHTS = 1024
# Entropy looks at each width of a histogram in Python: with more bins it takes minutes.
ENTROPY_BINS = 512
ENTROPY_LEVELS = 128
PERCENTILE_BINS = 2048
PERCENTILE = 99.999

Feed = dict[str, NDArray[Any]]


@contextmanager
def as_model_invalid(what: str) -> Iterator[None]:
    """Whatever ONNX Runtime's tools raise, which have no error of their own, is about the model, but for a full
    disk."""
    try:
        yield
    except Exception as error:
        if disk_full(error):
            raise
        raise TrainerError("MODEL_INVALID", f"{what}: {mask_paths(str(error))[:1000]}") from error


@dataclass(frozen=True)
class Quantiser:
    """A graph that is ready to be quantised.

    Args:
        folder: has `prepared.onnx`, and `ranges.json` after `calibrate`.
        operators: names of the nodes that can be quantised, in the order of the graph.
        weights: the elements of each one's weights.
    """

    folder: Path
    model: ModelProto
    operators: tuple[str, ...]
    weights: dict[str, int]

    def calibrate(self, feeds: Iterable[Feed], method: str, threads: int) -> None:
        """Finds the range of each tensor that is to be rounded."""
        graph = self.model.graph
        inputs = {value.name for value in graph.input}
        wanted = self._tensors()
        exposed = ModelProto()
        exposed.CopyFrom(self.model)
        present = {value.name for value in exposed.graph.output}
        computed = [name for name in wanted if name not in inputs]
        exposed.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in computed if name not in present
        )
        session = onnx_session(exposed.SerializeToString(), threads)
        ranges = observed_ranges(method)
        for feed in feeds:
            values = dict(zip(computed, session.run(computed, feed), strict=True))
            ranges.collect(values | {name: feed[name] for name in wanted if name in inputs})
        found = {
            name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in ranges.of().items()
        }
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, found), self.folder / "ranges.json")

    def quantised(self, operators: Sequence[str], ends: Sequence[str]) -> ModelProto:
        """The graph with these operators in INT8. The results of `ends` are not rounded."""
        target = self.folder / "quantised.onnx"
        folded = [node.name for node in self._folded()]
        with as_model_invalid("ONNX Runtime cannot quantise the model"):
            quantize_static(
                self.folder / "prepared.onnx",
                target,
                None,
                op_types_to_quantize=[*WEIGHTED, *FOLDED],
                nodes_to_quantize=[*operators, *folded],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=self.folder / "ranges.json",
            )
        model = onnx.load(str(target))
        for name in ends:
            _unround(model.graph, name)
        _remove_unused(model)
        return model

    def ends(self, operators: Sequence[str]) -> list[str]:
        """Those of the operators behind which none of the others comes."""
        return last_of(self.model.graph, operators)

    def _folded(self) -> list[NodeProto]:
        made = {name for node in self.model.graph.node if node.name in self.weights for name in node.output}
        return [node for node in self.model.graph.node if node.op_type in FOLDED and node.input[0] in made]

    def _tensors(self) -> list[str]:
        """What may be rounded, each once."""
        nodes = [node for node in self.model.graph.node if node.name in self.weights]
        names = [name for node in nodes for name in (node.input[0], node.output[0])]
        return list(dict.fromkeys([*names, *(node.output[0] for node in self._folded())]))


def open_quantiser(file: Path, folder: Path) -> Quantiser:
    """Folds what is constant in an ONNX file, and finds what of it can be quantised. Raises MODEL_INVALID."""
    file, folder = file.absolute(), folder.absolute()
    folder.mkdir(exist_ok=True)
    path = folder / "prepared.onnx"
    # It leaves files of its own in the working directory.
    with as_model_invalid("ONNX Runtime cannot prepare the model"), chdir(folder):
        try:
            quant_pre_process(str(file), str(path))
        except Exception as error:  # symbolic shape inference does not know every operator
            if disk_full(error):
                raise
            quant_pre_process(str(file), str(path), skip_symbolic_shape=True)
    model = onnx.load(str(path))
    name_nodes(model.graph)
    onnx.save(model, str(path))
    stored = {
        tensor.name: math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    weights = {
        node.name: stored[node.input[1]]
        for node in model.graph.node
        if node.op_type in WEIGHTED and node.input[1] in stored and node.input[0] not in stored
    }
    while small := [name for name in last_of(model.graph, list(weights)) if weights[name] < FEW_WEIGHTS]:
        for name in small:
            del weights[name]
    if not weights:
        raise TrainerError(
            "MODEL_INVALID",
            f"The model has no operator to quantise: none of {', '.join(WEIGHTED)} has at least {FEW_WEIGHTS} weights.",
            hint="Compress it to FP16.",
        )
    return Quantiser(folder, model, tuple(weights), weights)


# ------------------------------------------------------------------------------------------------------------- ranges


def observed_ranges(method: str) -> "Extremes | Histograms":
    return Extremes() if method == "MINMAX" else Histograms(method)


class Extremes:
    """The smallest and the largest value of each tensor."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, float]] = {}

    def collect(self, values: Feed) -> None:
        for name, value in values.items():
            low, high = self._found.get(name, (math.inf, -math.inf))
            self._found[name] = (min(low, float(value.min())), max(high, float(value.max())))

    def of(self) -> dict[str, tuple[float, float]]:
        return self._found


class Histograms:
    """Ranges that leave out the rarest values, by ONNX Runtime's ENTROPY or PERCENTILE."""

    def __init__(self, method: str) -> None:
        bins = ENTROPY_BINS if method == "ENTROPY" else PERCENTILE_BINS
        self._collector = HistogramCollector(
            method=method.lower(),
            symmetric=False,
            num_bins=bins,
            num_quantized_bins=ENTROPY_LEVELS,
            percentile=PERCENTILE,
            scenario="same",
        )

    def collect(self, values: Feed) -> None:
        self._collector.collect(values)

    def of(self) -> dict[str, tuple[float, float]]:
        found = self._collector.compute_collection_result()
        return {name: (float(low), float(high)) for name, (low, high, *_) in found.items()}


# -------------------------------------------------------------------------------------------------------------- graphs


def last_of(graph: GraphProto, names: Sequence[str]) -> list[str]:
    """Those of the nodes of these names behind which none of the others comes."""
    chosen, ahead = set(names), tensors_before(graph, names)
    return [node.name for node in graph.node if node.name in chosen and not any(name in ahead for name in node.output)]


def tensors_before(graph: GraphProto, names: Sequence[str]) -> set[str]:
    """The tensors that the nodes of these names need, directly or through others."""
    chosen = set(names)
    ahead: set[str] = set()
    for node in reversed(graph.node):
        if node.name in chosen or any(name in ahead for name in node.output):
            ahead.update(node.input)
    return ahead


def name_nodes(graph: GraphProto) -> None:
    """Gives each node a name of its own: the quantiser tells nodes apart by it, and foreign files may have none."""
    used: set[str] = set()
    for n, node in enumerate(graph.node):
        if not node.name or node.name in used:
            node.name = f"{node.op_type}_{n}"
        used.add(node.name)


def _unround(graph: GraphProto, name: str) -> None:
    """Takes QuantizeLinear and DequantizeLinear away behind a node."""
    node = next(node for node in graph.node if node.name == name)
    made = node.output[0]
    quantize = next((q for q in graph.node if q.op_type == "QuantizeLinear" and q.input[0] == made), None)
    if quantize is None:
        return
    dequantize = next(dq for dq in graph.node if dq.op_type == "DequantizeLinear" and dq.input[0] == quantize.output[0])
    rounded = dequantize.output[0]
    graph.node.remove(quantize)
    graph.node.remove(dequantize)
    if any(value.name == rounded for value in graph.output):
        node.output[0] = rounded
    for user in graph.node:
        for n, read in enumerate(user.input):
            if read in (rounded, made):
                user.input[n] = node.output[0]


def _remove_unused(model: ModelProto) -> None:
    """Initializers that no node reads, descriptions of tensors that are no more, and domains without an operator."""
    graph = model.graph
    if not any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    made = {name for node in graph.node for name in node.output}
    known = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(known)
