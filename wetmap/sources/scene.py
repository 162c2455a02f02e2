"""One acquisition and what was decided about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from wetmap.recipe import OrbitState, Sensor

#: Name under which an archive gives the extent of a scene's files: 1 inside, NaN beyond.
EXTENT = "extent"
#: Names under which an archive whose elevation is in files gives each tile's weight and the share of the pixel that it
#: holds, for putting tiles together (sources.weighted), and the side of the tile's own pixels on the ground, metres.
WEIGHT, SHARE, PIXEL = "weight", "share", "pixel"


@dataclass(frozen=True)
class Scene:
    """One acquisition: where its files are, and each decision about it with the reason."""

    id: str
    """Name of the scene in its archive."""
    sensor: Sensor
    """Which of the three sensors it belongs to."""
    datetime: str
    """Time of acquisition, ISO 8601, UTC; empty where the archive does not say (own rasters, elevation)."""
    platform: str = ""
    """Satellite, as the archive names it."""
    orbit_state: OrbitState = "any"
    """Flight direction of the pass; ``any`` where it does not matter or is not known."""
    relative_orbit: int | None = None
    """Track number, 1 to 175 for Sentinel-1, 1 to 143 for Sentinel-2."""
    seasons: tuple[str, ...] = ()
    """Seasons of the recipe whose days hold the scene; empty for terrain, which has none."""
    bands: tuple[str, ...] = ()
    """Bands that it holds, by wetmap's names: B02, SCL, VV, elevation."""
    scale: float = 1.0
    """Stored value * scale + offset = value in the unit of the sensor."""
    offset: float = 0.0
    """Added after scaling, in the unit of the sensor."""
    offset_rule: str = ""
    """Why scale and offset are what they are, as a sentence."""
    cloud_percent: float | None = None
    """Share of the scene under cloud as the archive gives it, percent."""
    simulated: bool = False
    """Whether the scene was made by the landscape simulator."""
    shift_m: tuple[float, float] = (0.0, 0.0)
    """Metres east and north, in the grid's CRS, by which its pixels are moved when it is read (co-registration)."""
    item: dict[str, Any] = field(default_factory=dict)
    """What the archive needs to read it: a STAC item with absolute unsigned links, or the description of a file."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back unchanged."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scene:
        """Rebuild a scene written by ``to_json``, also after a round through JSON text."""
        lists: dict[str, Any] = {name: tuple(data[name]) for name in ("seasons", "bands", "shift_m") if name in data}
        return cls(**{**data, **lists})


@dataclass(frozen=True)
class Skipped:
    """A scene that was left out, and why."""

    id: str
    """Name of the scene in its archive."""
    sensor: Sensor
    """Which of the three sensors it belongs to."""
    reason: str
    """Why, as a sentence."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that ``from_json`` takes back unchanged."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Skipped:
        """Rebuild a row written by ``to_json``."""
        return cls(**data)
