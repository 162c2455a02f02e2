"""Reference data of several files, and what is said where one is missing."""

from __future__ import annotations

import numpy as np
import pytest

from wetmap.errors import ReferenceDataError, ReferenceWarning, UsageError
from wetmap.recipe import Background, ClassSpec, MoreReference, Recipe, Reference
from wetmap.samples import UNLABELLED, read_reference
from wetmap.samples.files import missing, named, need_files, without_folders

BOG = ClassSpec(name="bog", reference=["BO"])
WATER = ClassSpec(name="water", reference=["lake", 7])
OBTAIN = "Download it from\n  https://example.org/wetlands and put it there."


def read(grid, aoi, first, also, **options):
    background = Background(name="upland", buffer_m=0)
    found = Reference(path=first, class_field="CLASS", also=also, background=background, **options)
    return read_reference(found, [BOG, WATER], grid, aoi)


def codes_at(labels, code):
    rows, cols = np.nonzero(labels.codes == code)
    return (rows.min(), rows.max() + 1, cols.min(), cols.max() + 1)


@pytest.mark.parametrize("how", [{"value": "Lake"}, {"value": 7}, {"class_field": "CLASS"}])
def test_a_second_file_adds_its_features_under_ids_of_their_own(grid, aoi, pixels, vector, how):
    first = vector([pixels(5, 8, 10, 14), pixels(10, 12, 10, 14)], ["BO", "BO"], name="wetlands.gpkg")
    lakes = vector([pixels(20, 22, 30, 40), pixels(22, 25, 30, 40)], ["lake"] * 2, name="lakes.gpkg", crs="EPSG:4326")
    labels = read(grid, aoi, first, [MoreReference(path=lakes, **how)])
    assert codes_at(labels, 1) == (5, 12, 10, 14)
    assert codes_at(labels, 2) == (20, 25, 30, 40)
    ids = {int(row) for row in np.unique(labels.polygon[labels.codes != UNLABELLED])}
    assert len(ids) == 4
    assert labels.background is not None
    assert not labels.background[20:25, 30:40].any(), "background keeps off the lakes too"
    assert labels.report["also"] == [
        {"file": "lakes.gpkg", "kind": "vector", "layer": "lakes", "features": 2}
        | dict.fromkeys(("features_repaired", "features_without_geometry", "features_outside"), 0)
    ]


def test_where_files_disagree_the_pixel_stays_unlabelled(grid, aoi, pixels, vector):
    first = vector([pixels(5, 15, 10, 20)], ["BO"], name="wetlands.gpkg")
    lakes = vector([pixels(10, 20, 10, 20)], ["x"], name="lakes.gpkg")
    with pytest.warns(ReferenceWarning, match="In 50 pixels features of different classes overlap"):
        labels = read(grid, aoi, first, [MoreReference(path=lakes, value="lake")])
    assert (labels.codes[10:15, 10:20] == UNLABELLED).all()


def test_a_second_file_without_a_feature_in_the_area_is_a_note(grid, aoi, pixels, vector):
    first = vector([pixels(5, 15, 10, 20)], ["BO"], name="wetlands.gpkg")
    lakes = vector([pixels(5000, 5010, 10, 20)], ["x"], name="lakes.gpkg")
    with pytest.warns(ReferenceWarning, match=r"None of the 1 features of .*lakes.gpkg lies in area.*Nothing of that"):
        labels = read(grid, aoi, first, [MoreReference(path=lakes, value="lake")])
    assert any("lakes.gpkg" in note for note in labels.report["warnings"])


def test_a_first_file_without_a_feature_in_the_area_is_still_refused(grid, aoi, pixels, vector):
    first = vector([pixels(5000, 5010, 10, 20)], ["BO"], name="wetlands.gpkg")
    with pytest.raises(ReferenceDataError, match="lies in area"):
        read(grid, aoi, first, [])


def test_a_second_file_with_another_field_names_those_that_it_has(grid, aoi, pixels, vector):
    first = vector([pixels(5, 15, 10, 20)], ["BO"], name="wetlands.gpkg")
    lakes = vector([pixels(20, 25, 10, 20)], ["x"], name="lakes.gpkg")
    with pytest.raises(UsageError, match=r"No field 'WC' in the reference file .*lakes.gpkg.*CLASS, note"):
        read(grid, aoi, first, [MoreReference(path=lakes, class_field="WC")])


def test_a_label_raster_takes_no_second_file(grid, aoi, pixels, vector, raster):
    lakes = vector([pixels(20, 25, 10, 20)], ["x"], name="lakes.gpkg")
    path = raster(np.ones(grid.shape, dtype=np.uint8), grid)
    with pytest.raises(UsageError, match=r"label raster, and reference\.also adds vector files"):
        read_reference(Reference(path=path, also=[MoreReference(path=lakes, value=1)]), [BOG], grid, aoi)


def test_what_is_missing_is_said_with_the_way_to_get_it(tmp_path):
    there = tmp_path / "wetlands.gpkg"
    there.touch()
    more = MoreReference(path=tmp_path / "lakes.gpkg", value="lake", obtain=OBTAIN)
    found = Reference(path=there, also=[more])
    words = r"reference.also.0.path names .*lakes.gpkg, which does not exist. Download it from https://example.org/wet"
    with pytest.raises(UsageError, match=words):
        need_files(found)
    how = "Download it from https://example.org/wetlands and put it there."
    assert missing(found) == [f"{more.path} (reference.also.0.path) is missing. {how}"]
    bare = Reference(path=tmp_path / "none.gpkg")
    assert missing(bare) == [], "what nobody says how to get is refused instead"
    assert missing(bare.model_copy(update={"also": [more]})) == []
    more.path.touch()
    need_files(found)


def test_folders_and_ways_to_get_files_do_not_count(tmp_path):
    more = MoreReference(path=tmp_path / "lakes.gpkg", value="lake", obtain=OBTAIN)
    found = Reference(path=tmp_path / "wetlands.gpkg", also=[more], obtain=OBTAIN)
    asked = named(found)
    assert asked["path"] == "wetlands.gpkg"
    assert asked["also"] == [{"path": "lakes.gpkg", "class_field": None, "value": "lake", "layer": None}]
    assert "obtain" not in asked
    assert str(tmp_path) not in str(without_folders(found))
    assert "also" not in named(Reference(path=tmp_path / "wetlands.gpkg")), "keys of workspaces made before stay"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"path": "lakes.gpkg"}, "give either class_field"),
        ({"path": "lakes.gpkg", "class_field": "A", "value": "b"}, "give either class_field"),
    ],
)
def test_a_second_file_has_one_way_to_a_class(part, said):
    with pytest.raises(ValueError, match=said):
        MoreReference.model_validate(part)


def test_more_files_need_the_list_of_classes():
    reference = {"path": "a.gpkg", "class_field": "CLASS", "also": [{"path": "b.gpkg", "value": "lake"}]}
    with pytest.raises(ValueError, match=r"reference\.also needs classes"):
        Recipe.model_validate({"reference": reference})


def test_all_missing_files_are_named_at_once(tmp_path):
    more = [MoreReference(path=tmp_path / name, value=1, obtain="Download it.") for name in ("a.gpkg", "b.gpkg")]
    reference = Reference(path=tmp_path / "there.gpkg", also=more)
    reference.path.touch()
    with pytest.raises(UsageError, match=r"0\.path names .*a\.gpkg, which.*; .*1\.path names .*b\.gpkg") as caught:
        need_files(reference)
    assert caught.value.do == "Download it."
