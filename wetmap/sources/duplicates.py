"""One acquisition, several products: archives keep scenes that were processed again, and only the newest is read.

Two items are the same acquisition when satellite, datatake and tile agree *and* they show the same ground. The second
condition matters: where a datatake was sent down in two pieces, each piece is a product of its own, with the same tile,
datatake and baseline, and both are needed. Pieces differ in the time at which their data strip begins and overlap
little; products of the same data strip overlap wholly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shapely.geometry.base import BaseGeometry

from wetmap.sources.offset import baseline_of
from wetmap.sources.outlines import outline_of
from wetmap.sources.scene import Scene, Skipped
from wetmap.sources.stac_item import product_name

#: Products show the same ground when their outlines share this much of the smaller one: with the same data strip, and
#: where data strips differ or are not known.
SAME_GROUND, SAME_GROUND_OTHER_STRIP = 0.5, 0.9
#: Baseline that marks trial runs of a processor; a numbered one is preferred.
TRIAL = 99.0
_DATATAKE_KEYS = ("s2:datatake_id", "eopf:datatake_id")
_STRIP_KEYS = ("s2:datastrip_id", "eopf:datastrip_id")
_MADE_KEYS = ("s2:generation_time", "processing:datetime", "s1:processing_datetime", "created", "updated")


@dataclass(frozen=True)
class _Product:
    scene: Scene
    acquisition: tuple[str, ...]
    """Satellite, datatake, tile; the same for all products of one acquisition."""
    strip: str
    """When its data strip begins; empty where that is not given."""
    made: tuple[float, str, str]
    """Baseline, time of processing, name: the greatest is the newest."""
    outline: BaseGeometry | None


def newest(scenes: Sequence[Scene]) -> tuple[list[Scene], list[Skipped]]:
    """Leave out scenes that were processed again.

    Args:
        scenes: Scenes of one sensor.

    Returns:
        The scenes that stay, in the order given, and the others with the product that replaces them.
    """
    kept: dict[tuple[str, ...], list[_Product]] = {}
    replaced: dict[str, _Product] = {}
    products = [product for scene in scenes if (product := _product(scene)) is not None]
    for product in sorted(products, key=lambda product: product.made, reverse=True):
        newer = next((one for one in kept.get(product.acquisition, []) if _same_ground(one, product)), None)
        if newer is None:
            kept.setdefault(product.acquisition, []).append(product)
        else:
            replaced[product.scene.id] = newer
    stay = [scene for scene in scenes if scene.id not in replaced]
    gone = [scene for scene in scenes if scene.id in replaced]
    return stay, [Skipped(scene.id, scene.sensor, _reason(replaced[scene.id])) for scene in gone]


def _reason(newer: _Product) -> str:
    baseline, made, _ = newer.made
    told = [f"baseline {baseline:05.2f}"] if baseline > 0 else []
    told += [f"processed {made}"] if made else []
    return f"the same acquisition was processed again: {newer.scene.id} is newer ({', '.join(told) or 'by its name'})"


def _product(scene: Scene) -> _Product | None:
    """What tells products of one acquisition apart; None where the item does not say which acquisition it is."""
    item = scene.item
    acquisition = _ACQUISITIONS[scene.sensor](scene) if scene.sensor in _ACQUISITIONS else None
    if acquisition is None:
        return None
    properties = item.get("properties", {})
    strip = re.search(r"_S(\d{8}T\d{6})", _first(properties, _STRIP_KEYS))
    return _Product(scene, acquisition, strip[1] if strip else "", _made(item), outline_of(item))


def _made(item: Mapping[str, Any]) -> tuple[float, str, str]:
    baseline = baseline_of(item)
    number = baseline[0] if baseline and baseline[0] < TRIAL else 0.0
    when = _first(item.get("properties", {}), _MADE_KEYS)
    name = product_name(item)
    if name and not when:
        when = name[6]
    return number, re.sub(r"[^0-9T.]", "", when), str(item.get("id", ""))


def _of_optical(scene: Scene) -> tuple[str, ...] | None:
    properties = scene.item.get("properties", {})
    name = product_name(scene.item)
    taken = re.search(r"S2[A-Z]_\d{8}T\d{6}", _first(properties, _DATATAKE_KEYS))
    datatake = taken[0] if taken else f"{name[1]}_{name[2]}" if name else ""
    tile = tile_of(scene.item)
    return (datatake, tile) if datatake and tile else None


def _of_radar(scene: Scene) -> tuple[str, ...] | None:
    properties = scene.item.get("properties", {})
    times = [
        str(properties.get(key) or scene.datetime)[:19].replace(" ", "T") for key in ("start_datetime", "end_datetime")
    ]
    return (scene.platform.lower(), *times, scene.orbit_state)


def _of_terrain(scene: Scene) -> tuple[str, ...] | None:
    name = re.search(r"[NS]\d\d_\d\d_[EW]\d{3}_\d\d", scene.id)
    return (name[0],) if name else None


_ACQUISITIONS = {"optical": _of_optical, "radar": _of_radar, "terrain": _of_terrain}


def tile_of(item: Mapping[str, Any]) -> str:
    """Name of a Sentinel-2 tile, as 33TWL; empty where the item does not give it."""
    properties = item.get("properties", {})
    name = product_name(item)
    if name:
        return name[5]
    given = str(properties.get("s2:mgrs_tile") or properties.get("grid:code") or "")
    match = re.search(r"\d{2}[A-Z]{3}$", given)
    return match[0] if match else ""


def _same_ground(one: _Product, other: _Product) -> bool:
    if one.outline is None or other.outline is None:
        return not one.strip or not other.strip or one.strip == other.strip
    shared = one.outline.intersection(other.outline).area / min(one.outline.area, other.outline.area)
    same_strip = bool(one.strip) and one.strip == other.strip
    return bool(shared >= (SAME_GROUND if same_strip else SAME_GROUND_OTHER_STRIP))


def _first(properties: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((str(properties[key]) for key in keys if properties.get(key)), "")
