"""Training, conversion, evaluation and import of models: the child process of a job attempt."""

import os
import sys
from pathlib import Path

# OpenMP's threads sleep where they wait, instead of spinning: with other work on the cores (a second slot) a step of
# ResNet50 at 32 px took 5.5 s with spinning and 0.6 s without; alone it is the same. Read when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Otherwise ONNX Runtime stores the metadata of each model in the user's cache folder and looks up its maker's collector
# (1.31, Linux). Its library reads this when it is loaded; src/engine/telemetry.ts does the same for Node.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Packages that the set-up installs only when it is asked to.
sys.path.append(str(Path(__file__).parents[1] / "extras"))
