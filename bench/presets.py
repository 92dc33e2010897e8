"""Writes presets with random weights as ONNX, and a photograph of 451 x 300 pixels, `photo.jpg`:

    PYTHONPATH=trainer trainer/.venv/bin/python bench/presets.py FOLDER SPEC...

A spec is the canonical JSON of `{"name", "preset", "classes", "preprocess"}`. The weights do not change the speed.
"""

import json
import sys
from pathlib import Path

import skimage
from PIL import Image

from whetstone_trainer.convert import Source, export, write_onnx
from whetstone_trainer.events import Events
from whetstone_trainer.model import build_model
from whetstone_trainer.protocol import PreprocessSpec
from whetstone_trainer.protocol_json import build


class Nowhere:
    def write(self, line: bytes, /) -> None:
        pass


def main() -> None:
    folder = Path(sys.argv[1])
    Image.fromarray(skimage.data.chelsea()).save(folder / "photo.jpg")
    for text in sys.argv[2:]:
        spec = json.loads(text)
        preprocess = build(PreprocessSpec, spec["preprocess"])
        classes = tuple(str(n) for n in range(spec["classes"]))
        source = Source(build_model(spec["preset"], len(classes)), spec["preset"], classes, preprocess, "", None)
        exported, _ = export(source.model, source.task.OUTPUTS, preprocess, 18, Events(Nowhere(), "bench", 1, folder))
        write_onnx(exported, source, folder / f"{spec['name']}.onnx")


if __name__ == "__main__":
    main()
