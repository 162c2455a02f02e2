"""Real Sentinel-2 pixels masked and composited by wetmap's own code; the picture in the docs is made again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHARED
from wetmap.stages.scenes_check import check_scenes, suspects

ROOT = Path(__file__).resolve().parents[2]
TILE, BELGIUM = SHARED / "data/s2_l2a_stac_120m", SHARED / "data/openeo_gfmap_cdse/cdse_sentinel2_l2a.nc"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (TILE.is_dir() and BELGIUM.is_file()), reason="the real scenes are not beside the checkout"),
]


@pytest.fixture(scope="module")
def maker() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import optical_real

        yield optical_real


@pytest.fixture(scope="module")
def slovenia(maker: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return maker.tile(TILE, tmp_path_factory.mktemp("slovenia"))


@pytest.fixture(scope="module")
def august(slovenia: Any) -> Any:
    """The tile's composite."""
    return slovenia.composite()


@pytest.fixture(scope="module")
def belgium(maker: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return maker.belgium(BELGIUM, tmp_path_factory.mktemp("belgium"))


def test_the_items_offset_is_taken_from_their_own_flag(slovenia: Any) -> None:
    """Baseline 05.09, ``raster:bands`` offset -0.1, and a flag that says that it is in the pixels already."""
    for scene in slovenia.task().scenes:
        assert (scene.scale, scene.offset) == (1e-4, 0.0)
        assert "earthsearch:boa_offset_applied is true" in scene.offset_rule


def test_a_cloudy_scene_does_not_reach_the_composite(august: Any) -> None:
    """The third scene is 46 % cloud; forest and fields in August are dark in red and bright in infrared."""
    made = august
    blue, green, red, infrared = made.features
    assert float(made.observed.mean()) > 0.99
    assert float(np.nanmedian(blue)) == pytest.approx(0.032, abs=0.005)
    assert float(np.nanmedian(green)) == pytest.approx(0.052, abs=0.005)
    assert float(np.nanmedian(red)) == pytest.approx(0.029, abs=0.005)
    assert float(np.nanmedian(infrared)) == pytest.approx(0.335, abs=0.02)
    assert float(np.nanpercentile(blue, 99.5)) < 0.25
    assert float((blue > 0.3).mean()) < 0.002
    assert [int(n) for n in np.unique(made.clear_count)] == [0, 1, 2, 3]
    assert suspects(check_scenes(made.checks)) == []


def test_of_twelve_dates_two_show_the_ground(belgium: Any) -> None:
    """Ten are cloud or cirrus throughout; what is left is spring grass."""
    task = belgium.task()
    assert len(task.scenes) == 12
    made = belgium.composite(composite="medoid")
    assert int(made.clear_count.max()) == 2
    assert float(made.observed.mean()) > 0.99
    red, infrared = made.features
    assert float(np.nanmedian(red)) == pytest.approx(0.033, abs=0.005)
    assert float(np.nanmedian((infrared - red) / (infrared + red))) > 0.8
    with_cirrus = belgium.composite(mask=["cloud", "shadow"])
    assert int(with_cirrus.clear_count.max()) == 3, "the last date is cirrus from edge to edge"


def test_the_picture_in_the_docs(maker: Any, slovenia: Any, august: Any) -> None:
    """Made again, it is the same but for fonts: means of coarse cells agree."""
    kept = ROOT / "docs/pictures/optical-real.png"
    assert kept.stat().st_size < 300_000
    found = [
        np.asarray(Image.open(source).convert("RGB").resize((24, 13), Image.Resampling.BOX), dtype=float)
        for source in (kept, io.BytesIO(maker.picture(slovenia, august)))
    ]
    assert float(np.abs(found[0] - found[1]).mean()) < 6
    assert float(np.abs(found[0] - found[1]).max()) < 60
