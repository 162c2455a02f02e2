"""What is peculiar to each of the baselines that classify windows; what all models share is in test_every_model."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wetmap.models import create
from wetmap.models.coatnet import AttentionBlock, MbConv, Shortcut, SqueezeExcite
from wetmap.models.hybridsn import bands_reached, shrink_factor
from wetmap.models.resnet import BasicBlock
from wetmap.models.swin import Merging, SquareAttention, from_squares, into_squares, square_mask
from wetmap.models.transformer import RelativePositions, SelfAttention, relative_index

PAGE = Path(__file__).resolve().parents[2] / "docs/models/baselines.md"

#: Parameters with 16 bands and 7 classes, all options at their defaults.
PARAMETERS = {"hybridsn": 414_711, "resnet": 271_399, "vit": 305_799, "swin": 566_147, "coatnet": 396_775}


def made(name: str, bands: int = 3, classes: int = 4, **options: Any) -> Any:
    torch.manual_seed(5)
    return create(name, bands, classes, **options).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def outputs(model: nn.Module, parts: nn.Module, features: Tensor) -> list[tuple[int, ...]]:
    """Shapes of what the direct parts of a sequence give, without the batch."""
    shapes: list[tuple[int, ...]] = []
    for part in parts:
        part.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model(features)
    return shapes


# sizes


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_number_of_parameters_is_the_one_on_the_page(name):
    assert count(made(name, 16, 7)) == PARAMETERS[name]
    row = re.search(rf"(?m)^\| `{name}` \|.*$", PAGE.read_text(encoding="utf-8"))
    assert row is not None
    assert f" {PARAMETERS[name]:,} " in row[0]


def test_resnet_has_the_parameters_of_the_paper_s_network_of_20_layers():
    # "0.27M" in its table 6: a stem, 7 convolutions of 16, 5 of 32, 5 of 64, a widening one each, 19 norms, 10 classes
    kernels = 9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2)
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert count(made("resnet", 3, 10)) == kernels + norms + 64 * 10 + 10 == 269_722


@pytest.mark.parametrize("window", [8, 10, 14, 22])
@pytest.mark.parametrize("name", PARAMETERS)
def test_other_windows_and_a_single_band_give_logits(name, window):
    model = made(name, 1, 2, window=window)
    assert model(torch.zeros(2, 1, window, window)).shape == (2, 2)


# HybridSN


@pytest.mark.parametrize(
    ("window", "shrink", "side"), [(8, 1, 2), (10, 1, 4), (12, 2, 3), (14, 2, 4), (20, 4, 4), (32, 7, 4)]
)
def test_hybridsn_s_maps_are_four_pixels_a_side_at_most(window, shrink, side):
    model = made("hybridsn", 2, 3, window=window)
    assert shrink_factor(window - 6) == model.shrink == shrink
    assert model.maps(torch.zeros(1, 2, window, window)).shape == (1, 64, side, side)
    assert model.dense1.in_features == 64 * side**2


@pytest.mark.parametrize(
    ("bands", "kernels"), [(1, (1, 1, 1)), (2, (3, 3, 3)), (3, (5, 5, 3)), (4, (7, 5, 3)), (30, (7, 5, 3))]
)
def test_hybridsn_s_kernels_are_no_longer_than_the_bands_reach(bands, kernels):
    assert tuple(bands_reached(bands, wanted) for wanted in (7, 5, 3)) == kernels
    model = made("hybridsn", bands, 3).double()
    assert tuple(part.kernel_size[0] for part in model.cube if isinstance(part, nn.Conv3d)) == kernels
    model(noise(4, bands, 8, 8)).square().sum().backward()
    first = model.cube[0].weight.grad.abs().amax((0, 1, 3, 4))
    assert bool((first > 0).all()), "a tap along the bands never meets one"


def test_hybridsn_drops_in_training_only():
    model, features = made("hybridsn", dropout=0.5), torch.ones(1, 3, 8, 8)
    assert torch.equal(model(features), model(features))
    model.train()
    assert not torch.equal(model(features), model(features))
    still = made("hybridsn", dropout=0.0).train()
    assert torch.equal(still(features), still(features))


# ResNet


def test_resnet_halves_its_maps_twice_and_keeps_odd_ones():
    for window, sides in ((8, (8, 4, 2)), (10, (10, 5, 3)), (32, (32, 16, 8))):
        model = made("resnet", window=window)
        expected = [(width, side, side) for width, side in zip((16, 32, 64), sides, strict=True) for _ in range(3)]
        assert outputs(model, model.blocks, torch.zeros(1, 3, window, window)) == expected


def test_resnet_s_shortcut_is_the_input_every_second_pixel_with_zeros_for_new_channels():
    block = BasicBlock(2, 5, stride=2).double().eval()
    assert {name.partition(".")[0] for name, _ in block.named_parameters()} == {"conv1", "conv2", "norm1", "norm2"}
    nn.init.zeros_(block.norm2.weight)  # nothing but the shortcut is left
    maps = noise(1, 2, 5, 5).abs()
    out = block(maps)
    assert torch.equal(out[:, :2], maps[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert torch.equal(out[:, 2:], torch.zeros(1, 3, 3, 3, dtype=torch.float64))


# ViT


def patches_swapped(features: Tensor, order: Tensor, patch: int) -> Tensor:
    count, bands, side = features.shape[:3]
    across = side // patch
    cut = features.reshape(count, bands, across, patch, across, patch).transpose(3, 4).flatten(2, 3)
    put = cut[:, :, order].reshape(count, bands, across, across, patch, patch)
    return put.transpose(3, 4).reshape(features.shape)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_vit_without_positions_does_not_see_where_a_patch_lies_and_with_them_it_does(patch):
    model, features = made("vit", patch=patch).double(), noise(2, 3, 8, 8)
    order = torch.randperm((8 // patch) ** 2, generator=torch.Generator().manual_seed(1))
    swapped = patches_swapped(features, order, patch)
    assert not torch.equal(swapped, features)
    assert torch.equal(patches_swapped(swapped, order.argsort(), patch), features)
    assert not torch.allclose(model(swapped), model(features), rtol=0, atol=1e-6)
    nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(swapped), model(features), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("window", "patch", "tokens"), [(8, 2, 16), (10, 4, 9), (8, 1, 64), (30, 4, 64)])
def test_vit_has_a_place_for_each_patch_and_for_the_class_token(window, patch, tokens):
    assert made("vit", window=window, patch=patch).positions.shape == (1, 1 + tokens, 64)


# attention and relative positions


def explicit(attention: SelfAttention, tokens: Tensor, extra: Tensor) -> Tensor:
    """The definition, one query and key at a time; extra (heads, T, T), minus infinity where nothing is seen."""
    heads, width = attention.heads, attention.out.in_features
    query, key, value = attention.qkv(tokens).split(width, dim=-1)
    mixed = torch.zeros_like(query)
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        for i in range(len(tokens)):
            scores = torch.stack([query[i, part] @ key[j, part] for j in range(len(tokens))])
            weights = (scores / math.sqrt(width // heads) + extra[head, i]).exp()
            mixed[i, part] = (weights / weights.sum()) @ value[:, part]
    return attention.out(mixed)


def enlivened(module: nn.Module) -> Any:
    """The module in float64 with parameters that hide nothing."""
    for number, parameter in enumerate(module.double().parameters()):
        parameter.data = 0.5 * noise(*parameter.shape, seed=number)
    return module


def test_self_attention_is_the_explicit_sum_with_and_without_further_axes():
    attention = enlivened(SelfAttention(6, 8, 2))
    tokens, extra = noise(2, 3, 5, 6), noise(2, 5, 5, seed=9)
    extra[:, 0, 3] = extra[1, 4, :4] = -math.inf
    out = attention(tokens, extra)
    for a in range(2):
        torch.testing.assert_close(attention(tokens[a], extra), out[a], rtol=0, atol=1e-12)
        for b in range(3):
            torch.testing.assert_close(out[a, b], explicit(attention, tokens[a, b], extra), rtol=0, atol=1e-12)
    nothing = torch.zeros(2, 5, 5, dtype=torch.float64)
    for plain in (attention(tokens)[0], attention(tokens[0])):
        torch.testing.assert_close(plain[1], explicit(attention, tokens[0, 1], nothing), rtol=0, atol=1e-12)


def test_the_relative_index_of_two_by_two_tokens():
    assert relative_index(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_every_entry_of_a_relative_table_is_used_as_often_as_its_offset_occurs(side):
    index = relative_index(side)
    assert index.shape == (side**2, side**2)
    times = torch.bincount(index.flatten(), minlength=(2 * side - 1) ** 2)
    along = side - torch.arange(1 - side, side).abs()
    assert torch.equal(times, (along[:, None] * along).flatten())
    positions = RelativePositions(2, side)
    positions.table.data = torch.arange(2 * (2 * side - 1) ** 2, dtype=torch.float32).reshape(2, -1)
    assert torch.equal(positions()[0], index.float())
    assert "index" not in positions.state_dict()


# Swin


@settings(deadline=None, max_examples=20)
@given(square=st.integers(1, 5), across=st.integers(1, 4), channels=st.integers(1, 3))
def test_cutting_into_squares_is_undone(square, across, channels):
    maps = noise(2, square * across, square * across, channels)
    squares = into_squares(maps, square)
    assert squares.shape == (2, across**2, square**2, channels)
    assert torch.equal(squares[:, -1, 0], maps[:, -square, -square])
    assert torch.equal(from_squares(squares, square * across), maps)


def seen(side: int, square: int, shift: int) -> Tensor:
    """(side ** 2, side ** 2): whether tokens lie in one square of a lattice that begins ``shift`` from the corner."""
    place = torch.arange(side * side)
    lattice = torch.stack([(place // side - shift), (place % side - shift)]).div(square, rounding_mode="floor")
    return (lattice[:, :, None] == lattice[:, None, :]).all(0)


@pytest.mark.parametrize(("side", "shifted"), [(8, False), (8, True), (10, False), (10, True), (5, True), (9, True)])
def test_tokens_of_different_regions_do_not_attend_to_each_other(side, shifted):
    attention = enlivened(SquareAttention(4, 2, side, shifted))
    maps = noise(1, side, side, 4).requires_grad_()
    out = attention(maps).sum(-1).flatten()
    reached = torch.stack([torch.autograd.grad(value, maps, retain_graph=True)[0].abs().sum(-1) for value in out])
    expected = seen(side, 4, 2 if shifted else 0)
    assert torch.equal(reached.flatten(1) > 0, expected)
    if shifted:  # the corner came around both edges, and stays alone
        assert expected[0].sum() == 4


@pytest.mark.parametrize(("side", "shifted"), [(1, True), (3, True), (4, True), (5, False), (6, True), (8, True)])
def test_square_attention_is_the_explicit_sum_over_what_is_seen(side, shifted):
    attention = enlivened(SquareAttention(4, 2, side, shifted))
    square = min(side, 4)
    assert attention.square == square
    shift = 2 if shifted and side > 4 else 0
    assert attention.shift == shift, "a map of one square is not shifted"
    extra = torch.full((2, side**2, side**2), -math.inf, dtype=torch.float64)
    reach = 2 * square - 1
    for i, j in seen(side, square, shift).nonzero().tolist():
        offset = (i // side - j // side + square - 1) * reach + i % side - j % side + square - 1
        extra[:, i, j] = 0 if attention.positions is None else attention.positions.table[:, offset].detach()
    maps = noise(2, side, side, 4)
    for one, out in zip(maps, attention(maps), strict=True):
        expected = explicit(attention.attention, one.flatten(0, 1), extra)
        torch.testing.assert_close(out.flatten(0, 1), expected, rtol=0, atol=1e-12)


def test_the_mask_of_a_shifted_map_of_two_squares_a_side():
    mask = square_mask(4, 2, 1)
    assert mask.shape == (4, 4, 4)
    across = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.bool)
    assert torch.equal(mask[0], torch.ones(4, 4, dtype=torch.bool))
    assert torch.equal(mask[1], across), "left and right halves of the last square of a row are strangers"
    assert torch.equal(mask[3], torch.eye(4, dtype=torch.bool))
    assert bool(square_mask(8, 4, 0).all())


def test_swin_merges_four_tokens_into_one_and_fills_odd_maps():
    merging = Merging(2, 3).double()
    maps = noise(1, 5, 5, 2)
    merged = merging(maps)
    assert merged.shape == (1, 3, 3, 3)
    four = torch.cat([maps[0, 2, 2], maps[0, 2, 3], maps[0, 3, 2], maps[0, 3, 3]])
    torch.testing.assert_close(merged[0, 1, 1], merging.dense(merging.norm(four)))
    corner = torch.cat([maps[0, 4, 4], torch.zeros(6, dtype=torch.float64)])
    torch.testing.assert_close(merged[0, 2, 2], merging.dense(merging.norm(corner)))


def test_swin_shifts_every_second_block_where_there_is_more_than_one_square():
    def plan(**options: Any) -> list[tuple[int, int, int]]:
        parts = made("swin", **options).modules()
        return [(part.side, part.square, part.shift) for part in parts if isinstance(part, SquareAttention)]

    assert plan() == [(8, 4, 0), (8, 4, 2), *[(4, 4, 0)] * 2, *[(2, 2, 0)] * 2]
    assert plan(window=18) == [(18, 4, 0), (18, 4, 2), (9, 4, 0), (9, 4, 2), (5, 4, 0), (5, 4, 2)]
    assert plan(window=10, patch=4) == [*[(3, 3, 0)] * 2, *[(2, 2, 0)] * 2, *[(1, 1, 0)] * 2]


@pytest.mark.parametrize(
    ("name", "options", "tables"),
    [
        ("swin", {}, [49, 49, 49, 49, 9, 9]),
        ("swin", {"patch": 4}, [9, 9]),
        ("coatnet", {}, [49, 49, 9, 9]),
        ("coatnet", {"stem_stride": 2}, [9, 9]),
    ],
)
def test_a_map_of_one_token_has_no_table(name, options, tables):
    model = made(name, **options).double()
    assert [value.shape[1] for key, value in model.named_parameters() if key.endswith("positions.table")] == tables
    model(noise(4, 3, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())


# CoAtNet


def test_coatnet_halves_its_map_once_among_the_convolutions_and_once_in_attention():
    model = made("coatnet")
    kinds = [type(part) for part in model.blocks]
    assert kinds == [MbConv] * 3 + [AttentionBlock] * 4
    shapes = outputs(model, model.blocks, torch.zeros(1, 3, 8, 8))
    assert shapes == [(32, 8, 8), *[(48, 4, 4)] * 2, *[(64, 4, 4)] * 2, *[(96, 2, 2)] * 2]
    odd = made("coatnet", window=18, stem_stride=2)
    assert [shape[1] for shape in outputs(odd, odd.blocks, torch.zeros(1, 3, 18, 18))] == [9, 5, 5, 5, 5, 3, 3]


@pytest.mark.parametrize("stride", [1, 2])
def test_coatnet_s_shortcut_is_pooled_where_the_map_is_halved_and_projected_where_the_width_changes(stride):
    maps = noise(1, 3, 4, 4)
    pooled = maps if stride == 1 else maps.unflatten(3, (2, 2)).unflatten(2, (2, 2)).amax((3, 5))
    assert torch.equal(Shortcut(3, 3, stride)(maps), pooled)
    assert count(Shortcut(3, 3, stride)) == 0
    wider = Shortcut(3, 5, stride).double()
    torch.testing.assert_close(wider(maps), wider.project(pooled))


@pytest.mark.parametrize("stride", [1, 2])
def test_coatnet_s_convolution_sees_every_pixel_and_adds_to_the_shortcut(stride):
    block = MbConv(4, 6, stride).double().eval()
    maps = noise(1, 4, 6, 6).requires_grad_()
    without = block(maps) - block.shortcut(maps)
    assert without.shape == (1, 6, 6 // stride, 6 // stride)
    without.square().sum().backward()
    assert bool((maps.grad.abs().sum(1) > 0).all())
    nn.init.zeros_(block.narrow.weight)
    nn.init.zeros_(block.narrow.bias)
    assert torch.equal(block(maps), block.shortcut(maps))


def test_squeeze_and_excitation_scales_whole_channels_by_what_the_means_say():
    excite = enlivened(SqueezeExcite(4, 2))
    maps = noise(2, 4, 3, 3)
    gate = excite(maps) / maps
    assert bool(((gate > 0) & (gate < 1)).all())
    torch.testing.assert_close(gate, gate[..., :1, :1].expand_as(gate))
    turned = maps.rot90(1, (2, 3))  # the same means
    torch.testing.assert_close(excite(turned), excite(maps).rot90(1, (2, 3)))


@pytest.mark.parametrize(("inputs", "stride"), [(16, 1), (32, 1), (16, 2)])
def test_coatnet_s_attention_block_step_by_step(inputs, stride):
    side = 4 // stride
    block = enlivened(AttentionBlock(inputs, 32, stride, side))
    maps = noise(1, inputs, 4, 4)
    normal = block.attention_norm(maps.movedim(1, -1)).movedim(-1, 1)
    halved = normal if stride == 1 else normal.unflatten(3, (2, 2)).unflatten(2, (2, 2)).amax((3, 5))
    mixed = explicit(block.attention, halved[0].flatten(1).T, block.positions())
    tokens = block.shortcut(maps)[0].flatten(1).T + mixed
    tokens = tokens + block.mlp(block.mlp_norm(tokens))
    torch.testing.assert_close(block(maps)[0], tokens.T.unflatten(1, (side, side)), rtol=1e-10, atol=1e-10)
