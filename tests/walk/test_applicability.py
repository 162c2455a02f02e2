"""What training leaves for the area of applicability, on the small map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wetmap.assessment.applicability import MOST_SAMPLES, standardise
from wetmap.bundle import APPLICABILITY_FILE, load_applicability, load_bundle
from wetmap.cube import Cube
from wetmap.geo import Block
from wetmap.samples import PatchCubes
from wetmap.stages.applicability import block_layer
from wetmap.stages.fitting import Roles
from wetmap.training.pixels import centre_pixels
from wetmap.workspace import read_json


def test_training_keeps_its_samples_and_their_threshold_beside_the_weights(small: Path) -> None:
    bundle = load_bundle(small / "space/model")
    made = load_applicability(bundle)
    assert made is not None
    size = (small / "space/model" / APPLICABILITY_FILE).stat().st_size
    roles = Roles.of(PatchCubes.open(next((small / "space/stages/cubes").glob("*/patches.zarr"))))
    band_layer = [bundle.card.layers.index(band.layer) for band in bundle.card.bands]
    training = centre_pixels(roles.train, band_layer)
    assert len(made.samples) == min(len(training), MOST_SAMPLES)
    assert size < 100 * len(bundle.card.bands) + 4 * made.samples.size + 2000
    kept = {row.tobytes() for row in made.samples}
    assert kept <= {row.tobytes() for row in standardise(training, made.mean, made.scale)}
    np.testing.assert_array_equal(made.index(training), np.zeros(len(training)))
    held = made.index(centre_pixels(roles.validation, band_layer))
    assert 0.5 < (held <= made.threshold).mean() <= 1, "most of the ground that was held apart is inside"
    manifest = read_json(next((small / "space/stages/train").glob("*/manifest.json"))) or {}
    assert manifest["applicability"]["threshold"] == made.threshold


def test_a_pixel_has_the_same_value_in_every_block(small: Path) -> None:
    made = load_applicability(load_bundle(small / "space/model"))
    assert made is not None
    cube = Cube.open(next((small / "space/stages/fetch").glob("*/cube.zarr")))
    height, width = cube.shape
    whole = block_layer(made, cube, Block(0, 0, 0, 0, height, width), np.ones(cube.shape, np.bool_))
    assert 0.5 < (whole[whole < 255] <= 100).mean() < 1
    for y0, x0, side in ((64, 64, 40), (0, 64, 64), (64, 0, 100)):
        part = Block(0, 0, y0, x0, min(side, height - y0), min(side, width - x0))
        alone = block_layer(made, cube, part, np.ones((part.height, part.width), np.bool_))
        np.testing.assert_array_equal(alone, whole[part.slices])
