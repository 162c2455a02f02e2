"""The page that says how closely the public code is followed says what is so."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/models/parity.md").read_text(encoding="utf-8")


def module(path: Path) -> ModuleType:
    """A file that is not part of a package."""
    spec = importlib.util.spec_from_file_location(f"parity_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, made.__name__, made)
        spec.loader.exec_module(made)
    return made


PARITY = module(ROOT / "benchmarks/parity.py")


@pytest.mark.parametrize("variant", PARITY.VARIANTS, ids=lambda row: f"{row.name}, {row.bands}, {row.classes}")
def test_parameters_are_as_many_as_published(variant):
    assert PARITY.count(variant) == variant.published


def test_the_pages_table_is_the_codes():
    assert PARITY.table() in PAGE
    assert "**no**" not in PARITY.table()


def test_every_golden_file_is_on_the_page():
    files = {f"{path.parent.name}/{path.stem}" for path in (ROOT / "tests/golden").rglob("*.safetensors")}
    assert files
    assert files == set(re.findall(r"`((?:wetmapformer|vvt|supervit)/\w+)`", PAGE))


def test_the_pages_limits_are_the_tests():
    here = Path(__file__).parent
    keras, vvt, supervit, layers, export = (
        module(here / f"test_{name}.py") for name in ("wetmapformer", "vvt_golden", "supervit", "layers", "export")
    )
    for tests in (keras, vvt, supervit):
        assert (tests.FLOAT32, tests.FLOAT64) == (1e-5, 1e-10)
    assert keras.FLOAT64_WITH_GELU == 1e-8
    assert vvt.GRADIENT32 == {"base": 5e-5, "native_init": 5e-5, "sr": 1e-4, "clamps": 2e-4}
    assert vvt.CANCELLING32 == 5e-2
    assert (export.TOLERANCE, export.HALF_DIFFERENCE) == (1e-4, 0.05)
    assert "5e-5 (`base`, `native_init`), 1e-4 (`sr`), 2e-4 (`clamps`)" in PAGE
    assert layers.LWA.stem == "lwa"
