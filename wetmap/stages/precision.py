"""Whether a network maps in bfloat16: what that changes on the validation samples, and whether it is faster here.

bfloat16 has the range of float32 and 8 bits of its digits. Which processors gain by it, and how far the map changes,
differs from machine to machine and from network to network, so both are measured before the first block, once, and
kept with the map. ``docs/decisions/2026-11-23-precision.md`` says why the default is float32.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetmap.bundle import PIXEL_FILES, Bundle, Predictor, load_network, load_predictor
from wetmap.cube import Cube
from wetmap.errors import PrecisionWarning, UsageError
from wetmap.models.points import Point, set_point
from wetmap.predictor import in_precision
from wetmap.recipe import Predict
from wetmap.samples import PatchCubes
from wetmap.stages import cubes, fetch
from wetmap.stages.context import Context

if TYPE_CHECKING:
    from wetmap.samples.patches import Patches

#: bfloat16 is safe when at least this share of the classes stays, of the samples and of the tile alike ...
LEAST_AGREEMENT = 0.99
#: ... and macro F1 on the validation samples falls by no more than this.
MOST_F1_LOST = 0.005
#: `auto` takes it where it is faster by at least this factor.
LEAST_GAIN = 1.2
#: Each precision is timed for at least this long, seconds.
LEAST_SECONDS = 0.5


@dataclass(frozen=True)
class Look:
    """What bfloat16 does on this machine."""

    gain: float
    """Time of a tile in float32 over that in bfloat16."""
    tile_agreement: float
    """Share of a tile's pixels whose class stays, 0-1."""
    samples: int
    """Validation samples that were asked; 0 where there are none."""
    agreement: float | None
    """Share of them whose class stays, 0-1."""
    macro_f1_change: float | None
    """Macro F1 in bfloat16 less that in float32."""

    @property
    def safe(self) -> bool:
        """Whether the samples say that the map stays the same but for little; without samples it is not known."""
        return (
            self.agreement is not None
            and min(self.agreement, self.tile_agreement) >= LEAST_AGREEMENT
            and (self.macro_f1_change is None or self.macro_f1_change >= -MOST_F1_LOST)
        )

    def __str__(self) -> str:
        said = f"{self.gain:.2f} x as fast as float32 here; {self.tile_agreement:.2%} of a tile's classes stay"
        if self.agreement is None:
            return f"{said}; there are no validation samples to ask"
        change = "" if self.macro_f1_change is None else f", macro F1 changes by {self.macro_f1_change:+.4f}"
        return f"{said}, {self.agreement:.2%} of {self.samples} validation samples{change}"


@dataclass(frozen=True)
class Choice:
    """The precision of a map."""

    used: str
    """``float32`` or ``bfloat16``."""
    why: str = ""
    """In words; empty where the recipe leaves no choice."""
    look: dict[str, Any] | None = None
    """What was measured."""


def asked(part: Predict) -> dict[str, Any]:
    """What identifies the choice in the stage's key; nothing for float32."""
    return {} if part.precision == "float32" else {"precision": part.precision}


