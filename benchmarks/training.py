"""How fast WetMapFormer's window classifier trains, against its own layers one by one.

    python benchmarks/training.py [--threads 2] [--seconds 60] [--model wetmapformer-published]

Both forms start from the same weights; first their losses and gradients are compared. Then each takes a step in turn
(batch, forward, loss, backward, clipping, AdamW), so that a busy moment of the machine falls on all alike; figures are
medians over the steps.

``ratio`` is to the layers one by one as anybody would write them down: PyTorch's own memory layout, and the C library's
own way with freed memory, in a process of its own. ``ratio_to_tuned`` is to the same layers with this library's memory
settings and in the faster of PyTorch's two layouts. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from naive_wetmapformer import LayerByLayer

from wetmap.allocator import keep_freed_memory
from wetmap.models import create
from wetmap.models.wetmapformer import WetMapFormer
from wetmap.recipe import Training as Settings
from wetmap.training.data import Arrays, Augmentation, Batch, TrainingBatches, band_statistics, class_weights
from wetmap.training.fit import reproducible
from wetmap.training.losses import make_criterion
from wetmap.training.module import make_optimiser

BANDS, CLASSES, BATCH, WINDOW = 16, 7, 256, 8
#: Samples in memory.
SAMPLES = 8192
#: The observation layer of each band: two seasons' optical and radar imagery, terrain.
LAYERS = (0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4)
#: Steps that are not counted.
WARM = 3
#: Seconds between steps, in which the threads of the one before go to sleep.
PAUSE_S = 0.02
#: Names in the table.
OWN, PLAIN = "this library", "layer by layer, PyTorch's own ways"
#: PyTorch's memory formats.
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
#: Differences allowed: gradients in float64 as a share of the largest, losses in float32.
GRADIENT_LIMIT, LOSS_LIMIT = 1e-9, 1e-4

#: Takes one step; gives its seconds, and those of them outside of the model.
Job = Callable[[], tuple[float, float]]


def samples(count: int, seed: int) -> Arrays:
    """Windows of noise with holes, in physical units."""
    draw = np.random.default_rng(seed)
    features = draw.normal(0.2, 0.1, (count, BANDS, WINDOW, WINDOW)).astype(np.float32)
    observed = draw.random((count, max(LAYERS) + 1, WINDOW, WINDOW)) > 0.05
    features[~observed[:, list(LAYERS)]] = np.nan
    return Arrays(features, observed, draw.integers(0, CLASSES, count))


def real_batches(arrays: Arrays, settings: Settings) -> Iterator[Batch]:
    """The batches that ``fit_network`` makes, without end."""
    augmentation = Augmentation(settings.flips, settings.drop_layers, LAYERS)
    batches = TrainingBatches(arrays, augmentation, batch_size=BATCH, seed=1)
    for epoch in itertools.count():
        batches.epoch = epoch
        yield from batches


class Steps:
    """Training steps of one network, as ``fit_network`` takes them.

    Args:
        network: What is trained.
        arrays: The training windows.
        settings: The recipe's training part.
    """

    def __init__(self, network: nn.Module, arrays: Arrays, settings: Settings) -> None:
        self.network, self.settings = network.train(), settings
        self.batches = real_batches(arrays, settings)
        self.criterion = make_criterion(settings, torch.from_numpy(class_weights(arrays.label, CLASSES)))
        self.optimiser = make_optimiser(network, settings)
        self.outside = 0.0
        """Seconds of the latest step that went by outside of the model: making the batch and normalising it."""
        normalisation = network.get_submodule("normalisation")
        normalisation.register_forward_pre_hook(lambda *_: self._clock(-1))
        normalisation.register_forward_hook(lambda *_: self._clock(1))

    def _clock(self, sign: int) -> None:
        self.outside += sign * time.perf_counter()

    def __call__(self) -> tuple[float, float]:
        """Take one; gives the seconds it took, and those of them that went by outside of the model."""
        start = time.perf_counter()
        features, observed, label = next(self.batches)
        self.outside = time.perf_counter() - start
        self.optimiser.zero_grad()
        loss: Tensor = self.criterion(self.network(features, observed), label)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.gradient_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_norm)
        self.optimiser.step()
        return time.perf_counter() - start, self.outside


def made(name: str) -> tuple[WetMapFormer, Arrays, Settings]:
    """The classifier, the windows it is trained on, and how.

    Args:
        name: Name of a window classifier of WetMapFormer.

    Raises:
        SystemExit: It is another model.
    """
    model = create(name, BANDS, CLASSES, layers=max(LAYERS) + 1, band_layer=LAYERS, window=WINDOW)
    if not isinstance(model, WetMapFormer):
        raise SystemExit(f"{name} is not a window classifier of WetMapFormer")
    arrays = samples(SAMPLES, seed=2)
    model.set_normalisation(*(torch.from_numpy(values) for values in band_statistics(arrays, LAYERS)))
    return model, arrays, Settings(batch_size=BATCH)


def take_steps(name: str, threads: int, line: Connection) -> None:
    """Take a step of the plain form whenever one is asked for, until nobody asks any more."""
    with reproducible(seed=1, threads=threads):
        model, arrays, settings = made(name)
        steps = Steps(LayerByLayer(model, torch.contiguous_format), arrays, settings)
        while line.recv():
            line.send(steps())


@contextlib.contextmanager
def apart(name: str, threads: int) -> Iterator[Job]:
    """Steps of the plain form, in a process that keeps the C library's own memory settings."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=take_steps, args=(name, threads, there), daemon=True)
    process.start()
    there.close()

    def step() -> tuple[float, float]:
        here.send(True)
        answer: tuple[float, float] = here.recv()
        return answer

    yield step
    here.send(False)
    process.join()


