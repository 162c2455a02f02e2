"""The one configuration: a recipe says which area, which imagery, which classes, which model.

Unknown keys are refused; every field has a description with its unit and a default. Flags of the command line
override the file, the file overrides the defaults; the resolved recipe is kept in the workspace.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from wetmap.budget import parse_budget
from wetmap.recipe_cluster import Cluster, Job
from wetmap.recipe_imagery import (
    SENTINEL2_BANDS,
    Coregistration,
    Features,
    Optical,
    OpticalBand,
    Polarisation,
    Radar,
    Terrain,
    TerrainLayer,
)
from wetmap.recipe_map import Postprocess, Products
from wetmap.recipe_sources import (
    EarthEngineSource,
    FilesSource,
    Network,
    OrbitState,
    RasterFile,
    RastersSource,
    Sensor,
    Simulated,
    SimulatedSource,
    Source,
    Sources,
    StacSource,
)
from wetmap.recipe_training import Compare, Part, Training

#: Parts of the recipe are of other modules, and taken from here like all others.
__all__ = [
    "SENTINEL2_BANDS",
    "Cluster",
    "Compare",
    "Coregistration",
    "EarthEngineSource",
    "Features",
    "FilesSource",
    "Job",
    "Network",
    "Optical",
    "OpticalBand",
    "OrbitState",
    "Part",
    "Polarisation",
    "Products",
    "Radar",
    "RasterFile",
    "RastersSource",
    "Recipe",
    "Sensor",
    "Simulated",
    "SimulatedSource",
    "Source",
    "Sources",
    "StacSource",
    "Terrain",
    "TerrainLayer",
    "Training",
]

Season_ = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")]


class GridPart(Part):
    """The raster that everything is on."""

    crs: str = Field(
        "auto", description="`auto` (the UTM zone that holds most of the area) or a projected CRS in metres."
    )
    res_m: float = Field(10.0, gt=0, description="Pixel side, metres.")
    align: Path | None = Field(
        None,
        description="A raster whose pixel edges and CRS the map takes over, so that its values come through unchanged; "
        "relative paths start at the recipe's folder. Default: edges at multiples of `res_m`.",
    )
    block_px: int = Field(512, ge=32, le=4096, description="Side of the blocks in which imagery is fetched, pixels.")


class Season(Part):
    """A time window that is composited into one set of features."""

    name: Season_ = Field(description="Short name, the first part of its features' names: lower-case letters, digits.")
    start: dt.date = Field(description="First day, ISO date, UTC.")
    end: dt.date = Field(description="Last day, ISO date, UTC, included.")

    @model_validator(mode="after")
    def _in_order(self) -> Season:
        if self.end < self.start:
            raise ValueError(f"season {self.name} ends on {self.end}, before it starts on {self.start}")
        return self


class ClassSpec(Part):
    """One class of the map."""

    name: str = Field(min_length=1, description="Name in legends.")
    code: int | None = Field(
        None, ge=1, le=254, description="Value in classes.tif; default: place in the list, from 1."
    )
    colour: str | None = Field(
        None, pattern=r"^#[0-9a-fA-F]{6}$", description="Legend colour, #rrggbb; default: from the palette."
    )
    reference: list[str | int] = Field(
        [], description="Values of the class field or label raster; default: the name itself."
    )
    upland: bool = Field(False, description="True for dry land: background samples belong to it.")


class Background(Part):
    """Samples of dry land, for a reference that names only wetlands."""

    name: str = Field("upland", description="Class that background samples get; added to the classes if absent.")
    share: float = Field(0.5, gt=0, lt=5, description="Background samples, as a multiple of all other samples.")
    buffer_m: float = Field(100.0, ge=0, description="Distance kept from every reference polygon, metres.")


class MoreReference(Part):
    """Another vector file of reference data, read on top of the first."""

    path: Path = Field(description="Vector file; relative paths start at the recipe's folder.")
    class_field: str | None = Field(None, description="Field that names the class; or give `value`.")
    value: str | int | None = Field(
        None, description="Value that every feature of the file has in place of a class field, such as `water`."
    )
    layer: str | None = Field(None, description="Layer of a GeoPackage; default: the first.")
    obtain: str | None = Field(None, description="Where the file is to be had; said where it is missing.")

    @model_validator(mode="after")
    def _one_way_to_a_class(self) -> MoreReference:
        if (self.class_field is None) == (self.value is None):
            raise ValueError("give either class_field, the field that names the class, or value, one for all features")
        return self


class Reference(Part):
    """Reference polygons, points or a label raster."""

    path: Path = Field(description="Vector file or label raster; relative paths start at the recipe's folder.")
    class_field: str | None = Field(None, description="Field that names the class (vector files).")
    site_field: str | None = Field(None, description="Field that names the site (splits.kind sites): text or number.")
    layer: str | None = Field(None, description="Layer of a GeoPackage; default: the first.")
    background: Background | None = Field(None, description="Draw samples outside the reference polygons.")
    obtain: str | None = Field(
        None,
        description="Where the file is to be had, with its web address, and where to put it; said where it is missing. "
        "Default: none.",
    )
    also: list[MoreReference] = Field(
        [],
        description="More vector files, such as one of lakes; `classes` says which of their values belong where. Where "
        "features of different classes meet, the pixel stays unlabelled.",
    )


class Samples(Part):
    """How labelled pixels are drawn."""

    per_class: int = Field(1500, ge=2, description="Labelled pixels drawn per class, at most.")
    min_per_class: int = Field(10, ge=1, description="Classes with fewer labelled pixels are refused.")


class Splits(Part):
    """How samples are divided into folds, in space."""

    kind: Literal["blocks", "polygons", "sites", "paper"] = Field(
        "blocks",
        description="Square blocks, whole polygons, one site against the others (reference.site_field), or `paper`: "
        "the published 70/30 of single pixels at random, which LEAKS and is for comparison only.",
    )
    folds: int = Field(
        5,
        ge=3,
        le=20,
        description="Number of folds of blocks and polygons; one is for testing, one for choosing the epoch.",
    )
    block_m: float | None = Field(None, gt=0, description="Side of the blocks, metres; default: from the area's size.")
    buffer_m: float | None = Field(
        None, ge=0, description="Distance kept between folds, metres; default and least: the window."
    )
    test_fold: int = Field(
        0, ge=0, description="The fold held out for testing; of sites the place in their sorted names."
    )


class ModelPart(Part):
    """Which model is trained."""

    name: str = Field("wetmapformer", description="A name from `wetmap doctor`'s list of models.")
    options: dict[str, int | float | str | bool] = Field({}, description="The model's own options, by name.")


class Predict(Part):
    """How the map is computed. The block size changes no pixel of it."""

    block_px: int | None = Field(
        None,
        ge=1,
        description="Side of a block, pixels, rounded up to whole tiles of the model; default: 512, or less where a "
        "small map would leave workers without blocks.",
    )
    bundle: Path | None = Field(
        None, description="A trained model from elsewhere (its folder); default: the one trained in this workspace."
    )
    tokens: int | None = Field(
        None, ge=1, description="Operating point of a SuperViT: tokens a side; default: the most that it has."
    )
    keep: float | None = Field(
        None, gt=0, le=1, description="Operating point of a SuperViT: share of the tokens that is kept; default: 1."
    )
    budget: str | None = Field(
        None,
        description="Time for the map (`20m`, `1h30m`) or rate (`50k-px-per-s`), instead of tokens and keep: a "
        "SuperViT's points are measured here, and the most accurate one that keeps to it is taken.",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="Numbers that a network computes with: `float32` gives the same map on every processor; `auto` "
        "takes bfloat16 where it is faster here and the validation samples show no harm.",
    )

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Predict:
        if self.budget is not None:
            parse_budget(self.budget)
            if self.tokens is not None or self.keep is not None:
                raise ValueError("budget chooses the operating point, and tokens or keep name one; use one of the two")
        return self


class Recipe(Part):
    """Everything wetmap needs to make one map."""

    name: str | None = Field(None, description="Name of the map; default: the area's.")
    aoi: Path | None = Field(
        None, description="Area of interest: any vector file; relative paths start at the recipe's folder."
    )
    workspace: Path | None = Field(
        None, description="Folder for everything; default: <area>-wetmap beside where you are."
    )
    seed: int = Field(1, ge=0, description="Seed of everything drawn at random, but for the simulated landscape.")
    grid: GridPart = Field(default_factory=GridPart, description="The raster.")
    seasons: list[Season] = Field(
        default_factory=lambda: [Season(name="summer", start=dt.date(2021, 6, 1), end=dt.date(2021, 9, 30))],
        min_length=1,
        description="Time windows; the default is the one of the WetMapFormer paper.",
    )
    sources: Sources = Field(default_factory=Sources, description="Where scenes come from.")
    simulated: Simulated = Field(default_factory=Simulated, description="The simulated landscape.")
    features: Features = Field(default_factory=Features, description="The bands of the cube.")
    optical: Optical = Field(default_factory=Optical, description="Optical cleaning.")
    radar: Radar = Field(default_factory=Radar, description="Radar cleaning.")
    terrain: Terrain = Field(default_factory=Terrain, description="Terrain features.")
    coregistration: Coregistration = Field(
        default_factory=Coregistration, description="Shifts between scenes, measured and corrected."
    )
    classes: list[ClassSpec] = Field([], description="The map's classes; default: the values of the reference.")
    reference: Reference | Literal["simulated"] | None = Field(
        None, description="Reference data; `simulated` for the simulated landscape's own."
    )
    samples: Samples = Field(default_factory=Samples, description="Drawing samples.")
    splits: Splits = Field(default_factory=Splits, description="Folds in space.")
    model: ModelPart = Field(default_factory=ModelPart, description="The model.")
    training: Training = Field(default_factory=Training, description="Training.")
    compare: Compare = Field(default_factory=Compare, description="Comparing models.")
    predict: Predict = Field(default_factory=Predict, description="Mapping.")
    postprocess: Postprocess = Field(
        default_factory=Postprocess, description="What is done to the map after the model; all off by default."
    )
    products: Products = Field(
        default_factory=Products, description="Layers of the map's folder beside classes and confidence."
    )
    cluster: Cluster = Field(default_factory=Cluster, description="Workers.")
    network: Network = Field(default_factory=Network, description="How patiently remote files are read.")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [season.name for season in self.seasons]
        if len(set(names)) < len(names):
            raise ValueError(f"seasons share a name: {', '.join(names)}")
        if self.features.preset == "paper16" and len(names) != 1:
            raise ValueError(
                f"features.preset paper16 takes one season, and the recipe has {len(names)} ({', '.join(names)}); "
                "use preset seasonal, or one season"
            )
        if self.splits.kind in {"blocks", "polygons"} and self.splits.test_fold >= self.splits.folds:
            raise ValueError(
                f"splits.test_fold is {self.splits.test_fold}, and folds are numbered 0 to {self.splits.folds - 1}"
            )
        if self.splits.kind == "sites" and self.reference and getattr(self.reference, "site_field", None) is None:
            raise ValueError(
                "splits.kind sites needs reference.site_field, the field of a vector reference that names the site of "
                "each feature; without one, use splits.kind blocks"
            )
        if isinstance(self.reference, Reference) and self.reference.also and not self.classes:
            raise ValueError("reference.also needs classes, the list that says which values belong to which class")
        return self
