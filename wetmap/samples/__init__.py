"""From reference data to training samples: labels, draws, folds in space, patch cubes."""

from wetmap.samples.cubes import PatchCubes, write_patch_cubes
from wetmap.samples.draw import Samples, draw_samples
from wetmap.samples.labels import UNLABELLED, Labels
from wetmap.samples.patches import Patches
from wetmap.samples.reference import check_reference, read_reference
from wetmap.samples.splits import ROLES, Split, split_samples

__all__ = [
    "ROLES",
    "UNLABELLED",
    "Labels",
    "PatchCubes",
    "Patches",
    "Samples",
    "Split",
    "check_reference",
    "draw_samples",
    "read_reference",
    "split_samples",
    "write_patch_cubes",
]
