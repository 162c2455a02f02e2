"""The noise canary: what models make of bands that know nothing of the classes, under folds in space and as published.

    OMP_NUM_THREADS=1 python benchmarks/canary.py [--epochs 8] [--models forest,unet] [--quick] [--plot canary.png]

Reference polygons of four classes lie in smooth noise. Nothing can be learnt that holds elsewhere, so an honest split
gives chance; what is above it, the split gave away. Every model of a laptop's size is fitted by the code that
``wetmap train`` uses, on ``blocks`` and ``polygons`` with a buffer and on the ``paper`` split, for the same number of
epochs. Chance is measured: the classes of the test polygons are dealt anew, whole polygons at a time, and the model's
own answers scored against them. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from wetmap.classes import MapClass
from wetmap.errors import LeakWarning
from wetmap.geo import Grid
from wetmap.models import entry, resolve_options
from wetmap.recipe import Splits, Training
from wetmap.report.chart import COLOURS, FAINT, MARKERS, QUIET, Chart, finish, look, new_figure, quiet_axes
from wetmap.samples import Labels, Samples, Split, draw_samples, split_samples, write_patch_cubes
from wetmap.stages.contenders import LAPTOP, model_list
from wetmap.stages.fitting import Job, Roles, fit_one
from wetmap.training.fit import FitRun

CLASSES = tuple(MapClass(number, f"class {number}", "#111111") for number in range(1, 5))
CHANCE = 1 / len(CLASSES)
#: Bands of noise, and how smooth: standard deviation of the smoothing, pixels. Two pixels of a band correlate by
#: exp(-(distance / (2 SMOOTH))^2): 0.96 at 2 px, 0.02 at 20 px, the distance that the folds in space keep.
BANDS, SMOOTH = 8, 5.0
BUFFER_M = 200.0
#: Side of the windows and tiles in which samples are stored, pixels: the largest that a model here looks at.
WINDOW_PX = 16
#: A polygon lies in each square of this side, its middle up to ``SHIFT_PX`` off the square's; its pixels are those
#: within ``RADIUS_PX`` that are nearer to it than to others.
SPACING_PX, SHIFT_PX, RADIUS_PX = 36, 5.0, 6.0
#: The blocks are the smallest that there may be: they cut most polygons, so that without a buffer scores would be too
#: good (0.38 for wetmapformer-window after 16 epochs, 0.50 for the nearest neighbour).
SPATIAL: Mapping[str, Splits] = {
    "blocks": Splits(kind="blocks", folds=4, block_m=160, buffer_m=BUFFER_M),
    "polygons": Splits(kind="polygons", folds=4, buffer_m=BUFFER_M),
}
SPLITS: Mapping[str, Splits] = {**SPATIAL, "paper": Splits(kind="paper")}
#: Times the classes are dealt anew to the test polygons.
DEALS = 10_000
#: Answers that are scored at once: bounds the memory to some 100 MB.
CELLS_AT_ONCE = 2_000_000
#: Share of the deals inside the printed interval.
LEVEL = 0.95
QUICK = ("wetmapformer", "wetmapformer-window", "unet", "forest")


class NoiseCube:
    """Bands of smooth noise, in memory, in the shape of a feature cube."""

    class Band:
        """One band."""

        name, kind, unit, layer = "noise", "reflectance", "1", "summer.optical"

    bands = (Band(),) * BANDS
    layers = ("summer.optical",)

    def __init__(self, grid: Grid, seed: int) -> None:
        self.grid = grid
        size = (BANDS, grid.height + 2 * WINDOW_PX, grid.width + 2 * WINDOW_PX)
        smooth = gaussian_filter(np.random.default_rng(seed).normal(size=size), (0, SMOOTH, SMOOTH))
        self._values = (smooth / smooth.std()).astype(np.float32)

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Noise, (band, height, width), around the grid too; all of it observed."""
        rows, cols = (slice(at + WINDOW_PX, at + WINDOW_PX + size) for at, size in ((y0, height), (x0, width)))
        return self._values[:, rows, cols], np.ones((1, height, width), dtype=np.bool_)


