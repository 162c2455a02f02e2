"""Patch cubes: the window of features around every sample, with its labels, fold and role, in one Zarr group on disk.

Arrays, all with the samples on the first axis: ``features (sample, band, row, col)`` float32 with NaN where not
observed; ``observed (sample, layer, row, col)``; ``label_window (sample, row, col)`` class index of the samples *of the
same role* that lie in the window, 255 elsewhere, so that a dense network learns from no pixel that another role holds;
``label``, ``fold``, ``role``, ``polygon``, ``row``, ``col`` ``(sample,)``. A window of ``w`` pixels around pixel r
begins at ``r - w // 2``, so the labelled pixel is at index ``(w // 2, w // 2)``, for even windows too.

Samples dropped between folds and samples that nothing observed are left out and counted.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import ContainsArrayError, GroupNotFoundError
from zarr.storage import LocalStore

from wetmap.classes import MapClass
from wetmap.errors import SplitError, WorkspaceError
from wetmap.geo import Grid
from wetmap.samples.draw import Samples
from wetmap.samples.labels import UNLABELLED, Labels
from wetmap.samples.patches import Patches
from wetmap.samples.splits import ROLES, Split
from wetmap.workspace import disk_full

#: Samples per chunk: 16 bands of 8 x 8 px make a megabyte.
CHUNK_SAMPLES = 256
#: Side of the squares in which the cube is read, pixels: bounds the memory.
READ_PX = 256
#: Raised when the layout on disk changes.
FORMAT = 2


class BandLike(Protocol):
    """What a band of the cube says about itself."""

    @property
    def name(self) -> str:
        """Name."""

    @property
    def kind(self) -> str:
        """Kind of feature."""

    @property
    def unit(self) -> str:
        """Unit."""

    @property
    def layer(self) -> str:
        """Observed layer."""


class CubeLike(Protocol):
    """What is needed of a feature cube."""

    @property
    def grid(self) -> Grid:
        """The raster."""

    @property
    def bands(self) -> Sequence[BandLike]:
        """Bands, in order."""

    @property
    def layers(self) -> Sequence[str]:
        """Observed layers, in order."""

    def read_window(self, y0: int, x0: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features (band, height, width) with NaN, and observed (layer, height, width); outside the grid too."""


@dataclass(frozen=True)
class PatchCubes:
    """Patch cubes on disk."""

    path: Path
    """The Zarr group."""
    attributes: dict[str, Any]
    """Bands, layers, classes, window, grid, counts: plain data."""

    @classmethod
    def open(cls, path: Path) -> PatchCubes:
        """Open patch cubes.

        Raises:
            WorkspaceError: There are none at ``path``, or of another version of wetmap.
        """
        try:
            attributes = dict(_group(path, "r").attrs)
        except (GroupNotFoundError, ContainsArrayError, FileNotFoundError, ValueError) as error:
            raise WorkspaceError(f"There are no patch cubes at {path}.", do="Run wetmap train.") from error
        if attributes.get("format") != FORMAT:
            raise WorkspaceError(
                f"The patch cubes at {path} have format {attributes.get('format')}, and this wetmap reads {FORMAT}.",
                do="Delete them and run wetmap train.",
            )
        return cls(path, attributes)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in order."""
        return tuple(band["name"] for band in self.attributes["bands"])

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the observed layers, in order."""
        return tuple(self.attributes["layers"])

    @property
    def classes(self) -> tuple[MapClass, ...]:
        """The class table."""
        return tuple(MapClass.from_json(row) for row in self.attributes["classes"])

    @property
    def window_px(self) -> int:
        """Side of the windows, pixels."""
        return int(self.attributes["window_px"])

    @property
    def summary(self) -> dict[str, Any]:
        """Counts for the manifest: samples, per class and role, and left out with the reason."""
        return dict(self.attributes["counts"])

    def select(self, role: str) -> Patches:
        """The windows of one role (``train``, ``validation`` or ``test``), in the order on disk."""
        group = _group(self.path, "r")
        chosen = np.flatnonzero(_read(group, "role") == ROLES.index(role))
        return Patches(
            **{name: _read(group, name, chosen) for name in Patches.__dataclass_fields__},
        )


