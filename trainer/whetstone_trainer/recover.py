"""Fine-tuning with fake quantisation, after which the weights lose less in INT8 (Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference").

Batch normalisation is folded into the convolutions, as in the exported graph. Inputs, weights and results of what
`quantise.py` quantises are rounded as there, and gradients pass the rounding unchanged. The ranges are found again
before each epoch, on the calibration images.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.fusion import fuse_conv_bn_eval

from whetstone_trainer.checkpoint import Checkpoint
from whetstone_trainer.data import ordered_batches
from whetstone_trainer.evaluate import torch_predictor
from whetstone_trainer.events import Events
from whetstone_trainer.images import Images
from whetstone_trainer.preprocess import channel_count
from whetstone_trainer.processes import OtherRanks
from whetstone_trainer.protocol import PreprocessSpec, TrainSpec
from whetstone_trainer.quantise import FEW_WEIGHTS, observed_ranges
from whetstone_trainer.state import Run
from whetstone_trainer.train import train

Layer = nn.Conv2d | nn.Linear
WEIGHT_LEVEL_MAX = 127
LEVEL_MAX = 255


class Rounded(nn.Module):
    """A layer as INT8 computes it: weights with a scale for each output channel, input and result with one each.

    Args:
        relu: only the part above zero of its result is used.
        end: its result stays in 32-bit floats.
    """

    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, layer: Layer, relu: bool, end: bool) -> None:
        super().__init__()
        self.layer, self.relu, self.end = layer, relu, end
        self.register_buffer("scales", torch.ones(2))
        self.register_buffer("zeros", torch.zeros(2, dtype=torch.int32))
        # While ranges are found nothing is rounded: called with the input and the result.
        self.observe: Callable[[torch.Tensor, torch.Tensor], None] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.observe is not None:
            y: torch.Tensor = self.layer(x)
            self.observe(x, y.relu() if self.relu else y)
            return y
        weight = self.layer.weight
        largest = weight.detach().abs().amax(tuple(range(1, weight.ndim)))
        scale = torch.where(largest > 0, largest / WEIGHT_LEVEL_MAX, 1)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_LEVEL_MAX, WEIGHT_LEVEL_MAX)
        y = functional_call(self.layer, {"weight": rounded}, (self._rounded(x, 0),))
        return y if self.end else self._rounded(y, 1)

    def set_range(self, which: int, low: float, high: float) -> None:
        """Of the input (0) or the result (1). Zero is always a level."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / LEVEL_MAX or 1.0
        self.scales[which], self.zeros[which] = scale, round(-low / scale)

    def _rounded(self, x: torch.Tensor, which: int) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scales[which], self.zeros[which], 0, LEVEL_MAX)


def recovered(
    spec: TrainSpec, device: torch.device, resumed: Checkpoint | None, events: Events, *, images: Images, method: str
) -> tuple[nn.Module, Run]:
    """The fine-tuned model without rounding, on the CPU, and the run that made it.

    Args:
        images: on which the ranges are found, by `method`.
    """
    training, *_ = train(
        spec,
        device,
        resumed,
        events,
        OtherRanks(spec, events),
        adapt=lambda model: with_rounding(model, spec.preprocess),
        begin_epoch=lambda model: find_ranges(model, spec, device, events, images=images, method=method),
    )
    training.model.load_state_dict(training.best)
    return without_rounding(training.model.cpu()), training


def with_rounding(model: nn.Module, spec: PreprocessSpec) -> nn.Module:
    """The model with folded batch normalisation, in which `Rounded` stands for what `quantise.py` quantises."""
    model.eval()
    names = {module: name for name, module in model.named_modules()}
    read: dict[Layer, torch.Tensor] = {}
    made: dict[Layer, torch.Tensor] = {}
    # What has computed a tensor is known by the tensor's `grad_fn`: an operation in place gives it another one.
    source: dict[object, Layer] = {}
    norms: dict[nn.Module, nn.Conv2d] = {}
    relus: set[Layer] = set()

    def before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        (x,) = inputs
        layer = source.get(x.grad_fn)
        if isinstance(module, Layer):
            read[module] = x.sum()
        elif isinstance(module, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d):
            norms[module] = layer
        elif isinstance(module, nn.ReLU) and layer is not None:
            relus.add(layer)

    def after(module: nn.Module, inputs: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
        if isinstance(module, Layer):
            made[module] = y
            source[y.grad_fn] = module
        elif module in norms and not hasattr(module, "act"):
            source[y.grad_fn] = norms[module]

    hooks = [
        hook
        for module in names
        if isinstance(module, Layer | nn.BatchNorm2d | nn.ReLU)
        for hook in (module.register_forward_pre_hook(before), module.register_forward_hook(after))
    ]
    model(torch.zeros(1, channel_count(spec), spec.height, spec.width, requires_grad=True))
    for hook in hooks:
        hook.remove()

    layers, ends = list(made), set[Layer]()
    while True:
        # A result on which no input of another layer depends has no gradient: nothing that is quantised comes behind.
        inputs, results = [read[layer] for layer in layers], [made[layer] for layer in layers]
        found = torch.autograd.grad(torch.stack(inputs).sum(), results, allow_unused=True, retain_graph=True)
        ends = {layer for layer, gradient in zip(layers, found, strict=True) if gradient is None}
        if all(layer.weight.numel() >= FEW_WEIGHTS for layer in ends):
            break
        layers = [layer for layer in layers if layer not in ends or layer.weight.numel() >= FEW_WEIGHTS]

    folded: dict[Layer, Layer] = {}
    for norm, conv in norms.items():
        folded[conv] = fuse_conv_bn_eval(conv, cast(nn.BatchNorm2d, norm))
        # timm's normalisations have an activation of their own.
        model.set_submodule(names[norm], getattr(norm, "act", nn.Identity()))
    for layer in made:
        plain = folded.get(layer, layer)
        model.set_submodule(names[layer], Rounded(plain, layer in relus, layer in ends) if layer in layers else plain)
    return model


def without_rounding(model: nn.Module) -> nn.Module:
    for name, module in list(model.named_modules()):
        if isinstance(module, Rounded):
            model.set_submodule(name, module.layer)
    return model


def find_ranges(
    model: nn.Module, spec: TrainSpec, device: torch.device, events: Events, *, images: Images, method: str
) -> None:
    """Sets the ranges of what is rounded to those of the calibration images, as `Quantiser.calibrate` finds them."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Rounded)}
    ranges = observed_ranges(method)

    def observe(name: str, x: torch.Tensor, y: torch.Tensor) -> None:
        ranges.collect({f"{name} 0": x.cpu().numpy(), f"{name} 1": y.cpu().numpy()})

    size = spec.hyperparameters.batch_size
    events.phase("calibration", -(-len(images) // size))
    predict = torch_predictor(model, spec.preprocess, device)
    for name, layer in layers.items():
        layer.observe = partial(observe, name)
    for batch in ordered_batches(images, size, 0):
        predict(batch.images)
        events.advance()
        events.check_stop()
    found = ranges.of()
    for name, layer in layers.items():
        layer.observe = None
        for which in (0, 1):
            layer.set_range(which, *found[f"{name} {which}"])
