"""Training in several processes, a device each: what one process does with a whole batch, done together.

All processes hold the same weights and draw the same random numbers, for whole batches, of which each takes its part;
after each backward pass their gradients are averaged. So the number of processes changes the order of sums and nothing
else, and any of them, or one that goes on alone, knows all that decides the next step.

This is torch.distributed without its DistributedDataParallel, which has no place for penalties on gradients, for two
networks in one backward pass, or for a discriminator that only passes the gradient on. A process that is in no group is
the only one.
"""

import io
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from gan.errors import InputError, is_no_memory


class SeveredError(InputError):
    """The processes of the training do not reach each other, most often because one has ended."""


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The place of this process among them, from 0; the first keeps the books."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_part(batch_size: int) -> slice:
    """Where this process's images stand in a batch of all processes."""
    size = batch_size // count()
    return slice(rank() * size, (rank() + 1) * size)


class Stream:
    """Random numbers on `device` from `seed`, the same in all processes, for batches of which each takes its part.

    The first of the `shape` is this process's number of images.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """From N(0, 1)."""
        return own(self._empty(shape).normal_(generator=self.generator))

    def uniform(self, *shape: int, low: float = 0, high: float = 1) -> Tensor:
        """Evenly from [low, high)."""
        return own(self._empty(shape).uniform_(low, high, generator=self.generator))

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Evenly from low, …, high − 1."""
        whole = (shape[0] * count(), *shape[1:])
        return own(torch.randint(low, high, whole, generator=self.generator, device=self.generator.device))

    def _empty(self, shape: Sequence[int]) -> Tensor:
        return torch.empty(shape[0] * count(), *shape[1:], device=self.generator.device)


def own(batch: Tensor) -> Tensor:
    """The part of this process in what all of them hold alike, along the first dimension."""
    return batch[own_part(len(batch))]


@torch.no_grad()
def average_gradients(network: nn.Module) -> None:
    """Give each process the mean of all processes' gradients, in place: those of the mean over the whole batch."""
    if count() > 1:
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        together = average(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, mean in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


@torch.no_grad()
def average(values: Tensor) -> Tensor:
    """The mean of the processes' `values`, of equal shape."""
    return values if count() == 1 else _sum(values) / count()


def spread(images: Tensor) -> Tensor:
    """Standard deviation over the images of all processes, N×C×H×W in each, as a mean over pixels."""
    images = images.detach()
    if count() == 1:
        return images.std(0).mean()
    squares = average((images - average(images.mean(0))).square().mean(0))
    everyone = len(images) * count()
    return (squares * (everyone / (everyone - 1))).sqrt().mean()


def share(state: Any, device: torch.device) -> Any:  # noqa: ANN401 (what a checkpoint holds)
    """What the first process has as `state`, in all of them; on the CPU."""
    if count() == 1:
        return state
    packed = io.BytesIO()
    if rank() == 0:
        torch.save(state, packed)
    size = torch.tensor([packed.tell()], device=device)
    _do_together(dist.broadcast, size, 0)
    data = torch.zeros(int(size), dtype=torch.uint8, device=device)
    if rank() == 0:
        data.copy_(torch.frombuffer(packed.getbuffer(), dtype=torch.uint8))
    _do_together(dist.broadcast, data, 0)
    return torch.load(io.BytesIO(data.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)


def synchronise_layers(network: nn.Module, batch_norm: bool) -> None:
    """Make the layers that look at more than one image, or draw numbers, see whole batches; their weights stay.

    batch_norm: whether batch norm does so too, or goes by the statistics of each process's own part.
    """
    if count() > 1:
        for module in network.modules():
            if type(module) is nn.Dropout:
                module.__class__ = _Dropout
            elif batch_norm and type(module) is nn.BatchNorm2d:
                module.__class__ = _BatchNorm


class _Dropout(nn.Dropout):
    """Dropout that draws for the batch of all processes."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (named so in PyTorch)
        if not self.training:
            return input
        whole = torch.ones(len(input) * count(), *input.shape[1:], dtype=input.dtype, device=input.device)
        return input * own(functional.dropout(whole, self.p))


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm over the batch of all processes, on CPUs too, and differentiable as often as a penalty asks."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (named so in PyTorch)
        if not self.training:
            return super().forward(input)
        images = input.float()
        variances, means = torch.var_mean(images, (0, 2, 3), correction=0)
        # A sum of zeros but for one's own place brings all parts' statistics together; to sum squares would cancel.
        places = (torch.arange(count(), device=input.device) == rank())[:, None, None]
        everyone: Tensor = _Sum.apply(places * torch.stack([means, variances]))  # processes×2×C
        mean = everyone[:, 0].mean(0)
        variance = everyone[:, 1].mean(0) + everyone[:, 0].var(0, correction=0)
        self._keep(mean.detach(), variance.detach(), len(input) * count() * input.shape[2] * input.shape[3])
        scale = (variance + self.eps).rsqrt() * self.weight
        normal = (images - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return normal.to(input.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Move the running statistics, as PyTorch does: the variance without bias."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)
        self.num_batches_tracked += 1


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since each one's value has its part in what all compute."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:  # noqa: ANN401 (PyTorch's own)
        return _sum(values)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 (PyTorch's own)
        summed: Tensor = _Sum.apply(gradient)
        return summed


def _sum(values: Tensor) -> Tensor:
    summed: Tensor = values.clone(memory_format=torch.contiguous_format)
    _do_together(dist.all_reduce, summed)
    return summed


def _do_together(collective: Any, *arguments: Any) -> None:  # noqa: ANN401 (functions of torch.distributed)
    try:
        collective(*arguments)
    except RuntimeError as error:  # gloo has no error of its own for a partner that has gone
        if is_no_memory(error):
            raise
        raise SeveredError(f"the processes of this training have lost each other: {error}") from error
