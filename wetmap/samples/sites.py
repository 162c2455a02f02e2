"""Sites: the places that a field of the reference names, so that one of them can be held out whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetmap.errors import ReferenceDataError
from wetmap.samples.class_table import value_key, value_text
from wetmap.samples.labels import Report, Sites


def name_sites(ids: NDArray[np.int32], values: Sequence[Any], report: Report) -> Sites:
    """The sites of the features, from the values of their site field; ``York`` and ``york `` are one site.

    Args:
        ids: Ids of the features, (feature,).
        values: What the site field holds, in the same order; None where it is empty.
        report: Where features without a site are noted. They belong to no fold, so they are not used.

    Raises:
        ReferenceDataError: The field is empty everywhere.
    """
    shown: dict[str, str] = {}
    for text in sorted({value_text(value) for value in values if value is not None}):
        shown.setdefault(value_key(text), text)
    if not shown:
        raise ReferenceDataError(
            f"The site field is empty in all of the {len(values)} reference features in the area.",
            do="Fill it, name another reference.site_field, or use splits.kind blocks.",
        )
    empty = sum(value is None for value in values)
    report.rows["features_without_site"] = empty
    if empty:
        report.note(
            f"{empty} of {len(values)} reference features in the area have an empty site field; they are left out.",
            "Fill the field, or use splits.kind blocks.",
        )
    order = sorted(shown, key=_rank)
    place = {key: number for number, key in enumerate(order)}
    of_feature = {
        int(feature): place[value_key(value)] for feature, value in zip(ids, values, strict=True) if value is not None
    }
    return Sites(tuple(shown[key] for key in order), of_feature)


def sites_of_samples(
    row: NDArray[np.int64], col: NDArray[np.int64], polygon: NDArray[np.int32], sites: Sites
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Site of each sample; sites without a sample are left out of the names.

    Background samples lie in no reference feature: they belong to the site whose nearest sample is nearest (the first
    by name of several that are as near).

    Args:
        row: Pixel row, (sample,).
        col: Pixel column, (sample,).
        polygon: Id of the feature, or of the square that stands in for it, (sample,).
        sites: The sites of the features.

    Returns:
        (sample,), place in the names; and the names, sorted.
    """
    site = np.array([sites.of_feature.get(int(feature), -1) for feature in polygon], dtype=np.int16)
    there = np.unique(site[site >= 0])
    at = np.stack([row, col], axis=1).astype(np.float64)
    homeless = np.flatnonzero(site < 0)
    if len(homeless) and len(there):
        from scipy.spatial import KDTree  # takes a fifth of a second to load, in every command

        distance = np.stack([KDTree(at[site == number]).query(at[homeless])[0] for number in there])
        site[homeless] = there[distance.argmin(axis=0)]
    names = tuple(sites.names[int(number)] for number in there)
    return np.searchsorted(there, site).astype(np.int16), names


def _rank(key: str) -> tuple[int, float, str]:
    """Numbers by value before text by its letters."""
    try:
        number = float(key)
    except ValueError:
        return 1, 0.0, key
    return (0, number, key) if np.isfinite(number) else (1, 0.0, key)
