"""What a recipe check refuses before anything is fetched."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pytest
from shapely.geometry import box

from wetmap.cluster import Workers
from wetmap.errors import MissingSourceError, ReferenceDataError, ReferenceWarning, UsageError
from wetmap.recipe import Recipe
from wetmap.stages import chain
from wetmap.stages.check import check_recipe
from wetmap.stages.context import Context, Silent
from wetmap.workspace import Workspace


def recipe(folder: Path, **changes: object) -> Recipe:
    gpd.GeoDataFrame(geometry=[box(-66.60, 45.90, -66.59, 45.91)], crs=4326).to_file(folder / "area.geojson")
    wetlands = gpd.GeoDataFrame(
        {"KIND": ["bog", "fen"]},
        geometry=[box(-66.60, 45.90, -66.597, 45.903), box(-66.595, 45.905, -66.592, 45.908)],
        crs=4326,
    )
    wetlands.to_file(folder / "wetlands.gpkg")
    reference = {"path": str(folder / "wetlands.gpkg"), "class_field": "KIND"}
    sources = {name: {"kind": "simulated"} for name in ("optical", "radar", "terrain")}
    whole = {"aoi": str(folder / "area.geojson"), "sources": sources, "reference": reference, **changes}
    return Recipe.model_validate(whole)


def test_a_reference_that_fits_passes(tmp_path: Path) -> None:
    assert "px" in check_recipe(recipe(tmp_path))


def test_a_class_field_that_is_not_there_is_refused_before_the_fetch(tmp_path: Path) -> None:
    wrong = {"path": str(tmp_path / "wetlands.gpkg"), "class_field": "CLASS"}
    with pytest.raises(UsageError, match="No field 'CLASS'"):
        check_recipe(recipe(tmp_path, reference=wrong))


def test_classes_that_no_feature_has_are_refused_before_the_fetch(tmp_path: Path) -> None:
    classes = [{"name": "marsh", "reference": ["Marsh"]}, {"name": "upland"}]
    with pytest.warns(ReferenceWarning), pytest.raises(ReferenceDataError, match="holds 'bog', 'fen'"):
        check_recipe(recipe(tmp_path, classes=classes))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"kind": "stac", "catalog": "planetary_computer"}, "Did you mean planetary-computer"),
        ({"kind": "stac", "catalog": "arch2"}, r"arch2, which is a folder, not a catalogue\. Name the file in it"),
        ({"kind": "files", "folder": "none"}, "none, which does not exist"),
        ({"kind": "rasters", "files": [{"path": "none.tif", "bands": ["VV"], "unit": "gamma0"}]}, "none.tif does not"),
    ],
)
def test_a_source_that_is_not_there_is_refused_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arch2").mkdir()
    (tmp_path / "arch2" / "catalog.json").write_text("{}")
    sources = {"optical": {"kind": "simulated"}, "radar": source, "terrain": {"kind": "simulated"}}
    with pytest.raises(UsageError, match=told) as caught:
        check_recipe(recipe(tmp_path, sources=sources))
    assert caught.value.exit_code == 2


def test_a_missing_source_is_of_both_kinds() -> None:
    assert issubclass(MissingSourceError, UsageError)
    assert MissingSourceError("a", do="b").exit_code == 2


def test_a_typing_error_in_a_class_is_refused_by_the_check_and_by_fetch(tmp_path: Path) -> None:
    classes = [{"name": "bog"}, {"name": "wet", "reference": ["fenn"]}]
    wrong = recipe(tmp_path, classes=classes)
    with pytest.warns(ReferenceWarning), pytest.raises(ReferenceDataError, match=r"in area: wet .*Did you mean 'fen'"):
        check_recipe(wrong)
    workers = Workers(wrong.cluster, tmp_path / "space/.dask")
    context = Context(wrong, wrong, Workspace(tmp_path / "space"), workers, Silent())
    with pytest.raises(ReferenceDataError, match="Did you mean 'fen'"):
        chain.fetch(context)
    assert not (tmp_path / "space").exists()
