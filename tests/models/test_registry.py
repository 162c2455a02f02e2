from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from wetmap.errors import RecipeError
from wetmap.models import Geometry, create, entry, model_names, option_defaults, resolve_options
from wetmap.models.windows import TILE_PX


def test_the_models_and_their_defaults():
    assert model_names() == (
        "wetmapformer",
        "wetmapformer-window",
        "wetmapformer-published",
        "supervit-micro",
        "supervit-small",
        "vvt-micro",
        "vvt-tiny",
        "vvt-small",
        "vvt-medium",
        "vvt-large",
        "vvt-micro-dense",
        "vvt-tiny-dense",
        "vvt-small-dense",
        "vvt-medium-dense",
        "vvt-large-dense",
        "supervit-micro-dense",
        "supervit-small-dense",
        "unet",
        "hybridsn",
        "resnet",
        "vit",
        "swin",
        "coatnet",
        "forest",
        "boosting",
    )
    assert option_defaults("wetmapformer-window") == {"size": "small", "window": 8, "stem_stride": 4}
    assert option_defaults("vvt-micro") == {
        "window": 32,
        "clamp": True,
        "drop_path": 0.0,
        "extractor": "none",
    }
    assert {name: entry(name).family for name in model_names()} == {
        name: "pixel" if name in ("forest", "boosting") else "torch" for name in model_names()
    }
    assert resolve_options("forest", {"trees": 5}) == {"trees": 5, "class_weight": "balanced"}
    assert option_defaults("boosting") == {
        "trees": 100,
        "learning_rate": 0.1,
        "leaves": 31,
        "class_weight": "balanced",
    }


def test_every_classifier_of_windows_is_made_from_its_own_defaults():
    for name in model_names():
        if entry(name).answers == "window":
            defaults = option_defaults(name)
            with torch.device("meta"):  # a large model is described, not filled
                model = create(name, 2, 3, **defaults)
            margin = int(defaults["window"]) // 2
            tile = 2 * TILE_PX if name.startswith("wetmapformer") else TILE_PX
            assert model.geometry == Geometry(tile=tile, margin=margin, stride=1)
            assert model.geometry.side == tile + 2 * margin


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wetmapformer-windows", {}, "Choose one of wetmapformer, .*, forest"),
        ("wetmapformer-window", {"windows": 8}, "Its options are size, stem_stride, window"),
        ("wetmapformer-window", {"window": 9}, "Choose one of 8, 10"),
        ("wetmapformer-window", {"window": 6}, "Choose one of 8, 10"),
        ("wetmapformer-window", {"window": 34}, "Choose one of 8, 10"),
        ("wetmapformer-window", {"window": "8"}, "of type str"),
        ("wetmapformer-window", {"window": True}, "of type bool"),
        ("wetmapformer-window", {"window": 8.0}, "of type float"),
        ("wetmapformer-window", {"size": "tiny"}, "small, medium, large"),
        ("wetmapformer-window", {"stem_stride": 3}, "1, 2, 4"),
        ("forest", {}, "fit_pixel_model"),
        ("boosting", {}, "fit_pixel_model"),
        ("forest", {"trees": 0}, "above 0"),
    ],
)
def test_what_is_not_offered_is_refused_with_what_is(name, options, message):
    with pytest.raises(RecipeError, match=message):
        create(name, 4, 3, **options)


@pytest.mark.parametrize(
    ("bands", "classes", "layers", "band_layer"),
    [(0, 3, 1, None), (4, 1, 1, None), (4, 3, 0, None), (4, 3, 2, None), (4, 3, 2, [0, 1]), (2, 3, 2, [0, 2])],
)
def test_counts_that_do_not_fit_are_refused(bands, classes, layers, band_layer):
    with pytest.raises(RecipeError):
        create("wetmapformer-window", bands, classes, layers=layers, band_layer=band_layer)


def test_listing_the_models_imports_neither_torch_nor_scikit_learn():
    code = (
        "import sys, wetmap.models as m; m.option_defaults('forest'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'skops')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
