"""The specification and the commands that come in on stdin, as frozen dataclasses.

`../protocol.schema.json`, written from `src/jobs/protocol.ts`, says what is valid; here is only what the code reads.
"""

import json
import types
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.hyperparameters import ClassificationHyperparameters, DetectionHyperparameters

VERSION = 1
LINE_BYTES_MAX = 64 * 1024

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[1] / "protocol.schema.json").read_text("utf-8"))
ERROR_CODES: dict[str, int] = SCHEMA["errorCodes"]
# Task by preset.
PRESETS: dict[str, str] = SCHEMA["presets"]
# Of those that torchvision has: the last layer (`head`), the file of the public weights, where stages begin.
CLASSIFIERS: dict[str, dict[str, Any]] = SCHEMA["classifiers"]
# Size and backbone, null where it is YOLOv8's own.
DETECTORS: dict[str, dict[str, Any]] = SCHEMA["detectors"]
EXIT_STOPPED = 75

T = TypeVar("T")
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class PreprocessSpec:
    """See docs/preprocessing.md."""

    version: int
    width: int
    height: int
    mode: Literal["STRETCH", "CROP", "LETTERBOX"]
    crop_fraction: float
    pad_color: tuple[int, ...]
    channels: Literal["RGB", "BGR", "GREY"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Literal["NCHW", "NHWC"]


Hyperparameters = ClassificationHyperparameters | DetectionHyperparameters


@dataclass(frozen=True)
class DatasetRef:
    zip: str
    images: str
    manifest: str
    classes: tuple[str, ...]
    content_hash: str


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """In pixels of the upright image, `x` and `y` of the top left corner. `crowd`: None where it is one object."""

    label: int
    x: float
    y: float
    width: float
    height: float
    crowd: Literal[True] | None


@dataclass(frozen=True, slots=True)
class DatasetItem:
    """Either `label` or `boxes` is None."""

    n: int
    split: Split
    path: str
    sha256: str
    width: int
    height: int
    label: int | None
    boxes: tuple[LabelledBox, ...] | None


@dataclass(frozen=True)
class Conversion:
    opset: int
    relative_tolerance: float


@dataclass(frozen=True)
class Init:
    """`file` is null for SCRATCH, and for PRETRAINED where the public weights are to be downloaded. `classes` is what
    WEIGHTS tell apart, in their order; null where nobody knows."""

    from_: Literal["SCRATCH", "PRETRAINED", "WEIGHTS", "CHECKPOINT"]
    file: str | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ModelRef:
    format: Literal["CHECKPOINT", "ONNX"]
    file: str
    task: str
    preset: str | None
    classes: tuple[str, ...]
    preprocess: PreprocessSpec
    output_layout: Literal["BOXES_SCORES", "CENTRES_FIRST", "OBJECTNESS", "SUPPRESSED"] | None


@dataclass(frozen=True, kw_only=True)
class _Common:
    spec_version: int
    code_version: str
    cpu_threads: int


@dataclass(frozen=True, kw_only=True)
class _Computing(_Common):
    device: Literal["auto", "cpu", "cuda"]
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrainSpec(_Computing):
    preset: str
    processes: int
    dataset: DatasetRef
    preprocess: PreprocessSpec
    hyperparameters: Hyperparameters
    init: Init
    resume_from: str | None
    checkpoint_seconds: int
    cache_bytes_max: int
    cache_disk_bytes_max: int
    workers: int | None
    stop_after_epoch: int | None


@dataclass(frozen=True, kw_only=True)
class ClassificationTrainSpec(TrainSpec):
    hyperparameters: ClassificationHyperparameters


@dataclass(frozen=True, kw_only=True)
class DetectionTrainSpec(TrainSpec):
    hyperparameters: DetectionHyperparameters


@dataclass(frozen=True, kw_only=True)
class ConvertSpec(_Computing):
    model: ModelRef
    dataset: DatasetRef | None
    conversion: Conversion


@dataclass(frozen=True, kw_only=True)
class EvaluateSpec(_Computing):
    model: ModelRef
    dataset: DatasetRef
    split: Split
    batch_size: int
    test_time_augmentation: Literal["NONE", "FLIP"]


@dataclass(frozen=True)
class Calibration:
    method: Literal["MINMAX", "ENTROPY", "PERCENTILE"]
    images: int


@dataclass(frozen=True)
class Compression:
    """`budget`: points of the metric. `calibration`: None for FP16."""

    precision: Literal["FP16", "INT8"]
    budget: float
    calibration: Calibration | None


@dataclass(frozen=True, kw_only=True)
class CompressSpec(_Computing):
    """`recover`: the fine-tuning before INT8; None: there is none."""

    model: ModelRef
    dataset: DatasetRef | None
    compression: Compression
    recover: TrainSpec | None


@dataclass(frozen=True)
class ImportLimits:
    memory_bytes_max: int
    output_bytes_max: int
    seconds_max: int


@dataclass(frozen=True)
class DataFile:
    file: str
    file_name: str


@dataclass(frozen=True, kw_only=True)
class ImportModelSpec(_Common):
    file: str
    file_name: str
    preset: str | None
    data: DataFile | None
    limits: ImportLimits


@dataclass(frozen=True)
class When:
    """The values of another dimension with which one has an effect."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Dimension:
    """A CHOICE has `choices`, the others a range."""

    name: str
    type: Literal["INT", "FLOAT", "CHOICE"]
    low: float | None
    high: float | None
    log: bool
    step: float | None
    choices: tuple[Any, ...] | None
    when: When | None


@dataclass(frozen=True)
class EndedTrial:
    """`values`: of the objectives; None where it counts as worse than any other."""

    generation: int
    params: dict[str, Any]
    values: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class AskSpec(_Common):
    sampler: Literal["NSGA2", "RANDOM", "TPE", "GRID"]
    space: tuple[Dimension, ...]
    directions: tuple[Literal["MAXIMIZE", "MINIMIZE"], ...]
    population: int
    seed: int
    trials: tuple[EndedTrial, ...]
    pending: tuple[dict[str, Any], ...]
    generation: int
    count: int


@dataclass(frozen=True, kw_only=True)
class MeasureSpec(_Computing):
    preset: str
    class_count: int
    preprocess: tuple[PreprocessSpec, ...]


Spec = TrainSpec | ConvertSpec | CompressSpec | EvaluateSpec | ImportModelSpec | AskSpec | MeasureSpec

# The kinds that this package runs, by the definition in the schema, and the classes that hold them.
_KINDS = {
    "TRAIN": "TrainSpec",
    "CONVERT": "ConvertSpec",
    "COMPRESS": "CompressSpec",
    "EVALUATE": "EvaluateSpec",
    "IMPORT_MODEL": "ImportModelSpec",
    "ASK": "AskSpec",
    "MEASURE": "MeasureSpec",
}
_SPECS: dict[str, type[Spec]] = {
    "ClassificationTrainSpec": ClassificationTrainSpec,
    "DetectionTrainSpec": DetectionTrainSpec,
    "ConvertSpec": ConvertSpec,
    "CompressSpec": CompressSpec,
    "EvaluateSpec": EvaluateSpec,
    "ImportModelSpec": ImportModelSpec,
    "AskSpec": AskSpec,
    "MeasureSpec": MeasureSpec,
}


def before_of(parameters: type[Hyperparameters]) -> dict[str, Any]:
    """By name, with which value a hyperparameter that was added later does what was done before it was there."""
    fields = SCHEMA["$defs"][parameters.__name__]["properties"]
    return {name: field["before"] for name, field in fields.items() if "before" in field}


@dataclass(frozen=True)
class SpecLine:
    job: str
    attempt: int
    work_dir: str
    kind: str
    spec: Spec


@cache
def validator(definition: str) -> Draft202012Validator:
    """Of one definition of the protocol's schema, such as `Event`."""
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]})


