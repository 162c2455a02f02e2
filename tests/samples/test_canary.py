"""The leakage canary: noise that knows nothing of the labels must score at chance.

Under the published protocol (single pixels at random) a window around a test pixel is nearly a copy of a window around
a training pixel of the same polygon, so even noise seems to predict the class. With folds in space it does not.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from wetmap.classes import MapClass
from wetmap.errors import LeakWarning
from wetmap.geo import Grid
from wetmap.recipe import Splits
from wetmap.samples import Labels, draw_samples, split_samples, write_patch_cubes

CLASSES = tuple(MapClass(number, f"class {number}", "#111111") for number in range(1, 5))
CHANCE = 1 / len(CLASSES)
GRID = Grid("EPSG:32619", 10.0, 600000.0, 5100000.0, 200, 200)
WINDOW_PX = 8


class NoiseCube:
    """Six bands of smooth noise."""

    grid = GRID
    layers = ("summer.optical",)

    class Band:
        kind, unit, layer, name = "reflectance", "1", "summer.optical", "noise"

    bands = (Band,) * 6

    def __init__(self, seed: int) -> None:
        noise = np.random.default_rng(seed).normal(size=(6, GRID.height + 20, GRID.width + 20))
        smooth = gaussian_filter(noise, (0, 3, 3))
        self.values = (smooth / smooth.std()).astype(np.float32)

    def read_window(self, y0, x0, height, width):
        window = self.values[:, y0 + 10 : y0 + 10 + height, x0 + 10 : x0 + 10 + width]
        return window, np.ones((1, height, width), dtype=bool)


def random_polygons(seed: int) -> Labels:
    """Voronoi polygons, 50 of them, each of a random class."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(0, GRID.height, (50, 2))
    _, polygon = KDTree(centres).query(np.argwhere(np.ones(GRID.shape)))
    codes = generator.permutation(np.arange(50) % len(CLASSES) + 1).astype(np.uint8)
    polygon = polygon.reshape(GRID.shape).astype(np.int32)
    return Labels(codes[polygon], polygon, CLASSES, {})


def scores(kind: str, seed: int, tmp_path) -> tuple[float, float]:
    """Held-out accuracy of the nearest neighbour and of a forest, mean over two folds tested in turn."""
    labels = random_polygons(seed)
    samples = draw_samples(labels, per_class=900, min_per_class=10, background=None, seed=seed)
    found = []
    for fold in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeakWarning)
            split = split_samples(
                samples,
                Splits(kind=kind, folds=3, test_fold=fold),
                window_px=WINDOW_PX,
                res_m=GRID.res_m,
                grid_shape=GRID.shape,
                classes=CLASSES,
                seed=seed,
            )
        patches = write_patch_cubes(
            NoiseCube(seed + 1), labels, samples, split, window_px=WINDOW_PX, path=tmp_path / f"{kind}-{fold}.zarr"
        )
        train, test = patches.select("train"), patches.select("test")
        features, held = (chosen.features.reshape(len(chosen), -1) for chosen in (train, test))
        nearest = KNeighborsClassifier(1).fit(features, train.label)
        forest = RandomForestClassifier(40, random_state=0, max_features=10).fit(features, train.label)
        found.append([nearest.score(held, test.label), forest.score(held, test.label)])
    return tuple(np.mean(found, axis=0))


@pytest.mark.parametrize("kind", ["blocks", "polygons"])
def test_noise_scores_at_chance_with_folds_in_space(kind, tmp_path):
    nearest, forest = scores(kind, 1, tmp_path)
    assert abs(nearest - CHANCE) < 0.08
    assert abs(forest - CHANCE) < 0.08


def test_noise_seems_to_predict_under_the_published_protocol(tmp_path):
    nearest, forest = scores("paper", 1, tmp_path)
    assert nearest > 0.75
    assert forest > 0.6
