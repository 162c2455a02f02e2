"""The networks of ``benchmarks/mapping.py`` on one device, against that device's own peaks measured in the same run.

Operations are multiply-adds of matrix products, convolutions and attention (on a processor not those that PyTorch's own
compiler would pack, which the count does not know). Bytes are what every operation of PyTorch
reads and writes if nothing stays in a cache, so that a share of the bound above 1 says that much did.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from mapping_models import BANDS, CLASSES, DENSE, SUPERVIT, UNET, VVT, tile_job
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from wetmap.models import create
from wetmap.models.contract import MapModel
from wetmap.predictor import in_precision, same_numbers_on_gpu

#: Side of the raster, the square products and the copied block: pixels, rows, bytes. Smaller where a processor tries.
SIDES = {"cuda": (1024, 8192, 1 << 30), "cpu": (256, 512, 1 << 24)}
PRECISIONS = ("float32", "bfloat16")
#: Operations that touch no number and are not called views.
MOVE_NOTHING = frozenset({"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty"})


class Traffic(TorchDispatchMode):
    """Adds up the bytes of what operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and count it."""
        found = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket.__name__ not in MOVE_NOTHING:
            tensors = [*_tensors(args), *_tensors(kwargs or {}), *_tensors(found)]
            self.bytes += sum(one.numel() * one.element_size() for one in tensors)
        return found


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [one for part in inner for one in _tensors(part)]


def seconds(call: Callable[[], object], device: str, rounds: int) -> float:
    """The quickest of the rounds, after one that is not counted."""
    best = float("inf")
    for count in range(rounds + 1):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        best = min(best, time.perf_counter() - start) if count else best
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peaks(device: str, precision: str, rounds: int) -> tuple[float, float]:
    """Multiply-adds per second of a square product, and bytes per second of a copy (read and written)."""
    _, side, size = SIDES[device]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(size, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    products = side**3 / seconds(lambda: left @ right, device, rounds)
    return products, 2 * size / seconds(lambda: target.copy_(source), device, rounds)


def table(device: str, rounds: int, names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Time the networks in both precisions: a row each.

    Args:
        device: ``cuda``, or ``cpu`` to try this out.
        rounds: Rounds, of which the best counts.
        names: Networks; none: those of the table of models.
    """
    same_numbers_on_gpu()
    rows = []
    for precision in PRECISIONS:
        products, copy = peaks(device, precision, rounds)
        for name in names or ("wetmapformer-window", DENSE, UNET, VVT, SUPERVIT):
            torch.manual_seed(0)
            model = cast(nn.Module, create(name, BANDS, CLASSES)).eval().to(device)
            row = _row(cast(MapModel, model), device, precision, rounds)
            rate, macs, moved = row["pixels_per_s"], row["multiply_adds_per_px"], row["bytes_per_px"]
            bound = 1 / max(macs / products, moved / copy)
            limit = "products" if macs / products > moved / copy else "bandwidth"
            rows.append({"model": name, "precision": precision, **row, "of_bound": rate / bound, "limit": limit})
    return rows


def _row(model: MapModel, device: str, precision: str, rounds: int) -> dict[str, float]:
    side, _, _ = SIDES[device]
    raster = torch.randn(1, BANDS, side + model.geometry.side, side + model.geometry.side, device=device)
    job, pixels = tile_job(model, raster, side)
    with torch.inference_mode(), in_precision(precision, device):
        job()
        with FlopCounterMode(display=False) as operations:
            job()
        with Traffic() as traffic:
            job()
        taken = seconds(job, device, rounds)
    return {
        "pixels_per_s": pixels / taken,
        "multiply_adds_per_px": operations.get_total_flops() / 2 / pixels,
        "bytes_per_px": traffic.bytes / pixels,
    }


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    out = [f"\n{'':32} {'pixels/s':>12} {'MMAC/px':>9} {'bytes/px':>9} {'of bound':>9}  bound by"]
    for row in rows:
        name = f"{row['model']}, {row['precision']}"
        out.append(
            f"{name:32} {row['pixels_per_s']:12.0f} {row['multiply_adds_per_px'] / 1e6:9.3f} "
            f"{row['bytes_per_px']:9.0f} {row['of_bound']:9.2f}  {row['limit']}"
        )
    return out
