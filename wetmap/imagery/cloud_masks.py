"""Masks of clouds other than the scene classification that comes with a scene: networks that look at its bands.

Another mask is a function in a file of its own and one line in ``MASKS``. Its classes are those of CloudSEN12 (Aybar et
al. 2022, Scientific Data 9, 782), which networks of this kind are trained on; they are written over the scene
classification, so that growing, dark water and what a recipe masks work as with that alone.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import RecipeError, UsageError
from wetmap.imagery.masks import CIRRUS, CLOUD_SHADOW, CLOUDS, DARK, NO_DATA, Bools, Classes

Floats = NDArray[np.float32]
Network = Callable[[Floats, Floats, Floats, Bools], Classes]
"""Red, green and near infrared reflectance, (y, x) float32, NaN where not observed, and where it is observed, (y, x)
bool; gives ``CLEAR``, ``THICK``, ``THIN`` or ``SHADOW`` for each pixel, (y, x) uint8. What it gives where nothing was
observed does not count. It sees one tile at a time and must give the same for the same tile."""

#: Classes that a mask gives.
CLEAR, THICK, THIN, SHADOW = 0, 1, 2, 3
#: Where it had nothing to look at: a band of the scene is missing there.
UNSEEN = 4
#: The mask that comes with the scenes, which needs nothing of this module.
SCL = "scl"
#: Class of a pixel of which the scene classification says nothing: unclassified.
UNCLASSIFIED = 7

#: Networks are run one tile at a time in each process: each takes all cores and much memory.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class CloudMask:
    """A mask that a recipe can name."""

    classify: Network
    """What makes it."""
    package: str | None = None
    """Package that must be installed for it; None: none."""
    install: str = ""
    """How to install it."""
    bands: tuple[str, str, str] = ("B04", "B03", "B8A")
    """Bands that it is given: red, green, near infrared."""
    finest_m: float = 5.0
    """Smallest pixel that it is meant for, metres."""
    coarsest_m: float = 50.0
    """Largest pixel that it is meant for, metres."""


def omnicloudmask(red: Floats, green: Floats, nir: Floats, observed: Bools) -> Classes:
    """The classes of OmniCloudMask (Wright et al. 2025, Remote Sensing of Environment 322, 114694).

    It normalises each band over the array that it is given and takes 0 for no data, so a real 0 is moved by less than
    one stored count. Its own patches are switched off: an array is one patch.
    """
    predict = import_module("omnicloudmask").predict_from_array
    bands = np.stack([np.where(observed, np.where(band == 0, np.float32(1e-5), band), 0) for band in (red, green, nir)])
    with _ONE_AT_A_TIME:
        found = predict(bands.astype(np.float32), patch_size=min(red.shape), patch_overlap=0, no_data_value=0)
    return np.asarray(found[0], dtype=np.uint8)


#: Every mask by the name that a recipe gives it.
MASKS: Mapping[str, CloudMask] = MappingProxyType(
    {
        "omnicloudmask": CloudMask(
            omnicloudmask, package="omnicloudmask", install="Install it with `pip install omnicloudmask`"
        ),
    }
)


def parts_of(mask_from: str) -> tuple[bool, str | None]:
    """Whether the scene classification takes part, and the mask that does; ``scl+omnicloudmask`` is both.

    Raises:
        RecipeError: A name is unknown, or there are two masks beside the scene classification.
    """
    names = mask_from.split("+")
    others = [name for name in names if name != SCL]
    if len(others) > 1 or len(set(names)) < len(names) or any(name not in MASKS for name in others):
        known = ", ".join([SCL, *(word for name in MASKS for word in (name, f"{SCL}+{name}"))])
        raise RecipeError(f"optical.mask_from is {mask_from!r}.", do=f"Choose one of: {known}.")
    return SCL in names, others[0] if others else None


def refuse_missing(name: str) -> None:
    """Refuse a mask whose package is not installed; nothing is imported.

    Raises:
        UsageError: It is not.
    """
    mask = MASKS[name]
    if mask.package is not None and importlib.util.find_spec(mask.package) is None:
        raise UsageError(
            f"optical.mask_from names {name}, and the package {mask.package} is not installed.",
            do=f"{mask.install}, or write `mask_from: {SCL}`.",
        )


def version_of(name: str) -> str:
    """Version of the package behind a mask; empty where there is none."""
    package = MASKS[name].package
    try:
        return "" if package is None else version(package)
    except PackageNotFoundError:
        return ""


def try_out(name: str, side: int) -> None:
    """Run a mask once on made-up ground, so that weights are there and whatever is wrong is wrong now.

    Args:
        name: The mask.
        side: Side of the tiles that it will be given, pixels.

    Raises:
        UsageError: It cannot be run: its weights could not be downloaded, or its parts do not fit together.
    """
    ground = np.random.default_rng(0).uniform(0.02, 0.3, (3, side, side)).astype(np.float32)
    try:
        found = MASKS[name].classify(ground[0], ground[1], ground[2], np.ones((side, side), dtype=np.bool_))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"The mask {name} cannot be run ({reason}).",
            do="The first run downloads its weights: let this machine reach the internet once, or copy them from one "
            f"that did. Or write `mask_from: {SCL}`.",
        ) from error
    if found.shape != (side, side) or found.max() > SHADOW:
        raise UsageError(
            f"The mask {name} gives classes up to {found.max()} of shape {found.shape} for a tile of {side} pixels.",
            do="Install a version of its package that gives 0 to 3, or write `mask_from: scl`.",
        )


def unclassified(found: Classes) -> Classes:
    """What stands for the scene classification of a scene that has none: no data where the mask saw nothing either.

    Args:
        found: Classes of the mask, (y, x) uint8.
    """
    return np.where(found == UNSEEN, np.uint8(NO_DATA), np.uint8(UNCLASSIFIED))


def combined(scl: Classes, found: Classes, *, trust_scl: bool) -> Classes:
    """The scene classification with the clouds of another mask.

    Args:
        scl: Scene classification, (y, x) uint8; 0 where there is no data. Of a scene without one: ``unclassified``.
        found: Classes of the other mask, (y, x) uint8; where they are ``UNSEEN`` the scene classification counts alone.
        trust_scl: Whether its own clouds, cirrus and shadows stay beside those found: masked if either says so. If not,
            they are dropped: such pixels become unclassified, those of shadows dark, unless the other mask masks them.

    Returns:
        (y, x) uint8 in the codes of the scene classification. No data stays no data. Snow and saturated pixels stay,
        and so does water, where nothing is found above them.
    """
    made = scl.copy()
    if not trust_scl:
        made[(scl == CIRRUS) | np.isin(scl, CLOUDS)] = UNCLASSIFIED
        made[scl == CLOUD_SHADOW] = DARK
    cloudy, veiled = np.isin(made, CLOUDS), made == CIRRUS
    made[(found == SHADOW) & ~cloudy & ~veiled] = CLOUD_SHADOW
    made[(found == THIN) & ~cloudy] = CIRRUS
    made[found == THICK] = CLOUDS[1]
    made[scl == NO_DATA] = NO_DATA
    return np.where(found == UNSEEN, scl, made)
