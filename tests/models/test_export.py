"""What every registered network can be turned into: PyTorch's export, ONNX, half precision.

The models are taken from the registry, each at its smallest window, so that a new one is tested when it is registered.
Large sizes of an architecture are left out: the same code, minutes of arithmetic.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wetmap.exchange.onnx_file import (
    TOLERANCE,
    as_onnx,
    drawn_inputs,
    input_side,
    largest_difference,
    missing_packages,
    trace,
)
from wetmap.models import create, entry, model_names

#: Most parameters of a model that is tested; the next larger have ten times as many.
MOST_PARAMETERS = 3_000_000
#: Logits of one network in two memory layouts: an export keeps PyTorch's default one.
ROUNDING = 5e-5

#: Half precision keeps 8 bits, 2^-9 per rounding, and roundings add up over layers: largest difference of a logit, as a
#: share of the largest. Classes whose logits lie further apart than twice that may not change places. Over all answers,
#: probabilities differ by less than the second.
HALF_DIFFERENCE = 0.05
HALF_MEAN = 0.01

#: Sides of dense networks that take any, pixels: their own mapping tiles cost seconds.
DENSE_SIDE = 32


def least(name: str) -> dict[str, Any]:
    """The smallest window and the default of everything else."""
    options = entry(name).options
    return {"window": min(options["window"].allowed)} if "window" in options else {}


def is_small(name: str) -> bool:
    with torch.device("meta"):
        model = create(name, 4, 3, **least(name))
    return sum(value.numel() for value in model.parameters()) < MOST_PARAMETERS


NETWORKS = [name for name in model_names() if entry(name).family == "torch" and is_small(name)]
EXPORTABLE = [name for name in NETWORKS if entry(name).exportable]


@lru_cache(maxsize=1)
def network(name: str) -> Any:
    """A small model with norms and biases that hide nothing."""
    torch.manual_seed(7)
    model = create(name, 4, 3, layers=2, band_layer=[0, 1, 0, 1], **least(name))
    draw = torch.Generator().manual_seed(8)
    for key, value in model.state_dict().items():
        noise = torch.rand(value.shape, generator=draw)
        if key.endswith(("running_var", "variance")) or (key.endswith("weight") and value.ndim == 1):
            value.copy_(0.5 + noise)
        elif value.ndim == 1 and value.is_floating_point():
            value.copy_(0.2 * (noise - 0.5))
    return model.eval()


def side_of(model: Any, name: str) -> int:
    """Side of the windows, or of a tile that the network takes: a small one, where it takes any."""
    side = input_side(model, entry(name).answers)
    return side if entry(name).answers == "window" or entry(name).sees_whole_tile else min(side, DENSE_SIDE)


def answers(model: nn.Module, inputs: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(*inputs)
    return logits


def test_the_registry_offers_small_networks_of_every_kind():
    kinds = {entry(name).answers for name in EXPORTABLE}
    assert kinds == {"window", "dense"}
    assert {"vvt-micro", "supervit-micro", "wetmapformer-window", "wetmapformer-published"} <= set(EXPORTABLE)


@dataclass(frozen=True)
class Traced:
    """A model and PyTorch's own export of it."""

    model: Any
    side: int
    program: Any


@pytest.fixture(scope="module", params=EXPORTABLE)
def traced(request: pytest.FixtureRequest) -> Traced:
    """Made once per model, for the tests of PyTorch's export and of ONNX."""
    model = network(request.param)
    side = side_of(model, request.param)
    return Traced(model, side, trace(model, side))


def test_pytorchs_own_export_gives_the_same(traced):
    program = traced.program.module()
    for count in (1, 2):
        inputs = tuple(part[:count] for part in drawn_inputs(traced.model, traced.side, seed=count))
        torch.testing.assert_close(answers(program, inputs), answers(traced.model, inputs), rtol=1e-5, atol=ROUNDING)
    # a trace leaves nothing of its own behind
    assert type(answers(traced.model, drawn_inputs(traced.model, traced.side))) is Tensor


def test_onnx_gives_what_pytorch_gives(traced):
    assert not missing_packages()
    data = as_onnx(traced.model, traced.side, traced=traced.program)
    assert largest_difference(traced.model, data, traced.side) <= TOLERANCE


def test_a_difference_would_be_seen():
    model = copy.deepcopy(network("hybridsn"))
    data = as_onnx(model, model.window)
    with torch.no_grad():
        model.head.bias[0] += 0.01
    assert largest_difference(model, data, model.window) > TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_is_close(name):
    """Mixed precision as training uses it: matrices in bfloat16, sums and norms in float32."""
    model = network(name)
    inputs = drawn_inputs(model, side_of(model, name))
    expected = answers(model, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = answers(model, inputs).float()
    assert not torch.equal(found, expected), "nothing was computed in half precision"
    limit = HALF_DIFFERENCE * float(expected.abs().max())
    assert float((found - expected).abs().max()) < limit
    assert float((found.softmax(1) - expected.softmax(1)).abs().mean()) < HALF_MEAN
    first, second = expected.topk(2, dim=1).values.unbind(1)
    clear = first - second > 2 * limit
    assert bool(clear.any())
    assert torch.equal(found.argmax(1)[clear], expected.argmax(1)[clear])