def check(value: object, definition: str) -> None:
    """Raises SPEC_INVALID with the place and the reason where `value` does not fit the schema."""
    error = best_match(validator(definition).iter_errors(value))
    if error is None:
        return
    where = ".".join(str(part) for part in cast(ValidationError, error).absolute_path)
    raise TrainerError("SPEC_INVALID", f"specification{': ' if where else ''}{where}: {error.message[:500]}")


def read_spec_line(line: bytes) -> SpecLine:
    """Parses the first line of stdin. Raises SPEC_INVALID."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise TrainerError("SPEC_INVALID", "The first line on stdin must be a specification in JSON.") from error
    if not isinstance(value, dict) or value.get("v") != VERSION:
        raise TrainerError("SPEC_INVALID", f"The specification must be an object with v = {VERSION}.")
    spec = value.get("spec")
    kind = spec.get("kind") if isinstance(spec, dict) else None
    if kind not in _KINDS:
        raise TrainerError("SPEC_INVALID", f"spec.kind must be one of {', '.join(_KINDS)}.")
    definition = _definition(cast(dict[str, Any], spec))
    check(spec, definition)
    check(value, "SpecLine")
    parsed: Spec = build(_SPECS[definition], cast(dict[str, Any], spec))
    if isinstance(parsed, TrainSpec):
        size = parsed.hyperparameters.image_size
        if (parsed.preprocess.width, parsed.preprocess.height) != (size, size) or parsed.preprocess.layout != "NCHW":
            raise TrainerError(
                "SPEC_INVALID", "spec.preprocess must be the hyperparameters' imageSize squared, in NCHW."
            )
        channels = 1 if parsed.preprocess.channels == "GREY" else 3
        if (len(parsed.preprocess.mean), len(parsed.preprocess.std)) != (channels, channels):
            raise TrainerError(
                "SPEC_INVALID", "spec.preprocess.mean and std must have a number for each channel of the input."
            )
    return SpecLine(value["job"], value["attempt"], value["workDir"], kind, parsed)


def _definition(spec: dict[str, Any]) -> str:
    """Of the specification; a training has the one of its preset's task. Raises SPEC_INVALID."""
    if spec["kind"] != "TRAIN":
        return _KINDS[spec["kind"]]
    task = PRESETS.get(str(spec.get("preset")))
    if task is None:
        raise TrainerError("SPEC_INVALID", f"spec.preset must be one of {', '.join(PRESETS)}.")
    return f"{task.capitalize()}TrainSpec"


