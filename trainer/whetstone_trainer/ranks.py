"""Several processes (ranks) that train one model together: data parallelism by torch.distributed, with NCCL on GPUs and
gloo on processors.

Each rank computes its part of every batch. Gradients, batch normalisation and running sums are those of the whole
batch, so all ranks hold the same state after each optimizer step. Gradients are added up in parts that never change, so
that a resumed run rounds as an undisturbed one. PyTorch's DistributedDataParallel changes its parts after one step.
"""

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

from whetstone_trainer.processes import RENDEZVOUS

# Rank 0 validates while the others wait, for as long as that takes: the server finds what hangs.
TIMEOUT = timedelta(days=14)
# Gradients are added up in parts of so many bytes.
PART_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Ranks:
    """One process of `size` that compute a batch of `images` together."""

    rank: int
    size: int
    images: int

    @property
    def part(self) -> tuple[int, int]:
        """The first image of the batch that is this rank's, and the first behind. The parts differ by one at most."""
        return self.rank * self.images // self.size, (self.rank + 1) * self.images // self.size

    @property
    def share(self) -> float:
        """Of the batch."""
        first, end = self.part
        return (end - first) / self.images

    def join(self, device: torch.device, work_dir: Path) -> None:
        """Waits for the other ranks. They meet by a file, and speak on the loopback interface only."""
        if self.size == 1:
            return
        loopback = "lo" if sys.platform == "linux" else "lo0"
        os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=loopback)
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=distributed.FileStore(  # type: ignore[attr-defined]
                str(work_dir / RENDEZVOUS), self.size
            ),
            rank=self.rank,
            world_size=self.size,
            timeout=TIMEOUT,
            device_id=device if device.type == "cuda" else None,
        )

    def seed(self, seed: int, epoch: int, batch: int) -> None:
        """Before each batch, so that dropout differs between ranks and a checkpoint needs the state of no generator. A
        single process has one sequence for the whole run, which is in its checkpoints."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence((seed, epoch, batch, self.rank)).generate_state(1)[0]))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Over all ranks."""
        if self.size > 1:
            tensor = tensor.clone()
            distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        if self.size == 1:
            return
        part: list[torch.Tensor] = []
        size = 0
        for parameter in model.parameters():
            if parameter.grad is None:
                continue
            part.append(parameter.grad)
            size += parameter.grad.nbytes
            if size >= PART_BYTES:
                self._sum_in_place(part)
                part, size = [], 0
        if part:
            self._sum_in_place(part)

    def _sum_in_place(self, tensors: list[torch.Tensor]) -> None:
        flat = self.sum(torch.cat([tensor.reshape(-1) for tensor in tensors]))
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, values in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(values.view(tensor.shape))

    def synchronised(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with batch normalisation over the whole batch. Names of tensors stay as they are."""
        if self.size == 1:
            return model
        for name, module in list(model.named_modules()):
            if type(module) is nn.BatchNorm2d and device.type == "cuda":
                synced = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
                model.set_submodule(name, synced)
            elif isinstance(module, nn.BatchNorm2d):
                model.set_submodule(name, SyncedBatchNorm(module, self.share))
        return model


ALONE = Ranks(0, 1, 1)


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the parts of all ranks. PyTorch's own does not run on a CPU, and knows no layer of timm
    that also has an activation.

    Args:
        share: of the batch, that this rank has.
    """

    def __init__(self, norm: nn.BatchNorm2d, share: float) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.load_state_dict(norm.state_dict())
        self.share = share
        self.drop, self.act = (getattr(norm, name, nn.Identity()) for name in ("drop", "act"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(self._normalised(x) if self.training else super().forward(x)))  # type: ignore[no-any-return]

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        count = x.numel() // x.shape[1]
        total = round(count / self.share)
        # bfloat16 is too coarse for sums.
        exact = torch.promote_types(x.dtype, torch.float32)
        variance, mean = torch.var_mean(x.detach().to(exact), (0, 2, 3), correction=0)
        own = torch.cat([mean, variance, mean.new_full([1], count / total)]).double()
        parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, own)
        means, variances, shares = torch.split(torch.stack(parts), [len(mean), len(mean), 1], 1)
        # Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
        whole = (shares * means).sum(0)
        spread = (shares * (variances + (means - whole) ** 2)).sum(0)
        if self.track_running_stats:
            self._track(whole, spread * (total / max(total - 1, 1)))
        result: torch.Tensor = _Normalised.apply(
            x, self.weight, self.bias, whole.to(exact), spread.to(exact), self.eps, total
        )
        return result

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        factor = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(variance.to(self.running_var.dtype), factor)


class _Normalised(torch.autograd.Function):
    """Normalisation by the whole batch's mean and variance, which depend on the inputs of all ranks."""

    @staticmethod
    def forward(  # noqa: PLR0917 (autograd passes them by position)
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        mean: torch.Tensor,
        variance: torch.Tensor,
        eps: float,
        total: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.total = total
        return functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, mean, scale = ctx.saved_tensors
        normal = (x - _by_channel(mean)) * _by_channel(scale)
        of_bias, of_weight = gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))
        both = torch.stack([of_bias, of_weight])
        distributed.all_reduce(both)
        of_x = gradient - _by_channel(both[0] / ctx.total) - normal * _by_channel(both[1] / ctx.total)
        of_x = of_x * _by_channel(scale if weight is None else scale * weight)
        affine = (None, None) if weight is None else (of_weight, of_bias)
        return of_x.to(x.dtype), *affine, None, None, None, None


def _by_channel(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None]
