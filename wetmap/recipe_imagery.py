"""The part of the recipe that says what imagery becomes: features, and how scenes are cleaned and composited."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from wetmap.recipe_sources import OrbitState
from wetmap.recipe_training import Part

OpticalBand = Literal["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
Polarisation = Literal["VV", "VH", "HH", "HV"]
#: What the scene classification tells apart and a recipe can mask.
Masked = Literal["cloud", "cirrus", "shadow", "snow", "saturated"]
MASKED: list[Masked] = ["cloud", "cirrus", "shadow", "snow", "saturated"]
TerrainLayer = Literal["elevation", "slope", "aspect", "tpi", "tpi_wide", "twi", "hand"]
RadarStatistic = Literal["mean", "std"]
Speckle = Literal["none", "boxcar", "lee", "refined-lee", "gamma-map", "lee-sigma", "quegan"]

#: The ten Sentinel-2 bands of 10 and 20 m that the WetMapFormer paper uses (docs: features).
SENTINEL2_BANDS: list[OpticalBand] = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]

#: Side of the window of `refined-lee`, which its directional masks fix, and the least of `lee-sigma`, pixels.
REFINED_LEE_PX = 7
LEE_SIGMA_PX = 5


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
    radar_statistics: list[RadarStatistic] = Field(
        ["mean"],
        min_length=1,
        description="Of the season's passes: `mean` (taken in linear power, given in dB) and `std`, the standard "
        "deviation from pass to pass of the dB values, in dB.",
    )
    radar_ratio: bool = Field(
        False, description="Also the ratio of the season's mean powers, VV / VH or HH / HV, linear, dimensionless."
    )
    terrain: list[TerrainLayer] = Field(
        [],
        description="`elevation` (m), `slope` (degrees), `aspect` (two bands: cosine and sine of the bearing), `tpi` "
        "and `tpi_wide` (height over the mean within 300 m and 2 km, m), `twi` (wetness, ln m), `hand` (height above "
        "the nearest drainage, m).",
    )
    lband: list[Literal["HH", "HV"]] = Field(
        [], description="Polarisations of the yearly L-band mosaic (ALOS PALSAR), gamma-0 in dB; with any season."
    )
    embeddings: bool | Annotated[int, Field(ge=2017, le=2100)] = Field(
        False,
        description="Google's yearly satellite embeddings, 64 dimensionless bands, from sources.embeddings: a year, or "
        "`true` for the year of the seasons.",
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
        fixed = ["optical", "indices", "radar", "orbit_states", "radar_statistics", "radar_ratio"]
        fixed += ["terrain", "lband"] if self.preset == "paper16" else []
        changed = [name for name in fixed if getattr(self, name) != type(self).model_fields[name].default]
        if changed:
            raise ValueError(
                f"preset {self.preset} fixes its bands, and {', '.join(changed)} say otherwise; use preset custom"
            )
        return self

    @model_validator(mode="after")
    def _ratio_needs_both(self) -> Features:
        if self.radar_ratio and not self.ratios:
            raise ValueError(
                f"radar_ratio needs VV and VH, or HH and HV, and radar lists {', '.join(self.radar) or 'nothing'}"
            )
        return self

    @property
    def ratios(self) -> list[tuple[Polarisation, Polarisation]]:
        """Pairs of listed polarisations of which a ratio can be made: like over cross."""
        pairs: list[tuple[Polarisation, Polarisation]] = [("VV", "VH"), ("HH", "HV")]
        return [pair for pair in pairs if set(pair) <= set(self.radar)]


class Optical(Part):
    """How optical scenes are cleaned and composited."""

    max_cloud_percent: float = Field(80.0, ge=0, le=100, description="Scenes with more cloud are not read, percent.")
    dilate_m: float = Field(40.0, ge=0, le=2000, description="Clouds and shadows are grown by this much, metres.")
    mask: list[Masked] = Field(
        list(MASKED),
        description="What of the scene classification is masked; clouds, cirrus and shadows are grown. Leave snow out "
        "for a winter map.",
    )
    mask_from: str = Field(
        "scl",
        description="What says where clouds, cirrus and shadows are: `scl`, the scene classification that comes with "
        "the scenes; `omnicloudmask`, a network (`pip install omnicloudmask`); `scl+omnicloudmask`, masked where "
        "either says so.",
    )
    keep_dark_water: bool = Field(
        True,
        description="Whether a pixel that the season's looks show to be water or always dark is kept where the "
        "classification calls it a cloud's shadow.",
    )
    composite: Literal["median", "percentile", "medoid", "best-pixel"] = Field(
        "median",
        description="How clear looks become one value: `median` or `percentile` per band; `medoid`, the real look "
        "nearest the median of all bands; `best-pixel`, the look far from clouds and near the season's middle.",
    )
    percentile: float = Field(25.0, ge=0, le=100, description="Which one, for `composite: percentile`, percent.")
    min_clear_looks: int = Field(
        1, ge=1, le=10, description="Ground with fewer clear looks in a season is warned of, looks."
    )

    @model_validator(mode="after")
    def _percentile_is_used(self) -> Optical:
        if self.composite != "percentile" and self.percentile != type(self).model_fields["percentile"].default:
            raise ValueError(f"percentile is {self.percentile:g}, and composite {self.composite} does not use it")
        return self


class Radar(Part):
    """How radar scenes are cleaned and composited."""

    speckle: Speckle = Field(
        "lee",
        description="Speckle filter per scene, in linear power; `quegan` filters all passes of a season together.",
    )
    window_px: int = Field(
        5,
        ge=3,
        le=15,
        description="Side of the filter's window, pixels, odd; `refined-lee` always takes 7, and 9 is usual for "
        "`lee-sigma`.",
    )
    looks: float | Literal["estimate"] = Field(
        4.4,
        description="Equivalent number of looks that the filter assumes; `estimate`: measured on samples of the "
        "scenes, once for the area.",
    )
    border_m: float = Field(50.0, ge=0, description="Rim of each scene's footprint that is not used, metres.")
    relative_orbits: list[Annotated[int, Field(ge=1, le=175)]] = Field(
        [], description="Relative orbits (tracks) to use; an empty list: all."
    )
    weight: Literal["passes", "tracks"] = Field(
        "passes",
        description="What counts the same in the mean where several tracks see a pixel: every pass, or every track "
        "(the mean of each track's mean).",
    )

    @field_validator("looks")
    @classmethod
    def _above_zero(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0 < value < float("inf"):
            raise ValueError(f"looks is {value}, and must be above 0, or `estimate`")
        return value

    @field_validator("window_px")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"window_px is {value}, and a window around a pixel is odd")
        return value

    @model_validator(mode="after")
    def _window_is_the_filters(self) -> Radar:
        """A window that the filter does not take would change nothing but the name of the cube."""
        default = type(self).model_fields["window_px"].default
        if self.speckle == "refined-lee" and self.window_px not in {REFINED_LEE_PX, default}:
            raise ValueError(
                f"window_px is {self.window_px}, and speckle refined-lee always takes {REFINED_LEE_PX}; "
                "leave window_px out"
            )
        if self.speckle == "lee-sigma" and self.window_px < LEE_SIGMA_PX:
            raise ValueError(
                f"window_px is {self.window_px}, and speckle lee-sigma needs at least {LEE_SIGMA_PX}; 9 is usual"
            )
        return self


class Coregistration(Part):
    """How the shift of scenes against the clearest optical scenes is measured on tie blocks, and what is done then."""

    radar: Literal["off", "measure", "correct"] = Field(
        "correct",
        description="Shift of each radar track and satellite: `correct` moves its scenes once, as they are read, where "
        "the shift is sure and above the tolerance; `measure` only reports it.",
    )
    optical: Literal["off", "measure", "correct"] = Field(
        "off",
        description="The same for each optical pass against the clearest ones; every pass is read on the tie blocks.",
    )
    tolerance_px: float = Field(
        0.25, gt=0, le=5, description="Shifts up to this long are left as they are, pixels of the grid."
    )
    tie_blocks: int = Field(24, ge=4, le=200, description="Tie blocks, at most.")
    block_px: int = Field(256, ge=64, le=1024, description="Side of a tie block, pixels; small areas get smaller ones.")

    @model_validator(mode="before")
    @classmethod
    def _off_for_all(cls, data: Any) -> Any:
        if isinstance(data, bool) or data == "off":
            word = _not_a_switch(data)
            return {"radar": word, "optical": word}
        return data

    @field_validator("radar", "optical", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return _not_a_switch(value) if isinstance(value, bool) else value


def _not_a_switch(value: bool | str) -> str:
    """The word that YAML took for a switch: a bare `off` is false, and a bare `on` says too little."""
    if value is True:
        raise ValueError("`on` (true) does not say what is done; write measure or correct")
    return "off"


class Terrain(Part):
    """How terrain features are made."""

    drainage_ha: float = Field(
        100.0, gt=0, description="`hand`: the water of so much land makes drainage, a stream or a channel, hectares."
    )
    resolution_m: float | None = Field(
        None,
        gt=0,
        description="True resolution of the elevation model, metres, where its files are finer than what was measured; "
        "default: the pixel side of its files.",
    )
    sea_m: float | None = Field(
        None,
        ge=-500,
        le=9000,
        description="Height of ground that no elevation tile covers, metres: 0 for the open sea, where Copernicus DEM "
        "has no tiles; default: such ground is not observed.",
    )
    flow_cells: int = Field(
        32_000_000,
        ge=10_000,
        description="`twi` and `hand`: most cells on which flow is computed, for the whole area and 3 km around; "
        "larger areas get larger cells. A million cells take 0.1 GB of memory and 2 seconds.",
    )