def write_patch_cubes(
    cube: CubeLike, labels: Labels, samples: Samples, split: Split, *, window_px: int, path: Path
) -> PatchCubes:
    """Cut the windows around the samples and write them; ``path`` appears whole or not at all.

    Args:
        cube: The feature cube.
        labels: Labels on the cube's grid.
        samples: Labelled pixels.
        split: Their folds and roles; dropped samples are left out.
        window_px: Side of the windows, pixels.
        path: The Zarr group to write; an older one is replaced.

    Returns:
        The patch cubes, opened.

    Raises:
        SplitError: A class has no sample left in a role, because nothing observed them.
        WorkspaceError: The labels are on another grid, or the disk is full.
    """
    if labels.codes.shape != cube.grid.shape:
        raise WorkspaceError(
            f"The labels are on {_size(labels.codes.shape)} px and the cube on {_size(cube.grid.shape)} px.",
            do="Run wetmap fetch and wetmap train again with the same area and recipe.",
        )
    temporary, old = path.with_name(f".tmp-{path.name}"), path.with_name(f".tmp-old-{path.name}")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _write(cube, labels, samples, split, window_px=window_px, path=temporary)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(path) from error
        raise
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
    return PatchCubes.open(path)


def _write(cube: CubeLike, labels: Labels, samples: Samples, split: Split, *, window_px: int, path: Path) -> None:
    kept = np.flatnonzero(split.role != "dropped")
    group = _group(path, "w")
    windows = _Windows(group, len(cube.bands), len(cube.layers), window_px, len(kept))
    for features, observed, around in _cut(cube, samples, kept, window_px):
        centre = observed[:, :, window_px // 2, window_px // 2].any(axis=1)
        members = around[centre]
        if not len(members):
            continue
        label_window = _label_windows(samples, split, members, window_px)
        label_window[~observed[centre].any(axis=1)] = UNLABELLED
        windows.add(features[centre], observed[centre], label_window, members)
    order = windows.close()
    role = np.array([ROLES.index(name) for name in split.role[order]], dtype=np.uint8)
    per_sample: dict[str, NDArray[Any]] = {
        "label": samples.label[order],
        "fold": split.fold[order],
        "role": role,
        "polygon": samples.polygon[order],
        "row": samples.row[order],
        "col": samples.col[order],
    }
    for name, values in per_sample.items():
        _create(group, name, values.dtype, (len(order),), ("sample",))[:] = values
    counts = _counts(samples, split, order, labels.classes)
    group.attrs.put(
        {
            "format": FORMAT,
            "bands": [
                {"name": band.name, "kind": band.kind, "unit": band.unit, "layer": band.layer} for band in cube.bands
            ],
            "layers": list(cube.layers),
            "classes": [row.to_json() for row in labels.classes],
            "roles": list(ROLES),
            "unlabelled": UNLABELLED,
            "window_px": window_px,
            "grid": cube.grid.to_json(),
            "test_fold": split.test_fold,
            "folds": split.folds,
            "counts": counts,
        }
    )


class _Windows:
    """Writes the large arrays chunk by chunk, holding at most one chunk and one piece."""

    def __init__(self, group: zarr.Group, bands: int, layers: int, window_px: int, most: int) -> None:
        side = (window_px, window_px)
        self._arrays = {
            "features": _create(group, "features", "float32", (most, bands, *side), ("sample", "band", "row", "col")),
            "observed": _create(group, "observed", "bool", (most, layers, *side), ("sample", "layer", "row", "col")),
            "label_window": _create(group, "label_window", "uint8", (most, *side), ("sample", "row", "col")),
        }
        self._waiting: list[tuple[NDArray[Any], ...]] = []
        self._order: list[NDArray[np.int64]] = []
        self._written = 0

    def add(
        self,
        features: NDArray[np.float32],
        observed: NDArray[np.bool_],
        label_window: NDArray[np.uint8],
        members: NDArray[np.int64],
    ) -> None:
        """Add the windows of samples ``members``."""
        self._order.append(members)
        self._waiting.append((features, observed, label_window))
        if sum(len(piece[0]) for piece in self._waiting) >= CHUNK_SAMPLES:
            self._flush(whole_chunks=True)

    def close(self) -> NDArray[np.int64]:
        """Write the rest; the samples' places in the order on disk."""
        self._flush(whole_chunks=False)
        for array in self._arrays.values():
            array.resize((self._written, *array.shape[1:]))
        return np.concatenate([*self._order, np.zeros(0, dtype=np.int64)])

    def _flush(self, *, whole_chunks: bool) -> None:
        if not self._waiting:
            return
        joined = [np.concatenate(parts) for parts in zip(*self._waiting, strict=True)]
        count = len(joined[0])
        ready = count // CHUNK_SAMPLES * CHUNK_SAMPLES if whole_chunks else count
        for array, values in zip(self._arrays.values(), joined, strict=True):
            if ready:
                array[self._written : self._written + ready] = values[:ready]
        self._written += ready
        self._waiting = [tuple(values[ready:] for values in joined)]


def _cut(
    cube: CubeLike, samples: Samples, kept: NDArray[np.int64], window_px: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]]:
    """Windows, square by square of the cube: features (sample, band, row, col), observed, and which samples."""
    before = window_px // 2
    square = np.stack([samples.row[kept] // READ_PX, samples.col[kept] // READ_PX], axis=1)
    for wanted in np.unique(square, axis=0):
        members = kept[(square == wanted).all(axis=1)]
        row, col = samples.row[members].astype(np.int64), samples.col[members].astype(np.int64)
        top, left = int(row.min()) - before, int(col.min()) - before
        height, width = int(row.max() - row.min()) + window_px, int(col.max() - col.min()) + window_px
        features, observed = cube.read_window(top, left, height, width)
        at = (row - before - top, col - before - left)
        yield _windows_at(features, at, window_px), _windows_at(observed, at, window_px), members


def _windows_at(values: NDArray[Any], at: tuple[NDArray[np.int64], NDArray[np.int64]], window_px: int) -> NDArray[Any]:
    """Windows of (..., y, x) whose first pixels are ``at``, as (window, ..., row, col)."""
    views = np.lib.stride_tricks.sliding_window_view(values, (window_px, window_px), axis=(-2, -1))
    return np.ascontiguousarray(np.moveaxis(views[..., at[0], at[1], :, :], -3, 0))


def _label_windows(samples: Samples, split: Split, members: NDArray[np.int64], window_px: int) -> NDArray[np.uint8]:
    """Class index of the samples around each member that have its role, (member, row, col), 255 elsewhere."""
    before = window_px // 2
    top, left = int(samples.row[members].min()) - before, int(samples.col[members].min()) - before
    height = int(samples.row[members].max()) + window_px - before - top
    width = int(samples.col[members].max()) + window_px - before - left
    down, across = samples.row - top, samples.col - left
    near = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    found = np.full((len(members), window_px, window_px), UNLABELLED, dtype=np.uint8)
    at = (samples.row[members] - before - top, samples.col[members] - before - left)
    for role in ROLES[:3]:
        raster = np.full((height, width), UNLABELLED, dtype=np.uint8)
        there = near & (split.role == role)
        raster[down[there], across[there]] = samples.label[there]
        own = split.role[members] == role
        found[own] = _windows_at(raster, (at[0][own], at[1][own]), window_px)
    return found


def _counts(samples: Samples, split: Split, order: NDArray[np.int64], classes: Sequence[MapClass]) -> dict[str, Any]:
    role, label = split.role[order], samples.label[order]
    by_class = {
        entry.name: {name: int(((role == name) & (label == index)).sum()) for name in ROLES[:3]}
        for index, entry in enumerate(classes)
    }
    dropped = int((split.role == "dropped").sum())
    unobserved = len(samples) - dropped - len(order)
    for name, by_role in by_class.items():
        empty = [wanted for wanted, count in by_role.items() if not count]
        if empty:
            raise SplitError(
                f"Class {name} has no {empty[0]} sample left: {unobserved} of {len(samples)} samples lie where no "
                "scene observed the ground.",
                do="Widen the seasons or allow more cloud (optical.max_cloud_percent), or add reference elsewhere.",
            )
    return {
        "drawn": len(samples),
        "written": len(order),
        "left_out": {"near another fold": dropped, "not observed": unobserved},
        "by_class": by_class,
    }


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _group(path: Path, mode: Any) -> zarr.Group:
    return zarr.open_group(LocalStore(path, read_only=mode == "r"), mode=mode, zarr_format=3)


def _create(group: zarr.Group, name: str, dtype: Any, shape: tuple[int, ...], dims: tuple[str, ...]) -> Any:
    fill: Any = {"features": float("nan"), "label_window": UNLABELLED}.get(name, 0)
    return group.create_array(
        name,
        shape=shape,
        chunks=(CHUNK_SAMPLES, *(max(size, 1) for size in shape[1:])),
        dtype=dtype,
        fill_value=bool(fill) if dtype == "bool" else fill,
        dimension_names=dims,
    )


def _read(group: zarr.Group, name: str, chosen: NDArray[np.int64] | None = None) -> NDArray[Any]:
    array: Any = group[name]
    if chosen is None:
        return np.asarray(array[:])
    parts = []
    for start in range(0, array.shape[0], CHUNK_SAMPLES):
        inside = chosen[(chosen >= start) & (chosen < start + CHUNK_SAMPLES)]
        if len(inside):
            parts.append(np.asarray(array[start : start + CHUNK_SAMPLES])[inside - start])
    return np.concatenate(parts) if parts else np.asarray(array[0:0])
