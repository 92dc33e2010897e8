"""The optimizer, its learning rate and its precision, without a job."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests import support
from whetstone_trainer.environment import autocast_dtype
from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.protocol import build
from whetstone_trainer.state import new_optimizer
from whetstone_trainer.train import learning_rate


@pytest.mark.parametrize("optimizer", ["ADAMW", "SGD"])
def test_weight_decay_takes_the_same_share_in_each_step_and_spares_biases_and_norms(optimizer: str) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    changes = {"optimizer": optimizer, "weightDecay": 0.1, "backboneLearningRateFactor": 0.5}
    parameters = build(ClassificationHyperparameters, {**support.defaults(), **changes})
    made = new_optimizer(model, parameters, ("1.",))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in made.param_groups:
        group["lr"] = 0.5
    for _ in range(3):
        made.step()
    weight, *others = model.parameters()
    assert torch.allclose(weight, before[0] * 0.95**3)
    assert all(torch.equal(now, then) for now, then in zip(others, before[1:], strict=True))


def test_the_head_learns_at_the_full_rate_and_the_backbone_at_its_share_of_it() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    next(model.parameters()).requires_grad_(False)
    for optimizer in ("ADAMW", "SGD"):
        parameters = build(
            ClassificationHyperparameters,
            {**support.defaults(), "optimizer": optimizer, "backboneLearningRateFactor": 0.25},
        )
        groups = new_optimizer(model, parameters, ("2.",)).param_groups
        factors = {id(parameter): group["rate_factor"] for group in groups for parameter in group["params"]}
        # The weight of the convolution is frozen, its bias is not.
        assert [factors.get(id(parameter)) for parameter in model.parameters()] == [None, 0.25, 0.25, 0.25, 1.0, 1.0]


def test_the_learning_rate_rises_and_falls() -> None:
    parameters = build(ClassificationHyperparameters, {**support.defaults(), "learningRate": 1.0, "warmupSteps": 10})
    rates = [learning_rate(step, 110, parameters) for step in range(110)]
    assert rates[:10] == [(step + 1) / 11 for step in range(10)]
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert rates[-1] < 1e-3
    # A run that is shorter than the warm-up reaches its peak in the middle.
    assert max(range(8), key=lambda step: learning_rate(step, 8, parameters)) == 4
    assert math.isclose(learning_rate(0, 1, parameters), 1.0)


def test_mixed_precision_is_for_devices_that_compute_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = build(ClassificationHyperparameters, support.defaults())
    asked = replace(parameters, mixed_precision="BF16")
    gpu, cpu, model = torch.device("cuda"), torch.device("cpu"), nn.Conv2d(2, 2, 1)
    for found, dtype in (({}, None), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert autocast_dtype(asked, cpu, model) is dtype
        assert autocast_dtype(parameters, cpu, model) is None
    assert autocast_dtype(asked, cpu, nn.Conv2d(2, 2, 1, groups=2)) is None
    assert autocast_dtype(replace(parameters, mixed_precision="OFF"), cpu, model) is None
    for capability, dtype in (((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert autocast_dtype(parameters, gpu, model) is dtype
    assert autocast_dtype(replace(parameters, mixed_precision="OFF"), gpu, model) is None
