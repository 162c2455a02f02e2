"""What every registered classifier of windows has to keep, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wetmap.errors import RecipeError, UsageError
from wetmap.models import create, entry, model_names, resolve_options

#: Larger sizes of a model that is tested here in a small one: the same code, minutes of arithmetic.
LARGER = {"vvt-tiny", "vvt-small", "vvt-medium", "vvt-large", "supervit-small"}
#: Dense models have tests of their own, in test_every_dense.py.
TORCH = [name for name in model_names() if entry(name).answers == "window" and name not in LARGER]

#: bands, classes, options: windows that do and do not divide by the strides, one token and many.
CASES: list[tuple[int, int, dict[str, Any]]] = [
    (16, 7, {}),
    (1, 2, {"window": 12}),
    (5, 3, {"window": 16, "stem_stride": 2}),
    (3, 4, {"window": 32}),
    (6, 5, {"window": 8, "stem_stride": 1}),
    (4, 3, {"window": 10}),
    (2, 3, {"window": 18}),
]

Enliven = Callable[[nn.Module, int], None]


def offers(name: str, options: dict[str, Any]) -> bool:
    """Whether a model has these options and values."""
    try:
        resolve_options(name, options)
    except RecipeError:
        return False
    return True


WINDOW_CASES = [(name, *case) for name in TORCH for case in CASES if offers(name, case[2])]
#: Every size of a model that has sizes, the defaults of one that has none.
SIZES: list[tuple[str, dict[str, Any]]] = [
    (name, {"size": size} if "size" in entry(name).options else {})
    for name in TORCH
    for size in (entry(name).options["size"].allowed if "size" in entry(name).options else ("only",))
]


def make(name: str, bands: int, classes: int, enliven: Enliven, **options: Any) -> Any:
    torch.manual_seed(3)
    model = create(name, bands, classes, layers=2, band_layer=[band % 2 for band in range(bands)], **options)
    enliven(model, 4)
    return model.eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "bands", "classes", "options"), WINDOW_CASES)
def test_a_tile_is_its_windows_classified_one_by_one(name, bands, classes, options, enliven):
    model = make(name, bands, classes, enliven, **options)
    window, tile = model.window, 3
    side = tile + 2 * model.geometry.margin
    features = noise(1, bands, side, side)
    features[0, 0, 4, 5] = torch.nan
    observed = noise(1, 2, side, side, seed=1) > -1
    windows = [
        (features[:, :, r : r + window, c : c + window], observed[:, :, r : r + window, c : c + window])
        for r in range(tile)
        for c in range(tile)
    ]
    with torch.no_grad():
        logits = torch.cat([model(*pair) for pair in windows])
    assert logits.shape == (tile * tile, classes)
    answers = model.tile_probabilities(features, observed)
    assert answers.shape == (1, classes, tile, tile)
    torch.testing.assert_close(answers[0].flatten(1).T, logits.softmax(1), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(answers.sum(1), torch.ones(1, tile, tile))


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("value", [1e3, torch.nan, torch.inf])
def test_a_pixel_touches_the_windows_that_hold_it_and_no_other(name, value, enliven):
    model = make(name, 4, 3, enliven)
    tile, window = 12, model.window
    side = tile + 2 * model.geometry.margin
    features = noise(1, 4, side, side)
    before = model.tile_probabilities(features)
    for row, col in ((0, 0), (7, 11), (side - 2, 3), (side - 1, side - 1)):
        poked = features.clone()
        poked[0, 1, row, col] = value
        after = model.tile_probabilities(poked)
        assert bool(torch.isfinite(after).all())
        same = (after == before).all(1)[0]
        place = torch.arange(tile)
        rows = (place <= row) & (row < place + window)
        cols = (place <= col) & (col < place + window)
        holds = rows[:, None] & cols
        assert bool(same[~holds].all()), "a pixel outside a window changed its answer"
        # the window of the last answer ends one pixel before the margin does
        assert holds.any() == (max(row, col) < side - 1)
        assert not bool(same[holds].all()) or not holds.any(), "a pixel inside the windows changed nothing"


@pytest.mark.parametrize("name", TORCH)
def test_a_tile_does_not_depend_on_the_batch_and_repeats_to_the_bit(name, enliven):
    model = make(name, 4, 3, enliven)
    side = 6 + 2 * model.geometry.margin
    features, observed = noise(3, 4, side, side), noise(3, 2, side, side, seed=2) > 0
    together = model.tile_probabilities(features, observed)
    alone = torch.cat([model.tile_probabilities(features[b : b + 1], observed[b : b + 1]) for b in (2, 1, 0)]).flip(0)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", TORCH)
def test_not_observed_means_nan_means_the_mean(name, enliven):
    model = make(name, 4, 3, enliven)
    model.set_normalisation(torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 1, 0.25, 0]))
    side = 5 + 2 * model.geometry.margin
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


@pytest.mark.parametrize(("name", "options"), SIZES)
def test_every_parameter_gets_a_gradient_but_those_declared_inert(name, options, enliven):
    # in eval mode: in training, batch norm takes away the bias before it, and its gradient is rounding
    model = make(name, 3, 4, enliven, **options).double()
    features = noise(8, 3, model.window, model.window).double()
    # a model with several operating points uses each parameter at one of them at least
    for point in getattr(model, "operating_points", (None,)):
        logits = model(features) if point is None else model(features, None, point)
        assert bool(torch.isfinite(logits).all())
        (logits * noise(8, 4, seed=5).double()).sum().backward()
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    dead = {
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or float(parameter.grad.abs().max()) < 1e-14 * largest
    }
    assert dead == model.inert_parameters
    assert entry(name).every_parameter_trains is (not dead)


@pytest.mark.parametrize(("name", "options"), SIZES)
def test_fresh_weights_come_from_the_global_seed_and_train_finitely(name, options):
    def fresh(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return create(name, 4, 3, **options)

    model, again, other = fresh(1), fresh(1), fresh(2)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(model.state_dict()["head.weight"], other.state_dict()["head.weight"])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = noise(8, 4, model.window, model.window), torch.arange(8) % 3
    for _ in range(2):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        assert float(loss.detach()) < 10
        loss.backward()
        optimiser.step()
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


@pytest.mark.parametrize("name", TORCH)
def test_it_learns_a_toy(name):
    torch.manual_seed(0)
    model = create(name, 3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    y = torch.arange(48) % 2
    x = noise(48, 3, model.window, model.window)
    x[:, 0] += y[:, None, None] - 0.5
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", TORCH)
def test_wrong_use_is_refused_with_advice(name):
    model = create(name, 4, 3, layers=2, band_layer=[0, 0, 1, 1])
    side = model.geometry.side
    features = noise(1, 4, side, side)
    with pytest.raises(UsageError, match="eval"):
        model.tile_probabilities(features)
    model.eval()
    with pytest.raises(UsageError, match="4 bands"):
        model.tile_probabilities(features[:, :3])
    with pytest.raises(UsageError, match="observation mask"):
        model.tile_probabilities(features, torch.ones(1, 1, side, side, dtype=torch.bool))
    with pytest.raises(UsageError, match="observation mask"):
        model.tile_probabilities(features, torch.ones(1, 2, side, side))
    with pytest.raises(UsageError, match="window"):
        model.tile_probabilities(features[:, :, :8, :8])
    with pytest.raises(UsageError, match="window"):
        model(features)