def build(cls: type[T], value: dict[str, Any]) -> T:
    """A frozen dataclass from JSON that the schema has accepted; unknown fields are ignored."""
    return cls(**{name: _convert(hint, value.get(key)) for name, key, hint in _fields(cast(Any, cls))})


@cache
def _fields(cls: Any) -> list[tuple[str, str, Any]]:
    """Name, name in JSON and type of each. A manifest has a million lines."""
    hints = get_type_hints(cls)
    return [(f.name, camel(f.name), hints[f.name]) for f in fields(cls)]


def to_json(value: object) -> Any:
    """The JSON form of a dataclass, the inverse of `build`."""
    if is_dataclass(value) and not isinstance(value, type):
        return {camel(f.name): to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def camel(name: str) -> str:
    """`crop_fraction` → `cropFraction`, `from_` → `from`."""
    head, *tail = name.rstrip("_").split("_")
    return head + "".join(part.capitalize() for part in tail)


def _convert(hint: Any, value: Any) -> Any:
    if value is None or hint is str or hint is int:
        return value
    if get_origin(hint) in (Union, types.UnionType):
        return _convert(next(arg for arg in get_args(hint) if arg is not type(None)), value)
    if hint is TrainSpec:
        hint = _SPECS[_definition(value)]
    if is_dataclass(hint):
        return build(cast(type[Any], hint), value)
    if get_origin(hint) is tuple:
        return tuple(_convert(get_args(hint)[0], item) for item in value)
    return float(value) if hint is float else value
