"""The picture of a split: roles can be told apart, what was measured is said, the same split gives the same bytes."""

from __future__ import annotations

import dataclasses
import io
import itertools

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from wetmap.report.split_picture import BLOCK_COLOURS, ROLE_COLOURS, SplitMap, split_picture, split_words

#: Linear RGB as seen without one kind of cone, complete: Machado, Oliveira and Fernandes (2009), severity 1.0.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3),
}


def rgb(colour):
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255


def lab(colour, kind):
    """CIE Lab (D65) of a colour as it is seen."""
    value = rgb(colour)
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(BLINDNESS[kind]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ seen / np.array([0.9505, 1.0, 1.089])
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_roles_are_apart_in_every_kind_of_colour_vision(kind):
    seen = {role: lab(colour, kind) for role, (colour, _) in ROLE_COLOURS.items()}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 25, (one, other)
    for role, ground in BLOCK_COLOURS.items():  # a mark is seen on every ground, its own too
        assert np.linalg.norm(seen[role] - lab(ground, kind)) > 25, role
    assert all(abs(seen["dropped"][0] - lab(ground, kind)[0]) > 15 for ground in BLOCK_COLOURS.values())


def a_split(**changes):
    generator = np.random.default_rng(0)
    row, col = (generator.integers(0, size, 400).astype(np.int32) for size in (60, 90))
    role = np.array(["train", "validation", "test", "dropped"])[(row // 20 + col // 20) % 4]
    data = SplitMap(row, col, role, (60, 90), 10.0, facts=["Blocks of 200 m", "Measured leakage: 0.0%"], block_px=20)
    return dataclasses.replace(data, **changes)


def pixels_of(split):
    with Image.open(io.BytesIO(split_picture(split))) as image:
        return np.asarray(image.convert("RGB"))


def count(pixels, colour):
    return int((pixels == np.rint(255 * rgb(colour)).astype(np.uint8)).all(axis=2).sum())


def test_same_split_same_bytes_whatever_the_users_settings():
    first = split_picture(a_split())
    with mpl.rc_context({"font.size": 30, "savefig.dpi": 20, "text.usetex": False, "axes.facecolor": "black"}):
        assert split_picture(a_split()) == first
        assert mpl.rcParams["font.size"] == 30
    assert b"matplotlib" not in first


def test_every_role_is_drawn_where_its_samples_lie():
    pixels = pixels_of(a_split())
    for role, (colour, _) in ROLE_COLOURS.items():
        without = a_split()
        keep = without.role != role
        gone = dataclasses.replace(without, row=without.row[keep], col=without.col[keep], role=without.role[keep])
        assert count(pixels, colour) > 2 * count(pixels_of(gone), colour), role
    test, train = ROLE_COLOURS["test"][0], ROLE_COLOURS["train"][0]
    alone = SplitMap(np.array([10]), np.array([80]), np.array(["test"]), (60, 90), 10.0, facts=[])
    drawn = np.argwhere((pixels_of(alone) == np.rint(255 * rgb(test))).all(axis=2))
    assert len(drawn)
    assert count(pixels_of(alone), train) < 200  # the legend's mark
    marks = drawn[drawn[:, 1] > 600]
    assert len(marks)
    assert marks[:, 0].mean() < 200  # above and on the right


def test_blocks_have_lines_and_the_ground_of_their_role():
    pixels, bare = pixels_of(a_split()), pixels_of(a_split(block_px=None))
    for colour in BLOCK_COLOURS.values():
        assert count(pixels, colour) > 200
        assert count(bare, colour) == 0
    alone = {"row": np.array([5]), "col": np.array([5]), "role": np.array(["test"])}
    lines, none = pixels_of(a_split(**alone)), pixels_of(a_split(**alone, block_px=None))
    at = 33 + np.array([20, 40, 60, 80]) * 836 // 90  # the map is 836 px wide and begins at 33
    changed = (lines != none).any(axis=2)[300:400]
    assert all(changed[:, near - 2 : near + 3].any(axis=1).all() for near in at)
    assert changed.mean() < 0.05
    # Lines that would hide the map are left out.
    dense = {**alone, "grid_shape": (6000, 9000)}
    assert (pixels_of(a_split(**dense, block_px=40)) != pixels_of(a_split(**dense, block_px=None))).mean() < 0.01


def test_a_leak_and_a_simulation_are_bands_across_the_top():
    plain, warned = pixels_of(a_split()), pixels_of(a_split(banner="LEAKS: 98% of the windows", simulated=True))
    assert count(plain, "#8a3a00") == 0
    band = (warned == np.rint(255 * rgb("#8a3a00")).astype(np.uint8)).all(axis=2)
    assert band[:, 2].sum() > 40
    assert not band[80:].any()


def test_names_of_sites_change_the_picture_and_are_shown_as_they_are():
    site = (a_split().col // 30).astype(np.int16)
    names = ("Albert", "Bay $x_1$ \\frac", "漢" * 60)
    named = split_picture(a_split(site=site, site_names=names, block_px=None))
    assert named != split_picture(a_split(site=site, site_names=("Albert", "", ""), block_px=None))
    many = np.arange(400).astype(np.int16)
    everyone = a_split(site=many, site_names=tuple(f"site {number}" for number in range(400)))
    assert split_picture(everyone)


@pytest.mark.parametrize("shape", [(1, 1), (2000, 3), (3, 2000), (20000, 20000)])
def test_any_grid_gives_a_picture_of_a_sensible_size(shape):
    row, col = np.array([0]), np.array([0])
    with Image.open(io.BytesIO(split_picture(SplitMap(row, col, np.array(["train"]), shape, 10.0, facts=[])))) as image:
        assert 700 < image.width < 1000
        assert 100 < image.height < 1300


def test_the_words_say_the_counts_and_the_leak():
    words = split_words(a_split(banner="LEAKS: 98%."))
    split = a_split()
    assert words.startswith("LEAKS: 98%. Map of the reference samples by their use: ")
    for role in ROLE_COLOURS:
        assert f"{(split.role == role).sum():,} {role}" in words
    assert words.endswith("Blocks of 200 m. Measured leakage: 0.0%.")
