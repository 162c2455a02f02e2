"""Tie blocks: where the shift of scenes is measured, and what a worker measures on one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import SourceError
from wetmap.geo import Block, Grid
from wetmap.imagery.composite import median_composite
from wetmap.imagery.coregister import Tie, edges_of, measure, silent
from wetmap.ledger import Entry
from wetmap.recipe import Network, Sensor
from wetmap.sources import Archive, Scene
from wetmap.sources.network import using
from wetmap.sources.secrets import without_secrets
from wetmap.stages.context import BlockTask
from wetmap.workspace import write_json

Values = NDArray[np.float64]

#: Sides that are tried where the area is too small for enough blocks of the recipe's side, pixels.
SMALLER_PX = (192, 128, 96, 64)
#: Blocks that there should be for their side not to be made smaller.
ENOUGH = 9
#: A tie block must lie inside the area with this share at least.
LEAST_INSIDE = 0.25
#: Passes of a track that are averaged, spread over the seasons: 6 of 4.4 looks make 26 looks.
RADAR_PASSES = 6
#: Clear optical looks whose median is the reference, and passes whose classification is read to find them.
REFERENCE_LOOKS, REFERENCE_TRIES = 3, 8
#: A look counts where it shows this share of the block.
LEAST_CLEAR = 0.6
#: A radar pass is averaged where it sees nearly as much of the block as the best one.
NEARLY_ALL = 0.9
#: Bands that are compared, the best first: the optical ones are those of 10 m.
OPTICAL_BANDS = ("B08", "B04", "B03", "B02", "B8A", "B11", "B12", "B05", "B06", "B07")
RADAR_BANDS = ("VH", "VV", "HV", "HH")
BANDS_USED = 2
#: Classes of the scene classification that show ground (Sentinel-2 Level-2A Algorithm Theoretical Basis Document): dark
#: areas, vegetation, bare soil, water, unclassified.
CLEAR_CLASSES = (2, 4, 5, 6, 7)
#: Radar power below this is border fill, not ground, linear (-40 dB; Sentinel-1 noise lies above -30 dB).
LEAST_POWER = 1e-4
#: Times that a scene is read before it is given up.
TRIES = 2

#: The scenes of one overflight.
Pass = tuple[Scene, ...]


@dataclass(frozen=True)
class TieWork:
    """What a worker needs to measure any tie block: small, and it pickles."""

    grid: Grid
    """The map's grid."""
    archives: Mapping[Sensor, Archive]
    """The archive of each sensor."""
    reference: tuple[Pass, ...]
    """Optical passes, the clearest first."""
    radar: Mapping[str, tuple[Pass, ...]]
    """Passes to average of each radar group, by its key, in order of time."""
    optical: Mapping[str, Pass]
    """Optical passes to measure, by key."""
    folder: Path
    """Where each block's result is written."""
    network: Network = field(default_factory=Network)
    """How patiently remote files are read."""


def choose_blocks(inside: NDArray[np.float64], side: int, offset: tuple[int, int], most: int) -> list[Block]:
    """Blocks spread over the area: the one nearest its middle, then again and again the one farthest from all taken.

    Args:
        inside: Share of each cell of a lattice that lies in the area, (row, column), 0 to 1.
        side: Side of a cell, pixels.
        offset: Pixel row and column of the lattice's first cell.
        most: Blocks wanted, at most.

    Returns:
        The blocks, from north to south and west to east; cells with too little of the area in them are none.
    """
    cells = np.argwhere(inside >= min(LEAST_INSIDE, float(inside.max(initial=0.0)))).astype(np.float64)
    if not cells.size or inside.max() <= 0:
        return []
    taken = [int(np.argmin(((cells - cells.mean(axis=0)) ** 2).sum(axis=1)))]
    nearest = np.full(len(cells), np.inf)
    while len(taken) < min(most, len(cells)):
        nearest = np.minimum(nearest, ((cells - cells[taken[-1]]) ** 2).sum(axis=1))
        taken.append(int(np.argmax(nearest)))
    return [
        Block(int(row), int(col), offset[0] + int(row) * side, offset[1] + int(col) * side, side, side)
        for row, col in cells[sorted(taken)]
    ]


