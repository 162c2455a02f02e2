"""The table of archives: names, collections, what is refused and what is said; and the same table in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fakes.tiny_archive import SEASON, aoi
from wetmap.errors import SourceError
from wetmap.recipe import Sensor, StacSource
from wetmap.sources import open_archive
from wetmap.sources.providers import ASSETS, CDSE, EARTH_SEARCH, PROVIDERS, address_of, provider_of
from wetmap.sources.stac import PLANETARY_COMPUTER, StacArchive
from wetmap.sources.stac_item import assets_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sources" / "stac.md"


@pytest.mark.parametrize(
    ("name", "sensor", "collection"),
    [
        ("planetary-computer", "optical", "sentinel-2-l2a"),
        ("planetary-computer", "radar", "sentinel-1-rtc"),
        ("planetary-computer", "terrain", "cop-dem-glo-30"),
        ("earth-search", "optical", "sentinel-2-l2a"),
        ("earth-search", "terrain", "cop-dem-glo-30"),
        ("cdse", "optical", "sentinel-2-l2a"),
        ("cdse", "terrain", "cop-dem-glo-30-dged-cog"),
        ("https://example.org/stac", "radar", "sentinel-1-rtc"),
        ("catalog.json", "optical", "sentinel-2-l2a"),
    ],
)
def test_usual_collections(name: str, sensor: Sensor, collection: str) -> None:
    archive = StacArchive.of(StacSource(catalog=name), sensor)
    assert (archive.catalog, archive.collection) == (address_of(name), collection)
    named = StacArchive.of(StacSource(catalog=name, collection="mine"), sensor)
    assert named.collection == "mine"


@pytest.mark.parametrize(
    ("catalog", "name"),
    [
        ("planetary-computer", "planetary-computer"),
        (PLANETARY_COMPUTER, "planetary-computer"),
        (EARTH_SEARCH + "/", "earth-search"),
        (CDSE.upper().replace("HTTPS", "https"), "cdse"),
        ("https://example.org/v1", ""),
        ("earth-search.json", ""),
    ],
)
def test_a_url_is_known_as_its_preset_is(catalog: str, name: str) -> None:
    assert provider_of(catalog).name == name


class TestRefused:
    @pytest.mark.parametrize("name", ["earth-search", "cdse"])
    @pytest.mark.parametrize("collection", [None, "sentinel-1-grd"])
    def test_radar_without_terrain_correction_with_advice_to_join(self, name: str, collection: str | None) -> None:
        """Refused before anything is asked: there is no server here."""
        archive = open_archive(StacSource(catalog=name, collection=collection), "radar")
        with pytest.raises(SourceError, match="No radar scenes can be taken from") as caught:
            archive.search("radar", aoi(), [SEASON], max_cloud_percent=80)
        said = str(caught.value)
        assert "sources: {radar: {from: stac, catalog: planetary-computer}}" in said
        assert ("GRD without terrain correction" in said) is (collection is not None)

    def test_planetary_computers_grd_too(self) -> None:
        archive = open_archive(StacSource(collection="sentinel-1-grd"), "radar")
        with pytest.raises(SourceError, match="sentinel-1-grd of Planetary Computer holds GRD"):
            archive.search("radar", aoi(), [SEASON], max_cloud_percent=80)

    def test_mosaics(self) -> None:
        archive = open_archive(StacSource(catalog="cdse", collection="sentinel-2-global-mosaics"), "optical")
        with pytest.raises(SourceError, match=r"quarterly mosaics, not scenes.*optical: sentinel-2-l2a"):
            archive.search("optical", aoi(), [SEASON], max_cloud_percent=80)


class TestAssets:
    @pytest.mark.parametrize(
        ("name", "held", "expected"),
        [
            ("earth-search", {"blue-jp2", "blue", "B02"}, "blue"),
            ("cdse", {"B02_20m", "B02_60m", "B02_10m"}, "B02_10m"),
            ("planetary-computer", {"B02"}, "B02"),
            ("", {"B02_10m"}, "B02_10m"),
            ("earth-search", {"B02"}, "B02"),  # version 0 of its items
        ],
    )
    def test_which_asset_is_a_band(self, name: str, held: set[str], expected: str) -> None:
        item = {"assets": {asset: {"href": asset} for asset in held}}
        assert assets_of(item, "optical", PROVIDERS.get(name, provider_of("")))["B02"]["href"] == expected

    def test_every_provider_has_a_name_for_every_band(self) -> None:
        for provider in PROVIDERS.values():
            for sensor in ("optical", "radar", "terrain"):
                assert set(provider.assets[sensor]) == set(ASSETS[sensor])  # type: ignore[index]


def table() -> str:
    """The table of the docs."""
    known = list(PROVIDERS.values())
    cells = {
        "in the recipe": [f"`catalog: {one.name}`" for one in known],
        "API": [one.api for one in known],
        "optical": [_code(one.collections.get("optical")) for one in known],
        "radar, terrain-corrected": [_code(one.collections.get("radar")) for one in known],
        "elevation": [_code(one.collections.get("terrain")) for one in known],
        "L-band": [_code(one.collections.get("lband")) for one in known],
        "refused": [", ".join(f"`{name}`" for name in one.refused) for one in known],
        "B02, B8A, SCL are called": [
            ", ".join(f"`{one.assets['optical'][band][0]}`" for band in ("B02", "B8A", "SCL")) for one in known
        ],
        "offset of Sentinel-2": [one.offset for one in known],
        "not observed": ["; ".join(f"{sensor} {value}" for sensor, value in one.nodata.items()) for one in known],
        "account": [one.account for one in known],
        "connections at once": [str(one.connections or "no figure published") for one in known],
    }
    head = [f"| | {' | '.join(f'[{one.title}]({one.name}.md)' for one in known)} |", "| --- " * (len(known) + 1) + "|"]
    return "\n".join([*head, *(f"| {name} | {' | '.join(row)} |" for name, row in cells.items())])


def _code(name: str | None) -> str:
    return f"`{name}`" if name else "none"


def test_the_table_in_the_docs_is_the_table_in_the_code() -> None:
    """``python -m tests.sources.test_providers`` prints it."""
    found = re.search(r"(?ms)^\| \| \[Planetary.*?\|$(?=\n\n)", PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert found[0] == table()


if __name__ == "__main__":
    print(table())  # noqa: T201
