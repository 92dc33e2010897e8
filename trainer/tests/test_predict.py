"""predict.py, which goes into packages, against the fixtures of docs/preprocessing.md.

test/packages.test.ts runs it with models.
"""

import io
import json

import numpy as np
import pytest
from PIL import Image

import predict
from tests import detections_reference, preprocess_reference

IMAGES = preprocess_reference.FIXTURES
CASES = json.loads((IMAGES / "cases.json").read_text("utf-8"))
OUTPUTS = detections_reference.FIXTURES
DETECTIONS = json.loads((OUTPUTS / "cases.json").read_text("utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_input_of_a_package_is_that_of_the_fixture(case: preprocess_reference.Json) -> None:
    spec = case["spec"]
    found = predict.levels(predict.decode(IMAGES / case["file"], 25_000_000), spec)
    expected = np.frombuffer((IMAGES / case["levels"]).read_bytes(), np.uint8).reshape(found.shape)
    assert np.mean(np.abs(found.astype(int) - expected) <= 1) >= 0.999
    if "tensor" in case:
        values = predict.tensor(found, spec)
        wanted = np.frombuffer((IMAGES / case["tensor"]).read_bytes(), "<f4").reshape(values.shape)
        level = 1 / 255 / np.array(spec["std"]).reshape((-1, 1, 1) if spec["layout"] == "NCHW" else (1, 1, -1))
        assert np.mean(np.abs(values - wanted) <= 1.001 * level) >= 0.999


@pytest.mark.parametrize("case", DETECTIONS, ids=lambda case: case["name"])
def test_what_a_package_finds_is_that_of_the_fixture(case: detections_reference.Json) -> None:
    output = np.frombuffer((OUTPUTS / case["output"]).read_bytes(), "<f4").reshape(1, *case["shape"])
    settings = {"outputLayout": case["layout"], "scoreThreshold": 0.001, "nmsIou": 0.7, "boxesMax": 100}
    spec = {"width": case["side"], "height": case["side"], "mode": "LETTERBOX"}
    found = predict.detections([output], settings, ["a", "b", "c"], (case["width"], case["height"]), spec)
    expected = case["detections"]
    assert [one["index"] for one in found] == [one["label"] for one in expected]
    assert [one["label"] for one in found] == ["abc"[one["label"]] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-6)
    for one, wanted in zip(found, expected, strict=True):
        x, y, width, height = (one["box"][name] for name in ("x", "y", "width", "height"))
        assert [x, y, x + width, y + height] == pytest.approx(wanted["box"], abs=1e-3)


def test_an_image_that_other_libraries_read_otherwise_is_refused() -> None:
    cmyk, animation, text = io.BytesIO(), io.BytesIO(), io.BytesIO(b"hello")
    Image.new("CMYK", (4, 4)).save(cmyk, "JPEG")
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(animation, "WEBP", save_all=True, append_images=frames[1:])
    for file, reason in ((cmyk, "CMYK"), (animation, "animation"), (text, "not JPEG, PNG or WebP")):
        file.seek(0)
        with pytest.raises(ValueError, match=reason):
            predict.decode(file, 100)
    with pytest.raises(ValueError, match=r"2 × 51 pixels; 100 are allowed"):
        predict.decode(_png(Image.new("RGB", (2, 51))), 100)


def _png(image: Image.Image) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    return file
