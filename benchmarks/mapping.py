"""How fast and in how much memory this project maps: models in memory, and whole maps through the front door.

    python benchmarks/mapping.py [--only models,memory,pipeline,workers] [--threads 2] [--plot mapping.svg]

- ``models``: WetMapFormer's window classifier evaluated exactly at every pixel, against its windows one by one, against
  the machine's peak, against a random forest and boosting (through our own mapping path, and by scikit-learn's own
  call), and the dense networks. In one process, in turns, so that a busy moment of the machine falls on all alike;
  the best round counts. Where other programs want the machine too, ``--clock cpu`` with one thread counts only the
  time this one was given. With a CUDA device, the same networks there.
- ``memory``: ``wetmap predict`` with a forest of one tree on a large and on a small square.
- ``pipeline``: ``wetmap predict`` (start-up, reading, inference, writing, mosaic, report) against the bare model on the
  same pixels in memory, with the same cores.
- ``workers``: the same map with one and with two workers of one thread each. These two parts take turns as well
  (``--turns``), and the best turn counts; every turn is printed.

Prints tables and, as its last line, one JSON object; what was left out is null there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

#: Settings of the C library's allocator under which naive evaluation is fastest: large tensors are kept, not returned.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
PARTS = ("models", "memory", "pipeline", "workers")
#: What the JSON always holds.
FIGURES = (
    "exact_over_naive",
    "fraction_of_bound",
    "dense_over_exact",
    "exact_over_forest",
    "vvt_over_unet",
    "supervit_over_unet",
    "memory_growth",
    "pipeline_efficiency",
    "two_worker_share",
)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, with commas")
    parser.add_argument("--skip", default="", help="parts to leave out, with commas")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and of trees; workers of the pipeline")
    parser.add_argument("--rounds", type=int, default=10, help="models: rounds, of which the best counts")
    parser.add_argument("--side", type=int, default=512, help="models: side of the raster, pixels")
    parser.add_argument("--training-pixels", type=int, default=20_000, help="models: pixels that trees are fitted to")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="models: what is counted as time")
    parser.add_argument("--small-side", type=int, default=2_000, help="memory: side of the small square, pixels")
    parser.add_argument("--large-side", type=int, default=20_000, help="memory: side of the large square, pixels")
    parser.add_argument("--memory", help="memory: the bound given to predict, such as 2GiB [default: none]")
    parser.add_argument("--map-side", type=int, default=4_096, help="pipeline, workers: side of the map, pixels")
    parser.add_argument("--map-models", default="wetmapformer-window,wetmapformer", help="pipeline, workers: networks")
    parser.add_argument("--turns", type=int, default=2, help="pipeline, workers: runs, of which the best counts")
    parser.add_argument("--folder", type=Path, help="where rasters and workspaces are made [default: a temporary one]")
    parser.add_argument("--plot", type=Path, help="write a chart of the models here (SVG or PNG)")
    chosen = parser.parse_args(words)
    chosen.parts = [name for name in chosen.only.split(",") if name not in chosen.skip.split(",")]
    if unknown := {*chosen.parts, *filter(None, chosen.skip.split(","))} - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: choose among {', '.join(PARTS)}")
    if chosen.clock == "cpu" and chosen.threads != 1:
        parser.error("--clock cpu is for --threads 1: threads that wait for each other count as working")
    return chosen


def run_models(chosen: argparse.Namespace) -> dict[str, Any]:
    """Print the table of models in memory, and give the figures."""
    import mapping_device
    import mapping_models
    import torch

    torch.set_num_threads(chosen.threads)
    clock = time.process_time if chosen.clock == "cpu" else time.perf_counter
    found = mapping_models.run(chosen.side, chosen.rounds, chosen.threads, clock, chosen.training_pixels)
    print("\n".join(model_lines(found, chosen)))
    if chosen.plot:
        plot(chosen.plot, found, chosen.threads)
    if torch.cuda.is_available():
        on_device = mapping_device.table("cuda", chosen.rounds)
        print("\n".join(mapping_device.lines(on_device)))
        return {**found["figures"], "cuda": on_device}
    print("no CUDA device: its table is left out")
    return dict(found["figures"])


def model_lines(found: dict[str, Any], chosen: argparse.Namespace) -> list[str]:
    """The table of models as text."""
    naive, bound = found["rates"][found["naive"]], found["bound"]
    out = [
        f"{chosen.threads} threads, {chosen.clock} clock, raster of {chosen.side} x {chosen.side} x 16",
        f"{'':44} {'pixels/s':>10} {'of naive':>9} {'of bound':>9}",
    ]
    out += [f"{name:44} {rate:10.0f} {rate / naive:9.2f} {rate / bound:9.3f}" for name, rate in found["rates"].items()]
    return [*out, f"peak {2e-9 * found['peak']:.0f} GFLOP/s; the bound is that of the exact evaluation"]


def plot(path: Path, found: dict[str, Any], threads: int) -> None:
    """Bars of pixels per second; of the naive forms the best alone."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rates = {
        name: rate for name, rate in found["rates"].items() if not name.startswith("naive") or name == found["naive"]
    }
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    names = sorted(rates, key=lambda name: rates[name])
    colours = ["#c8a24a" if "forest" in name or "boosting" in name else "#3b7a8c" for name in names]
    bars = axes.barh(names, [rates[name] for name in names], color=colours)
    axes.bar_label(bars, [f"{rates[name]:,.0f}" for name in names], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel(f"pixels per second, {threads} threads")
    figure.savefig(path)


def run_walks(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the parts that go through the front door, print their rows, and give the figures."""
    import mapping_walk

    figures: dict[str, Any] = {}
    parts = tuple(name for name in chosen.parts if name in ("pipeline", "workers"))
    if parts:
        names = tuple(chosen.map_models.split(","))
        found = mapping_walk.pipeline(folder, chosen.map_side, chosen.threads, parts, names, chosen.turns)
        print(f"\nwhole maps of {chosen.map_side} x {chosen.map_side} x 16, pixels/s, start-up of processes included")
        for name, rates in found["rows"].items():
            print(f"{name:44}" + "".join(f" {rate:10.0f}" for rate in rates))
        figures |= found["figures"]
    if "memory" in chosen.parts:
        options = ("--memory", chosen.memory) if chosen.memory else ()
        found = mapping_walk.memory(folder, chosen.small_side, chosen.large_side, chosen.threads, options)
        print(f"\npeak memory of predict, {chosen.threads} workers, a forest of one tree on two bands")
        for name, row in found["rows"].items():
            print(f"{name:44} {row['peak_mb']:7} MB {row['seconds']:9.1f} s")
        figures |= found["figures"]
    return figures


def main() -> None:
    """Measure and print."""
    chosen = arguments()
    if "models" in chosen.parts and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        # the allocator reads its settings when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)  # noqa: S606
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    if "models" in chosen.parts:
        figures |= run_models(chosen)
    if chosen.folder is not None:
        chosen.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wetmap-mapping-", dir=chosen.folder) as folder:
        figures |= run_walks(chosen, Path(folder))
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps(rounded | {"threads": chosen.threads}))


if __name__ == "__main__":
    main()
