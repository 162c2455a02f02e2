"""What ``benchmarks/mapping.py`` times in one process: networks and trees on pixels that are in memory."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from wetmap.models import create
from wetmap.models.contract import MapModel
from wetmap.models.pixels import PixelModel, PixelSamples, fit_pixel_model
from wetmap.models.wetmapformer.folding import Affine, product

#: Batches of windows that naive evaluation may choose from.
BATCHES = (32, 64, 128, 256)
#: Shapes of the matrix products whose best rate is called the machine's peak: (rows, inputs, outputs).
SHAPES = ((1024, 512, 512), (2048, 512, 576), (4096, 256, 256))
BANDS, CLASSES = 16, 7
#: Names of the rows that figures are made of.
EXACT, DENSE, UNET, VVT, SUPERVIT = (
    "exact shared",
    "wetmapformer",
    "unet",
    "vvt-micro-dense",
    "supervit-micro-dense",
)
FOREST, BOOSTING = "forest", "boosting"
FOREST_LIBRARY, BOOSTING_LIBRARY = "forest, scikit-learn's own call", "boosting, scikit-learn's own call"
#: Side of the patches of one class in the pixels that trees map, and how far classes lie apart, standard deviations.
PATCH_PX, APART = 32, 0.6

#: A call, and the units (pixels or multiply-adds) that it deals with.
Job = tuple[Callable[[], object], float]


def multiply_adds(bands: int, classes: int) -> dict[str, int]:
    """Multiply-adds per pixel that the shared evaluation needs, small variant, window 8, stem stride 4.

    Padding of matrices, halos of tiles and everything else that is computed in vain is not counted.
    """
    wide, token, last = bands * 32, 128, 256
    return {
        "spectral part": bands * (3 * 16 + 5 * 16 * 32),
        "taps": 2 * 9 * wide * 32,
        "second convolution, 25 classes": 169 * 32 + 25 * 32 * 32,
        "decoder": 100 * 32 * 32,
        "stem with decoder and skip path": 4 * 576 * token,
        "convolutional block": 4 * (2 * token * token + 2 * 4 * token * token) + 2 * 16 * token,
        "halving": 4 * token * last,
        "attention": 4 * last * last,
        "last MLP and classifier": 4 * last * last + (4 * last + last) * classes,
    }


def peak_jobs() -> dict[str, Job]:
    """Matrix products by both of torch's libraries; units are multiply-adds."""
    jobs: dict[str, Job] = {}
    for rows, inputs, outputs in SHAPES:
        left, layer = torch.randn(rows, inputs), Affine(torch.randn(outputs, inputs), torch.zeros(outputs))
        packed, count = layer.to(left), float(rows * inputs * outputs)
        name = f"{rows} x {inputs} x {outputs}"
        jobs[f"product {name}, packed"] = (lambda packed=packed, left=left: packed(left)), count
        jobs[f"product {name}, convolution"] = (
            (lambda left=left, layer=layer: product(left, layer.weight, layer.bias)),
            count,
        )
        jobs[f"product {name}, plain"] = (lambda left=left, layer=layer: left @ layer.weight.T), count
    return jobs


def network_jobs(side: int) -> dict[str, Job]:
    """Naive and shared evaluation of the window classifier, and the dense networks, all on one raster."""
    torch.manual_seed(0)
    model = create("wetmapformer-window", BANDS, CLASSES).eval()
    dense = {name: create(name, BANDS, CLASSES).eval() for name in (DENSE, UNET, VVT, SUPERVIT)}
    most = max(cast(MapModel, one).geometry.side for one in (model, *dense.values()))
    raster = torch.randn(1, BANDS, side + most, side + most)
    jobs = _naive_jobs(model, raster)
    jobs[EXACT] = tile_job(cast(MapModel, model), raster, side)
    return jobs | {name: tile_job(cast(MapModel, one), raster, side) for name, one in dense.items()}


def tile_job(model: MapModel, raster: torch.Tensor, side: int) -> Job:
    """Map one tile of the raster after the other, in turn; a raster of less than a tile is one tile."""
    tile, width = model.geometry.tile, model.geometry.side
    steps = range(0, max(side - tile, 0) + 1, tile)
    origins = itertools.cycle([(y, x) for y in steps for x in steps])

    def job() -> object:
        y, x = next(origins)
        return model.tile_probabilities(raster[:, :, y : y + width, x : x + width])

    return job, tile * tile


def _naive_jobs(model: torch.nn.Module, raster: torch.Tensor) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    window = cast(MapModel, model).geometry.margin * 2
    for batch in BATCHES:
        windows = torch.stack([raster[0, :, i : i + window, i : i + window] for i in range(batch)])
        for layout, name in ((torch.contiguous_format, "channels first"), (torch.channels_last, "channels last")):
            laid, kernels = windows.to(memory_format=layout), copy.deepcopy(model).to(memory_format=layout)  # type: ignore[call-overload]
            jobs[f"naive, batch {batch}, {name}"] = (
                (lambda kernels=kernels, laid=laid: kernels(laid).softmax(1)),
                batch,
            )
    return jobs