def loss_and_gradients(network: nn.Module, batch: Batch, settings: Settings) -> tuple[float, list[Tensor]]:
    """Of one batch, in the network's own dtype."""
    features, observed, label = batch
    network.train().zero_grad()
    loss: Tensor = make_criterion(settings, None)(network(features, observed), label)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters())
    return float(loss.detach()), [gradient.flatten() for gradient in gradients]


def check(model: WetMapFormer, arrays: Arrays, settings: Settings) -> dict[str, float]:
    """How far the two forms are apart, in float64 on a small batch and in float32 on a whole one.

    Raises:
        SystemExit: Further than rounding explains.
    """
    batch = next(real_batches(arrays, settings))
    differ: dict[str, float] = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        naive = LayerByLayer(model, layout)
        small = batch[0][:16].double(), batch[1][:16], batch[2][:16]
        own, other = (
            loss_and_gradients(net, small, settings)
            for net in (copy.deepcopy(model).double(), copy.deepcopy(naive).double())
        )
        largest = max(float(part.abs().max()) for part in other[1])
        far = max(float((a - b).abs().max()) for a, b in zip(own[1], other[1], strict=True)) / largest
        losses = (loss_and_gradients(copy.deepcopy(net), batch, settings)[0] for net in (model, naive))
        differ["gradients"] = max(differ.get("gradients", 0.0), far)
        differ["loss"] = max(differ.get("loss", 0.0), abs(next(losses) - next(losses)))
    if differ["gradients"] > GRADIENT_LIMIT or differ["loss"] > LOSS_LIMIT:
        raise SystemExit(f"the two forms differ: {differ}")
    return differ


def measure(jobs: dict[str, Job], seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each step, whole and outside of the model, steps of all jobs in turn."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for job in jobs.values():
        for _ in range(WARM):
            job()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, job in jobs.items():
            time.sleep(PAUSE_S)
            found[name].append(job())
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--seconds", type=float, default=60, help="time for the steps")
    parser.add_argument("--model", default="wetmapformer-published", help="a window classifier of WetMapFormer")
    chosen = parser.parse_args()
    keep_freed_memory()
    with reproducible(seed=1, threads=chosen.threads), apart(chosen.model, chosen.threads) as plain:
        model, arrays, settings = made(chosen.model)
        differ = check(model, arrays, settings)
        jobs: dict[str, Job] = {OWN: Steps(copy.deepcopy(model), arrays, settings), PLAIN: plain}
        for name, layout in LAYOUTS.items():
            jobs[f"layer by layer, memory kept, {name}"] = Steps(LayerByLayer(model, layout), arrays, settings)
        found = measure(jobs, chosen.seconds)
    medians = {name: statistics.median(whole for whole, _ in steps) for name, steps in found.items()}
    own, straightforward = medians[OWN], medians[PLAIN]
    tuned = min(seconds for name, seconds in medians.items() if name not in {OWN, PLAIN})
    print(f"{chosen.model}, {BANDS} bands, batches of {BATCH}, {chosen.threads} threads, {len(found[OWN])} steps")
    print(f"gradients differ by {differ['gradients']:.1e} of the largest in float64")
    for name, median in medians.items():
        print(f"{name:44} {1000 * median:8.1f} ms {BATCH / median:8.0f} patches/s {median / own:6.2f}")
    figures = {
        "patches_per_s": round(BATCH / own),
        "naive_patches_per_s": round(BATCH / straightforward),
        "ratio": round(straightforward / own, 3),
        "ratio_to_tuned": round(tuned / own, 3),
        "data_share": round(statistics.median(outside / whole for whole, outside in found[OWN]), 4),
        "threads": chosen.threads,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
