"""The part of the recipe that says where imagery comes from."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from wetmap.recipe_training import Part

OrbitState = Literal["ascending", "descending", "any"]
Sensor = Literal["optical", "radar", "terrain", "embeddings", "lband"]

#: Catalogues that are known by name (``sources.providers`` has a row for each).
CATALOGS = ("planetary-computer", "earth-search", "cdse")


class StacSource(Part):
    """Scenes from a STAC catalogue: an API, or a static catalogue on disk, over HTTP or on S3."""

    kind: Literal["stac"] = Field("stac", alias="from", description="Kind of source.")
    catalog: str = Field(
        "planetary-computer",
        description="`planetary-computer`, `earth-search`, `cdse`, the URL of a STAC API, or the path or URL (http, "
        "s3) of a static catalog.json.",
    )
    collection: str | None = Field(
        None, description="Collection id; default: the catalogue's usual one for the sensor."
    )


class SimulatedSource(Part):
    """Scenes from the simulated landscape described under `simulated`."""

    kind: Literal["simulated"] = Field("simulated", alias="from", description="Kind of source.")


#: Endpoint for many automated requests (https://developers.google.com/earth-engine/cloud/highvolume).
EARTH_ENGINE_URL = "https://earthengine-highvolume.googleapis.com"


class EarthEngineSource(Part):
    """Scenes of Google Earth Engine: composites computed there, or scenes read one by one."""

    kind: Literal["earth-engine"] = Field("earth-engine", alias="from", description="Kind of source.")
    mode: Literal["server", "scenes"] = Field(
        "server",
        description="`server`: masks and composites are computed by Earth Engine. `scenes`: every scene is read and "
        "all steps run here; slower, and every option works.",
    )
    project: str | None = Field(
        None,
        description="Google Cloud project registered for Earth Engine; default: the environment variable "
        "EE_PROJECT_ID, then GOOGLE_CLOUD_PROJECT, then the project of the credentials.",
    )
    credentials: Path | None = Field(
        None,
        description="Key file of a service account; relative paths start at the recipe's folder. Default: your own, "
        "from `earthengine authenticate`. Only the path is ever written down.",
    )
    url: str = Field(
        EARTH_ENGINE_URL,
        pattern=r"^https://|^http://(localhost|127\.0\.0\.1|\[::1\])([:/]|$)",
        description="Endpoint. One on this machine (a stand-in for tests) needs no credentials.",
    )
    cloud_mask: Literal["scl", "cloud-score", "both"] = Field(
        "scl",
        description="What optical pixels are masked by: `scl` the scene classification, as with every other source; "
        "`cloud-score` Cloud Score+ in place of its clouds and shadows; `both`: clear by both.",
    )
    least_clear: float = Field(
        0.6, ge=0, le=1, description="Pixels with a lower Cloud Score+ (cs_cdf, 0-1, 1 is clear) count as cloud."
    )
    requests: int = Field(8, ge=1, le=40, description="Requests at the same time from one process.")


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


class FilesSource(Part):
    """A folder of downloaded files: Sentinel-2 L2A products (SAFE folders or zips), Sentinel-1 RTC GeoTIFFs."""

    kind: Literal["files"] = Field("files", alias="from", description="Kind of source.")
    folder: Path = Field(description="The folder, searched with its subfolders; relative paths start at the recipe's.")
    stored: Literal["power", "amplitude", "decibel"] | None = Field(
        None,
        description="What radar files hold whose name does not say it: terrain-corrected gamma-0 as linear `power`, "
        "its square root (`amplitude`), or dB (`decibel`). Default: such files are refused.",
    )
    orbit_state: Literal["ascending", "descending"] | None = Field(
        None,
        description="Direction of the passes whose file names do not say it; default: by the local time of the pass.",
    )


Source = Annotated[
    StacSource | EarthEngineSource | SimulatedSource | RastersSource | FilesSource, Field(discriminator="kind")
]


class Sources(Part):
    """Where each sensor's scenes come from; they need not share an archive."""

    optical: Source | None = Field(default_factory=StacSource, description="Sentinel-2 surface reflectance.")
    radar: Source | None = Field(default_factory=StacSource, description="Sentinel-1 terrain-corrected gamma-0.")
    terrain: Source | None = Field(default_factory=StacSource, description="Elevation model.")
    embeddings: EarthEngineSource | None = Field(
        None, description="Yearly satellite embeddings (features.embeddings); Earth Engine alone has them."
    )
    lband: Source | None = Field(
        default_factory=StacSource, description="Yearly L-band mosaic (features.lband), gamma-0 of ALOS PALSAR."
    )

    def of(
        self, sensor: Sensor
    ) -> StacSource | EarthEngineSource | SimulatedSource | RastersSource | FilesSource | None:
        """The source of one sensor, or None."""
        return {
            "optical": self.optical,
            "radar": self.radar,
            "terrain": self.terrain,
            "embeddings": self.embeddings,
            "lband": self.lband,
        }[sensor]


class Network(Part):
    """How patiently remote files are read. No value of the map depends on it, so changing it makes nothing new."""

    tries: int = Field(5, ge=1, le=20, description="Times that a read is tried before the scene counts as lost.")
    first_wait_s: float = Field(
        1.0, ge=0, le=60, description="Wait before the second try, seconds; it doubles from try to try, with jitter."
    )
    timeout_s: float = Field(
        20.0, gt=0, le=600, description="A request that moves less than 1 kB/s for this long is cut and tried again, s."
    )
    patience_s: float = Field(
        300.0, gt=0, description="No read is begun again after this long, however long a server asks to wait, seconds."
    )
    per_host: int = Field(4, ge=1, le=64, description="Files read from one host at the same time by one process.")


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
