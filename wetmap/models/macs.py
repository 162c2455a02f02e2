"""What an answer costs: multiply-adds of a network, counted by running it once.

Counted are matrix products, convolutions and attention, where a network's work lies; additions, normalisation and
activations are not. Networks differ in time by more than this number, because memory and small steps cost too: measure
pixels per second beside it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wetmap.models.contract import MapModel


def _onednn_counts() -> dict[Any, Any]:
    """Operations of oneDNN that the counter does not know; a map is computed with them where torch has them."""

    def count(_: object, weight: Sequence[int], *__: object, out_shape: Sequence[int], **___: object) -> int:
        return 2 * math.prod(out_shape) * math.prod(weight[1:])

    names = ("_linear_pointwise", "_convolution_pointwise")
    return {getattr(torch.ops.mkldnn, name): count for name in names if hasattr(torch.ops.mkldnn, name)}


def multiply_adds(model: nn.Module, *inputs: Tensor, method: str = "forward") -> int:
    """Count the multiply-adds of one call.

    Args:
        model: The network; its mode, weights and buffers are as before afterwards.
        inputs: What to call it with; a batch of n costs n times a batch of one.
        method: The method to call.

    Returns:
        Multiply-adds: half the floating-point operations that ``torch.utils.flop_counter`` counts. Fused attention
        and fused encoder layers are unfused for the count, because it would miss them.

    Example:
        >>> multiply_adds(nn.Linear(3, 4), torch.zeros(7, 3))
        84
    """
    call = cast("Callable[..., Any]", getattr(model, method))
    modes = {part: part.training for part in model.modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=_onednn_counts()) as counter,
        ):
            call(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for part, training in modes.items():
            part.training = training
    return int(counter.get_total_flops()) // 2


def multiply_adds_per_pixel(model: MapModel, bands: int, layers: int) -> float:
    """Count the multiply-adds that a network spends on each pixel it answers for, as it maps: a tile, margin included.

    Args:
        model: The network.
        bands: Bands it was made for.
        layers: Observed layers it was made for.

    Returns:
        Multiply-adds of one tile, divided by its pixels.
    """
    network = cast("nn.Module", model)
    side, tile = model.geometry.side, model.geometry.tile
    features = torch.zeros(1, bands, side, side)
    observed = torch.ones(1, layers, side, side, dtype=torch.bool)
    return multiply_adds(network, features, observed, method="tile_probabilities") / tile**2
