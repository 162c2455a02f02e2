"""Sites of the reference: named by a field, sorted, given to every sample; and what is said where they are not."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetmap.errors import RecipeError, ReferenceDataError, ReferenceWarning, UsageError
from wetmap.recipe import Background, Reference
from wetmap.recipe_file import load_recipe
from wetmap.samples import draw_samples, read_reference
from wetmap.samples.labels import Report, Sites
from wetmap.samples.sites import name_sites, sites_of_samples

pytestmark = pytest.mark.filterwarnings("ignore:No class of the reference is dry land")


@pytest.fixture
def read_sites(grid, aoi, tmp_path):
    """Read rectangles with a class and a site each."""

    def read(geometry, values, sites, **options):
        frame = geopandas.GeoDataFrame({"CLASS": values, "place": sites}, geometry=geometry, crs=grid.crs)
        frame.to_file(tmp_path / "sites.gpkg")
        chosen = {"class_field": "CLASS", "site_field": "place", **options}
        return read_reference(Reference(path=tmp_path / "sites.gpkg", **chosen), [], grid, aoi)

    return read


def draw(labels, background=None):
    return draw_samples(labels, per_class=500, min_per_class=1, background=background, seed=1)


def test_every_sample_has_the_site_of_its_feature(read_sites, pixels):
    rectangles = [pixels(5, 8, 5, 10), pixels(5, 8, 20, 25), pixels(20, 22, 40, 45)]
    samples = draw(read_sites(rectangles, ["bog", "fen", "bog"], ["York", "Albert", "york "]))
    assert samples.site_names == ("Albert", "York")
    expected = np.where((samples.row < 10) & (samples.col >= 20), 0, 1)
    np.testing.assert_array_equal(samples.site, expected)


def test_numbers_are_sites_in_the_order_of_their_value(read_sites, pixels):
    labels = read_sites([pixels(5, 8, at, at + 3) for at in (5, 15, 25)], ["bog", "fen", "bog"], [10, 9, 2])
    assert labels.sites.names == ("2", "9", "10")
    np.testing.assert_array_equal(draw(labels).site, 2 - np.digitize(draw(labels).col, [10, 20]))


def test_features_without_a_site_are_left_out_and_counted(read_sites, pixels):
    rectangles = [pixels(5, 8, 5, 10), pixels(5, 8, 20, 25), pixels(20, 22, 40, 45)]
    with pytest.warns(ReferenceWarning, match="2 of 3 reference features in the area have an empty site field"):
        labels = read_sites(rectangles, ["bog", "bog", "bog"], ["York", None, " "])
    assert labels.report["features_without_site"] == 2
    assert labels.report["pixels"] == {"bog": 15}
    with pytest.raises(ReferenceDataError, match="site field is empty in all of the 3"):
        read_sites(rectangles, ["bog", "bog", "bog"], [None, "", " "])


def test_a_site_outside_the_samples_is_no_site(read_sites, pixels):
    labels = read_sites(
        [pixels(5, 8, 5, 10), pixels(5.1, 5.3, 20.1, 20.3), pixels(9, 12, 5, 10)], ["bog"] * 3, ["c", "b", "a"]
    )
    assert labels.sites.names == ("a", "b", "c")  # b is smaller than a pixel
    samples = draw(labels)
    assert samples.site_names == ("a", "c")
    np.testing.assert_array_equal(samples.site, (samples.row < 9).astype(int))


def test_background_belongs_to_the_site_that_is_nearest(read_sites, pixels):
    background = Background(name="upland", share=4.0, buffer_m=20.0)
    labels = read_sites(
        [pixels(15, 25, 5, 10), pixels(15, 25, 50, 55)], ["bog", "bog"], ["west", "east"], background=background
    )
    samples = draw(labels, background)
    dry = samples.label == 1
    assert dry.sum() > 100
    # The middle between the columns 9 and 50 is 29.5.
    np.testing.assert_array_equal(samples.site[dry], (samples.col[dry] < 30).astype(int))


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_the_order_of_samples_is_nothing(seed, count):
    generator = np.random.default_rng(seed)
    sites = Sites(tuple("abcd")[:count], {feature: feature % count for feature in range(20)})
    row, col = generator.integers(0, 50, (2, 60))
    polygon = generator.integers(0, 30, 60).astype(np.int32)  # 20 to 29 are squares of background
    polygon[0] = 0
    site, names = sites_of_samples(row, col, polygon, sites)
    order = generator.permutation(60)
    again, same = sites_of_samples(row[order], col[order], polygon[order], sites)
    assert names == same
    np.testing.assert_array_equal(site[order], again)
    for index, feature in enumerate(polygon):
        if feature < 20:
            assert names[site[index]] == sites.names[feature % count]


def test_site_names_keep_the_first_spelling_and_mix_numbers_before_text():
    sites = name_sites(np.arange(4), ["B", "b ", 3.0, "a"], Report())
    assert sites.names == ("3", "a", "B")
    assert sites.of_feature == {0: 2, 1: 2, 2: 0, 3: 1}


def test_a_field_that_is_not_there_and_a_raster_that_has_none(grid, aoi, pixels, read_sites, raster):
    with pytest.raises(UsageError, match=r"No field 'site' in .*reference\.site_field: CLASS, place"):
        read_sites([pixels(5, 8, 5, 10)], ["bog"], ["York"], site_field="site")
    path = raster(np.ones(grid.shape, np.uint8), grid)
    with pytest.raises(UsageError, match=r"is a label raster, which has no field 'place'\. Use splits\.kind blocks"):
        read_reference(Reference(path=path, site_field="place"), [], grid, aoi)


@pytest.mark.parametrize("reference", ["simulated", "{path: a.gpkg, class_field: CLASS}"])
def test_a_recipe_with_sites_and_no_site_field_is_refused_at_once(tmp_path, reference):
    (tmp_path / "recipe.yaml").write_text(f"reference: {reference}\nsplits: {{kind: sites}}\n")
    with pytest.raises(RecipeError, match=r"needs reference\.site_field.* use splits\.kind blocks"):
        load_recipe(tmp_path / "recipe.yaml")


def test_sites_may_be_more_than_folds(tmp_path):
    text = "reference: {path: a.gpkg, class_field: CLASS, site_field: place}\nsplits: {kind: sites, test_fold: 11}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml").splits.test_fold == 11
