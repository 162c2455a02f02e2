"""How fast WetMapFormer's window classifier maps, against its windows one by one and against the machine's peak.

    python benchmarks/mapping.py [--threads 2] [--rounds 10] [--plot mapping.svg]

Everything is timed in one process, in turns, so that a busy moment of the machine falls on all alike; each figure is
the best of the rounds. Where other programs want the machine too, ``--clock cpu`` with one thread counts only the time
this one was given. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: Settings of the C library's allocator under which naive evaluation is fastest: large tensors are kept, not returned.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
#: Batches of windows that naive evaluation may choose from.
BATCHES = (32, 64, 128, 256)
#: Shapes of the matrix products whose best rate is called the machine's peak: (rows, inputs, outputs).
SHAPES = ((1024, 512, 512), (2048, 512, 576), (4096, 256, 256))
BANDS, CLASSES = 16, 7


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


def peak_jobs() -> dict[str, tuple[Callable[[], object], float]]:
    """Matrix products by both of torch's libraries; the second number is multiply-adds."""
    import torch

    from wetmap.models.wetmapformer.folding import Affine, product

    jobs: dict[str, tuple[Callable[[], object], float]] = {}
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


def model_jobs(side: int) -> tuple[dict[str, tuple[Callable[[], object], float]], int]:
    """Naive and shared evaluation of one model on one raster; the second number is pixels."""
    import torch

    from wetmap.models import create

    torch.manual_seed(0)
    model = create("wetmapformer-window", BANDS, CLASSES).eval()
    tile, margin = model.geometry.tile, model.geometry.margin
    raster = torch.randn(1, BANDS, side + 2 * margin, side + 2 * margin)
    jobs: dict[str, tuple[Callable[[], object], float]] = {}
    for batch in BATCHES:
        cut = [raster[0, :, i : i + 2 * margin, i : i + 2 * margin] for i in range(batch)]
        windows = torch.stack(cut)
        for layout in (torch.contiguous_format, torch.channels_last):
            laid, kernels = windows.to(memory_format=layout), _laid(model, layout)
            name = f"naive, batch {batch}, {'channels last' if layout is torch.channels_last else 'channels first'}"
            jobs[name] = (lambda kernels=kernels, laid=laid: kernels(laid).softmax(1)), batch
    origins = [(y, x) for y in range(0, side, tile) for x in range(0, side, tile)]
    turn = iter(range(10**9))

    def shared() -> object:
        y, x = origins[next(turn) % len(origins)]
        return model.tile_probabilities(raster[:, :, y : y + tile + 2 * margin, x : x + tile + 2 * margin])

    jobs["exact shared"] = shared, tile * tile
    return jobs, tile


def _laid(model: object, layout: object) -> Callable[..., object]:
    import copy

    return copy.deepcopy(model).to(memory_format=layout)  # type: ignore[attr-defined, no-any-return]


def measure(
    jobs: dict[str, tuple[Callable[[], object], float]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Units (pixels or multiply-adds) per second of each job, the best round."""
    best = dict.fromkeys(jobs, 0.0)
    for job, _ in jobs.values():
        job()
    for _ in range(rounds):
        for name, (job, units) in jobs.items():
            start = clock()
            job()
            best[name] = max(best[name], units / (clock() - start))
    return best


def plot(path: Path, rates: dict[str, float]) -> None:
    """Bars of pixels per second."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.2), layout="constrained")
    axes.barh(list(rates), list(rates.values()), color="#3b7a8c")
    axes.set_xlabel("pixels per second")
    axes.invert_yaxis()
    figure.savefig(path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=10, help="rounds, of which the best counts")
    parser.add_argument("--side", type=int, default=512, help="side of the raster, pixels")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what is counted as time")
    parser.add_argument("--plot", type=Path, help="write a bar chart here (SVG or PNG)")
    chosen = parser.parse_args()
    if chosen.clock == "cpu" and chosen.threads != 1:
        parser.error("--clock cpu is for --threads 1: threads that wait for each other count as working")
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        # the allocator reads its settings when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)  # noqa: S606

    import torch

    torch.set_num_threads(chosen.threads)
    torch.set_grad_enabled(False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    jobs, tile = model_jobs(chosen.side)
    jobs["exact shared"][0]()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    products = peak_jobs()
    clock = time.process_time if chosen.clock == "cpu" else time.perf_counter
    rates = measure(jobs | products, chosen.rounds, clock)
    peak = max(rates[name] for name in products)
    needed = sum(multiply_adds(BANDS, CLASSES).values())
    naive = max((name for name in jobs if name.startswith("naive")), key=lambda name: rates[name])
    shared, bound = rates["exact shared"], peak / needed
    print(f"{torch.get_num_threads()} threads, raster of {chosen.side} x {chosen.side} x {BANDS}, tiles of {tile}")
    print(f"{'':44} {'pixels/s':>10} {'of naive':>9} {'of bound':>9}")
    table = {name: rates[name] for name in jobs} | {"bound (peak / multiply-adds needed)": bound}
    for name, rate in table.items():
        print(f"{name:44} {rate:10.0f} {rate / rates[naive]:9.2f} {rate / bound:9.3f}")
    print(f"peak {2e-9 * peak:.0f} GFLOP/s; {needed} multiply-adds per pixel needed; memory grew by {grown:.0f} MB")
    if chosen.plot:
        plot(chosen.plot, {naive: rates[naive], "exact shared": shared, "bound": bound})
    figures = {"exact_over_naive": shared / rates[naive], "fraction_of_bound": shared / bound}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()} | {"threads": chosen.threads}))


if __name__ == "__main__":
    main()