@dataclass(frozen=True)
class Ground:
    """Noise, polygons that know nothing of it, and the samples drawn from them."""

    cube: NoiseCube
    """The bands."""
    labels: Labels
    """The polygons."""
    samples: Samples
    """Labelled pixels, of each class as many."""

    @classmethod
    def make(cls, *, across: int = 14, per_class: int = 500, seed: int = 1) -> Ground:
        """Make it.

        Args:
            across: Polygons in a row, and rows of them.
            per_class: Samples of each class.
            seed: Seed of everything.
        """
        generator = np.random.default_rng(seed)
        side = across * SPACING_PX
        middle = (np.indices((across, across)).reshape(2, -1).T + 0.5) * SPACING_PX
        middle += generator.uniform(-SHIFT_PX, SHIFT_PX, middle.shape)
        distance, nearest = KDTree(middle).query(np.indices((side, side)).reshape(2, -1).T)
        inside = np.reshape(distance <= RADIUS_PX, (side, side))
        code = generator.permutation(np.arange(across**2) % len(CLASSES) + 1).astype(np.uint8)
        polygon = nearest.reshape(side, side).astype(np.int32)
        labels = Labels(
            np.where(inside, code[polygon], np.uint8(255)), np.where(inside, polygon, np.int32(-1)), CLASSES, {}
        )
        samples = draw_samples(labels, per_class=per_class, min_per_class=10, background=None, seed=seed)
        return cls(NoiseCube(Grid("EPSG:32619", 10.0, 600000.0, 5100000.0, side, side), seed + 1), labels, samples)

    def split(self, spec: Splits, *, seed: int = 1) -> Split:
        """Deal the samples to training, validation and test."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeakWarning)  # it is what is shown here
            return split_samples(
                self.samples,
                spec,
                window_px=WINDOW_PX,
                res_m=self.cube.grid.res_m,
                grid_shape=self.cube.grid.shape,
                classes=CLASSES,
                seed=seed,
            )

    def roles(self, split: Split) -> Roles:
        """Cut the windows of a split, as ``wetmap train`` does."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "patches.zarr"
            cubes = write_patch_cubes(self.cube, self.labels, self.samples, split, window_px=WINDOW_PX, path=path)
            return Roles.of(cubes)


