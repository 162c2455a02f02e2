from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wetmap.errors import UsageError
from wetmap.models import create
from wetmap.models.vvt import (
    STRIDES,
    WIRINGS,
    AttentionForm,
    VicinityAttention,
    Vvt,
    VvtTrunk,
    Wiring,
)
from wetmap.models.vvt.attention import bound
from wetmap.models.vvt.network import DropPath, Mlp


def test_the_clamp_lifts_and_cuts_and_leaves_zeros():
    values = torch.tensor([0.0, 1e-6, -1e-6, 1e-4, -0.5, 1e4, 2e4, -2e4], dtype=torch.float64, requires_grad=True)
    out = bound(values)
    assert out.tolist() == [0.0, 1e-4, -1e-4, 1e-4, -0.5, 1e4, 1e4, -1e4]
    out.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(("clamp", "expected"), [(True, 1e4), (False, 1.5 * 9e3)])
def test_the_last_clamp_comes_after_the_gate(clamp, expected):
    attention = VicinityAttention(2, AttentionForm(clamp=clamp))
    with torch.no_grad():
        attention.out.weight.zero_()
        attention.out.bias.fill_(9e3)
        attention.gate.widen.weight.zero_()  # a gate of one half
        assert torch.equal(attention(torch.ones(1, 1, 1, 2)), torch.full((1, 1, 1, 2), expected))


def test_nothing_is_changed_in_place():
    attention = VicinityAttention(8, AttentionForm(heads=2))
    kept: list[tuple[Tensor, Tensor]] = []
    for part in attention.modules():
        part.register_forward_hook(lambda _m, _i, output: kept.append((output, output.clone())))
    maps = torch.randn(1, 3, 4, 8) * 1e-5
    before = maps.clone()
    attention(maps)
    assert torch.equal(maps, before)
    assert len(kept) == 8
    assert all(torch.equal(output, copy) for output, copy in kept)


# the explicit form


def explicit(attention: VicinityAttention, maps: Tensor) -> Tensor:
    """The definition: one weight per pair of tokens."""
    sources = maps if attention.reduction is None else attention.reduction(maps)
    heads = attention.form.heads

    def split(linear: nn.Linear, tokens: Tensor) -> Tensor:
        return linear(tokens.flatten(1, 2)).unflatten(-1, (heads, -1)).transpose(1, 2)

    def turns(count: int) -> Tensor:
        return math.pi / 2 * torch.arange(count, dtype=torch.float64) / count

    def places(tokens: Tensor) -> tuple[Tensor, Tensor]:
        height, width = tokens.shape[1:3]
        rows, columns = torch.meshgrid(turns(height), turns(width), indexing="ij")
        return rows.flatten(), columns.flatten()

    (row, column), (key_row, key_column) = places(maps), places(sources)
    near = torch.cos(row[:, None] - key_row) + torch.cos(column[:, None] - key_column)
    query, key = split(attention.query, maps).relu(), split(attention.key, sources).relu()
    weights = (query @ key.transpose(-2, -1)) * near
    mixed = (weights @ split(attention.value, sources)) / (weights.sum(-1, keepdim=True) + 1e-4)
    joined = attention.out(mixed.transpose(1, 2).flatten(2)).reshape(maps.shape)
    gate = attention.gate
    mean = maps.flatten(1, 2).mean(1)
    factor = 1 + torch.sigmoid(gate.widen(gate.squeeze(mean).relu()))
    return joined * factor[:, None, None, :]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    heads=st.integers(1, 3),
    depth=st.integers(1, 4),
    reduction=st.sampled_from([1, 2, 4]),
    stride=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_the_linear_form_is_the_explicit_form(rows, columns, heads, depth, reduction, stride, seed):
    torch.manual_seed(seed)
    width = heads * depth * reduction
    form = AttentionForm(heads, feature_reduction=reduction, key_stride=stride, clamp=False, exact_angles=True)
    attention = VicinityAttention(width, form).double()
    maps = torch.randn(2, rows * stride, columns * stride, width, dtype=torch.float64)
    with torch.no_grad():
        expected = explicit(attention, maps)
        torch.testing.assert_close(attention(maps), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 1000))
def test_the_clamps_hardly_move_values_of_queries_that_find_keys(rows, columns, seed):
    torch.manual_seed(seed)
    attention = VicinityAttention(8, AttentionForm(2, exact_angles=True)).double()
    maps = torch.randn(2, rows, columns, 8, dtype=torch.float64).clamp(-3, 3)
    with torch.no_grad():
        for linear in (attention.query, attention.key):
            linear.weight.clamp_(
                -0.04, 0.04
            )  # 8 x 3 x 0.04 < 1: each query and key is at least 1, each weight at least 2
            linear.bias.fill_(2)
        # what is below 1e-4 is lifted to it: at most 2e-4 per place, and 16 places are summed with weights below 1
        torch.testing.assert_close(attention(maps), explicit(attention, maps), rtol=1e-3, atol=1e-3)


