"""The recipe's part about what is done to the map after the model has answered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from wetmap.recipe_training import Part

#: What a mask writes where nothing is to be mapped.
NODATA = "nodata"


class Mask(Part):
    """Places where another file knows better than the model."""

    path: Path = Field(
        description="Vector file, or raster of one band; relative paths start at the recipe's folder. Any CRS."
    )
    write: str = Field(
        min_length=1, description="What the map says there: the name of one of its classes, or `nodata` for nothing."
    )
    layer: str | None = Field(None, description="Layer of a GeoPackage; default: the first.")
    values: list[int] | None = Field(
        None, min_length=1, description="Values of a raster that count; default: all but 0 and its nodata value."
    )
    buffer_m: float = Field(
        0.0, ge=0, le=10_000, description="Grown by this much, metres. Lines and points count only with a buffer."
    )


class Products(Part):
    """Layers of the map's folder beside classes and confidence. Each can be left out."""

    probabilities: bool = Field(
        False,
        description="Write probabilities.tif: the model's probability of every class, percent, one band per class. "
        "Large: one byte per pixel and class in the map, and as much again in the workspace.",
    )
    entropy: bool = Field(
        True,
        description="Write entropy.tif: how evenly the model's probability is spread over the classes, percent: 0 "
        "where one class is certain, 100 where all are equally likely.",
    )
    clear_count: bool = Field(
        True,
        description="Write clear_count.tif: clear optical looks, one band per season. Without an optical source there "
        "is no such file.",
    )
    applicability: bool = Field(
        False,
        description="Write applicability.tif: how unlike the training samples the features of a pixel are, percent of "
        "the threshold of dissimilarity: up to 100 inside the model's area of applicability, above it outside.",
    )
    crosswalk: Literal["cwcs", "cnwi"] | None = Field(
        None,
        description="Also write the map in the classes of another system, with its areas: `cwcs`, the Canadian Wetland "
        "Classification System (classes_cwcs.tif), or `cnwi`, the national inventory (classes_cnwi.tif). Default: off.",
    )
    crosswalk_rows: dict[str, str] = Field(
        {},
        description="Rows that the packaged crosswalk lacks, or that you decide otherwise: name of a class of the map: "
        "name of a class of the other system.",
    )

    @model_validator(mode="after")
    def _rows_are_used(self) -> Products:
        if self.crosswalk_rows and self.crosswalk is None:
            raise ValueError("crosswalk_rows are given, and crosswalk does not say to which system; name it")
        return self


class Postprocess(Part):
    """What is done to the map after the model, in this order. All of it is off by default."""

    majority_px: int | None = Field(
        None,
        ge=3,
        le=51,
        description="1. Majority smoothing: side of the window, pixels, odd. A tie keeps the pixel's own class. "
        "Default: off.",
    )
    minimum_mapping_unit_ha: float | None = Field(
        None,
        gt=0,
        description="2. Patches smaller than this are merged into a neighbour, hectares, counted in pixels of "
        "grid.res_m squared. Default: off.",
    )
    unit_of_class_ha: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="Another minimum mapping unit for some classes, by name, hectares; 0 keeps every patch."
    )
    connectivity: Literal[4, 8] = Field(
        4, description="Pixels of a patch touch by a side (4), or by a side or a corner (8)."
    )
    masks: list[Mask] = Field(
        [],
        description="3. Masks, one after the other; they change mapped pixels only, and no other step undoes them. A "
        "later mask wins.",
    )
    polygons: bool = Field(False, description="4. Write polygons.gpkg: one polygon per patch, with its hectares.")

    @field_validator("majority_px")
    @classmethod
    def _odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError(f"majority_px is {value}, and a window around a pixel is odd")
        return value

    @model_validator(mode="after")
    def _each_class_once(self) -> Postprocess:
        names = [name.strip().casefold() for name in self.unit_of_class_ha]
        if len(set(names)) < len(names):
            raise ValueError(f"unit_of_class_ha names a class twice: {', '.join(self.unit_of_class_ha)}")
        return self