def choose(context: Context, bundle: Bundle, point: Point | None, device: str) -> Choice:
    """The precision that the recipe asks for, measured where there is something to measure; nothing is written.

    Raises:
        UsageError: bfloat16 is asked of trees, or of a network that does not run in it.
    """
    wanted = context.recipe.predict.precision
    if wanted == "float32":
        return Choice("float32")
    if bundle.payload.name in PIXEL_FILES.values():
        return _refuse_or_stay(wanted, f"{bundle.card.model} compares numbers with thresholds and multiplies none")
    try:
        found = _look(context, bundle, point, device)
    except (RuntimeError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return _refuse_or_stay(wanted, f"{bundle.card.model} does not run in bfloat16 ({first})")
    return decide(wanted, found)


def decide(wanted: str, found: Look) -> Choice:
    """The choice that follows from what was measured; an unsafe one that the recipe insists on is warned of.

    Args:
        wanted: ``bfloat16`` or ``auto``.
        found: What was measured.
    """
    row = asdict(found)
    if wanted == "bfloat16":
        if not found.safe:
            warnings.warn(
                f"predict.precision is bfloat16, and it is not known to be safe: {found}. Safe is at least "
                f"{LEAST_AGREEMENT:.0%} of the classes and no more than {MOST_F1_LOST} of macro F1 lost.",
                PrecisionWarning,
                stacklevel=2,
            )
        return Choice("bfloat16", str(found), row)
    if found.safe and found.gain >= LEAST_GAIN:
        return Choice("bfloat16", str(found), row)
    reason = f"needed: {LEAST_GAIN:g} x" if found.safe else "not known to be safe"
    return Choice("float32", f"bfloat16 is not taken ({reason}): {found}", row)


def _refuse_or_stay(wanted: str, reason: str) -> Choice:
    if wanted == "bfloat16":
        raise UsageError(f"predict.precision is bfloat16, and {reason}.", do="Set it to float32 or auto.")
    return Choice("float32", reason)


def _look(context: Context, bundle: Bundle, point: Point | None, device: str) -> Look:
    threads = context.workers.threads
    kinds = {
        name: load_predictor(bundle, threads=threads, point=point, device=device, precision=name)
        for name in ("float32", "bfloat16")
    }
    tile = _tile(context, bundle)
    gain, same = _compare(kinds["float32"], kinds["bfloat16"], tile)
    samples = _samples(context, bundle)
    if samples is None:
        return Look(gain, same, 0, None, None)
    full, half = (_classes(bundle, samples, point, device, name, threads) for name in kinds)
    from wetmap.training.metrics import scores

    names = bundle.card.class_names
    before, after = (scores(samples.label, found, names).macro_f1 for found in (full, half))
    change = None if before is None or after is None else after - before
    return Look(gain, same, len(samples.label), float((full == half).mean()), change)


def _tile(context: Context, bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A tile of the middle of the cube with its margin, (1, C, side, side) and (1, L, side, side)."""
    cube, geometry = Cube.open(fetch.cube_path(fetch.folder_of(context))), bundle.card.geometry
    y0, x0 = (size // 2 // geometry.tile * geometry.tile - geometry.margin for size in cube.shape)
    features, observed = cube.read_window(y0, x0, geometry.side, geometry.side)
    return features[None], observed[None]


def _compare(
    full: Predictor, half: Predictor, tile: tuple[NDArray[np.float32], NDArray[np.bool_]]
) -> tuple[float, float]:
    """How much faster the second is, the two timed in turn, and the share of pixels with the same class."""
    answers = [predictor.tile_probabilities(*tile).argmax(axis=1) for predictor in (full, half)]
    best, begun = [np.inf, np.inf], time.perf_counter()
    while time.perf_counter() - begun < 2 * LEAST_SECONDS:
        for number, predictor in enumerate((full, half)):
            start = time.perf_counter()
            predictor.tile_probabilities(*tile)
            best[number] = min(best[number], time.perf_counter() - start)
    return float(best[0] / max(best[1], 1e-9)), float((answers[0] == answers[1]).mean())


def _samples(context: Context, bundle: Bundle) -> Patches | None:
    """The validation samples of this workspace, if the model was trained on it."""
    if context.recipe.predict.bundle is not None:
        return None
    path = cubes.folder_of(context).path / "patches.zarr"
    if not path.exists():
        return None
    found = PatchCubes.open(path).select("validation").crop(bundle.card.window)
    return found if len(found.label) else None


def _classes(
    bundle: Bundle, samples: Patches, point: Point | None, device: str, precision: str, threads: int
) -> NDArray[np.int64]:
    """(n,) class index of samples."""
    from wetmap.training.fit import predict_logits

    network = load_network(bundle).to(device)
    if point is not None:
        set_point(network, point)
    with in_precision(precision, device):
        return np.asarray(predict_logits(network, samples, threads=threads).argmax(axis=1), dtype=np.int64)
