"""What the files of a map's folder are to a person: their titles, what they say, and how a GIS lists them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["classes", "measure", "measures", "polygons", "table"]
"""Codes of classes, a measured value per pixel, several of them (one per band), one polygon per patch, or rows without
a place."""

#: Groups of layers, from the top of the list to the bottom. The map lies under all measures: one that is switched on is
#: seen at once.
OTHERS, SURE, PROBABILITIES, LOOKS, MAP = (
    "Other layers",
    "How sure the model is",
    "Probability of each class",
    "Clear looks of each season",
    "Map",
)
GROUPS = (OTHERS, SURE, PROBABILITIES, LOOKS, MAP)


@dataclass(frozen=True)
class MapLayer:
    """One layer of a map's folder."""

    file: str
    """Name of the file in the folder."""
    title: str
    """What it is called in a list of layers."""
    kind: Kind
    """What it holds."""
    shown: bool = False
    """Whether it is switched on when the map is opened."""
    group: str = OTHERS
    """The group that it stands in."""
    about: str = ""
    """What it says and does not say, in two or three sentences of plain text."""
    band: str = "{}"
    """What a layer of one band is called, around the band's own name; for ``measures``."""


#: From the top of the list of layers to the bottom.
KNOWN_LAYERS = (
    MapLayer(
        "confidence.tif",
        "Confidence (%)",
        "measure",
        group=SURE,
        about="The model's probability of the class that it chose, in percent. It orders pixels from less to more "
        "sure. On ground unlike the reference data, 80 % need not mean that 80 of 100 such pixels are right. Empty "
        "where nothing is mapped, and where a step after the model put another class.",
    ),
    MapLayer(
        "entropy.tif",
        "Entropy (%)",
        "measure",
        group=SURE,
        about="How evenly the model's probability is spread over the classes: 0 where one class is certain, 100 where "
        "all are equally likely. Low with a low confidence means one rival; high means no idea.",
    ),
    MapLayer(
        "applicability.tif",
        "Unlike the training samples (% of the threshold)",
        "measure",
        group=SURE,
        about="How unlike the training samples a pixel's features are. Up to 100 the model was taught with such "
        "ground; above 100 it was not. That does not make its answer right or wrong: it says where to look first.",
    ),
    MapLayer(
        "probabilities.tif",
        "Probabilities of the classes",
        "measures",
        group=PROBABILITIES,
        band="Probability of {} (%)",
        about="The model's probability of one class, in percent, whether or not the pixel was mapped as it. One band "
        "of probabilities.tif per class. Steps after the model (masks, smoothing, minimum mapping unit) change nothing "
        "here.",
    ),
    MapLayer(
        "clear_count.tif",
        "Clear looks",
        "measures",
        group=LOOKS,
        band="Clear looks, {}",
        about="From how many clear optical looks of one season a pixel was made. 0: from none, so radar and terrain "
        "alone speak there. One band of clear_count.tif per season.",
    ),
    MapLayer(
        "polygons.gpkg",
        "Polygons",
        "polygons",
        group=MAP,
        about="One polygon per patch of one class, along the pixels' sides. The hectares are true areas on the "
        "ellipsoid; the confidence is the mean over the polygon, in percent. The sum of hectares is a count of pixels, "
        "not an estimate of area.",
    ),
    MapLayer(
        "classes.tif",
        "Classes",
        "classes",
        shown=True,
        group=MAP,
        about="The map: the model's class of every pixel. It is wrong in places; how often, and how many hectares "
        "there are of each class with what margin, only a sample of the map can say (wetmap sample, wetmap assess).",
    ),
    MapLayer(
        "classes_cwcs.tif",
        "Classes of the Canadian Wetland Classification System",
        "classes",
        group=MAP,
        about="The same map in the five classes of the Canadian Wetland Classification System (1997), with open water "
        "and upland. crosswalk_cwcs.csv says what each class became, why, and what no satellite sees of it, such as "
        "peat.",
    ),
    MapLayer(
        "classes_cnwi.tif",
        "Classes of the Canadian National Wetlands Inventory",
        "classes",
        group=MAP,
        about="The same map in the five classes of the Canadian National Wetlands Inventory, with upland. "
        "crosswalk_cnwi.csv says what each class became, why, and what no satellite sees of it, such as peat.",
    ),
    MapLayer(
        "areas.csv",
        "Areas by class (pixel counts)",
        "table",
        group=MAP,
        about="Pixels, hectares on the ellipsoid and share of every class. A count of pixels carries the map's errors "
        "along: it is not an estimate of area.",
    ),
)


def map_layers(names: Iterable[str]) -> list[MapLayer]:
    """The layers among the files of a map's folder, the topmost first.

    Args:
        names: Names of files.

    Returns:
        Other GeoTIFFs than the known ones by name, titled by it; then the known ones in their order.
    """
    there = set(names)
    known = [layer for layer in KNOWN_LAYERS if layer.file in there]
    others = sorted(name for name in there - {layer.file for layer in known} if name.endswith(".tif"))
    titles = [name.removesuffix(".tif").replace("_", " ").capitalize() for name in others]
    return [MapLayer(name, title, "measure") for name, title in zip(others, titles, strict=True)] + known
