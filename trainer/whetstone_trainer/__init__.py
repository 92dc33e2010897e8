"""Training, conversion, evaluation and import of models: the child process of a job attempt."""

import os
import sys
from pathlib import Path

# OpenMP's threads spin 10,000 times where they wait, some 0.2 ms, and then sleep. They meet a thousand times in a step,
# and some machines are slow to wake them: with 1,000 spins a training that has its cores for itself took up to 1.8
# times as long (YOLOv8n at 160 px), with 40,000 no less. Where there are fewer cores than threads the server says
# 1,000. PyTorch's own number is 300,000: there a step of ResNet50 at 32 px took 5.5 s instead of 0.6 s. Read when
# PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Otherwise ONNX Runtime stores the metadata of each model in the user's cache folder and looks up its maker's collector
# (1.31, Linux). Its library reads this when it is loaded; src/engine/telemetry.ts does the same for Node.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Packages that the set-up installs only when it is asked to.
sys.path.append(str(Path(__file__).parents[1] / "extras"))
