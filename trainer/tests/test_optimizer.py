"""The optimizer, its learning rate and its precision, without a job."""

import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import support
from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.protocol import TrainSpec
from whetstone_trainer.protocol_json import build, read_spec_line
from whetstone_trainer.ranks import ALONE
from whetstone_trainer.state import Progress, autocast_dtype, new_optimizer
from whetstone_trainer.train import _step, learning_rate


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


@pytest.mark.parametrize("optimizer", ["ADAMW", "SGD"])
def test_a_step_whose_gradients_overflow_is_left_out(optimizer: str) -> None:
    model = torch.nn.Linear(3, 2)
    changes = {"optimizer": optimizer, "weightDecay": 0}
    made = new_optimizer(model, build(ClassificationHyperparameters, {**support.defaults(), **changes}), ())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weights = []
    for factor in (1.0, float("inf"), 1.0):
        for group in made.param_groups:
            group["lr"] = 0.5
        scaler.scale(factor * model(torch.ones(1, 3)).sum()).backward()
        scaler.step(made)  # type: ignore[arg-type]
        scaler.update()
        made.zero_grad()
        weights.append(model.weight.detach().clone())
    assert torch.isfinite(weights[2]).all()
    assert [torch.equal(weights[0], later) for later in weights[1:]] == [True, False]


@pytest.mark.parametrize("optimizer", ["ADAMW", "SGD"])
def test_it_moves_weights_as_the_optimizer_of_pytorch_does(optimizer: str) -> None:
    changes = {"optimizer": optimizer, "weightDecay": 0, "momentum": 0.9}
    parameters = build(ClassificationHyperparameters, {**support.defaults(), **changes})
    torch.manual_seed(0)
    ours = torch.nn.Linear(3, 2)
    theirs = copy.deepcopy(ours)
    made = new_optimizer(ours, parameters, ("",))
    wanted: torch.optim.Optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0, fused=True)
    if optimizer == "SGD":
        wanted = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)
    for _ in range(4):
        inputs = torch.randn(5, 3)
        for model in (ours, theirs):
            model.zero_grad()
            model(inputs).square().sum().backward()
        for group in made.param_groups:
            group["lr"] = 0.1
        made.step()
        wanted.step()
    for now, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(now, expected)


@pytest.mark.parametrize("optimizer", ["ADAMW", "SGD"])
@pytest.mark.parametrize("scaler", [True, False])
def test_gradients_are_divided_by_what_is_set_for_the_next_step_alone(optimizer: str, scaler: bool) -> None:
    changes = {"optimizer": optimizer, "weightDecay": 0}
    weights = []
    for divisor in (4.0, 1.0):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        made = new_optimizer(model, build(ClassificationHyperparameters, {**support.defaults(), **changes}), ())
        scaling = torch.amp.GradScaler("cpu", init_scale=2.0, enabled=scaler)
        for number in range(2):
            for group in made.param_groups:
                group["lr"] = 0.5
            loss = model(torch.ones(1, 3)).square().sum()
            scaling.scale(loss if number == 1 else loss * divisor).backward()
            if number == 0:
                scaling.unscale_(made)  # type: ignore[arg-type]
                made.grad_scale = torch.tensor(divisor)
            scaling.step(made)  # type: ignore[arg-type]
            scaling.update()
            made.zero_grad()
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize(("clip", "moved"), [(0, 5.0), (10, 5.0), (2, 2.0)])
def test_a_step_follows_the_gradient_no_further_than_gradient_clip(clip: float, moved: float) -> None:
    changes = {"optimizer": "SGD", "momentum": 0, "weightDecay": 0, "gradientClip": clip}
    parameters = build(ClassificationHyperparameters, {**support.defaults(), **changes})
    model = torch.nn.Linear(2, 1)
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    made, scaler = new_optimizer(model, parameters, ()), torch.amp.GradScaler("cpu", enabled=False)
    training: Any = SimpleNamespace(model=model, ema=model, optimizer=made, scaler=scaler, progress=Progress(batch=1))
    job: Any = SimpleNamespace(spec=SimpleNamespace(hyperparameters=parameters), ranks=ALONE, steps=1)
    _step(training, 1.0, job)
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert float((after - before).norm()) == pytest.approx(moved, rel=1e-6)


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
    def spec_of(mixed_precision: str, preset: str = "resnet18") -> TrainSpec:
        dataset = {
            "manifest": "/m",
            "zip": "/zip",
            "images": "/images",
            "task": "CLASSIFICATION",
            "classes": ["a", "b"],
            "contentHash": "0" * 64,
        }
        spec = support.train_spec(dataset, {"mixedPrecision": mixed_precision}, preset=preset)
        read = read_spec_line(support.spec_line(Path("/"), spec)).spec
        assert isinstance(read, TrainSpec)
        return read

    auto, asked, off = spec_of("AUTO"), spec_of("BF16"), spec_of("OFF")
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    for found, dtype in (({}, None), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert autocast_dtype(asked, cpu) is dtype
        assert autocast_dtype(auto, cpu) is None
    assert autocast_dtype(spec_of("BF16", "efficientnet_b0"), cpu) is None
    assert autocast_dtype(off, cpu) is None
    for capability, dtype in (((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert autocast_dtype(auto, gpu) is dtype
    assert autocast_dtype(off, gpu) is None
