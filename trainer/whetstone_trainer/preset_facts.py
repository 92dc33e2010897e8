"""What topologies are like: `python -m whetstone_trainer.preset_facts <rows of the presets as JSON>` writes it as JSON.

`npm run protocol` keeps the answer in `src/jobs/presets.json`.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from whetstone_trainer.model import TIMM, build_classifier, detector, macs_of, parameter_count, without_storage
from whetstone_trainer.vision import get_model_weights

IMAGENET_CLASSES = 1000
COCO_CLASSES, COCO_SIDE = 80, 640


def facts_of(preset: str, row: dict[str, Any]) -> dict[str, Any]:
    """Its size, with the classes of ImageNet or COCO; of a classifier also what its library says of its weights.

    Args:
        row: of `src/jobs/classifiers.ts`, `timm.ts` or `detectors.ts`.
    """
    if "backbone" in row:
        return _size(partial(detector(row["size"], row["backbone"]).build, COCO_CLASSES), COCO_SIDE)
    build = partial(build_classifier, preset, IMAGENET_CLASSES)
    weights = None if preset.startswith(TIMM) else get_model_weights(preset).DEFAULT
    model: Any = without_storage(build)
    side = weights.transforms().crop_size[0] if weights else model.pretrained_cfg["input_size"][1]
    *_, head = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return {
        **_size(build, side),
        "imageSize": side,
        "onlyImageSize": not _takes(build, side + 32),
        "head": head,
        **({"weights": weights.url.rsplit("/", 1)[1]} if weights else {}),
    }


def _takes(build: Callable[[], nn.Module], side: int) -> bool:
    """Not a transformer whose positions are learned for another size."""
    try:
        without_storage(build).eval()(torch.empty(1, 3, side, side, device="meta"))
    except AssertionError:
        return False
    return True


def _size(build: Callable[[], nn.Module], side: int) -> dict[str, int]:
    model = without_storage(build)
    return {
        "parameters": parameter_count(model),
        "macs": macs_of(build, side, side),
        "activationBytes": _activation_bytes(model, side),
    }


def _activation_bytes(model: nn.Module, side: int) -> int:
    """What a step keeps of an image for its backward pass, in 32-bit floats. Nothing is computed."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    images = 2
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.random.fork_rng([]):
        model.train()(torch.empty(images, 3, side, side, device="meta"))
    state = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in state) // images


if __name__ == "__main__":
    json.dump({preset: facts_of(preset, row) for preset, row in json.loads(sys.argv[1]).items()}, sys.stdout)
