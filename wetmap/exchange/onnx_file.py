"""A trained network as an ONNX file, checked against PyTorch before it is called one."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wetmap import models
from wetmap.bundle import CARD_FILE, Bundle, load_network
from wetmap.errors import BundleError, UsageError
from wetmap.model_card import ModelCard, card_json
from wetmap.models.tiles import LatticeNetwork
from wetmap.workspace import write_bytes

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: What the extra ``onnx`` installs.
EXTRA = ("onnx", "onnxruntime", "onnxscript")
#: Largest difference between ONNX and PyTorch that is accepted, as a share of the largest logit, or of 1 if that is
#: less.
TOLERANCE = 1e-4
#: Windows or tiles in the trace and in the checks: another number than 1, which the exporter would take for fixed.
BATCH = 3
#: Names of inputs and output in the file.
INPUTS, OUTPUT = ("features", "observed"), "logits"
#: Share of pixels that a check hides, and of values that it makes NaN.
HIDDEN = 0.1

#: What PyTorch itself causes to be warned of in a correct export, by exact message: nothing a user could act on.
EXPORT_WARNINGS = (
    # PyTorch 2.13 copies a specification of its own that it is about to replace.
    "`isinstance(treespec, LeafSpec)` is deprecated, "
    "use `isinstance(treespec, TreeSpec) and treespec.is_leaf()` instead.",
)
#: Where PyTorch says that torchvision's operations are not there to be exported.
EXPORT_LOGGERS = ("torch.onnx._internal.exporter._registration",)


@dataclass(frozen=True)
class Placing:
    """How ``wetmap predict`` makes a map of a network's answers: one rule for all, by its numbers.

    An input begins at every row and every column ``first + k * step`` of the grid that lets its answer touch the area,
    for whole k. Its probabilities, times a weight down and a weight across, are added up at the pixels that they are
    for: of a classifier the labelled pixel, of a dense network all of the input.
    """

    step: int
    """From one input to the next, pixels."""
    first: int
    """Row and column of the grid at which one of the inputs begins, pixels; below 0: outside."""
    labelled: int | None
    """Row and column, from 0, of the pixel of a window that is answered for; None: every pixel is."""
    weights: tuple[float, ...]
    """Weights of the answers along one axis."""
    beyond: str
    """What an input has beyond the grid: ``unobserved``, or ``nearest``, the nearest pixel of the grid's edge."""

    @property
    def overlaps(self) -> bool:
        """Whether answers of several inputs are blended."""
        return sum(weight > 0 for weight in self.weights) > self.step

    def __str__(self) -> str:
        if self.labelled is not None:
            return f"one window per pixel, which is at row and column {self.labelled} of it, counted from 0"
        every = f"tiles begin every {self.step} px"
        return f"{every} and overlap, and their probabilities are blended" if self.overlaps else every


@dataclass(frozen=True)
class OnnxReport:
    """An ONNX file that was written and checked."""

    path: Path
    """The file."""
    side: int
    """Side of the windows or tiles it takes, pixels."""
    answers: str
    """``window``: one row of logits per window. ``dense``: a map of logits of the tile's size."""
    difference: float
    """Largest difference from PyTorch over the checks, as a share of the largest logit."""
    point: str
    """The operating point that was exported, in words; empty for a model that has only one."""
    placing: Placing
    """Where the inputs lie on the grid, and what becomes of what they answer."""

    @property
    def lines(self) -> list[str]:
        """What people are told."""
        what = "windows to one row of logits each" if self.answers == "window" else "tiles to a map of logits"
        return [
            f"{self.path}: {self.side} x {self.side} px {what}{f'; {self.point}' if self.point else ''}",
            f"to map with it: {self.placing}; the file's metadata have the numbers",
            f"checked with onnxruntime: differs from PyTorch by at most {self.difference:.1g} of the largest logit",
        ]


