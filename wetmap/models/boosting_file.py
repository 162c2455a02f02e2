"""Boosted trees as arrays: what a prediction reads of them, in a safetensors file and back.

scikit-learn keeps a fitted model as objects of its private classes, compiled losses and a random generator among them,
and with the number of threads it was fitted with. A prediction needs none of that: the nodes of the trees and the
scores they start from are enough, and say the same whatever made them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

from wetmap.errors import BundleError
from wetmap.models.pixels import trees_are_closed

ADVICE = "Train the model again, or take an undamaged copy of the bundle."

#: scikit-learn's bitsets of categories: a map's features have none.
_NO_CATEGORIES: NDArray[np.uint32] = np.zeros((0, 8), np.uint32)


@dataclass(frozen=True, eq=False)
class Trees:
    """The nodes of all trees, one tree after the other, round by round and in a round in the order of the scores."""

    nodes: NDArray[np.int64]
    """(T,) number of nodes of each tree."""
    left: NDArray[np.int32]
    """(N,) child for values up to the threshold, counted from the tree's own root; -1 for a leaf."""
    right: NDArray[np.int32]
    """(N,) child for values above it; -1 for a leaf."""
    feature: NDArray[np.int32]
    """(N,) band that is looked at; 0 for a leaf."""
    threshold: NDArray[np.float64]
    """(N,) in the unit of the band; infinite where the split is on being observed or not."""
    missing_left: NDArray[np.uint8]
    """(N,) 1 where a value that was not observed goes left."""
    value: NDArray[np.float64]
    """(N,) what a leaf adds to the score; 0 for an inner node."""

    @classmethod
    def of(cls, fitted: Iterable[TreePredictor]) -> Trees:
        """The trees of a fitted model of scikit-learn."""
        tables = [predictor.nodes for predictor in fitted]
        table = np.concatenate([np.zeros(0, PREDICTOR_RECORD_DTYPE), *tables])
        leaf = table["is_leaf"] != 0
        return cls(
            nodes=np.asarray([len(nodes) for nodes in tables], np.int64),
            left=np.where(leaf, -1, table["left"].astype(np.int32)).astype(np.int32),
            right=np.where(leaf, -1, table["right"].astype(np.int32)).astype(np.int32),
            feature=np.where(leaf, 0, table["feature_idx"]).astype(np.int32),
            threshold=np.where(leaf, 0.0, table["num_threshold"]),
            missing_left=np.where(leaf, 0, table["missing_go_to_left"]).astype(np.uint8),
            value=np.where(leaf, table["value"], 0.0),
        )

    def first(self, trees: int) -> Trees:
        """The first of the trees alone."""
        end = int(self.nodes[:trees].sum())
        return Trees(self.nodes[:trees], *(getattr(self, field.name)[:end] for field in fields(self)[1:]))

    def check(self, bands: int) -> None:
        """Refuse tables that do not fit each other, or a tree that leads out of itself.

        Args:
            bands: Number of bands that a node may ask for.

        Raises:
            BundleError: Lengths differ, a child does not come after its parent in its own tree, a band is not there, or
                a number is not one.
        """
        count = len(self.left)
        whole = (
            all(len(getattr(self, field.name)) == count for field in fields(self)[1:])
            # each against N first: a crafted sum could overflow
            and bool(((self.nodes > 0) & (self.nodes <= count)).all())
            and int(self.nodes.sum()) == count
        )
        fits = whole and (
            trees_are_closed(
                self.left,
                self.right,
                self.feature,
                own=np.arange(count) - np.repeat(np.cumsum(self.nodes) - self.nodes, self.nodes),
                end=np.repeat(self.nodes, self.nodes),
                bands=bands,
            )
            and bool((self.missing_left <= 1).all())
            and bool(np.isfinite(self.value).all())
            and not np.isnan(self.threshold).any()
        )
        if not fits:
            raise BundleError("A tree of the boosting model points outside itself, or is incomplete.", do=ADVICE)

    def predictors(self) -> list[TreePredictor]:
        """scikit-learn's own predictors over these nodes."""
        table = np.zeros(len(self.left), PREDICTOR_RECORD_DTYPE)
        leaf = self.left == -1
        table["is_leaf"] = leaf
        table["left"] = np.where(leaf, 0, self.left)
        table["right"] = np.where(leaf, 0, self.right)
        table["feature_idx"] = self.feature
        table["num_threshold"] = self.threshold
        table["missing_go_to_left"] = self.missing_left
        table["value"] = self.value
        ends = np.cumsum(self.nodes)
        return [
            TreePredictor(table[end - count : end], _NO_CATEGORIES, _NO_CATEGORIES)
            for count, end in zip(self.nodes, ends, strict=True)
        ]


def added(predictor: TreePredictor, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """What one tree adds to the score of each of (n, C) pixels, NaN where not observed."""
    found: NDArray[np.float64] = predictor.predict(x, _NO_CATEGORIES, np.zeros(x.shape[1], np.uint32), 1)
    return found


#: Every array of a file: its dtype and number of dimensions.
_PARTS: dict[str, tuple[type[np.generic], int]] = {
    "classes": (np.int64, 0),
    "layers": (np.int64, 0),
    "band_layer": (np.int64, 1),
    "known": (np.int64, 1),
    "start": (np.float64, 1),
    "nodes": (np.int64, 1),
    "left": (np.int32, 1),
    "right": (np.int32, 1),
    "feature": (np.int32, 1),
    "threshold": (np.float64, 1),
    "missing_left": (np.uint8, 1),
    "value": (np.float64, 1),
}


def dumps(content: dict[str, NDArray[Any]]) -> bytes:
    """Write the arrays of a model, by name."""
    return bytes(save({name: np.asarray(content[name], dtype, order="C") for name, (dtype, _) in _PARTS.items()}))


def loads(data: bytes) -> dict[str, NDArray[Any]]:
    """Read what ``dumps`` wrote.

    Raises:
        BundleError: Not a safetensors file, or one of other arrays.
    """
    try:
        content = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"The boosting model cannot be read ({error}).", do=ADVICE) from error
    found = {name: (array.dtype.type, array.ndim) for name, array in content.items()}
    wrong = sorted(name for name in {*found, *_PARTS} if found.get(name) != _PARTS.get(name))
    if wrong:
        raise BundleError(f"The boosting model's file has another {', '.join(wrong)} than it should.", do=ADVICE)
    return dict(content)
