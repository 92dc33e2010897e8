"""The fixture lines that the server's tests read too, and specifications as dataclasses."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import support
from whetstone_trainer.__main__ import MODULES
from whetstone_trainer.errors import TrainerError, mask_paths
from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.protocol import ERROR_CODES, SCHEMA, Init, PreprocessSpec, TrainSpec
from whetstone_trainer.protocol_json import build, camel, read_spec_line, to_json, validator
from whetstone_trainer.state import fingerprint

FIXTURES = Path(__file__).parents[2] / "test" / "fixtures" / "protocol"


def lines(name: str) -> list[Any]:
    return [json.loads(line) for line in (FIXTURES / name).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("event", lines("events.jsonl"), ids=lambda event: event["type"])
def test_events_that_the_server_reads_fit_the_schema(event: support.Json) -> None:
    assert not list(validator("Event").iter_errors(event))


@pytest.mark.parametrize("refused", lines("events.invalid.jsonl"), ids=lambda refused: refused["why"])
def test_events_that_the_server_refuses_do_not(refused: support.Json) -> None:
    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        event = json.loads(refused["line"], parse_constant=no_constant)
    except ValueError:
        return
    assert list(validator("Event").iter_errors(event))


@pytest.mark.parametrize("line", [line for line in lines("specs.jsonl") if line["spec"]["kind"] in MODULES])
def test_specifications_become_dataclasses_and_back(line: support.Json) -> None:
    read = read_spec_line(json.dumps(line).encode())
    assert (read.job, read.attempt, read.work_dir, read.kind) == (
        line["job"],
        line["attempt"],
        line["workDir"],
        line["spec"]["kind"],
    )
    assert to_json(read.spec) == without_unknown(line["spec"])


def without_unknown(spec: support.Json) -> support.Json:
    """What the dataclasses keep of a specification, and of the training within one."""
    known = {name: value for name, value in spec.items() if name not in ("kind", "futureField")}
    if "init" in known:
        known["init"] = {"file": None, "classes": None, **known["init"]}
    if known.get("recover") is not None:
        known["recover"] = without_unknown(known["recover"])
    return known


@pytest.mark.parametrize("refused", lines("specs.invalid.jsonl"), ids=lambda refused: refused["why"])
def test_wrong_specifications_are_refused(refused: support.Json) -> None:
    with pytest.raises(TrainerError) as caught:
        read_spec_line(refused["line"].encode())
    assert caught.value.code == "SPEC_INVALID"


def test_the_place_of_a_mistake_is_said() -> None:
    line = next(line for line in lines("specs.jsonl") if line["spec"]["kind"] == "TRAIN")
    line["spec"]["hyperparameters"]["epochs"] = 0
    with pytest.raises(TrainerError, match=r"hyperparameters\.epochs: 0 is less than the minimum of 1"):
        read_spec_line(json.dumps(line).encode())


def test_a_preprocessing_of_another_size_is_refused() -> None:
    line = next(line for line in lines("specs.jsonl") if line["spec"]["kind"] == "TRAIN")
    line["spec"]["preprocess"]["width"] = 64
    with pytest.raises(TrainerError, match="imageSize squared"):
        read_spec_line(json.dumps(line).encode())


def test_no_specification_is_refused() -> None:
    for line in (b"", b"hello", b"[]", b'{"v": 1}', b'{"v": 1, "spec": 3}'):
        with pytest.raises(TrainerError):
            read_spec_line(line)


def test_every_hyperparameter_of_the_protocol_is_read() -> None:
    hyperparameters = build(ClassificationHyperparameters, support.defaults())
    assert to_json(hyperparameters) == support.defaults()
    assert isinstance(hyperparameters.gradient_clip, float)


def test_every_kind_that_is_run_is_in_the_protocol() -> None:
    kinds = {
        d["properties"]["kind"]["const"]
        for d in SCHEMA["$defs"].values()
        if "kind" in d.get("properties", {}) and "const" in d["properties"]["kind"]
    }
    assert set(MODULES) <= kinds
    assert set(ERROR_CODES.values()) == {64, 65, 69, 70, 74}


def test_names_change_between_the_languages() -> None:
    assert [camel(name) for name in ("n", "crop_fraction", "from_")] == ["n", "cropFraction", "from"]
    assert build(Init, {"from": "SCRATCH"}) == Init("SCRATCH", None)
    spec = build(PreprocessSpec, support.preprocess(64, mode="LETTERBOX"))
    assert (spec.width, spec.mode, spec.mean) == (64, "LETTERBOX", (0.485, 0.456, 0.406))
    assert TrainSpec.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("cannot open /data/blobs/ab/cd: no such file", "cannot open cd: no such file"),
        ("'/home/x/model.onnx'", "'model.onnx'"),
        ("a shape of 3/4 and https://pytorch.org/a/b stay", "a shape of 3/4 and https://pytorch.org/a/b stay"),
        ("node /layer1/layer1.0/conv1/Conv", "node Conv"),
        ("load failed:/src/core/load.h:46 refused", "load failed:load.h:46 refused"),
        ("../../etc/passwd stays", "../../etc/passwd stays"),
    ],
)
def test_absolute_paths_are_masked(text: str, masked: str) -> None:
    assert mask_paths(text) == masked


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "2e3f770d368b79204f387b5322c6168424943a76511e270327d7cd3455c8dccd"),
        (4, "f0ef96f1fa9ef3b3156218d6f87ad58a4b8d3d1b99113f99e54a2d7d9d1e58d5"),
    ],
    ids=["resnet50", "yolov8n"],
)
def test_a_checkpoint_of_an_earlier_version_is_of_the_same_run(
    number: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another fingerprint than the one that was stored then, every suspended training would start over."""
    line = lines("specs.jsonl")[number]
    read = read_spec_line(json.dumps(line).encode()).spec
    assert isinstance(read, TrainSpec)
    assert fingerprint(read) == expected

    # As in a version that has added `flip`: only where it does what was done before it is the run the same.
    field = SCHEMA["$defs"][type(read.hyperparameters).__name__]["properties"]["flip"]
    monkeypatch.setitem(field, "before", read.hyperparameters.flip + 0.25)
    assert fingerprint(read) == expected
    monkeypatch.setitem(field, "before", read.hyperparameters.flip)
    assert fingerprint(read) != expected
