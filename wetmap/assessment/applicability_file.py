"""The area of applicability as a safetensors file beside a model's weights, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from wetmap.assessment.applicability import Applicability
from wetmap.errors import BundleError

_ADVICE = "Copy the whole folder of the model again, or run wetmap train."
#: Layout of the file; another one is refused.
FORMAT = 1
#: Every array of the file: its dtype and number of dimensions.
_PARTS: dict[str, tuple[type[np.generic], int]] = {
    "format": (np.int64, 0),
    "bands": (np.uint8, 1),
    "mean": (np.float64, 1),
    "scale": (np.float64, 1),
    "weight": (np.float64, 1),
    "samples": (np.float32, 2),
    "mean_distance": (np.float64, 0),
    "threshold": (np.float64, 0),
}


def dumps(applicability: Applicability, bands: Sequence[str]) -> bytes:
    """Write it; the same numbers give the same bytes.

    Args:
        applicability: What to write.
        bands: Names of its features, in order.
    """
    content: dict[str, Any] = {"format": FORMAT, "bands": np.frombuffer("\n".join(bands).encode(), dtype=np.uint8)}
    content |= {name: getattr(applicability, name) for name in _PARTS if name not in content}
    return bytes(save({name: np.array(content[name], dtype, order="C") for name, (dtype, _) in _PARTS.items()}))


def loads(data: bytes, bands: Sequence[str]) -> Applicability:
    """Read what `dumps` wrote.

    Args:
        data: The file.
        bands: Names of the model's features, in order.

    Raises:
        BundleError: Not such a file, one of other features, or one whose numbers cannot be.
    """
    try:
        content = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"The model's area of applicability cannot be read ({error}).", do=_ADVICE) from error
    found = {name: (array.dtype.type, array.ndim) for name, array in content.items()}
    wrong = sorted(name for name in {*found, *_PARTS} if found.get(name) != _PARTS.get(name))
    if wrong or int(content["format"]) != FORMAT:
        what = f"another {', '.join(wrong)} than it should" if wrong else f"layout {int(content['format'])}"
        raise BundleError(f"The model's area of applicability has {what}.", do=_ADVICE)
    if content["bands"].tobytes() != "\n".join(bands).encode():
        raise BundleError("The model's area of applicability is of other bands than the model.", do=_ADVICE)
    made = Applicability(
        mean=content["mean"],
        scale=content["scale"],
        weight=content["weight"],
        samples=content["samples"],
        mean_distance=float(content["mean_distance"]),
        threshold=float(content["threshold"]),
    )
    if not _sound(made, len(bands)):
        raise BundleError("The model's area of applicability holds numbers that cannot be.", do=_ADVICE)
    return made


def _sound(made: Applicability, bands: int) -> bool:
    rows: list[NDArray[np.float64]] = [made.mean, made.scale, made.weight]
    return (
        all(row.shape == (bands,) and bool(np.isfinite(row).all()) for row in rows)
        and made.samples.shape[0] > 0
        and made.samples.shape[1] == bands
        and not np.isinf(made.samples).any()
        and bool((made.scale > 0).all())
        and bool((made.weight >= 0).all())
        and bool(made.weight.any())
        and 0 < made.mean_distance < np.inf
        and 0 < made.threshold < np.inf
    )