@dataclass(frozen=True)
class Chance:
    """What answers score that know nothing of the test polygons' classes."""

    accuracy: NDArray[np.float64]
    """(deals,) overall accuracy of each deal, ascending, 0-1."""
    macro_f1: NDArray[np.float64]
    """(deals,) macro F1 of each deal, ascending, 0-1."""

    @classmethod
    def of(
        cls, truth: NDArray[np.integer], predicted: NDArray[np.integer], polygon: NDArray[np.integer], *, seed: int = 1
    ) -> Chance:
        """Deal the classes anew to the polygons and score the same answers.

        This is the permutation test of independence with the polygon as its unit (Fisher 1935, "The Design of
        Experiments", section 21): samples of one polygon are right or wrong together, so classes go by polygons.

        Args:
            truth: (n,) class index of the test samples, the same within a polygon.
            predicted: (n,) class index that the model answered.
            polygon: (n,) polygon of each sample.
            seed: Seed of the deals.
        """
        generator = np.random.default_rng(seed)
        _, first, group = np.unique(polygon, return_index=True, return_inverse=True)
        of_polygon = truth[first].astype(np.int64)
        dealt = [generator.permutation(of_polygon) for _ in range(DEALS)]
        at_once = max(1, CELLS_AT_ONCE // len(truth))
        parts = [
            _scores(np.stack(dealt[start : start + at_once])[:, group], predicted) for start in range(0, DEALS, at_once)
        ]
        accuracy, macro_f1 = (np.sort(np.concatenate(column)) for column in zip(*parts, strict=True))
        return cls(accuracy, macro_f1)

    def p(self, accuracy: float) -> float:
        """Share of the deals that score as high, the real one counted among them, 0-1."""
        return float((1 + (self.accuracy >= accuracy - 1e-9).sum()) / (1 + len(self.accuracy)))


def _scores(
    dealt: NDArray[np.int64], predicted: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Overall accuracy and macro F1 of the same answers (n,) for each of several truths (deal, n)."""
    k, deals = len(CLASSES), len(dealt)
    cell = (np.arange(deals)[:, None] * k + dealt) * k + predicted
    counts = np.bincount(cell.ravel(), minlength=deals * k * k).reshape(deals, k, k)
    hits = counts.diagonal(axis1=1, axis2=2)
    f1 = 2 * hits / np.maximum(counts.sum(axis=1) + counts.sum(axis=2), 1)
    return hits.sum(axis=1) / dealt.shape[1], f1.mean(axis=1)


@dataclass(frozen=True)
class Sung:
    """One model under one split."""

    model: str
    """Its name."""
    split: str
    """Kind of the split."""
    train: int
    """Training samples."""
    test: int
    """Test samples."""
    test_polygons: int
    """Polygons that they lie in."""
    leakage: float
    """Share of the test windows that share a pixel with a training window, 0-1."""
    macro_f1: float
    """On the test samples, 0-1."""
    accuracy: float
    """Overall accuracy on the test samples, 0-1."""
    chance_macro_f1: tuple[float, float]
    """Where ``LEVEL`` of the deals of chance lie."""
    chance_accuracy: tuple[float, float]
    """Where ``LEVEL`` of the deals of chance lie."""
    p: float
    """Share of the deals of chance whose accuracy is as high, 0-1."""
    seconds: float
    """Time of the fit."""
    predicted: NDArray[np.int64] = field(repr=False)
    """(test,) class index that it answered."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the single answers."""
        return {key: value for key, value in asdict(self).items() if key != "predicted"}


def training(epochs: int) -> Training:
    """How the networks learn: nothing that would keep them from learning by heart, so that a leak shows."""
    return Training(
        epochs=epochs,
        patience=epochs,
        batch_size=64,
        learning_rate=2e-3,
        warmup_epochs=min(2, epochs - 1),
        label_smoothing=0.0,
        class_weights="none",
        flips=False,
        drop_layers=0.0,
    )


def model_options(name: str) -> dict[str, Any]:
    """A model's options: its own, but no window larger than the samples'."""
    option = entry(name).options.get("window")
    return resolve_options(name, {"window": min(int(option.default), WINDOW_PX)} if option else {})


def sing(name: str, kind: str, split: Split, roles: Roles, *, epochs: int) -> Sung:
    """Fit a model and score it on the test samples."""
    with tempfile.TemporaryDirectory() as folder:
        run = FitRun(tuple(row.name for row in CLASSES), (0,) * BANDS, 1, "canary", Path(folder))
        fitted = fit_one(Job(name, model_options(name), training(epochs), run), roles)
    found = fitted.scores(roles, run.classes)
    chance = Chance.of(roles.test.label, fitted.index, roles.test.polygon)
    accuracy, macro_f1 = float(found.overall_accuracy or 0), float(found.macro_f1 or 0)
    return Sung(
        model=name,
        split=kind,
        train=len(roles.train),
        test=len(roles.test),
        test_polygons=len(np.unique(roles.test.polygon)),
        leakage=split.leakage,
        macro_f1=macro_f1,
        accuracy=accuracy,
        chance_macro_f1=_middle(chance.macro_f1),
        chance_accuracy=_middle(chance.accuracy),
        p=chance.p(accuracy),
        seconds=round(fitted.seconds, 2),
        predicted=fitted.index,
    )


def together(rows: Sequence[Sung], roles: Roles) -> tuple[float, Chance]:
    """Mean accuracy of several models on one and the same test samples, and what chance gives: sharper than each."""
    truth, polygon = np.tile(roles.test.label, len(rows)), np.tile(roles.test.polygon, len(rows))
    predicted = np.concatenate([row.predicted for row in rows])
    return float((truth == predicted).mean()), Chance.of(truth, predicted, polygon)


def _middle(dealt: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(dealt, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def table(rows: Sequence[Sung]) -> str:
    """Macro F1 by model and split, and what chance gives, as Markdown."""
    lines = ["| model | blocks | polygons | chance, 95 % | `paper` (LEAKS) |", "| --- | ---: | ---: | ---: | ---: |"]
    for model, by_split in _by_model(rows).items():
        low, high = _chance(by_split)
        figures = [f"{by_split[kind].macro_f1:.2f} / {by_split[kind].accuracy:.2f}" for kind in SPLITS]
        lines.append(f"| {model} | {figures[0]} | {figures[1]} | {low:.2f}-{high:.2f} | {figures[2]} |")
    return "\n".join(lines)


def chart(rows: Sequence[Sung]) -> Chart:
    """Macro F1 of every model under each split, with what chance gives as a grey bar."""
    models = _by_model(rows)
    names = sorted(models, key=lambda name: models[name]["paper"].macro_f1)
    kinds = (("blocks", "blocks, buffer kept"), ("polygons", "whole polygons, buffer kept"), ("paper", "paper (LEAKS)"))
    order = {"blocks": 0, "polygons": 2, "paper": 1}  # blue circle, green triangle, vermilion square
    with look():
        figure = new_figure(
            7,
            0.28 * len(names) + 1.3,
            title="Noise that knows nothing of the classes: what the split gives away",
            mark=None,
        )
        axes = figure.add_subplot()
        for place, name in enumerate(names):
            low, high = _chance(models[name])
            axes.barh(
                place, high - low, left=low, height=0.6, color=FAINT, label="95 % of chance" if not place else None
            )
        axes.axvline(CHANCE, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label=f"chance, 1 of {len(CLASSES)}")
        for kind, label in kinds:
            scores = [models[name][kind].macro_f1 for name in names]
            axes.plot(
                scores,
                range(len(names)),
                linestyle="none",
                marker=MARKERS[order[kind]],
                markersize=7,
                color=COLOURS[order[kind]],
                markeredgecolor="white",
                label=label,
                zorder=3,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1)
        axes.set_xlabel("macro F1 on the test samples")
        quiet_axes(axes, "x")
        figure.legend(loc="outside lower center", ncols=3)
        spatial = [models[name][kind].macro_f1 for name in names for kind in SPATIAL]
        paper = [models[name]["paper"].macro_f1 for name in names]
        alt = (
            f"Macro F1 of {len(names)} models fitted to noise: {min(spatial):.2f} to {max(spatial):.2f} under folds in "
            f"space, at chance; {min(paper):.2f} to {max(paper):.2f} under the paper split."
        )
        return finish(figure, alt, None)


def _by_model(rows: Iterable[Sung]) -> dict[str, dict[str, Sung]]:
    found: dict[str, dict[str, Sung]] = {}
    for row in rows:
        found.setdefault(row.model, {})[row.split] = row
    return found


def _chance(by_split: Mapping[str, Sung]) -> tuple[float, float]:
    """Where chance lies under both kinds of folds in space."""
    lows, highs = zip(*(by_split[kind].chance_macro_f1 for kind in SPATIAL), strict=True)
    return min(lows), max(highs)


def main() -> None:
    """Fit, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each network")
    parser.add_argument("--models", default=LAPTOP, help="names, with commas; laptop: every model of a laptop's size")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, for half the epochs")
    parser.add_argument("--plot", type=Path, help="write the picture here (PNG)")
    chosen = parser.parse_args()
    names = model_list(LAPTOP) if chosen.models == LAPTOP else chosen.models.split(",")
    names, epochs = (QUICK, (chosen.epochs + 1) // 2) if chosen.quick else (names, chosen.epochs)
    begun = time.perf_counter()
    ground = Ground.make()
    rows: list[Sung] = []
    means: dict[str, dict[str, Any]] = {}
    for kind, spec in SPLITS.items():
        split = ground.split(spec)
        roles = ground.roles(split)
        for name in names:
            row = sing(name, kind, split, roles, epochs=epochs)
            rows.append(row)
            print(
                f"{kind:9} {name:24} macro F1 {row.macro_f1:.3f}  accuracy {row.accuracy:.3f}  p {row.p:.4f}  "
                f"{row.seconds:.1f} s",
                flush=True,
            )
        mean, chance = together([row for row in rows if row.split == kind], roles)
        means[kind] = {"accuracy": mean, "chance": _middle(chance.accuracy), "p": chance.p(mean)}
        print(f"{kind:9} {'all, mean':24} {'':15}  accuracy {mean:.3f}  p {chance.p(mean):.4f}")
    print(f"\nMacro F1 / overall accuracy, {epochs} epochs:\n\n{table(rows)}\n")
    if chosen.plot:
        chosen.plot.parent.mkdir(parents=True, exist_ok=True)
        chosen.plot.write_bytes(chart(rows).png)
    seconds = round(time.perf_counter() - begun, 1)
    found = {"means": means, "rows": [row.to_json() for row in rows]}
    print(json.dumps({"epochs": epochs, "seconds": seconds, "chance": CHANCE, **found}))


if __name__ == "__main__":
    main()
