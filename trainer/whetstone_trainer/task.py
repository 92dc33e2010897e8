"""What a task has to say of itself. `tasks.py` is the table of tasks: a task is a module with these names.

`truth` is what a task knows of an image: the index of its class, or its objects. `outputs` are a model's, as tuples
of tensors.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from whetstone_trainer.events import Events
from whetstone_trainer.protocol import DatasetItem, ModelRef, PreprocessSpec
from whetstone_trainer.ranks import Ranks

if TYPE_CHECKING:
    from whetstone_trainer.images import Images

# Stands for NaN and infinity, which JSON does not have.
NOT_FINITE = 1e30

Outputs = tuple[torch.Tensor, ...]
# Levels of a batch (N × 3 × H × W, uint8, RGB) to the outputs, float32 on the CPU.
Predict = Callable[[torch.Tensor], Outputs]
# What ONNX Runtime returns, to the outputs.
Read = Callable[[Sequence[NDArray[Any]]], Outputs]
# (name, shape) of an ONNX model's outputs; a dimension that is no number is free.
Ports = Sequence[tuple[str, Sequence[int | str | None]]]


class Evaluation(Protocol):
    @property
    def metrics(self) -> Any: ...


class Task(Protocol):
    @property
    def NAME(self) -> str: ...

    # Names of the exported graph's outputs.
    @property
    def OUTPUTS(self) -> tuple[str, ...]: ...

    # The dataclass of a split's metrics, and those of its fields that are curves.
    @property
    def METRICS(self) -> type: ...
    @property
    def CURVES(self) -> tuple[str, ...]: ...

    # The one of them that a compressed model is judged by: 0 to 1, larger is better.
    @property
    def METRIC(self) -> str: ...

    # Names of the training's running means; the first is the loss.
    @property
    def RUNNING(self) -> tuple[str, ...]: ...

    def truth(self, item: DatasetItem, /) -> Any:
        """Raises DATA_INVALID where the item is of another task."""

    def labels(self, truth: Any, /) -> Sequence[int]:
        """The classes that the image is an example of, one for each object."""

    def relabelled(self, truth: Any, classes: Sequence[int], /) -> Any:
        """With other class indices: `classes[old]` is the new one."""

    def kept_as(self, parameters: Any, spec: PreprocessSpec, /) -> PreprocessSpec | int:
        """What training images are brought to before augmentation: the input, or their own form with a short side of at
        most so many pixels."""

    def example(
        self,
        images: "Images",
        place: tuple[int, int, int],
        draw: NDArray[np.float64],
        parameters: Any,
        spec: PreprocessSpec,
        /,
    ) -> tuple[torch.Tensor, Any]:
        """The training picture (3 × H × W, uint8) and truth of `place`: (seed, epoch, number). The number is that of
        `shown`, of image number % len(images). `draw`: its numbers from `augment.draws`."""

    def inputs(
        self, levels: torch.Tensor, draws: NDArray[np.float64], parameters: Any, spec: PreprocessSpec, /
    ) -> torch.Tensor:
        """Levels of a training batch (float) as the model's input, of the spec's size, with the changes that happen on
        the device."""

    def loss(
        self,
        outputs: Outputs,
        truths: Sequence[Any],
        parameters: Any,
        spec: PreprocessSpec,
        class_weights: torch.Tensor | None,
        /,
        *,
        ranks: Ranks,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss (scalar) of float32 outputs, and what `RUNNING` sums up: a sum over the batch for each name, then
        its number of images. `spec`: of the inputs. `class_weights`: how much each class counts, on the outputs'
        device; None: all the same. `ranks`: the outputs are this rank's part of a batch. Their losses, weighted by
        their shares, have the loss of the whole batch as their sum."""

    def evaluate(
        self, predict: Predict, images: "Images", *, class_count: int, batch_size: int, workers: int, events: Events
    ) -> Evaluation:
        """One pass over the images in their order; the step moves with each batch."""

    def rank(self, metrics: Any, selection_metric: str, /) -> tuple[float, ...]:
        """By which the best epoch is found: larger is better."""

    def report(self, evaluation: Any, classes: tuple[str, ...], events: Events, /) -> dict[str, Any]:
        """The EVALUATION artifact, `Evaluation` of the protocol; the step moves where it takes long."""

    def with_mirrored(self, outputs: Outputs, mirrored: Outputs, spec: PreprocessSpec, class_count: int, /) -> Outputs:
        """The outputs for a batch together with those for its mirror images: test-time augmentation."""

    def reader(self, ports: Ports, task: str | None, model: ModelRef, /) -> Read:
        """Of an ONNX model's outputs; `task` is what the file's metadata says. Raises MODEL_INVALID where they are
        not the task's."""

    def compare(self, wanted: Outputs, found: Outputs, relative_tolerance: float, /) -> NDArray[np.float64]:
        """How far a candidate is from the reference, one row for each image."""

    def gate(self, rows: NDArray[np.float64], relative_tolerance: float, /) -> dict[str, Any]:
        """The task's part of the conversion gate's numbers."""

    def decisions(self, wanted: Outputs, found: Outputs, /) -> tuple[int, int]:
        """How many decisions the first model makes on these images, and how many differ in the second."""

    def furthest(self, rows: NDArray[np.float64], /) -> dict[str, float]:
        """The task's part of a batch size's numbers."""