def export_onnx(bundle: Bundle, target: Path, *, tokens: int | None = None, keep: float | None = None) -> OnnxReport:
    """Write the network of a bundle as ONNX.

    The file takes ``features`` (N, C, side, side) float32 in physical units, NaN where not observed, and ``observed``
    (N, L, side, side) bool, any N, and gives ``logits``. Normalisation is part of it, the temperature is not.

    Args:
        bundle: A trained network.
        target: The file to write.
        tokens: Tokens per side, of a model with several operating points; None: its default.
        keep: Keeping rate, likewise.

    Raises:
        UsageError: The extra ``onnx`` is not installed, the model cannot be exported, or has no such operating point.
        BundleError: The weights are of another network, or ONNX does not give what PyTorch gives; nothing is written.
        WorkspaceError: The disk is full.
    """
    card = bundle.card
    _refuse(card)
    network = load_network(bundle)
    point = _choose_point(network, card, tokens, keep)
    answers = models.entry(card.model).answers
    side = input_side(network, answers)
    placed = placing(network, side, answers)
    try:
        data = with_metadata(as_onnx(network, side), metadata(bundle, side, placed, point))
    except torch.onnx.OnnxExporterError as error:
        raise BundleError(
            f"PyTorch cannot write {card.model} as ONNX ({str(error).splitlines()[0]}).",
            do="Map with wetmap predict, and report the versions that wetmap doctor prints.",
        ) from error
    difference = largest_difference(network, data, side)
    if not difference <= TOLERANCE:
        raise BundleError(
            f"The ONNX form of {card.model} differs from PyTorch by {difference:.1g} of the largest logit, more than "
            f"{TOLERANCE:g}; nothing was written.",
            do="Map with wetmap predict, and report the versions that wetmap doctor prints.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, data)
    return OnnxReport(target, side, answers, difference, point, placed)


def missing_packages() -> tuple[str, ...]:
    """What of the extra ``onnx`` is not installed."""
    return tuple(name for name in EXTRA if importlib.util.find_spec(name) is None)


def input_side(network: nn.Module, answers: str) -> int:
    """Side of the windows that a classifier takes, or of the tiles, margin included, that a dense network is run on."""
    known = cast("Any", network)
    return int(known.window if answers == "window" else known.pass_geometry.side)


def placing(network: nn.Module, side: int, answers: str) -> Placing:
    """How maps are made of a network's answers, see ``wetmap.models.tiles`` and ``wetmap.models.lattice``.

    Args:
        network: The network.
        side: Side of its input, pixels.
        answers: ``window`` or ``dense``.
    """
    known = cast("Any", network)
    beyond = known.geometry.beyond
    if answers == "window":
        return Placing(1, -(side // 2), side // 2, (1.0,), beyond)
    if isinstance(network, LatticeNetwork):
        lattice = network.lattice
        return Placing(lattice.step, 0, None, tuple(map(float, lattice.weights())), beyond)
    tile, margin = known.pass_geometry.tile, known.pass_geometry.margin
    return Placing(tile, -margin, None, (*[0.0] * margin, *[1.0] * tile, *[0.0] * margin), beyond)


def trace(network: nn.Module, side: int) -> ExportedProgram:
    """The network as PyTorch's own export, for any number of windows or tiles."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad(), _quiet():
        return torch.export.export(network, drawn_inputs(network, side), dynamic_shapes=({0: batch}, {0: batch}))


def as_onnx(network: nn.Module, side: int, *, traced: ExportedProgram | None = None) -> bytes:
    """The network, in evaluation mode, as an ONNX file; ``traced`` is what ``trace`` gave, if it was called before."""
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            trace(network, side) if traced is None else traced,
            drawn_inputs(network, side),
            dynamo=True,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
            optimize=True,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
        )
    data: bytes = cast("Any", program).model_proto.SerializeToString()
    return data


def _stable_sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """PyTorch's stable sort in ONNX, which PyTorch 2.13 has no translation of: ``TopK`` of all.

    By its definition equal values stay in order (https://onnx.ai/onnx/operators/onnx__TopK.html). PyTorch reads this
    signature.
    """
    from onnxscript import opset18

    del stable
    op = cast("Any", opset18)
    count = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def largest_difference(network: nn.Module, data: bytes, side: int) -> float:
    """Largest difference between ONNX and PyTorch over one and several inputs, as a share of the largest logit."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed, count in ((1, 1), (2, BATCH)):
        features, observed = (part[:count] for part in drawn_inputs(network, side, seed=seed))
        with torch.no_grad():
            expected = network(features, observed).numpy()
        (found,) = session.run([OUTPUT], dict(zip(INPUTS, (features.numpy(), observed.numpy()), strict=True)))
        scale = max(1.0, float(np.abs(expected).max()))
        difference = float(np.abs(found - expected).max()) / scale if found.shape == expected.shape else np.inf
        worst = max(worst, np.inf if np.isnan(difference) else difference)
    return float(worst)


def drawn_inputs(network: nn.Module, side: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features and observation masks as the network's own statistics would have them, some of them missing.

    Returns:
        (3, C, side, side) float32 with NaN, and (3, L, side, side) bool.
    """
    known = cast("Any", network)
    draw = torch.Generator().manual_seed(seed)
    mean, variance = known.normalisation.mean.cpu(), known.normalisation.variance.cpu()
    features = torch.randn(BATCH, known.bands, side, side, generator=draw)
    features = features * variance.sqrt()[:, None, None] + mean[:, None, None]
    features[torch.rand(features.shape, generator=draw) < HIDDEN] = torch.nan
    observed = torch.rand(BATCH, known.layers, side, side, generator=draw) >= HIDDEN
    return features.float(), observed


def metadata(bundle: Bundle, side: int, placed: Placing, point: str = "") -> dict[str, str]:
    """What the file says about itself, as ONNX has it: words by name.

    ``bundle_sha256`` is the SHA-256 of ``model.json``, which holds that of the weights; ``card`` is the whole of it.
    """
    card = bundle.card
    return {
        "wetmap.model": card.model,
        "wetmap.bands": json.dumps([band.name for band in card.bands], ensure_ascii=False),
        "wetmap.units": json.dumps([band.unit for band in card.bands], ensure_ascii=False),
        "wetmap.layers": json.dumps(list(card.layers), ensure_ascii=False),
        "wetmap.classes": json.dumps([row.name for row in card.classes], ensure_ascii=False),
        "wetmap.codes": json.dumps([row.code for row in card.classes]),
        "wetmap.res_m": f"{card.res_m:.12g}",
        "wetmap.side_px": str(side),
        "wetmap.answers": models.entry(card.model).answers,
        "wetmap.step_px": str(placed.step),
        "wetmap.first_px": str(placed.first),
        "wetmap.labelled_px": "" if placed.labelled is None else str(placed.labelled),
        "wetmap.weights": json.dumps(placed.weights),
        "wetmap.beyond": placed.beyond,
        "wetmap.operating_point": point,
        "wetmap.temperature": f"{1.0 if card.calibration is None else card.calibration.temperature:.12g}",
        "wetmap.bundle_sha256": hashlib.sha256((bundle.folder / CARD_FILE).read_bytes()).hexdigest(),
        "wetmap.weights_sha256": card.weights.sha256,
        "wetmap.card": card_json(card).decode(),
    }


def with_metadata(data: bytes, words: dict[str, str]) -> bytes:
    """An ONNX file with words added to it; refuses what ONNX's own checker refuses."""
    import onnx

    proto = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(proto, words)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _refuse(card: ModelCard) -> None:
    known = models.entry(card.model)
    if known.family != "torch" or not known.exportable:
        raise UsageError(
            f"The model {card.model} cannot be written as ONNX"
            f"{': it is not a network' if known.family != 'torch' else ''}.",
            do="Export a network, or map with wetmap predict.",
        )
    missing = missing_packages()
    if missing:
        raise UsageError(
            f"Writing ONNX needs {', '.join(missing)}, which is not installed.", do="pip install 'wetmap[onnx]'"
        )


def _choose_point(network: nn.Module, card: ModelCard, tokens: int | None, keep: float | None) -> str:
    known = cast("Any", network)
    if not hasattr(network, "operating_point"):
        if tokens is not None or keep is not None:
            raise UsageError(
                f"The model {card.model} has no operating points to choose from.", do="Leave out --tokens and --keep."
            )
        return ""
    known.default_point = known.operating_point(tokens=tokens, keep=keep)
    return f"{known.shape.tokens[known.default_point.size]} tokens a side, keep {known.default_point.keep:g}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself."""
    loggers = [logging.getLogger(name) for name in EXPORT_LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in EXPORT_WARNINGS:
            warnings.filterwarnings("ignore", message=f"^{re.escape(message)}$", category=FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
