from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from wetmap.errors import TrainingError
from wetmap.models.layers import LocalWindowAttention, SameConv2d, max_pool_same, same_padding
from wetmap.models.normalise import Normalisation

LWA = Path(__file__).parents[1] / "golden" / "wetmapformer" / "lwa.safetensors"
SHAPES = [
    "h1w1c8n2k3",
    "h2w2c8n2k1",
    "h3w4c8n2k7",
    "h4w3c8n2k1True",
    "h4w4c8n1k3",
    "h5w7c12n3k3",
    "h6w6c8n2k5",
]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(8, 3, 2, (0, 1)), (5, 3, 2, (1, 1)), (8, 4, 4, (0, 0)), (10, 4, 4, (1, 1)), (3, 2, 2, (0, 1)), (8, 3, 1, (1, 1))],
)
def test_same_padding_is_tensorflows(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 4))
def test_same_padding_gives_ceil_outputs(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert after - before in (0, 1)
    assert (size + before + after - kernel) // stride + 1 >= math.ceil(size / stride)
    maps = torch.zeros(1, 1, size, size + 1)
    assert SameConv2d(1, 1, kernel, stride=stride)(maps).shape[2:] == (
        math.ceil(size / stride),
        math.ceil((size + 1) / stride),
    )


def test_padding_never_wins_a_pooling():
    assert bool((max_pool_same(torch.full((1, 1, 8, 8), -5.0), 3, 2) == -5).all())


def filled(shape: str) -> tuple[LocalWindowAttention, dict[str, Tensor]]:
    tensors = {key.removeprefix(f"{shape}/"): value for key, value in load_file(LWA).items() if key.startswith(shape)}
    tensors = {key.removeprefix("True/"): value for key, value in tensors.items()}
    heads, sides = tensors["param/multi_head_relative_positional_kernel_bias/positional_embedding"].shape
    attention = LocalWindowAttention(tensors["input"].shape[-1], heads, (math.isqrt(sides) + 1) // 2)
    with torch.no_grad():
        attention.qkv.weight.copy_(tensors["param/dense/kernel"].T)
        attention.qkv.bias.copy_(tensors["param/dense/bias"])
        attention.out.weight.copy_(tensors["param/dense_1/kernel"].T)
        attention.out.bias.copy_(tensors["param/dense_1/bias"])
        attention.positions.copy_(tensors["param/multi_head_relative_positional_kernel_bias/positional_embedding"])
    return attention, tensors


@pytest.mark.parametrize("shape", SHAPES)
def test_local_window_attention_is_the_releases(shape):
    attention, tensors = filled(shape)
    with torch.no_grad():
        torch.testing.assert_close(attention(tensors["input"]), tensors["output"], rtol=1e-5, atol=1e-6)
        weights, _ = attention.weights(tensors["input"])
        out = attention.double()(tensors["input"].double())
    torch.testing.assert_close(out, tensors["f64/output"], rtol=1e-10, atol=1e-12)
    _, height, width, _ = tensors["input"].shape
    rows, cols = max(height, attention.kernel), max(width, attention.kernel)
    # the release also computes the padded queries, which it then crops
    probs = tensors["probs"].squeeze(3).unflatten(1, (rows, cols))[:, :height, :width].flatten(1, 2)
    torch.testing.assert_close(weights, probs.transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_attention_weights_sum_to_one_and_depend_on_the_input():
    torch.manual_seed(0)
    attention = LocalWindowAttention(8, 2, 3)
    torch.nn.init.normal_(attention.qkv.bias)
    for side in (1, 2, 4):
        with torch.no_grad():
            one, _ = attention.weights(torch.randn(5, side, side, 8))
            other, _ = attention.weights(torch.randn(5, side, side, 8))
        torch.testing.assert_close(one.sum(-1), torch.ones(5, 2, side * side))
        assert float((one - other).abs().max()) > 0.01
        assert float(one.std(-1).max()) > 0.01


def test_a_token_does_not_see_beyond_its_neighbourhood():
    torch.manual_seed(0)
    attention = LocalWindowAttention(8, 2, 3)
    tokens = torch.randn(1, 6, 6, 8)
    poked = tokens.clone()
    poked[0, 0, 0] += 1
    changed = (attention(tokens) != attention(poked)).any(-1)[0]
    # the corner lies in the neighbourhoods that are centred on it or shifted onto it: rows and columns 0 and 1
    assert changed.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_normalisation_by_hand():
    normalise = Normalisation(3, [0, 0, 1])
    normalise.set(torch.tensor([1.0, -2.0, 5.0]), torch.tensor([4.0, 0.0, 1.0]))
    features = torch.tensor([3.0, -2.0, torch.nan]).reshape(1, 3, 1, 1)
    assert normalise(features).flatten().tolist() == [1.0, 0.0, 0.0]
    observed = torch.tensor([False, True]).reshape(1, 2, 1, 1)
    assert normalise(features + 1, observed).flatten().tolist() == [0.0, 0.0, 0.0]
    # a variance of 0 is a deviation of 1e-7
    assert normalise(features + 1)[0, 1].item() == pytest.approx(1e7)


@pytest.mark.parametrize(
    ("mean", "variance"),
    [([0.0, 0], [1.0, 1]), ([0.0, 0, torch.nan], [1.0, 1, 1]), ([0.0, 0, 0], [1.0, -1, 1]), ([0.0, 0, 0], [1.0, 1])],
)
def test_statistics_that_are_none_are_refused(mean, variance):
    with pytest.raises(TrainingError):
        Normalisation(3).set(torch.tensor(mean), torch.tensor(variance))
