"""Overlapping windows and their blending: nothing of the lattice is left on even ground."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.errors import UsageError
from wetmap.models.lattice import Lattice

#: A window and a step of at most it: every overlap, 0 among them.
LATTICES = st.integers(1, 40).flatmap(lambda window: st.builds(Lattice, st.just(window), st.integers(1, window)))


@pytest.mark.parametrize(
    ("window", "step", "expected"),
    [
        (4, 4, [1, 1, 1, 1]),  # side by side
        (4, 3, [0.5, 1, 1, 0.5]),
        (4, 2, [0.25, 0.75, 0.75, 0.25]),
        (8, 6, [0.25, 0.75, 1, 1, 1, 1, 0.75, 0.25]),
        (3, 1, [0.25, 0.5, 0.25]),  # rises to the middle: 0.5, 1 (1.5 is cut), 0.5, of 2
    ],
)
def test_weights_by_hand(window: int, step: int, expected: list[float]) -> None:
    np.testing.assert_allclose(Lattice(window, step).weights(), expected, atol=1e-15)


@settings(deadline=None, max_examples=60)
@given(lattice=LATTICES)
def test_weights_are_positive_and_sum_to_one_at_every_pixel(lattice: Lattice) -> None:
    weights = lattice.weights()
    assert weights.shape == (lattice.window,)
    assert (weights > 0).all()
    total = np.zeros(lattice.step)
    np.add.at(total, np.arange(lattice.window) % lattice.step, weights)
    np.testing.assert_allclose(total, 1, rtol=1e-12)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(lattice=LATTICES, steps=st.integers(1, 6), value=st.floats(0, 1, width=32))
def test_windows_that_agree_are_blended_to_what_they_say(lattice: Lattice, steps: int, value: float) -> None:
    tile = steps * lattice.step
    rows = [torch.full((lattice.count(tile), 2, lattice.window, lattice.window), value)] * lattice.count(tile)
    blended = lattice.blend(rows, tile, classes=2, like=rows[0])
    assert blended.shape == (2, tile, tile)
    torch.testing.assert_close(blended, torch.full_like(blended, value), rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(lattice=LATTICES, y=st.integers(-3, 3), x=st.integers(-3, 3), steps=st.integers(1, 3))
def test_the_lattice_is_the_grids_wherever_a_tile_lies(lattice: Lattice, y: int, x: int, steps: int) -> None:
    """Every window of the grid says something of its own; a tile shows the weighted mean of those over each pixel."""
    tile, count, window, step = steps * lattice.step, lattice.count(steps * lattice.step), lattice.window, lattice.step

    def says(row: int, col: int) -> np.ndarray:
        return np.random.default_rng([row + 100, col + 100]).random((window, window))

    first = [at * steps - lattice.before for at in (y, x)]  # the windows' numbers in the grid
    rows = [
        torch.tensor(np.stack([says(first[0] + i, first[1] + j) for j in range(count)]))[:, None] for i in range(count)
    ]
    found = lattice.blend(rows, tile, classes=1, like=rows[0])[0].numpy()
    weights = lattice.weights()
    for row, col in ((0, 0), (tile - 1, tile // 2), (tile // 2, tile - 1)):
        place = y * tile + row, x * tile + col
        over = [[k for k in range(at // step - window, at // step + 1) if 0 <= at - k * step < window] for at in place]
        expected = 0.0
        for i in over[0]:
            for j in over[1]:
                own = place[0] - i * step, place[1] - j * step
                expected += weights[own[0]] * weights[own[1]] * says(i, j)[own]
        assert found[row, col] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("window", "step"), [(4, 5), (4, 0), (0, 0)])
def test_gaps_are_refused(window: int, step: int) -> None:
    with pytest.raises(UsageError, match=f"{window} pixels every {step}"):
        Lattice(window, step)
