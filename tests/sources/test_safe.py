"""SAFE metadata: two real sets against what stactools makes of them, and files that mean harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import shape

from tests.conftest import SHARED
from tests.fakes.downloads import TILE, product_xml
from wetmap.sources.safe import MOST_XML_BYTES, MetadataError, Product, parse_xml, product_of, tile_of

METADATA = SHARED / "data/safe_metadata"
REAL = {
    "02.12": "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE",
    "05.09": "S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825.SAFE",
}
TIME = "2021-06-10T15:10:00Z"


def made(**changes: Any) -> str:
    return product_xml("S2A_MSIL2A_X", **{"time": TIME, "baseline": "05.09", **changes})


@pytest.mark.real
@pytest.mark.skipif(not METADATA.is_dir(), reason="the real metadata are not beside the checkout")
class TestReal:
    @pytest.fixture(params=sorted(REAL))
    def found(self, request: pytest.FixtureRequest) -> tuple[str, Product, Path, dict[str, Any]]:
        folder = METADATA / REAL[request.param]
        expected = json.loads((folder / "expected_output.json").read_text())
        return request.param, product_of((folder / "MTD_MSIL2A.xml").read_bytes()), folder, expected

    def test_the_product_says_what_stactools_reads(self, found: tuple[str, Product, Path, dict[str, Any]]) -> None:
        baseline, product, _, expected = found
        facts = expected["properties"]
        assert product.baseline == baseline == facts["s2:processing_baseline"]
        assert f"{product.uri}.SAFE" == facts["s2:product_uri"]
        assert product.time == facts["datetime"]
        assert product.platform.lower() == facts["platform"]
        assert product.orbit_state == facts["sat:orbit_state"]
        assert product.relative_orbit == facts["sat:relative_orbit"]
        assert product.datatake == facts["s2:datatake_id"]
        assert product.datastrip == facts["s2:datastrip_id"]
        assert product.cloud_percent == pytest.approx(facts["eo:cloud_cover"])

    def test_scale_and_offset_are_those_of_its_bands(self, found: tuple[str, Product, Path, dict[str, Any]]) -> None:
        baseline, product, _, expected = found
        declared = expected["assets"]["blue"]["raster:bands"][0]
        assert product.scale_and_offset("B02") == pytest.approx((declared["scale"], declared["offset"]))
        assert (product.added is None) == (baseline == "02.12")
        assert ("no BOA_ADD_OFFSET" in product.why) == (baseline == "02.12")

    def test_the_outline_is_the_same_ground(self, found: tuple[str, Product, Path, dict[str, Any]]) -> None:
        _, product, _, expected = found
        ours, theirs = shape(product.outline), shape(expected["geometry"])
        assert ours.symmetric_difference(theirs).area < 1e-4 * theirs.area

    def test_the_tile_lies_where_its_images_do(self, found: tuple[str, Product, Path, dict[str, Any]]) -> None:
        _, _, folder, expected = found
        tile = tile_of(next(folder.glob("GRANULE/*/MTD_TL.xml")).read_bytes())
        assert list(tile.bounds) == expected["assets"]["blue"]["proj:bbox"]
        assert tile.cloud_percent == pytest.approx(expected["properties"]["eo:cloud_cover"])
        scene = shape(expected["geometry"])
        assert shape(tile.outline()).buffer(0.01).contains(scene), "also across the antimeridian"


class TestProduct:
    def test_the_offset_is_the_metadatas_own(self) -> None:
        assert product_of(made().encode()).scale_and_offset("B11") == (1e-4, -0.1)
        assert product_of(made(baseline="03.01").encode()).scale_and_offset("B11") == (1e-4, 0.0)
        bare = (
            made(baseline="99.99")
            .replace("BOA_ADD_OFFSET band_id", "OTHER band_id")
            .replace("/BOA_ADD_OFFSET>", "/OTHER>")
        )
        product = product_of(bare.encode())
        assert product.scale_and_offset("B02") == (1e-4, 0.0), "no BOA_ADD_OFFSET is none, whatever the baseline"

    def test_offsets_and_quantification_of_every_band_count(self) -> None:
        text = made().replace('band_id="1">-1000', 'band_id="1">-500').replace(">10000<", ">20000<")
        product = product_of(text.encode())
        assert product.scale_and_offset("B02") == (5e-5, -0.025)
        assert product.scale_and_offset("B03") == (5e-5, -0.05)
        assert "-1000, -500" in product.why

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (("Level-2A<", "Level-1C<"), "Level-1C, not Level-2A"),
            (("BOA_QUANTIFICATION_VALUE", "OTHER"), "no BOA_QUANTIFICATION_VALUE"),
            ((">10000<", ">0<"), "no BOA_QUANTIFICATION_VALUE"),
            ((">10000<", ">nan<"), "is 'nan'"),
            ((">-1000<", ">many<"), "'many'"),
            ((TIME, "yesterday"), "'yesterday'"),
        ],
    )
    def test_what_is_wrong_is_said(self, change: tuple[str, str], reason: str) -> None:
        with pytest.raises(MetadataError, match=reason):
            product_of(made().replace(*change).encode())

    def test_a_tile_without_a_place_is_refused(self) -> None:
        text = TILE.format(crs="EPSG:32619", side=84, left=700000, top=5010000, cloud=1)
        assert tile_of(text.encode()).bounds == (700000, 5009160, 700840, 5010000)
        for old, new in (("EPSG:32619", "UTM 19"), ("ULX", "X")):
            with pytest.raises(MetadataError, match="where the images lie"):
                tile_of(text.replace(old, new).encode())


BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
<!ENTITY lol3 "&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;">]>
<lolz>&lol3;</lolz>"""


class TestHarm:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    @pytest.mark.parametrize(
        "text",
        [
            BOMB,
            '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><a/>',
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>',
        ],
    )
    def test_document_types_and_entities_are_refused(self, text: str, encoding: str) -> None:
        declared = text.replace('<?xml version="1.0"?>\n', "")
        with pytest.raises(MetadataError, match="document type"):
            parse_xml(f'<?xml version="1.0" encoding="{encoding}"?>{declared}'.encode(encoding))

    @pytest.mark.parametrize(
        "data", [b"", b"\x00\x01", b"<a>", b"<a></b>", b"<a>&x;</a>", b"<a/><b/>", "<ä/>".encode("latin-1")]
    )
    def test_what_is_no_xml_is_refused(self, data: bytes) -> None:
        with pytest.raises(MetadataError, match="not XML"):
            parse_xml(data)

    def test_huge_metadata_are_refused_unparsed(self) -> None:
        with pytest.raises(MetadataError, match="larger than 64 MB"):
            parse_xml(b" " * (MOST_XML_BYTES + 1))
