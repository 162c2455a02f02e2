"""What a fetch would read: shares of outlines, sizes of files, blocks near the area."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import MultiPolygon, box, mapping

from wetmap.cluster import Workers
from wetmap.geo import Aoi
from wetmap.recipe import Recipe, Sensor
from wetmap.sources import Scene, Skipped
from wetmap.stages.context import Context, Silent
from wetmap.stages.reading_estimate import lines, reading
from wetmap.workspace import Workspace

#: About 0.1 x 0.1 degrees at 46 N: 7.75 x 11.1 km.
AREA = box(-66.05, 46.0, -65.95, 46.1)


def context(tmp_path: Path, **changes: Any) -> Context:
    features = {"preset": "custom", "optical": ["B02", "B11"], "indices": [], "radar": ["VV"], "terrain": ["elevation"]}
    season = {"name": "summer", "start": "2021-06-01", "end": "2021-08-31"}
    recipe = Recipe.model_validate({"seasons": [season], "features": features, **changes})
    made = Context(recipe, recipe, Workspace(tmp_path), Workers(recipe.cluster, tmp_path), Silent())
    object.__setattr__(made, "aoi", Aoi("a", MultiPolygon([AREA])))
    return made


def scene(
    name: str, sensor: Sensor, outline: Any, bands: tuple[str, ...], when: str = "2021-06-10", **size: int
) -> Scene:
    assets = {band: {"href": band, **({"file:size": size[band]} if band in size else {})} for band in bands}
    item = {"geometry": None if outline is None else mapping(outline), "assets": assets}
    return Scene(name, sensor, f"{when}T15:00:00.000000Z", bands=bands, item=item)


def gb_of(told: dict[str, Any], name: str) -> float:
    return float(next(row["gb"] for row in told["scene_list"] if row["id"] == name))


def test_a_scene_costs_its_share_of_the_area(tmp_path: Path) -> None:
    bands = ("B02", "B03", "B11", "SCL")
    everywhere, half = box(-68, 45, -64, 47), box(-66.0, 45, -64, 47)
    scenes = [
        scene("whole", "optical", everywhere, bands),
        scene("half", "optical", half, bands, "2021-07-01"),
        scene("beside", "optical", box(-60, 45, -59, 47), bands, "2021-07-20"),
        scene("unknown outline", "optical", None, bands, "2021-08-02"),
    ]
    told = reading(context(tmp_path), scenes, [])
    grid = context(tmp_path).grid
    # B02 on 10 m; B11 and SCL on 20 m; B03 is not asked for. 2 bytes each.
    pixels = grid.height * grid.width
    assert gb_of(told, "whole") == pytest.approx(pixels * 2 * (1 + 2 / 4) / 1e9, rel=0.01)
    assert gb_of(told, "half") == pytest.approx(gb_of(told, "whole") / 2, rel=0.1)
    assert gb_of(told, "beside") == 0
    assert gb_of(told, "unknown outline") == pytest.approx(gb_of(told, "whole"), rel=1e-3)
    assert told["scenes_by_month"]["optical"] == {"2021-06": 1, "2021-07": 2, "2021-08": 1}


def test_the_size_of_a_file_is_believed_where_it_is_given(tmp_path: Path) -> None:
    """A tile of 4 x 2 degrees in a file of 2 GB, of which the area is about 1 / 800."""
    outline = box(-68, 45, -64, 47)
    told = reading(context(tmp_path), [scene("s", "radar", outline, ("VV", "VH"), VV=2_000_000_000)], [])
    assert gb_of(told, "s") == pytest.approx(2 * 0.1 * 0.1 / 8, rel=0.1)


def test_only_blocks_near_the_area_are_read(tmp_path: Path) -> None:
    """Two small corners of a wide rectangle: what lies between them is not read."""
    corners = MultiPolygon([box(-66.5, 45.5, -66.48, 45.52), box(-65.5, 46.48, -65.48, 46.5)])
    made = context(tmp_path, grid={"block_px": 256})
    object.__setattr__(made, "aoi", Aoi("corners", corners))
    told = reading(made, [scene("s", "radar", box(-70, 44, -60, 48), ("VV",))], [])
    assert gb_of(told, "s") < 0.05 * made.grid.height * made.grid.width * 4 / 1e9


def test_lines_for_people(tmp_path: Path) -> None:
    made = context(tmp_path)
    scenes = [
        scene(f"s{at}", "optical", box(-68, 45, -64, 47), ("B02", "SCL"), f"2021-0{6 + at}-01") for at in range(3)
    ]
    told = reading(
        made, [*scenes, scene("dem", "terrain", None, ("elevation",), "2021-04-22")], [Skipped("x", "optical", "y")]
    )
    said = "\n".join(lines(told))
    assert "optical 3 (2021-06 1, 2021-07 1, 2021-08 1), about " in said
    assert "terrain 1 (1 without a date)" in said
    assert "1 left out, the first: x (y)" in said
    assert "1 min at 20 MB/s" in said
    assert lines({"scenes": "not known: no network"}) == []
