"""What a user sees of the scenes' shifts: in the answer of ``fetch``, and on the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.walk.conftest import Run


def test_the_page_says_and_shows_how_well_the_scenes_lie(small: Path) -> None:
    page = (small / "space/map/report.html").read_text()
    head, _, rest = page.partition("<h3>How well the scenes lie on each other</h3>")
    assert head != page
    said = rest.split("</ul>")[0]
    assert "Radar, track 62 ascending, SENTINEL-1A: lies" in said
    assert "Radar, track 171 descending, SENTINEL-1A: lies" in said
    assert 'alt="Maps of the tie blocks' in rest
    assert "data:image/png;base64," in rest.split('alt="Maps of the tie blocks')[0]


def test_the_simulated_shift_is_found_and_mended(small: Path, wetmap: Run) -> None:
    """Half a pixel: the descending track lies 4 m south and 3 m west."""
    done = wetmap("fetch", "--recipe", small / "recipe.yaml", "--json")
    rows = {row["key"]: row for row in json.loads(done.stdout)["coregistration"]}
    descending, ascending = rows["SENTINEL-1A 171 descending"], rows["SENTINEL-1A 62 ascending"]
    assert descending["off_m"] == pytest.approx([-3, -4], abs=1.5)
    assert descending["moved_m"] == pytest.approx([-east for east in descending["off_m"]])
    assert ascending["off_m"] == pytest.approx([0, 0], abs=1.5)
    assert ascending["moved_m"] == [0.0, 0.0]
