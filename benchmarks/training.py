"""How fast WetMapFormer's window classifier trains, against its own layers one by one.

    python benchmarks/training.py [--threads 2] [--seconds 60] [--model wetmapformer-published]

Both forms start from the same weights; first their losses and gradients are compared. Then each takes a step in turn
(batch, forward, loss, backward, clipping, AdamW), so that a busy moment of the machine falls on all alike; figures are
medians over the steps. The layers one by one are timed in both of PyTorch's memory formats, and the faster counts.
Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from naive_wetmapformer import LayerByLayer

from wetmap.allocator import keep_freed_memory
from wetmap.models import create
from wetmap.models.wetmapformer import WetMapFormer
from wetmap.recipe import Training
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
#: Differences allowed: gradients in float64 as a share of the largest, losses in float32.
GRADIENT_LIMIT, LOSS_LIMIT = 1e-9, 1e-4


def samples(count: int, seed: int) -> Arrays:
    """Windows of noise with holes, in physical units."""
    draw = np.random.default_rng(seed)
    features = draw.normal(0.2, 0.1, (count, BANDS, WINDOW, WINDOW)).astype(np.float32)
    observed = draw.random((count, max(LAYERS) + 1, WINDOW, WINDOW)) > 0.05
    features[~observed[:, list(LAYERS)]] = np.nan
    return Arrays(features, observed, draw.integers(0, CLASSES, count))


def real_batches(arrays: Arrays, settings: Training) -> Iterator[Batch]:
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

    def __init__(self, network: nn.Module, arrays: Arrays, settings: Training) -> None:
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

    def __call__(self) -> float:
        """Take one; gives the seconds it took."""
        start = time.perf_counter()
        features, observed, label = next(self.batches)
        self.outside = time.perf_counter() - start
        self.optimiser.zero_grad()
        loss: Tensor = self.criterion(self.network(features, observed), label)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.gradient_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_norm)
        self.optimiser.step()
        return time.perf_counter() - start


def loss_and_gradients(network: nn.Module, batch: Batch, settings: Training) -> tuple[float, list[Tensor]]:
    """Of one batch, in the network's own dtype."""
    features, observed, label = batch
    network.train().zero_grad()
    loss: Tensor = make_criterion(settings, None)(network(features, observed), label)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters())
    return float(loss.detach()), [gradient.flatten() for gradient in gradients]


def check(model: WetMapFormer, arrays: Arrays, settings: Training) -> dict[str, float]:
    """How far the two forms are apart, in float64 on a small batch and in float32 on a whole one.

    Raises:
        SystemExit: Further than rounding explains.
    """
    batch = next(real_batches(arrays, settings))
    apart: dict[str, float] = {}
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
        apart["gradients"] = max(apart.get("gradients", 0.0), far)
        apart["loss"] = max(apart.get("loss", 0.0), abs(next(losses) - next(losses)))
    if apart["gradients"] > GRADIENT_LIMIT or apart["loss"] > LOSS_LIMIT:
        raise SystemExit(f"the two forms differ: {apart}")
    return apart


def measure(jobs: dict[str, Steps], seconds: float) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of each step, whole and outside of the model, steps of all jobs in turn."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in jobs}
    for job in jobs.values():
        for _ in range(WARM):
            job()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, job in jobs.items():
            found[name][0].append(job())
            found[name][1].append(job.outside)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--seconds", type=float, default=60, help="time for the steps")
    parser.add_argument("--model", default="wetmapformer-published", help="a window classifier of WetMapFormer")
    chosen = parser.parse_args()
    keep_freed_memory()
    settings = Training(batch_size=BATCH)
    with reproducible(seed=1, threads=chosen.threads):
        model = create(chosen.model, BANDS, CLASSES, layers=max(LAYERS) + 1, band_layer=LAYERS, window=WINDOW)
        if not isinstance(model, WetMapFormer):
            parser.error(f"{chosen.model} is not a window classifier of WetMapFormer")
        arrays = samples(SAMPLES, seed=2)
        model.set_normalisation(*(torch.from_numpy(values) for values in band_statistics(arrays, LAYERS)))
        apart = check(model, arrays, settings)
        formats = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
        networks = {f"layer by layer, {name}": LayerByLayer(model, layout) for name, layout in formats.items()}
        jobs = {"this library": Steps(copy.deepcopy(model), arrays, settings)}
        jobs |= {name: Steps(network, arrays, settings) for name, network in networks.items()}
        found = measure(jobs, chosen.seconds)
    count = len(found["this library"][0])
    medians = {name: statistics.median(steps) for name, (steps, _) in found.items()}
    own = medians.pop("this library")
    naive = min(medians.values())
    share = statistics.median(out / whole for whole, out in zip(*found["this library"], strict=True))
    print(f"{chosen.model}, {BANDS} bands, batches of {BATCH}, {chosen.threads} threads, {count} steps")
    print(f"gradients differ by {apart['gradients']:.1e} of the largest in float64")
    for name, median in {"this library": own, **medians}.items():
        print(f"{name:32} {1000 * median:8.1f} ms {BATCH / median:8.0f} patches/s {own / median:6.2f}")
    figures = {
        "patches_per_s": round(BATCH / own),
        "naive_patches_per_s": round(BATCH / naive),
        "ratio": round(naive / own, 3),
        "ratio_to_channels_first": round(medians["layer by layer, channels first"] / own, 3),
        "data_share": round(share, 4),
        "threads": chosen.threads,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
