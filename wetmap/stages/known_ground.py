"""What a model's samples say of where it can be trusted: the area of applicability that is kept beside its weights."""

from __future__ import annotations

import numpy as np

from wetmap.assessment.applicability import Applicability, Known, measure
from wetmap.cube import Cube
from wetmap.samples.patches import Patches
from wetmap.stages.fitting import Roles
from wetmap.training.pixels import centre_pixels


def measured(roles: Roles, cube: Cube) -> Applicability | None:
    """The area of applicability of a model that was trained on these samples.

    A pixel will be compared with the training samples. The threshold comes from training and validation samples, each
    compared with training samples of other folds: the validation fold is one of the folds that were held apart, and
    with three folds the only other one. Only the labelled pixels count, not the windows around them.

    Returns:
        None where it has no meaning, see `measure`.
    """
    return measure(_known(roles.train, cube), _known(roles.validation, cube))


def _known(patches: Patches, cube: Cube) -> Known:
    band_layer = [cube.layers.index(band.layer) for band in cube.bands]
    return Known(
        features=centre_pixels(patches, band_layer),
        fold=patches.fold,
        stratum=patches.label,
        place=np.column_stack([patches.polygon, patches.row, patches.col]).astype(np.int64),
    )
