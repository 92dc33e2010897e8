"""ResNet50 or the smallest detector with random weights, in FP32 and INT8:
`python -P engine_models.py FOLDER PRESET`.

Run it with the trainer in PYTHONPATH.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from whetstone_trainer.model import build_model
from whetstone_trainer.quantise import open_quantiser

SIZES = {"resnet50": 224, "yolov8n": 320}
OUTPUTS = {"resnet50": ["logits"], "yolov8n": ["boxes", "scores"]}


def write(preset, folder):
    torch.manual_seed(0)
    size = SIZES[preset]
    file = folder / f"{preset}.onnx"
    torch.onnx.export(
        build_model(preset, 10).eval(),
        (torch.rand(2, 3, size, size),),
        str(file),
        dynamo=False,
        input_names=["input"],
        output_names=OUTPUTS[preset],
        dynamic_axes={name: {0: "batch"} for name in ["input", *OUTPUTS[preset]]},
    )
    work = folder / f"{preset}-work"
    work.mkdir()
    quantiser = open_quantiser(file, work)
    images = np.random.default_rng(0).random((8, 1, 3, size, size), np.float32)
    quantiser.calibrate(({"input": image} for image in images), "MINMAX", 1)
    made = quantiser.quantised(quantiser.operators, quantiser.ends(quantiser.operators))
    (folder / f"{preset}-int8.onnx").write_bytes(made.SerializeToString())


write(sys.argv[2], Path(sys.argv[1]))