def test_a_pair_weighs_most_where_it_is_nearest():
    attention = VicinityAttention(4, AttentionForm(feature_reduction=1, clamp=False, exact_angles=True)).double()
    with torch.no_grad():
        for linear in (attention.query, attention.key):  # q . k = 1 for every pair
            linear.weight.zero_()
            linear.bias.fill_(0.5)
        attention.value.weight.copy_(torch.eye(4))
        attention.value.bias.zero_()
        attention.out.weight.copy_(torch.eye(4))
        attention.out.bias.zero_()
        maps = torch.zeros(1, 8, 8, 4, dtype=torch.float64)
        maps[0, 2, 5] = 1  # one token has a value: what others take of it is their weight, up to the normaliser
        taken = attention(maps)[0, :, :, 0]
    assert int(taken[2].argmax()) in (5, 6, 7)  # towards the border there are fewer others to share with
    assert float(taken[7, 0]) == float(taken.min())
    turn = math.pi / 16
    place = torch.arange(8, dtype=torch.float64)
    along = torch.cos((place[:, None] - place) * turn)
    near = along[:, None, :, None] + along[None, :, None, :]
    share = near[:, :, 2, 5] / (near.sum((2, 3)) + 1e-4)
    torch.testing.assert_close(taken / taken.sum(), share / share.sum(), rtol=1e-10, atol=0)


# cost


