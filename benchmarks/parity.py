"""Parameters of every published variant, as published and as built here: the table of docs/models/parity.md.

``python benchmarks/parity.py`` prints it; a test compares the page with it. Nothing is computed but shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from wetmap.models import create
from wetmap.models.supervit import Shape, SuperVit
from wetmap.models.vvt import Vvt
from wetmap.models.vvt import Wiring as VvtWiring
from wetmap.models.wetmapformer import WetMapFormer, Wiring, reference_count

HEADER = "| variant | bands, classes | as published | here, by name | equal |\n| --- | --- | --- | --- | --- |"

#: The smallest VVT of the release's own file.
VVT_TEST = VvtWiring(
    widths=(32, 32, 32, 32),
    depths=(1, 1, 1, 1),
    heads=(1, 1, 1, 1),
    mlp_ratios=(1, 1, 1, 1),
    feature_reductions=(1, 2, 2, 4),
)


@dataclass(frozen=True)
class Variant:
    """A variant of a published model."""

    name: str
    """Its name in the release."""
    bands: int
    """Bands of its input."""
    classes: int
    """Classes of its answer."""
    published: int
    """Its parameters there: as the release's own framework counts them."""
    here: str
    """What it is called here."""
    make: Callable[[], nn.Module]
    """Builds it."""


def keras(name: str, size: str, published: int, model: str) -> Variant:
    """A WetMapFormer of the notebook, for its own 16 bands and 7 classes."""
    return Variant(name, 16, 7, published, f"`{model}`, size `{size}`", partial(create, model, 16, 7, size=size))


def both(name: str, counts: tuple[int, int], model: str) -> tuple[Variant, Variant]:
    """A torch model for photographs, and for 16 bands and 7 classes."""
    sizes = ((3, 1000), (16, 7))
    photo, map_ = (
        Variant(name, bands, classes, count, f"`{model}`", partial(create, model, bands, classes))
        for (bands, classes), count in zip(sizes, counts, strict=True)
    )
    return photo, map_


VARIANTS = (
    keras("WetMapFormer_small", "small", 719_728, "wetmapformer-published"),
    keras("WetMapFormer_medium", "medium", 1_626_988, "wetmapformer-published"),
    keras("WetMapFormer_large", "large", 1_859_560, "wetmapformer-published"),
    Variant(
        "WetMapFormer(), its defaults",
        16,
        7,
        1_627_000,
        "`Wiring(depths=(3, 4), head_width=64, kernel=1, mlp_ratio=0)`",
        lambda: WetMapFormer(16, 7, wiring=Wiring(depths=(3, 4), head_width=64, kernel=1, mlp_ratio=0)),
    ),
    keras("small, blocks called by keyword", "small", 1_376_816, "wetmapformer-window"),
    keras("medium, blocks called by keyword", "medium", 4_123_084, "wetmapformer-window"),
    keras("large, blocks called by keyword", "large", 6_851_560, "wetmapformer-window"),
    *(
        Variant(
            "vvt_test",
            bands,
            classes,
            count,
            "`Wiring` of the golden test",
            partial(Vvt, bands, classes, wiring=VVT_TEST),
        )
        for bands, classes, count in ((3, 1000, 93_984), (16, 7, 81_599))
    ),
    *both("vvt_tiny", (12_882_440, 12_434_183), "vvt-tiny"),
    *both("vvt_small", (25_492_264, 25_044_007), "vvt-small"),
    *both("vvt_medium", (47_907_304, 47_459_047), "vvt-medium"),
    *both("vvt_large", (61_848_520, 61_400_263), "vvt-large"),
    *both("super_deit_s", (22_170_088, 23_065_735), "supervit-small"),
    Variant(
        "SuperViT of the golden files",
        16,
        7,
        357_799,
        "`Shape(tokens=(4, 6, 8), patch=4, width=48, depth=12, heads=3)`",
        lambda: SuperVit(16, 7, shape=Shape(tokens=(4, 6, 8), patch=4, width=48, depth=12, heads=3), window=32),
    ),
)


def count(variant: Variant) -> int:
    """Parameters as built here, counted as the release's framework does: Keras counts running statistics too."""
    with torch.device("meta"):  # shapes without numbers
        model = variant.make()
    if isinstance(model, WetMapFormer):
        return reference_count(model)
    return sum(value.numel() for value in model.parameters())


def table() -> str:
    """The table, in Markdown."""
    rows = []
    for variant in VARIANTS:
        found = count(variant)
        equal = "yes" if found == variant.published else "**no**"
        size = f"{variant.bands}, {variant.classes}"
        rows.append(f"| {variant.name} | {size} | {variant.published:,} | {found:,}, {variant.here} | {equal} |")
    return "\n".join([HEADER, *rows])


if __name__ == "__main__":
    print(table())
