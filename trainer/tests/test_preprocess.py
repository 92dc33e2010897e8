"""docs/preprocessing.md: the implementation against the fixtures, and files that cannot be decoded."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from scenes import png
from tests import preprocess_reference as reference
from tests.preprocess_reference import FIXTURES
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.preprocess import decode, normalise, resize
from whetstone_trainer.protocol import PreprocessSpec
from whetstone_trainer.protocol_json import build

CASES = json.loads((FIXTURES / "cases.json").read_text("utf-8"))
NAMES = [case["name"] for case in CASES]


def test_fixtures_are_what_the_reference_says() -> None:
    expected = reference.expected()
    assert [case for case, _ in expected] == CASES
    for case, pixels in expected:
        assert (FIXTURES / case["levels"]).read_bytes() == pixels.tobytes(), case["name"]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_levels_are_within_one_of_the_fixture(case: reference.Json) -> None:
    spec = build(PreprocessSpec, case["spec"])
    found = (
        resize(decode((FIXTURES / case["file"]).read_bytes(), case["file"]), spec).permute(1, 2, 0).numpy().astype(int)
    )
    expected = np.frombuffer((FIXTURES / case["levels"]).read_bytes(), np.uint8).reshape(found.shape)
    assert np.mean(np.abs(found - expected) <= 1) >= 0.999
    assert np.mean(found != expected) < 0.01


@pytest.mark.parametrize("case", [case for case in CASES if "tensor" in case], ids=lambda case: case["name"])
def test_tensor_is_within_one_level_of_the_fixture(case: reference.Json) -> None:
    spec = build(PreprocessSpec, case["spec"])
    found = normalise(resize(decode((FIXTURES / case["file"]).read_bytes(), case["file"]), spec)[None], spec).numpy()[0]
    expected = np.frombuffer((FIXTURES / case["tensor"]).read_bytes(), "<f4").reshape(found.shape)
    level = 1 / 255 / np.array(spec.std).reshape((-1, 1, 1) if spec.layout == "NCHW" else (1, 1, -1))
    assert np.mean(np.abs(found - expected) <= 1.001 * level) >= 0.999


def test_ties_in_rounding_are_the_only_differences_on_a_large_noise() -> None:
    spec = build(PreprocessSpec, {**CASES[0]["spec"], "width": 224, "height": 224})
    noise = np.random.default_rng(1).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    found = resize(decode(png(noise), "noise"), spec).permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(found - reference.levels(noise, {**CASES[0]["spec"], "width": 224, "height": 224}))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.001


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be decoded"),
        (b"not an image", "cannot be decoded"),
        (_cut := (FIXTURES / "noise.png").read_bytes()[:700], "cannot be decoded"),
    ],
    ids=["empty", "text", "truncated"],
)
def test_a_broken_image_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(TrainerError, match=f"train/a.png {reason}") as caught:
        decode(content, "train/a.png")
    assert caught.value.code == "DATA_INVALID"


def test_a_pixel_bomb_is_refused_from_its_header() -> None:
    """A PNG of 16,000 × 16,000 pixels with no image data: decoding it would fail in another way."""
    header = struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(TrainerError, match="more than 25 megapixels"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4, "bomb.png")


def test_what_the_import_keeps_as_png_is_not_read_otherwise() -> None:
    """Pillow makes other colours of CMYK than serving does, and would read formats that serving does not."""
    for kind, mode in (("JPEG", "CMYK"), ("TIFF", "RGB"), ("GIF", "RGB")):
        file = io.BytesIO()
        Image.new(mode, (4, 4)).save(file, kind)
        with pytest.raises(TrainerError, match="cannot be decoded"):
            decode(file.getvalue(), "a")


def test_an_orientation_in_xmp_does_not_turn_the_image() -> None:
    file = io.BytesIO()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.new("RGB", (4, 2)).save(file, "JPEG", xmp=xmp)
    assert decode(file.getvalue(), "a").shape == (3, 2, 4)
