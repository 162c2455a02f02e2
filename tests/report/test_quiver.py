"""The picture of shifts between scenes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wetmap.report.quiver import MOST_MAPS, Quiver, ShiftMap, quiver_picture, quiver_words


def quiver(groups: int = 2, ties: int = 9, *, simulated: bool = False) -> Quiver:
    random = np.random.default_rng(1)
    off = random.normal(4, 1, (ties, 2))
    off[::3] = np.nan
    agrees = np.arange(ties) % 4 != 1
    maps = [ShiftMap(f"radar, track {n}", f"Lies {n} m $east$ of it", off, agrees) for n in range(groups)]
    x, y = np.meshgrid(np.arange(3) * 900.0, np.arange(3) * 900.0)
    ring = np.array([[0.0, 0], [2700, 0], [2700, 2700], [0, 0]])
    return Quiver(x.ravel()[:ties], y.ravel()[:ties], 640.0, maps, [ring], simulated=simulated)


def pixels(one: Quiver) -> np.ndarray:
    with Image.open(io.BytesIO(quiver_picture(one))) as image:
        return np.asarray(image.convert("RGB"))


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=2) < 12).sum())


def test_same_shifts_same_bytes() -> None:
    assert quiver_picture(quiver()) == quiver_picture(quiver())


def test_arrows_that_agree_are_blue_and_others_orange() -> None:
    picture = pixels(quiver())
    assert near(picture, (0, 0x72, 0xB2)) > 200
    assert near(picture, (0xD5, 0x5E, 0)) > 50


def test_simulated_says_so() -> None:
    assert near(pixels(quiver(simulated=True)), (0x8A, 0x3A, 0)) > 5000
    assert near(pixels(quiver()), (0x8A, 0x3A, 0)) < 50


@pytest.mark.parametrize(("groups", "ties"), [(1, 1), (1, 9), (4, 2), (MOST_MAPS + 3, 9)])
def test_any_number_of_groups_and_blocks(groups: int, ties: int) -> None:
    height, width, _ = pixels(quiver(groups, ties)).shape
    assert height < 2500
    assert width < 1400


def test_nothing_that_agrees_is_drawn_too() -> None:
    one = ShiftMap("radar", "Not claimed", np.full((1, 2), np.nan), np.zeros(1, dtype=bool))
    assert pixels(Quiver(np.zeros(1), np.zeros(1), 640.0, [one])).size > 0


def test_words_say_what_the_maps_show() -> None:
    words = quiver_words(quiver())
    assert "Lies 0 m $east$ of it." in words
    assert "Lies 1 m $east$ of it." in words
