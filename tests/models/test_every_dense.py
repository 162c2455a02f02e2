"""What every registered dense model has to keep, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wetmap.errors import UsageError
from wetmap.models import create, entry, model_names
from wetmap.models.lattice import Lattice
from wetmap.models.tiles import LatticeNetwork, TileNetwork

#: Larger sizes of a model that is tested here in a small one: the same code, minutes of arithmetic.
LARGER = {"vvt-tiny-dense", "vvt-small-dense", "vvt-medium-dense", "vvt-large-dense", "supervit-small-dense"}
DENSE = [name for name in model_names() if entry(name).answers == "dense" and name not in LARGER]
#: Models whose answers reach no further than their margin.
NEAR = [name for name in DENSE if not entry(name).sees_whole_tile]
WHOLE = [name for name in DENSE if entry(name).sees_whole_tile]

UNLABELLED = 255

Enliven = Callable[[nn.Module, int], None]


def make(name: str, bands: int, classes: int, enliven: Enliven, **options: Any) -> Any:
    torch.manual_seed(3)
    model = create(name, bands, classes, layers=2, band_layer=[band % 2 for band in range(bands)], **options)
    enliven(model, 4)
    return model.eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small_side(model: TileNetwork) -> int:
    """A side to test on, pixels: a small tile with the margins, of one step of a lattice where there is one."""
    geometry = model.geometry
    return 2 * geometry.margin + geometry.stride * (1 if isinstance(model, LatticeNetwork) else 2)


@pytest.mark.parametrize("name", sorted(LARGER))
def test_a_larger_size_is_the_same_network_with_a_geometry_of_its_own(name):
    with torch.device("meta"):  # described, not filled
        model = create(name, 2, 3)
    assert isinstance(model, LatticeNetwork)
    assert model.pass_geometry.side == model.window == 32
    assert (model.geometry.tile, model.geometry.margin) == (192, 24)


@pytest.mark.parametrize("name", DENSE)
def test_the_geometry_keeps_the_phase(name):
    model = create(name, 4, 3)
    assert isinstance(model, TileNetwork)
    geometry = model.geometry
    assert geometry.tile % geometry.stride == geometry.margin % geometry.stride == 0
    assert geometry.margin > 0
    assert geometry.beyond == "nearest"
    assert entry(name).sees_whole_tile is isinstance(model, LatticeNetwork)
    if isinstance(model, LatticeNetwork):
        assert model.pass_geometry.side == model.window
        assert geometry.stride == model.lattice.step < model.window
    else:
        assert model.pass_geometry == geometry


def as_trained(model: TileNetwork, features: Tensor, observed: Tensor) -> Tensor:
    """Probabilities of tiles from the forward pass that training uses: cut, or window by window and blended by hand."""
    margin = model.geometry.margin
    tile = features.shape[2] - 2 * margin
    inner = (..., slice(margin, margin + tile), slice(margin, margin + tile))
    with torch.no_grad():
        if not isinstance(model, LatticeNetwork):
            return model(features, observed)[inner].softmax(1)
        whole = torch.zeros(len(features), model.classes, *features.shape[2:])
        axis = torch.from_numpy(model.lattice.weights()).float()
        side = model.window
        for y in range(0, margin + tile, model.lattice.step):
            for x in range(0, margin + tile, model.lattice.step):
                here = (..., slice(y, y + side), slice(x, x + side))
                whole[here] += model(features[here], observed[here]).softmax(1) * axis[:, None] * axis
        return whole[inner]


@pytest.mark.parametrize(("bands", "classes"), [(16, 7), (1, 2), (5, 12)])
@pytest.mark.parametrize("name", DENSE)
def test_every_pixel_of_a_tile_gets_probabilities(name, bands, classes, enliven):
    model = make(name, bands, classes, enliven)
    side, margin = small_side(model), model.geometry.margin
    features, observed = noise(2, bands, side, side), noise(2, 2, side, side, seed=1) > -1
    features[0, 0, margin, margin] = torch.nan
    answers = model.tile_probabilities(features, observed)
    tile = side - 2 * margin
    assert answers.shape == (2, classes, tile, tile)
    assert answers.dtype == torch.float32
    torch.testing.assert_close(answers.sum(1), torch.ones(2, tile, tile))
    torch.testing.assert_close(answers, as_trained(model, features, observed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DENSE)
def test_training_tiles_give_logits_of_their_own_size(name, enliven):
    model = make(name, 3, 4, enliven)
    with torch.no_grad():
        assert model(noise(2, 3, model.window, model.window)).shape == (2, 4, model.window, model.window)


@pytest.mark.parametrize("name", DENSE)
def test_a_tile_does_not_depend_on_the_batch_and_repeats_to_the_bit(name, enliven):
    model = make(name, 4, 3, enliven)
    side = small_side(model)
    features, observed = noise(3, 4, side, side), noise(3, 2, side, side, seed=2) > 0
    together = model.tile_probabilities(features, observed)
    alone = torch.cat([model.tile_probabilities(features[b : b + 1], observed[b : b + 1]) for b in (2, 1, 0)]).flip(0)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("value", [1e3, torch.nan])
@pytest.mark.parametrize("name", NEAR)
def test_an_answer_looks_no_further_than_the_margin(name, value, enliven):
    model = make(name, 4, 3, enliven)
    margin, stride = model.geometry.margin, model.geometry.stride
    tile = 2 * margin + 2 * stride
    side = tile + 2 * margin
    features = noise(1, 4, side, side)
    before = model.tile_probabilities(features)
    place = torch.arange(margin, margin + tile)
    heard = False
    for row, col in ((0, 0), (margin, side - 1), (side // 2, side // 2 + 1), (side - 1, 3), (margin - 1, margin)):
        poked = features.clone()
        poked[0, 1, row, col] = value
        after = model.tile_probabilities(poked)
        assert bool(torch.isfinite(after).all())
        moved = (after != before).any(1)[0]
        near = ((place - row).abs() <= margin)[:, None] & ((place - col).abs() <= margin)
        assert not bool(moved[~near].any()), "a pixel beyond the margin changed an answer"
        heard = heard or bool(moved[near].any())
    assert heard, "no pixel changed anything"


@pytest.mark.parametrize("name", NEAR)
def test_an_answer_does_not_depend_on_where_tiles_begin(name, enliven):
    model = make(name, 3, 4, enliven)
    margin, stride = model.geometry.margin, model.geometry.stride
    tile = 4 * stride
    wide = noise(1, 3, tile + stride + 2 * margin, tile + stride + 2 * margin)
    side = tile + 2 * margin
    first = model.tile_probabilities(wide[:, :, :side, :side])
    shifted = model.tile_probabilities(wide[:, :, stride:, stride:])
    # the same arithmetic on the same numbers, in sums of another order at most
    torch.testing.assert_close(first[:, :, stride:, stride:], shifted[:, :, :-stride, :-stride], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", WHOLE)
def test_every_pixel_of_its_window_matters_to_one_that_sees_it_whole(name, enliven):
    model = make(name, 3, 4, enliven)
    features = noise(1, 3, model.window, model.window)
    corner = features.clone()
    corner[0, :, :4, :4] += 30  # a whole token, far enough to be heard through the attention
    with torch.no_grad():
        assert bool((model(corner)[:, :, -1, -1] != model(features)[:, :, -1, -1]).any())


@pytest.mark.parametrize("name", WHOLE)
def test_a_pixel_is_heard_in_the_windows_that_hold_it_and_nowhere_else(name, enliven):
    model = make(name, 3, 4, enliven)
    margin, step, window = model.geometry.margin, model.lattice.step, model.window
    tile = 4 * step
    features = noise(1, 3, tile + 2 * margin, tile + 2 * margin)
    row, col = margin + step + 1, margin + 2 * step + step // 2  # in an overlap down, in one window across
    poked = features.clone()
    poked[0, :, row, col] = torch.nan
    moved = (model.tile_probabilities(poked) != model.tile_probabilities(features)).any(1)[0]
    rows, cols = (torch.nonzero(moved.any(axis)).flatten() for axis in (1, 0))
    assert (int(rows[0]), int(rows[-1])) == (0, step + window - 1)
    assert (int(cols[0]), int(cols[-1])) == (2 * step, 2 * step + window - 1)


def jumps(model: LatticeNetwork, lattice: Lattice) -> float:
    """On smooth ground: mean change of probability where a window ends or begins, over that of all other columns."""
    tile = 6 * lattice.step
    side = tile + 2 * lattice.margin
    coarse = noise(1, 4, side // 8 + 3, side // 8 + 3)
    ground = 2 * F.interpolate(coarse, size=(side + 16, side + 16), mode="bicubic", align_corners=True)
    model.lattice = lattice
    with torch.no_grad():
        rows = model._rows(ground[0, :, :side, :side], tile)
        answers = lattice.blend(rows, tile, classes=5, like=ground)
    change = (answers[:, :, 1:] - answers[:, :, :-1]).abs().mean((0, 1))
    place = torch.arange(1, tile)
    border = (place % lattice.step == 0) | (place % lattice.step == lattice.window % lattice.step)
    return float(change[border].mean() / change[~border].mean())


@pytest.mark.parametrize("name", WHOLE)
def test_windows_leave_no_seam(name, enliven):
    model = make(name, 4, 5, enliven)
    blended, side_by_side = jumps(model, model.lattice), jumps(model, Lattice(model.window, model.window))
    # as trained by nobody: vvt 1.0 and 11, supervit 0.9 and 2.4
    assert blended < 1.2
    assert side_by_side > 2


@pytest.mark.parametrize("name", DENSE)
def test_not_observed_means_nan_means_the_mean(name, enliven):
    model = make(name, 4, 3, enliven)
    model.set_normalisation(torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 1, 0.25, 0]))
    side = small_side(model)
    features = noise(1, 4, side, side)
    observed = torch.ones(1, 2, side, side, dtype=torch.bool)
    observed[:, 1] = False  # the layer of bands 1 and 3
    hidden = model.tile_probabilities(features, observed)
    assert bool(torch.isfinite(hidden).all())
    as_nan, as_mean = features.clone(), features.clone()
    as_nan[:, [1, 3]] = torch.nan
    as_mean[:, 1], as_mean[:, 3] = 2.0, 4.0
    assert torch.equal(hidden, model.tile_probabilities(as_nan))
    assert torch.equal(hidden, model.tile_probabilities(as_mean))
    assert not torch.equal(hidden, model.tile_probabilities(features))
    nothing = model.tile_probabilities(torch.full_like(features, torch.nan), torch.zeros_like(observed))
    assert bool(torch.isfinite(nothing).all())


@pytest.mark.parametrize("name", DENSE)
def test_every_parameter_gets_a_gradient_but_those_declared_inert(name, enliven):
    # in eval mode: in training, batch norm takes away the bias before it, and its gradient is rounding
    model = make(name, 3, 4, enliven).double()
    features = noise(4, 3, model.window, model.window).double()
    cotangent = noise(4, 4, model.window, model.window, seed=5).double()
    # a model with several operating points uses each parameter at one of them at least
    for point in getattr(model, "operating_points", (None,)):
        logits = model(features) if point is None else model(features, None, point)
        assert bool(torch.isfinite(logits).all())
        (logits * cotangent).sum().backward()
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    dead = {
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or float(parameter.grad.abs().max()) < 1e-14 * largest
    }
    assert dead == model.inert_parameters
    assert entry(name).every_parameter_trains is (not dead)


@pytest.mark.parametrize("name", DENSE)
def test_fresh_weights_come_from_the_global_seed(name):
    def fresh(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return create(name, 4, 3).state_dict()

    model, again, other = fresh(1), fresh(1), fresh(2)
    assert all(torch.equal(a, b) for a, b in zip(model.values(), again.values(), strict=True))
    kernels = [key for key, value in model.items() if value.ndim == 4 and value.numel() > 1]
    assert kernels
    assert all(not torch.equal(model[key], other[key]) for key in kernels)


@pytest.mark.parametrize("name", DENSE)
def test_it_learns_a_toy_that_is_labelled_in_part(name):
    torch.manual_seed(0)
    model = create(name, 3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    features = noise(6, 3, model.window, model.window)
    coarse = noise(6, 1, model.window // 4, model.window // 4, seed=2) > 0
    truth = F.interpolate(coarse.float(), scale_factor=4.0)[:, 0].long()
    features[:, 0] += 2 * truth - 1
    target = truth.clone()
    unlabelled = noise(*truth.shape, seed=1) > 0
    target[unlabelled] = UNLABELLED
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(features), target, ignore_index=UNLABELLED)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    with torch.no_grad():
        right = model(features).argmax(1) == truth
    assert float(right[unlabelled].float().mean()) > 0.75, "what was not labelled was not learned"


@pytest.mark.parametrize("name", DENSE)
def test_wrong_use_is_refused_with_advice(name):
    model = create(name, 4, 3, layers=2, band_layer=[0, 0, 1, 1])
    side = small_side(model)
    features = noise(1, 4, side, side)
    with pytest.raises(UsageError, match="eval"):
        model.tile_probabilities(features)
    model.eval()
    for call in (model, model.tile_probabilities):
        with pytest.raises(UsageError, match="4 bands"):
            call(features[:, :3])
        with pytest.raises(UsageError, match="observation mask"):
            call(features, torch.ones(1, 1, side, side, dtype=torch.bool))
        with pytest.raises(UsageError, match="observation mask"):
            call(features, torch.ones(1, 2, side, side))
    margin = model.geometry.margin
    for wrong in (features[:, :, :-1], features[:, :, : 2 * margin, : 2 * margin]):
        with pytest.raises(UsageError, match="tile"):
            model.tile_probabilities(wrong)
