"""The part of the recipe that says what imagery becomes: features, and how scenes are cleaned and composited."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from wetmap.recipe_sources import OrbitState
from wetmap.recipe_training import Part

OpticalBand = Literal["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
Polarisation = Literal["VV", "VH", "HH", "HV"]
TerrainLayer = Literal["elevation", "slope", "tpi", "twi"]

#: The ten Sentinel-2 bands of 10 and 20 m that the WetMapFormer paper uses (docs: features).
SENTINEL2_BANDS: list[OpticalBand] = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]


class Features(Part):
    """What is computed from the imagery: the bands of the cube."""

    preset: Literal["paper16", "seasonal", "custom"] = Field(
        "paper16",
        description="`paper16`: 10 Sentinel-2 bands, NDVI, NDWI, VV and VH per orbit state, one season. `seasonal`: "
        "the same in every season, and terrain. `custom`: the lists below as they stand.",
    )
    optical: list[OpticalBand] = Field(list(SENTINEL2_BANDS), description="Sentinel-2 bands, surface reflectance.")
    indices: list[str] = Field(["NDVI", "NDWI"], description="Spectral indices by their spyndex name, dimensionless.")
    radar: list[Polarisation] = Field(["VV", "VH"], description="Sentinel-1 polarisations, gamma-0 in dB.")
    orbit_states: list[OrbitState] = Field(
        ["ascending", "descending"], description="Orbit states kept apart; `any` puts all passes together."
    )
    terrain: list[TerrainLayer] = Field(
        [], description="Elevation (m), slope (degrees), topographic position (m), topographic wetness (ln m)."
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_terrain(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("preset") == "seasonal" and "terrain" not in data:
            return {**data, "terrain": ["elevation", "slope", "tpi", "twi"]}
        return data

    @model_validator(mode="after")
    def _preset_fixes_its_bands(self) -> Features:
        if self.preset == "custom":
            return self
        fixed = ["optical", "indices", "radar", "orbit_states"] + (["terrain"] if self.preset == "paper16" else [])
        changed = [name for name in fixed if getattr(self, name) != type(self).model_fields[name].default]
        if changed:
            raise ValueError(
                f"preset {self.preset} fixes its bands, and {', '.join(changed)} say otherwise; use preset custom"
            )
        return self


class Optical(Part):
    """How optical scenes are cleaned and composited."""

    max_cloud_percent: float = Field(80.0, ge=0, le=100, description="Scenes with more cloud are not read, percent.")
    dilate_m: float = Field(40.0, ge=0, description="Clouds and shadows are grown by this much, metres.")
    composite: Literal["median"] = Field("median", description="How clear looks become one value.")


class Radar(Part):
    """How radar scenes are cleaned and composited."""

    speckle: Literal["none", "boxcar", "lee"] = Field("lee", description="Speckle filter per scene, in linear power.")
    window_px: int = Field(5, ge=3, le=15, description="Side of the filter's window, pixels, odd.")
    looks: float = Field(4.4, gt=0, description="Equivalent number of looks that the filter assumes.")
    border_m: float = Field(50.0, ge=0, description="Rim of each scene's footprint that is not used, metres.")

    @field_validator("window_px")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"window_px is {value}, and a window around a pixel is odd")
        return value
