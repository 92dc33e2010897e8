"""Training, conversion, evaluation and import of models: the child process of a job attempt."""

import os
import sys
from pathlib import Path

# OpenMP's threads spin 1,000 times where they wait, some 20 µs, and then sleep. Sleeping at once costs a training that
# has its cores for itself a fifth of its time. Where two trainings have two threads each on two cores it saves a
# seventh. PyTorch's own number is 300,000: there a step of ResNet50 at 32 px took 5.5 s instead of 0.6 s. Read when
# PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Otherwise ONNX Runtime stores the metadata of each model in the user's cache folder and looks up its maker's collector
# (1.31, Linux). Its library reads this when it is loaded; src/engine/telemetry.ts does the same for Node.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Packages that the set-up installs only when it is asked to.
sys.path.append(str(Path(__file__).parents[1] / "extras"))