def tree_jobs(trees: int, pixels: int, threads: int) -> dict[str, Job]:
    """Forest and boosting through our own mapping path and by scikit-learn's own call, on the same pixels.

    Args:
        trees: Trees of the forest; boosting makes a fifth as many rounds.
        pixels: Training pixels.
        threads: Threads of all.
    """
    x, y = made_up_pixels(pixels, seed=0)
    samples = PixelSamples(x, y, CLASSES)
    forest = fit_pixel_model(FOREST, samples, options={"trees": trees}, seed=0, threads=threads)
    rounds = max(1, trees // 5)
    boosting = fit_pixel_model(BOOSTING, samples, options={"trees": rounds}, seed=0, threads=threads)
    library = HistGradientBoostingClassifier(
        max_iter=rounds, class_weight="balanced", early_stopping=False, random_state=0
    ).fit(x, y)
    own = copy.copy(cast(Any, forest).forest).set_params(n_jobs=threads)
    tile = forest.geometry.tile
    table, _ = made_up_pixels(tile * tile, seed=1, side=tile)
    return {
        FOREST: (_pixel_job(forest, table), tile * tile),
        FOREST_LIBRARY: ((lambda: own.predict_proba(table)), tile * tile),
        BOOSTING: (_pixel_job(boosting, table), tile * tile),
        BOOSTING_LIBRARY: ((lambda: library.predict_proba(table)), tile * tile),
    }


def _pixel_job(model: PixelModel, table: NDArray[np.float32]) -> Callable[[], object]:
    tile = model.geometry.tile
    features = torch.from_numpy(np.ascontiguousarray(table.T)).reshape(1, BANDS, tile, tile)
    observed = torch.ones(1, 1, tile, tile, dtype=torch.bool)
    return lambda: model.tile_probabilities(features, observed)


def made_up_pixels(count: int, *, seed: int, side: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels (count, 16) of seven overlapping classes, and the classes; ``side``: as a square map of patches."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, CLASSES, count)
    if side:
        patches = draw.integers(0, CLASSES, (side // PATCH_PX + 1, side // PATCH_PX + 1))
        label = np.kron(patches, np.ones((PATCH_PX, PATCH_PX), np.int64))[:side, :side].ravel()
    centres = APART * np.random.default_rng(99).standard_normal((CLASSES, BANDS))
    return (centres[label] + draw.standard_normal((count, BANDS))).astype(np.float32), label.astype(np.int64)


def measure(jobs: dict[str, Job], rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Units (pixels or multiply-adds) per second of each job, the best round; all take turns."""
    best = dict.fromkeys(jobs, 0.0)
    for job, _ in jobs.values():
        job()
    for _ in range(rounds):
        for name, (job, units) in jobs.items():
            start = clock()
            job()
            best[name] = max(best[name], units / (clock() - start))
    return best


def run(side: int, rounds: int, threads: int, clock: Callable[[], float], training_pixels: int) -> dict[str, Any]:
    """Time everything, in turns: rates by name, the peak, and the figures.

    Args:
        side: Side of the raster, pixels.
        rounds: Rounds, of which the best counts.
        threads: Threads of all.
        clock: Seconds.
        training_pixels: Pixels that the trees are fitted to; a fortieth as many trees, 500 for 20,000.
    """
    networks, products = network_jobs(side), peak_jobs()
    trees = tree_jobs(max(1, training_pixels // 40), training_pixels, threads)
    with threadpool_limits(threads), torch.inference_mode():
        rates = measure(networks | trees | products, rounds, clock)
    peak = max(rates[name] for name in products)
    bound = peak / sum(multiply_adds(BANDS, CLASSES).values())
    naive = max((name for name in networks if name.startswith("naive")), key=lambda name: rates[name])
    shown = {name: rates[name] for name in (*networks, *trees)} | {"bound (peak / multiply-adds needed)": bound}
    return {
        "rates": shown,
        "naive": naive,
        "peak": peak,
        "bound": bound,
        "figures": figures(rates, naive=naive, bound=bound),
    }


def figures(rates: dict[str, float], *, naive: str, bound: float) -> dict[str, float]:
    """The ratios that this project is held to, and those that say how fair they are."""
    return {
        "exact_over_naive": rates[EXACT] / rates[naive],
        "fraction_of_bound": rates[EXACT] / bound,
        "dense_over_exact": rates[DENSE] / rates[EXACT],
        "exact_over_forest": rates[EXACT] / rates[FOREST],
        "vvt_over_unet": rates[VVT] / rates[UNET],
        "supervit_over_unet": rates[SUPERVIT] / rates[UNET],
        "exact_over_boosting": rates[EXACT] / rates[BOOSTING],
        "forest_over_scikit_learn": rates[FOREST] / rates[FOREST_LIBRARY],
        "boosting_over_scikit_learn": rates[BOOSTING] / rates[BOOSTING_LIBRARY],
    }
