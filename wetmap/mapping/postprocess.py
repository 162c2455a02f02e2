"""Steps on the pixels of a finished map: majority smoothing, and the figures that the steps are counted in.

Steps run in a fixed order: majority, minimum mapping unit, masks. Nodata (code 0) takes no part in any of them: it
never spreads, and only a mask that writes it takes a class away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wetmap.classes import MapClass
from wetmap.geo import Block, Grid
from wetmap.mapping.sieve import Rule

#: cm2 in a hectare. Areas are summed as whole cm2: sums of whole numbers do not depend on their order.
CM2_PER_HA = 10**8
#: Slack of the count of pixels in a unit: 1 ha of 10 m pixels is 100 and not 101.
COUNT_SLACK = 1e-9


def majority(codes: NDArray[np.uint8], window_px: int) -> NDArray[np.uint8]:
    """Give every pixel the commonest class of the window around it.

    Args:
        codes: Class codes, (height + window_px - 1, width + window_px - 1): a block and what surrounds it; 0 = nodata,
            and so outside the map.
        window_px: Side of the window, pixels, odd.

    Returns:
        (height, width). Nodata stays and is not counted. Where two classes are equally common, the pixel keeps its own.
    """
    reach = window_px // 2
    own = codes[reach : codes.shape[0] - reach, reach : codes.shape[1] - reach]
    best, most = own.copy(), np.zeros(own.shape, dtype=np.int32)
    for code in np.unique(codes[codes > 0]):
        count = _box_sum(codes == code, window_px)
        tie = count == most
        most = np.maximum(most, count)
        best = np.where(tie, own, np.where(count == most, code, best))
    return np.where(own > 0, best, own)


def rule_of(
    classes: Sequence[MapClass], unit_ha: float | None, unit_of_class_ha: Mapping[str, float], res_m: float
) -> Rule:
    """The sieve's rule from hectares.

    Args:
        classes: The map's classes.
        unit_ha: The minimum mapping unit, hectares; None where only some classes have one.
        unit_of_class_ha: Other units by class name, hectares.
        res_m: Pixel side, metres. A unit is counted in pixels of ``res_m`` squared, the same everywhere on the map; the
            true area of a pixel differs from it by the projection's scale, up to 0.2 % within a UTM zone.
    """
    units = {name.strip().casefold(): value for name, value in unit_of_class_ha.items()}
    unit_px, upland = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.bool_)
    for row in classes:
        hectares = units.get(row.name.strip().casefold(), unit_ha or 0.0)
        unit_px[row.code] = math.ceil(hectares * 1e4 / res_m**2 - COUNT_SLACK)
        upland[row.code] = row.upland
    return Rule(unit_px, upland)


def area_cm2(grid: Grid, block: Block) -> NDArray[np.int64]:
    """True area of each pixel on the ellipsoid, (height, width), whole cm2."""
    return np.rint(grid.pixel_area_m2(block) * 1e4).astype(np.int64)


def _box_sum(mask: NDArray[np.bool_], window_px: int) -> NDArray[np.int32]:
    """How many are True in the window around each pixel that has a whole one."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int32)
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.int32), axis=1, out=total[1:, 1:])
    down = total[window_px:] - total[:-window_px]
    sums: NDArray[np.int32] = down[:, window_px:] - down[:, :-window_px]
    return sums
