"""The job MEASURE."""

from pathlib import Path

import pytest

from tests import support


def measure_spec(*sizes: int) -> support.Json:
    preprocess = [support.preprocess(size) for size in sizes]
    return {**support.computing("MEASURE"), "preset": "resnet18", "classCount": 10, "preprocess": preprocess}


@pytest.mark.long
def test_larger_images_take_longer(tmp_path: Path) -> None:
    exit_code, recorder = support.run_here(tmp_path, measure_spec(32, 256))
    assert exit_code == 0
    small, large = recorder.events[-1]["result"]["latenciesMs"]
    # 64 times the multiplications.
    assert 2 * small < large
    assert [event["total"] for event in recorder.of("phase")] == [2, 26]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_cancelled_measurement_ends(tmp_path: Path) -> None:
    exit_code, recorder = support.run_here(tmp_path, measure_spec(32), type="phase", phase="export")
    assert exit_code == 75
    assert recorder.events[-1]["result"] == {}
