"""What the report takes from beside the map, an assessment and a comparison; and sums over the map's own files."""

from __future__ import annotations

import functools
import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from wetmap.errors import WorkspaceError
from wetmap.products.class_map import open_class_map
from wetmap.report import section_areas, section_compare
from wetmap.report.data import Comparison, FileSum
from wetmap.stages import fetch, mosaic
from wetmap.stages.context import Context
from wetmap.workspace import StageFolder, read_json

#: Side of the windows in which a layer is counted, pixels.
WINDOW_PX = 2048
#: Points that the page advises to draw, and the fewest of a class: Olofsson et al. (2014, section 5.1) take 50 to 100
#: for rare classes.
ADVISED_UNITS, ADVISED_LEAST = 600, 50


@dataclass(frozen=True)
class Assessment:
    """An assessment that lies in the workspace, and whether it is of this map."""

    result: dict[str, Any] | None
    """What `wetmap assess` wrote, if it is of this map."""
    digest: str
    """SHA-256 of its file; empty where there is none."""
    note: str = ""
    """Why it is not shown."""


def assessment_of(context: Context) -> Assessment:
    """The assessment in the workspace; one of another map, or one that somebody broke, is named and not shown."""
    path = context.workspace.root / "assessment" / "accuracy.json"
    try:
        found = read_json(path)
    except WorkspaceError:
        return Assessment(None, _digest(path), _not_shown("cannot be read"))
    if found is None:
        return Assessment(None, "")
    digest = _digest(path)
    of = found.get("map_sha256")
    if of is None:
        return Assessment(None, digest, _not_shown("does not say of which map it is"))
    if of != _codes_of(mosaic.folder_of(context).path / "classes.tif"):
        return Assessment(None, digest, _not_shown("is of another map than this one"))
    if not section_areas.can_show(found):
        return Assessment(None, digest, _not_shown("lacks figures"))
    return Assessment(found, digest)


def _not_shown(why: str) -> str:
    return (
        f"The assessment in assessment/accuracy.json {why}, so it is not shown. Run wetmap assess again for this map."
    )


def asked_of_assessment(context: Context) -> dict[str, Any]:
    """What the page is asked because of an assessment; empty where there is none."""
    found = assessment_of(context)
    if not found.digest:
        return {}
    return {"assessment": found.digest if found.result is not None else f"{found.digest}, not shown"}


def comparison_of(context: Context) -> tuple[Comparison | None, str]:
    """The comparison of models that lies in the workspace, if it is of this cube, and what identifies it."""
    folder = context.workspace.root / "compare"
    try:
        about, table = read_json(folder / "manifest.json"), read_json(folder / "compare.json")
    except WorkspaceError:
        return None, ""
    if about is None or table is None or about.get("cube") != fetch.identity(context):
        return None, ""
    if not section_compare.can_show(table):
        return None, ""
    plot = folder / "accuracy-speed.png"
    png = plot.read_bytes() if plot.exists() else None
    return Comparison(table["head"], table["rows"], png), _digest(folder / "compare.json")


def asked_of_comparison(context: Context) -> dict[str, Any]:
    """What the page is asked because of a comparison; empty where there is none."""
    _, digest = comparison_of(context)
    return {"comparison": digest} if digest else {}


def assess_commands(context: Context) -> list[str]:
    """The commands that give areas with intervals; they name files as seen from the workspace."""
    recipe, root = context.recipe, Path(context.workspace.root.name)
    if recipe.aoi is not None and root.name == f"{recipe.aoi.stem}-wetmap":
        where = f"--aoi {shlex.quote(recipe.aoi.name)}"
    else:
        where = f"--workspace {shlex.quote(str(root))}"
    sample = shlex.quote(str(root / "sample.gpkg"))
    return [
        f"wetmap sample {where} --units {ADVISED_UNITS} --least {ADVISED_LEAST}",
        f"wetmap assess {where} --reference {sample}",
    ]


def checksums(made: StageFolder) -> list[FileSum]:
    """Size and SHA-256 of the files of the map's folder that were there before the report, by name."""
    names = sorted(path for path in made.path.iterdir() if path.name not in {"asked.json", "manifest.json"})
    return [FileSum(path.name, path.stat().st_size, sha256_of(path)) for path in names]


def share_below(tif: Path, value: int) -> float | None:
    """Share of the pixels that are below a value, percent; None where there are none.

    Args:
        tif: A layer of one band, whose nodata is left out.
        value: The value, in the layer's unit.
    """
    below = total = 0
    with rasterio.open(tif) as raster:
        for top in range(0, raster.height, WINDOW_PX):
            for left in range(0, raster.width, WINDOW_PX):
                window = Window(left, top, min(WINDOW_PX, raster.width - left), min(WINDOW_PX, raster.height - top))
                pixels = raster.read(1, window=window)
                known = pixels != raster.nodata
                total += int(np.count_nonzero(known))
                below += int(np.count_nonzero(known & (pixels < value)))
    return 100 * below / total if total else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; of a file that did not change it is computed once."""
    about = path.stat()
    return _sha256(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed_ns: int) -> str:  # noqa: ARG001 - part of what the answer is kept for
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _codes_of(path: Path) -> str:
    """Checksum of a map's codes on its grid; of a file that did not change it is computed once."""
    about = path.stat()
    return _codes(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _codes(path: Path, size: int, changed_ns: int) -> str:  # noqa: ARG001 - part of what the answer is kept for
    return open_class_map(path).sha256


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
