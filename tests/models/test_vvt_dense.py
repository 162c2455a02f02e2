from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wetmap.errors import UsageError
from wetmap.models import create
from wetmap.models.vvt import STRIDES, WIRINGS, VvtDense, Wiring
from wetmap.models.vvt.dense import refine

SMALL = Wiring((8, 8, 8, 8), (1, 1, 1, 1), (1, 2, 2, 4), (2, 2, 2, 2))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense(bands: int = 3, classes: int = 4, **options) -> VvtDense:
    torch.manual_seed(0)
    return VvtDense(bands, classes, wiring=SMALL, head_width=8, **options).eval()


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_every_pixel_of_a_tile_of_any_size_gets_logits(height, width):
    model = dense()
    with torch.no_grad():
        logits = model(noise(2, 3, height, width))
    assert logits.shape == (2, 4, height, width)
    assert bool(torch.isfinite(logits).all())


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 60), width=st.integers(1, 60), stride=st.sampled_from([2, 4]))
def test_tokens_stay_where_they_are_when_refined(height, width, stride):
    # a token map that says where its tokens are says, refined, where every place is
    rows = torch.arange(0, height, stride, dtype=torch.float64)
    columns = torch.arange(0, width, stride, dtype=torch.float64)
    maps = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
    found = refine(maps, stride, (height, width))[0]
    expected_rows = torch.arange(height, dtype=torch.float64).clamp(max=rows[-1])
    expected_columns = torch.arange(width, dtype=torch.float64).clamp(max=columns[-1])
    torch.testing.assert_close(found[0], expected_rows[:, None].expand(height, width))
    torch.testing.assert_close(found[1], expected_columns.expand(height, width))


def test_every_scale_reaches_the_pixels_and_in_its_place():
    model = dense().double()
    head = model.head
    pixels = noise(1, 3, 70, 70).double()
    pyramid = [noise(1, -(-70 // stride), -(-70 // stride), 8, seed=stride).double() for stride in STRIDES]
    before = head(pixels, pyramid)
    for level, stride in enumerate(STRIDES):
        poked = [maps.clone() for maps in pyramid]
        poked[level][0, 1, 1] += 1
        moved = (head(pixels, poked) - before).abs().sum((0, 1)) > 0
        # linear interpolation reaches the next tokens and no further
        place = torch.arange(70)
        near = (place > 0) & (place < 2 * stride)
        assert torch.equal(moved, near[:, None] & near), stride


def test_pixels_of_one_token_can_differ():
    model = dense()
    flat = torch.zeros(1, 3, 8, 8)
    dotted = flat.clone()
    pyramid = [torch.ones(1, *size, 8) for size in ((2, 2), (1, 1), (1, 1), (1, 1))]
    dotted[0, :, 1, 2] = 3
    with torch.no_grad():
        moved = (model.head(dotted, pyramid) - model.head(flat, pyramid)).abs().sum((0, 1)) > 0
    assert moved.nonzero().tolist() == [[1, 2]]


def test_not_observed_means_nan_means_the_mean(enliven):
    model = dense(4, 3, layers=2, band_layer=[0, 1, 0, 1])
    enliven(model, 1)
    model.set_normalisation(torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 1, 0.25, 0]))
    features = noise(1, 4, 20, 26)
    observed = torch.ones(1, 2, 20, 26, dtype=torch.bool)
    observed[:, 1, 3:9] = False  # the layer of bands 1 and 3
    as_nan, as_mean = features.clone(), features.clone()
    as_nan[:, [1, 3], 3:9] = torch.nan
    as_mean[:, 1, 3:9], as_mean[:, 3, 3:9] = 2.0, 4.0
    with torch.no_grad():
        hidden = model(features, observed)
        assert bool(torch.isfinite(hidden).all())
        assert torch.equal(hidden, model(as_nan))
        assert torch.equal(hidden, model(as_mean))
        assert not torch.equal(hidden, model(features))


def test_every_parameter_gets_a_gradient(enliven):
    model = dense().double()
    enliven(model, 2)
    (model(noise(4, 3, 64, 48).double()) * noise(4, 4, 64, 48, seed=1).double()).sum().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in model.parameters())


def test_it_learns_which_pixels_are_bright():
    torch.manual_seed(0)
    model = VvtDense(3, 2, wiring=WIRINGS["micro"], head_width=16)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    features = noise(4, 3, 32, 32)
    target = (features[:, 1] > 0).long()
    losses = []
    for _ in range(50):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(features), target)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_the_trunk_is_that_of_the_classifier():
    classifier = create("vvt-micro", 3, 2).eval()
    model = VvtDense(3, 5, wiring=WIRINGS["micro"]).eval()
    model.trunk.load_state_dict(classifier.trunk.state_dict())
    features = noise(1, 3, 40, 36)
    with torch.no_grad():
        pairs = zip(model.trunk(features), classifier.trunk(features), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_it_repeats_to_the_bit_and_exports():
    model = dense()
    features = noise(1, 3, 33, 46)
    program = torch.export.export(model, (features,))
    with torch.no_grad():
        assert torch.equal(model(features), model(features))
        torch.testing.assert_close(program.module()(features), model(features))


def test_wrong_shapes_are_refused_with_advice():
    model = dense(4, 3, layers=2, band_layer=[0, 0, 1, 1])
    features = noise(1, 4, 8, 8)
    with pytest.raises(UsageError, match="4 bands"):
        model(features[:, :3])
    with pytest.raises(UsageError, match="4 bands"):
        model(features[0])
    with pytest.raises(UsageError, match="observation mask"):
        model(features, torch.ones(1, 1, 8, 8, dtype=torch.bool))
    with pytest.raises(UsageError, match="observation mask"):
        model(features, torch.ones(1, 2, 8, 8))
