"""The part of the recipe that says where imagery comes from."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from wetmap.recipe_training import Part

OrbitState = Literal["ascending", "descending", "any"]
Sensor = Literal["optical", "radar", "terrain"]


class StacSource(Part):
    """Scenes from a STAC catalogue: an API or a static catalogue on disk."""

    kind: Literal["stac"] = Field("stac", alias="from", description="Kind of source.")
    catalog: str = Field(
        "planetary-computer",
        description="`planetary-computer`, the URL of a STAC API, or the path of a static catalog.json.",
    )
    collection: str | None = Field(
        None, description="Collection id; default: the catalogue's usual one for the sensor."
    )


class SimulatedSource(Part):
    """Scenes from the simulated landscape described under `simulated`."""

    kind: Literal["simulated"] = Field("simulated", alias="from", description="Kind of source.")


class RasterFile(Part):
    """One GeoTIFF of your own and how to read it."""

    path: Path = Field(description="The file; relative paths start at the recipe's folder.")
    bands: list[str] = Field(
        min_length=1,
        description="Name of each band in file order (B02, VV, elevation); `-` for bands that are not used.",
    )
    unit: Literal["reflectance", "gamma0", "gamma0_db", "m"] = Field(
        description="Unit of stored * scale + offset: reflectance (0-1), gamma0 (linear power), gamma0_db (dB), m."
    )
    scale: float = Field(1.0, description="Factor from stored value to unit, unit per count.")
    offset: float = Field(0.0, description="Added after scaling, in the unit.")
    nodata: float | None = Field(None, description="Stored value that means not observed; default: the file's own.")
    season: str | None = Field(None, description="The season it belongs to; default: every season.")
    orbit_state: OrbitState = Field("any", description="Orbit state of a radar file.")

    @field_validator("bands")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        twice = sorted({name for name in value if name != "-" and value.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice; name bands that are not used `-`")
        return value


class RastersSource(Part):
    """Your own GeoTIFFs, on any grid."""

    kind: Literal["rasters"] = Field("rasters", alias="from", description="Kind of source.")
    files: list[RasterFile] = Field(min_length=1, description="The files.")


Source = Annotated[StacSource | SimulatedSource | RastersSource, Field(discriminator="kind")]


class Sources(Part):
    """Where each sensor's scenes come from; they need not share an archive."""

    optical: Source | None = Field(default_factory=StacSource, description="Sentinel-2 surface reflectance.")
    radar: Source | None = Field(default_factory=StacSource, description="Sentinel-1 terrain-corrected gamma-0.")
    terrain: Source | None = Field(default_factory=StacSource, description="Elevation model.")

    def of(self, sensor: Sensor) -> StacSource | SimulatedSource | RastersSource | None:
        """The source of one sensor, or None."""
        return {"optical": self.optical, "radar": self.radar, "terrain": self.terrain}[sensor]


class Simulated(Part):
    """The simulated landscape and its archive of scenes (for demonstration and tests; SIMULATED in every product)."""

    seed: int = Field(1, ge=0, description="Seed of the landscape and of the scenes.")
    start: dt.date = Field(dt.date(2021, 5, 1), description="First possible day of a scene, UTC.")
    end: dt.date = Field(dt.date(2021, 10, 31), description="Last possible day of a scene, UTC.")
    optical_every_days: int = Field(10, ge=1, description="Days between Sentinel-2-like scenes.")
    radar_every_days: int = Field(12, ge=1, description="Days between Sentinel-1-like scenes of one orbit state.")
    cloud_fraction: float = Field(0.25, ge=0, le=0.95, description="Mean share of a scene under cloud, 0-1.")
    looks: float = Field(
        4.4, gt=0, description="Equivalent number of looks of the speckle (Sentinel-1 IW GRD has about 4.4)."
    )
    shift_px: tuple[float, float] = Field(
        (0.4, -0.3), description="Geolocation error (rows, columns) of the descending orbit, pixels of 10 m."
    )
    label_noise: float = Field(0.03, ge=0, le=0.5, description="Share of reference polygons with a wrong class, 0-1.")
    reference_polygons: int = Field(
        400, ge=10, description="Reference polygons to draw per 100 km2, at least 60 in all."
    )
