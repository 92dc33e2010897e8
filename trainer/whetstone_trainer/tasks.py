"""The table of tasks."""

from whetstone_trainer import classification
from whetstone_trainer.detection import task as detection
from whetstone_trainer.protocol import PRESETS
from whetstone_trainer.task import Task

TASKS: dict[str, Task] = {"CLASSIFICATION": classification, "DETECTION": detection}


def task_of(preset: str) -> Task:
    return TASKS[PRESETS[preset]]