def sides(block_px: int) -> list[int]:
    """Sides to try for the tie blocks, the largest first."""
    return [block_px, *(side for side in SMALLER_PX if side < block_px)]


def lattice(size: int, side: int) -> tuple[int, int]:
    """How many cells cover so many pixels, and where the first begins, so that they lie around the middle."""
    count = max(math.ceil(size / side), 1)
    return count, -((count * side - size) // 2)


def spread_over(passes: Sequence[Pass], most: int) -> tuple[Pass, ...]:
    """At most so many passes, evenly spread over the list, the first and the last among them."""
    if len(passes) <= most:
        return tuple(passes)
    return tuple(passes[round(at)] for at in np.linspace(0, len(passes) - 1, most))


def measure_block(task: BlockTask) -> Entry:
    """Measure every group on one tie block, and write what was found."""
    with using(task.work.network):
        return _measured(task)


def _measured(task: BlockTask) -> Entry:
    work: TieWork = task.work
    reader = _Reader(work, work.grid.window(task.block.y0, task.block.x0, task.block.height, task.block.width))
    looks = _reference_looks(reader)
    result: dict[str, Any] = {"looks": [_name(look.scenes) for look in looks], "radar": {}, "optical": {}}
    for key, passes in work.radar.items():
        result["radar"][key] = {part: _plain(tie) for part, tie in _radar_ties(reader, passes, looks).items()}
    for key, scenes in work.optical.items():
        result["optical"][key] = _plain(_optical_tie(reader, scenes, looks))
    lost = tuple(reader.failures.values())
    path = work.folder / f"{task.block.name}.json"
    if lost and not reader.anything:
        path.unlink(missing_ok=True)  # what an earlier run found counts no more: else the past would decide
        return Entry(task.block.name, "failed", lost[0]["reason"], lost)
    write_json(path, result)
    return Entry(task.block.name, "done", detail=lost)


@dataclass
class _Reader:
    """Reads passes onto one block, and keeps what could not be read."""

    work: TieWork
    window: Grid
    failures: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """Scenes that could not be read, by sensor and id, as rows for the manifest: scene, sensor, bands, reason."""
    anything: bool = False

    def read(self, scenes: Pass, names: Sequence[str]) -> dict[str, Values]:
        """Bands of a pass, (y, x), NaN where not observed; a band that nobody holds is left out."""
        values: dict[str, Values] = {}
        for scene in reversed(scenes):
            for name, band in self._read_scene(scene, names).items():
                before = values.get(name)
                values[name] = band.astype(np.float64) if before is None else np.where(np.isnan(before), band, before)
        return values

    def _read_scene(self, scene: Scene, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        for remaining in reversed(range(TRIES)):
            try:
                found = self.work.archives[scene.sensor].read(scene, names, self.window)
            except SourceError as error:
                if remaining == 0:
                    row = {"scene": scene.id, "sensor": scene.sensor, "bands": " ".join(names)}
                    self.failures.setdefault((scene.sensor, scene.id), {**row, "reason": without_secrets(error.what)})
            else:
                self.anything = True
                return found
        return {}


@dataclass(frozen=True)
class _Look:
    """One clear optical look at the block."""

    scenes: Pass
    """The pass."""
    bands: Values
    """(band, y, x), NaN where not clear."""


def _reference_looks(reader: _Reader) -> list[_Look]:
    """The clearest looks at the block."""
    looks: list[_Look] = []
    tried = 0
    for scenes in reader.work.reference:
        if len(looks) == REFERENCE_LOOKS or tried == REFERENCE_TRIES:
            break
        look = _look(reader, scenes)
        if look is None:
            continue
        tried += 1
        if np.isfinite(look.bands).all(axis=0).mean() >= LEAST_CLEAR:
            looks.append(look)
    return looks


def _look(reader: _Reader, scenes: Pass) -> _Look | None:
    """What a pass shows of the block; None where it does not reach it."""
    names = _common(scenes, OPTICAL_BANDS)
    clear: NDArray[np.bool_] | None = None
    if all("SCL" in scene.bands for scene in scenes):
        scl = reader.read(scenes, ["SCL"]).get("SCL")
        if scl is None or np.isnan(scl).all():
            return None
        clear = np.isin(scl, CLEAR_CLASSES)
        if clear.mean() < LEAST_CLEAR:  # no need to read what it does not show
            return _Look(scenes, np.full((1, *reader.window.shape), np.nan))
    bands = reader.read(scenes, names)
    if not bands or any(name not in bands for name in names) or np.isnan(bands[names[0]]).all():
        return None
    stack = np.stack([bands[name] for name in names])
    return _Look(scenes, stack if clear is None else np.where(clear, stack, np.nan))


def _median(looks: Sequence[_Look]) -> Values | None:
    """Median of the looks, (band, y, x); None without any."""
    alike = [look for look in looks if len(look.bands) == len(looks[0].bands)]
    if not alike:
        return None
    stacks = np.stack([look.bands for look in alike]).astype(np.float32)
    return np.stack([median_composite(stacks[:, at].copy())[0] for at in range(stacks.shape[1])]).astype(np.float64)


def _radar_ties(reader: _Reader, passes: Sequence[Pass], looks: Sequence[_Look]) -> dict[str, Tie]:
    """The shift of a group's mean picture, and of the earlier and the later half of its passes."""
    reference = _median(looks)
    if reference is None:
        return {"all": silent("no optical look shows it clearly")}
    names = _common([scene for scenes in passes for scene in scenes], RADAR_BANDS)
    pictures: list[Values | None] = []
    for scenes in passes:
        bands = reader.read(scenes, names)
        picture = np.stack([bands[name] for name in names]) if names and len(bands) == len(names) else None
        pictures.append(None if picture is None else np.where(picture >= LEAST_POWER, picture, np.nan))
    cover = [0.0 if one is None else float(np.isfinite(one).all(axis=0).mean()) for one in pictures]
    if not any(cover):
        return {"all": silent("no pass sees it")}
    kept = [
        (at, one)
        for at, (one, share) in enumerate(zip(pictures, cover, strict=True))
        if one is not None and share >= NEARLY_ALL * max(cover)
    ]
    edges = edges_of(reference, power=False)
    half = len(passes) / 2
    parts = {
        "all": [one for _, one in kept],
        "early": [one for at, one in kept if at + 0.5 < half],
        "late": [one for at, one in kept if at + 0.5 > half],
    }
    return {
        part: measure(edges, edges_of(np.mean(stack, axis=0), power=True)) for part, stack in parts.items() if stack
    }


def _optical_tie(reader: _Reader, scenes: Pass, looks: Sequence[_Look]) -> Tie:
    """The shift of an optical pass against the clearest others."""
    reference = _median([look for look in looks if look.scenes != scenes])
    if reference is None:
        return silent("no other optical look shows it clearly")
    look = next((look for look in looks if look.scenes == scenes), None) or _look(reader, scenes)
    if look is None or not np.isfinite(look.bands).any():
        return silent("the pass does not show it clearly")
    return measure(edges_of(reference, power=False), edges_of(look.bands, power=False))


def _common(scenes: Sequence[Scene], wanted: Sequence[str]) -> list[str]:
    """The best bands that all of these scenes hold."""
    return [name for name in wanted if all(name in scene.bands for scene in scenes)][:BANDS_USED]


def _name(scenes: Pass) -> str:
    return scenes[0].id if len(scenes) == 1 else f"{scenes[0].id} and {len(scenes) - 1} more"


def _plain(tie: Tie) -> dict[str, Any]:
    """A tie as JSON: what is not a number becomes null, and digits below a millionth of a pixel are dropped."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 6) if math.isfinite(value) else None
        return [rounded(one) for one in value] if isinstance(value, tuple) else value

    return {name: rounded(value) for name, value in asdict(tie).items()}


def tie_from(data: Mapping[str, Any]) -> Tie:
    """A tie as it was written."""

    def number(value: float | None) -> float:
        return float("nan") if value is None else value

    row, col = (number(value) for value in data["shift_px"])
    a, b, c = (number(value) for value in data["covariance"])
    return Tie(
        (row, col),
        (a, b, c),
        number(data["height"]),
        number(data["ratio"]),
        number(data["halves_px"]),
        str(data["fault"]),
    )
