"""The pages about products and layers name every one of them, with its unit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wetmap.cube import KINDS
from wetmap.products.layers import KNOWN_LAYERS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_kind_of_feature_is_in_the_table_with_its_unit_and_step() -> None:
    rows = re.findall(r"(?m)^\|.*\| `(\w+)` \| (\S+) \| ([\d.]+) \|", (DOCS / "layers/cube.md").read_text("utf-8"))
    told = {kind: (unit, float(step)) for kind, unit, step in rows}
    assert told == {name: (kind.unit, kind.step) for name, kind in KINDS.items()}


@pytest.mark.parametrize("layer", KNOWN_LAYERS, ids=[layer.file for layer in KNOWN_LAYERS])
def test_every_layer_of_the_folder_is_on_a_page(layer) -> None:
    pages = [DOCS / "products.md", *(DOCS / "products").glob("*.md"), *(DOCS / "how-to").glob("*.md")]
    assert any(f"`{layer.file}`" in page.read_text("utf-8") for page in pages)


def test_every_product_has_its_page_in_the_overview() -> None:
    overview = (DOCS / "products.md").read_text("utf-8")
    for page in (DOCS / "products").glob("*.md"):
        assert f"(products/{page.name})" in overview, page.name
