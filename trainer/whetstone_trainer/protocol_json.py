"""The protocol's records in JSON: the first line of stdin, checked against the schema, and the form of each record."""

import json
import types
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.protocol import (
    PRESETS,
    SCHEMA,
    VERSION,
    AskSpec,
    ClassificationTrainSpec,
    CompressSpec,
    ConvertSpec,
    DetectionTrainSpec,
    EvaluateSpec,
    Hyperparameters,
    ImportModelSpec,
    MeasureSpec,
    Spec,
    TrainSpec,
)

T = TypeVar("T")

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
