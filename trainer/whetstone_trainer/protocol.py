"""The specification and the commands that come in on stdin, as frozen dataclasses.

`../protocol.schema.json`, written from `src/jobs/protocol.ts`, says what is valid; here is only what the code reads.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