def operations(module: nn.Module, *shape: int) -> int:
    """Floating point operations of matrix products and convolutions, counted and not timed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


@pytest.mark.parametrize(("width", "heads", "stride"), [(16, 1, 1), (32, 4, 1), (32, 2, 2)])
def test_attention_costs_in_proportion_to_the_tokens(width, heads, stride):
    with torch.device("meta"):
        attention = VicinityAttention(width, AttentionForm(heads, key_stride=stride))
    costs = [operations(attention, 1, side, side, width) for side in (8, 16, 32, 64)]
    growth = [later - earlier for earlier, later in pairwise(costs)]
    assert growth[1] == 4 * growth[0]
    assert growth[2] == 4 * growth[1]
    if stride == 1:
        narrow = width // 2
        inner = narrow // heads
        per_token = 3 * width * narrow + narrow * width + heads * (4 * inner * inner * 2 + 4 * inner)
        assert growth[0] == 2 * 192 * per_token


def test_the_whole_trunk_costs_in_proportion_to_the_pixels():
    with torch.device("meta"):
        trunk = VvtTrunk(4, WIRINGS["micro"])
    costs = [operations(trunk, 1, 4, side, side) for side in (64, 128, 256)]
    assert costs[2] - costs[1] == 4 * (costs[1] - costs[0])


@pytest.mark.parametrize(("size", "billions"), [("tiny", 2.99), ("small", 5.59)])
def test_multiplications_at_224_pixels_are_those_published(size, billions):
    with torch.device("meta"):
        model = Vvt(3, 1000, wiring=WIRINGS[size], window=224)
    assert round(operations(model, 1, 3, 224, 224) / 2e9, 2) == billions


# sizes


@pytest.mark.parametrize(
    ("size", "three_bands", "sixteen_bands"),
    [
        ("micro", None, 335_775),
        ("tiny", 12_882_440, 12_434_183),
        ("small", 25_492_264, 25_044_007),
        ("medium", 47_907_304, 47_459_047),
        ("large", 61_848_520, 61_400_263),
    ],
)
def test_parameters_are_those_published(size, three_bands, sixteen_bands):
    with torch.device("meta"):
        model = create(f"vvt-{size}", 16, 7)
        assert sum(value.numel() for value in model.parameters()) == sixteen_bands
        if three_bands is not None:
            model = create(f"vvt-{size}", 3, 1000)
            assert sum(value.numel() for value in model.parameters()) == three_bands
    assert {name.split(".")[0] for name, _ in model.named_buffers()} == {"normalisation"}


def test_parameters_of_the_releases_test_model():
    same = (1, 1, 1, 1)
    for bands, classes, count in ((3, 1000, 93_984), (16, 7, 81_599)):
        form = Wiring((32,) * 4, depths=same, heads=same, mlp_ratios=same, feature_reductions=(1, 2, 2, 4))
        assert sum(value.numel() for value in Vvt(bands, classes, wiring=form).parameters()) == count


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_any_size_gives_four_scales(height, width):
    trunk = VvtTrunk(2, Wiring((4, 4, 4, 4), (1, 0, 1, 1), (1, 1, 2, 1), (1, 1, 1, 1))).eval()
    with torch.no_grad():
        pyramid = trunk(torch.randn(1, 2, height, width))
    for stride, maps in zip(STRIDES, pyramid, strict=True):
        assert maps.shape == (1, (height - 1) // stride + 1, (width - 1) // stride + 1, 4)


def test_angle_tables_are_no_part_of_a_model():
    model = create("vvt-micro", 2, 2).eval()
    names = set(model.state_dict())
    with torch.no_grad():
        for size in ((32, 32), (20, 44)):
            model.spatial(torch.randn(1, 2, *size))
    assert set(model.state_dict()) == names
    assert sum(value.numel() for value in model.state_dict().values()) == 2 + 2 + 2 + sum(
        value.numel() for value in model.parameters()
    )


@pytest.mark.parametrize("size", [(6, 5), (5, 6), (1, 1)])
def test_a_map_that_key_squares_do_not_fill_is_refused(size):
    attention = VicinityAttention(4, AttentionForm(key_stride=2))
    with pytest.raises(UsageError, match=f"{size[0]} x {size[1]} tokens"):
        attention(torch.zeros(1, *size, 4))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(UsageError, match="3 heads reduced by 2"):
        VicinityAttention(8, AttentionForm(heads=3))


# training


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    ones = torch.ones(4000, 2, 3)
    out = drop(ones)
    assert torch.equal(out.amin((1, 2)), out.amax((1, 2)))
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1 / 0.75]))
    assert float(out.mean()) == pytest.approx(1, abs=0.03)
    assert drop.eval()(ones) is ones
    assert DropPath(0.0).train()(ones) is ones


def test_drop_path_rises_from_nothing_over_the_blocks_and_acts_in_training_only():
    torch.manual_seed(0)
    with torch.device("meta"):
        shares = [
            part.share for part in create("vvt-tiny", 2, 2, drop_path=0.2).modules() if isinstance(part, DropPath)
        ]
    assert shares == pytest.approx([0.2 * block / 7 for block in range(8)])
    model = create("vvt-micro", 2, 2, drop_path=0.3)
    features = torch.randn(8, 2, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(features), model(features))
        model.eval()
        assert torch.equal(model(features), model(features))
        plain = create("vvt-micro", 2, 2).eval()
        plain.load_state_dict(model.state_dict())
        assert torch.equal(model(features), plain(features))


def test_dropout_acts_in_the_mlps_twice_and_in_training_only():
    torch.manual_seed(0)
    mlp = Mlp(4, 2, dropout=0.5)
    dropped: list[int] = []
    mlp.drop.register_forward_hook(lambda _module, _inputs, output: dropped.append(output.shape[-1]))
    mlp(torch.randn(1, 2, 2, 4))
    assert dropped == [8, 4]
    base = WIRINGS["micro"]
    model = Vvt(2, 2, wiring=Wiring(base.widths, base.depths, base.heads, base.mlp_ratios, dropout=0.5))
    features = torch.randn(2, 2, 32, 32)
    assert not torch.equal(model(features), model(features))
    model.eval()
    assert torch.equal(model(features), model(features))


def test_first_weights_are_drawn_as_the_release_draws_them():
    torch.manual_seed(0)
    model = create("vvt-micro", 16, 7)
    expected = {
        "trunk.stages.0.embedding.conv": math.sqrt(2 / (49 * 32)),
        "trunk.stages.1.embedding.conv": math.sqrt(2 / (9 * 48)),
        "trunk.stages.3.blocks.0.mlp.spread": math.sqrt(2 / 9),
        "trunk.stages.3.blocks.0.mlp.dense1": 0.02,
        "trunk.stages.3.blocks.0.attention.gate.widen": 0.02,
    }
    modules = dict(model.named_modules())
    for name, deviation in expected.items():
        assert float(modules[name].weight.detach().std()) == pytest.approx(deviation, rel=0.05), name
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            assert not bool(part.bias.any())


def test_the_clamp_is_an_option_of_the_registered_models():
    for clamp in (True, False):
        model = create("vvt-micro", 2, 2, clamp=clamp)
        assert {block.form.clamp for block in model.modules() if isinstance(block, VicinityAttention)} == {clamp}


def test_a_traced_model_answers_the_same_and_leaves_the_tables_sound():
    torch.manual_seed(0)
    model = create("vvt-micro", 2, 3, window=18).eval()
    features = torch.randn(2, 2, 18, 18)
    program = torch.export.export(model, (features,))  # first, so that the tables are made while tracing
    with torch.no_grad():
        torch.testing.assert_close(program.module()(features), model(features))
