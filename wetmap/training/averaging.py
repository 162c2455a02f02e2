"""A moving average of a network's weights over the steps of training, which is often better than the last of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def decay_of_step(decay: float, step: int) -> float:
    """How much of the average stays at a step: little at first, so that the untrained weights are soon forgotten.

    The warm-up min(decay, (1 + n) / (10 + n)) is that of TensorFlow's ``ExponentialMovingAverage(num_updates=n)``.

    Args:
        decay: Share that stays after many steps, 0-1.
        step: Number of the step over all epochs, from 0.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """The exponential moving average of all that a network's state holds, its running statistics too.

    Args:
        network: The network; its present state is where the average begins.
        decay: Share of the average that stays at each step, 0-1.
        start: A state of the average to go on from; None to begin.
    """

    def __init__(self, network: nn.Module, decay: float, start: Mapping[str, Tensor] | None = None) -> None:
        self.decay = decay
        own = network.state_dict()
        self.state = {name: (start or own)[name].detach().to(value.device, copy=True) for name, value in own.items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step; whole numbers, such as counters, are taken as they are.

        Args:
            network: The network after the step.
            step: Number of the step over all epochs, from 0.
        """
        share = 1 - decay_of_step(self.decay, step)
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, share)  # exact where the two are equal
            else:
                self.state[name].copy_(value)

    @contextlib.contextmanager
    def instead(self, network: nn.Module) -> Iterator[None]:
        """The network with the averaged weights; its own are back afterwards, to the bit."""
        own = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.state)
        try:
            yield
        finally:
            network.load_state_dict(own)
