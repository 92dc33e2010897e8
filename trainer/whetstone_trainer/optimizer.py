"""AdamW, and SGD with Nesterov momentum; the weight decay of both is decoupled (Loshchilov and Hutter 2017).

The arithmetic is PyTorch's: its functional, fused form. `torch.optim.Optimizer` around it imports the compiler with
its first step, which takes a second (see `vision.py`).
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from typing import Any

import torch
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

Group = dict[str, Any]
Tensors = list[torch.Tensor]


class Optimizer(ABC):
    """Has what `torch.amp.GradScaler` uses of PyTorch's own.

    Args:
        param_groups: each has `params`, its `weight_decay`, and `lr`, which is set before each step.
    """

    # The scaler sets `grad_scale` and `found_inf` for the time of a step. So a GPU leaves out a step whose gradients
    # overflow, and nobody waits for it.
    _step_supports_amp_scaling = True
    # What the present gradients are to be divided by. It may be set before a step, which reads them anyway.
    grad_scale: torch.Tensor

    def __init__(self, param_groups: list[Group]) -> None:
        self.param_groups = param_groups
        # By parameter and name: what the next step needs. A parameter without gradients has none.
        self.state: defaultdict[torch.Tensor, dict[str, torch.Tensor]] = defaultdict(dict)

    @torch.no_grad()
    def step(self) -> None:
        scaling = {name: getattr(self, name, None) for name in ("grad_scale", "found_inf")}
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            self._update(params, [parameter.grad for parameter in params], group, scaling)

    @abstractmethod
    def _update(self, params: Tensors, gradients: Tensors, group: Group, scaling: dict[str, Any]) -> None: ...

    def zero_grad(self) -> None:
        # The scaler has none after a step, unless it is off.
        vars(self).pop("grad_scale", None)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _kept(self, name: str, params: Tensors) -> Tensors:
        """A tensor like each parameter, at first zero."""
        for parameter in params:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in params]


class AdamW(Optimizer):
    def _update(self, params: Tensors, gradients: Tensors, group: Group, scaling: dict[str, Any]) -> None:
        for parameter in params:
            if "step" not in self.state[parameter]:
                self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
        adamw(
            params,
            gradients,
            self._kept("exp_avg", params),
            self._kept("exp_avg_sq", params),
            [],
            [self.state[parameter]["step"] for parameter in params],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
            **scaling,
        )


class SGD(Optimizer):
    def __init__(self, param_groups: list[Group], momentum: float) -> None:
        super().__init__(param_groups)
        self._momentum = momentum

    def _update(self, params: Tensors, gradients: Tensors, group: Group, scaling: dict[str, Any]) -> None:
        if group["weight_decay"] > 0:
            # Not by the function below: there it goes through the momentum, which multiplies it by 1 / (1 - momentum).
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        sgd(
            params,
            gradients,
            [*self._kept("momentum_buffer", params)] if self._momentum > 0 else [None] * len(params),
            fused=True,
            weight_decay=0,
            momentum=self._momentum,
            lr=group["lr"],
            dampening=0,
            nesterov=self._momentum > 0,
            maximize=False,
            **scaling,
        )
