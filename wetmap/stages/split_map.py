"""The split for people: what its picture shows, and the table of its samples."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from wetmap.classes import MapClass
from wetmap.cube import Cube
from wetmap.geo import Aoi, Grid
from wetmap.report.split_picture import SplitMap
from wetmap.samples import Samples, Split
from wetmap.samples.splits import leak_note, split_facts
from wetmap.workspace import spreadsheet_cell

#: Columns of the table of samples.
COLUMNS = ("x", "y", "row", "col", "code", "class", "polygon", "site", "fold", "role")


def split_map(split: Split, samples: Samples, cube: Cube, aoi: Aoi) -> SplitMap:
    """What the picture of a split shows.

    Args:
        split: Folds and roles.
        samples: The samples, in the same order.
        cube: The cube that they lie on.
        aoi: The area of interest, for its outline.
    """
    grid = cube.grid
    rings = [ring for part in aoi.geometry_in(grid.crs).geoms for ring in (part.exterior, *part.interiors)]
    outline = [
        np.column_stack([(np.asarray(ring.coords)[:, 0] - grid.left), (grid.top - np.asarray(ring.coords)[:, 1])])
        / grid.res_m
        for ring in rings
    ]
    return SplitMap(
        row=samples.row,
        col=samples.col,
        role=split.role,
        grid_shape=grid.shape,
        res_m=grid.res_m,
        facts=split_facts(split.summary),
        block_px=split.block_px,
        site=samples.site if split.sites else None,
        site_names=split.sites,
        outline=outline,
        banner=leak_note(split.summary),
        simulated=cube.simulated,
    )


def samples_table(split: Split, samples: Samples, grid: Grid, classes: Sequence[MapClass]) -> bytes:
    """Every sample that was drawn, dropped ones too, as CSV: a spreadsheet or QGIS (delimited text) opens it.

    Args:
        split: Folds and roles.
        samples: The samples, in the same order.
        grid: The raster that they lie on.
        classes: The class table.

    Returns:
        UTF-8 text with the columns ``COLUMNS``: ``x`` and ``y`` of the pixel's centre in the grid's CRS, its row and
        column, class code and name, id of the polygon (or of the square that stands in for it), name of the site
        (empty without sites), fold (-1 = dropped), role.
    """
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(COLUMNS)
    for at in range(len(samples)):
        row, col, entry = int(samples.row[at]), int(samples.col[at]), classes[int(samples.label[at])]
        x, y = grid.left + (col + 0.5) * grid.res_m, grid.top - (row + 0.5) * grid.res_m
        site = "" if samples.site is None else samples.site_names[int(samples.site[at])]
        fold, role, polygon = int(split.fold[at]), str(split.role[at]), int(samples.polygon[at])
        name, site = spreadsheet_cell(entry.name), spreadsheet_cell(site)
        writer.writerow([f"{x:.3f}", f"{y:.3f}", row, col, entry.code, name, polygon, site, fold, role])
    return target.getvalue().encode("utf-8", errors="replace")
