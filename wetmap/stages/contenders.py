"""Which models a comparison is of, on which folds, and how long each may learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wetmap import models
from wetmap.errors import RecipeError, UsageError
from wetmap.recipe import Recipe, Training
from wetmap.stages.fitting import BASELINES, baseline_options, window_of

#: Sizes of model families that are too large for a laptop; a name without one of them is of a laptop's size.
LARGE_SIZES = frozenset({"tiny", "small", "medium", "large"})
#: Names that stand for several models.
LAPTOP, ALL = "laptop", "all"
#: Epochs that no network makes in the time: the clock ends the training.
MOST_EPOCHS = 100_000
#: What every other model is held against.
REFERENCE = BASELINES[0]


@dataclass(frozen=True)
class Contender:
    """A model of the comparison."""

    label: str
    """Its name, and those of its options that were given."""
    name: str
    """A registered model."""
    options: dict[str, Any]
    """All of its options."""
    own_window: bool = False
    """Whether its window was given with its options; then no bound changes it."""

    @property
    def window_px(self) -> int:
        """Side of the windows that it learns from, pixels."""
        return window_of(self.options)

    @property
    def is_network(self) -> bool:
        """Whether it is trained by gradient, for the minutes given."""
        return models.entry(self.name).family == "torch"


def contenders(recipe: Recipe) -> tuple[Contender, ...]:
    """The models of a comparison, the forest and boosting first, each once.

    Raises:
        RecipeError: An unknown model or option, or a wrong value.
    """
    found: dict[tuple[Any, ...], Contender] = {}
    for name, given in _asked(recipe):
        options = _options(name, given, recipe)
        said = ", ".join(f"{key} {value}" for key, value in sorted(given.items()))
        contender = Contender(f"{name} ({said})" if said else name, name, options, "window" in given)
        found.setdefault((name, *sorted(options.items())), contender)
    return tuple(found.values())


def _asked(recipe: Recipe) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in BASELINES:
        yield name, {}
    for wanted in recipe.compare.models:
        if not isinstance(wanted, str):
            yield wanted.name, wanted.options
        elif wanted in (LAPTOP, ALL):
            yield from ((name, {}) for name in model_list(wanted))
        else:
            yield wanted, {}


def model_list(word: str) -> list[str]:
    """The models that ``laptop`` or ``all`` stands for."""
    return [name for name in models.model_names() if word == ALL or not LARGE_SIZES & set(name.split("-"))]


def _options(name: str, given: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    usual = baseline_options(name, recipe.training) if name in BASELINES else _window(name, recipe.compare.window_px)
    return dict(models.resolve_options(name, {**usual, **given}))


def _window(name: str, most: int | None) -> dict[str, Any]:
    """The window that a model takes where its usual one is too large."""
    option = models.entry(name).options.get("window")
    if most is None or option is None or int(option.default) <= most:
        return {}
    fitting = [int(value) for value in option.allowed if int(value) <= most]
    if not fitting:
        raise RecipeError(
            f"compare.window_px (--window) is {most}, and the smallest window of {name} is "
            f"{min(map(int, option.allowed))} px.",
            do=f"Raise it, or leave {name} out.",
        )
    return {"window": max(fitting)}


def window_notes(recipe: Recipe) -> list[str]:
    """What a bound on the windows (``compare.window_px``) does not do, where somebody might think that it did."""
    most = recipe.compare.window_px
    if most is None:
        return []
    wanted = contenders(recipe)
    notes = [
        f"{row.label} keeps its own window of {row.window_px} px: the bound of {most} px (compare.window_px, --window) "
        "is for models whose window is not named."
        for row in wanted
        if row.own_window and row.window_px > most
    ]
    cut = [row.window_px for row in wanted if not row.own_window and _usual_window(row.name) > most]
    if cut and max(cut) < most:
        notes.append(f"No model here has a window of {most} px: the largest up to that is {max(cut)} px.")
    return notes


def _usual_window(name: str) -> int:
    return window_of(models.option_defaults(name))


def training_of(recipe: Recipe) -> Training:
    """How every network learns: the recipe's way, from weights drawn at random, until the minutes are up.

    Neither the epochs nor the patience end it: they would end a fast network long before a slow one. The best epoch is
    kept all the same.
    """
    return recipe.training.model_copy(
        update={"start": None, "minutes": recipe.compare.minutes, "epochs": MOST_EPOCHS, "patience": MOST_EPOCHS}
    )


def folds_of(recipe: Recipe) -> tuple[int, ...]:
    """The folds that are held out for testing, one after the other.

    Raises:
        UsageError: A fold that there is not, or several of a split that has none.
    """
    asked, splits = recipe.compare.folds, recipe.splits
    if asked is None:
        return (splits.test_fold,)
    if splits.kind == "paper":
        raise UsageError(
            f"compare.folds is {_listed(asked)}, and splits.kind paper deals single pixels and has no folds.",
            do="Leave compare.folds out, or use splits.kind blocks.",
        )
    if splits.kind in {"blocks", "polygons"} and max(asked) >= splits.folds:
        raise UsageError(
            f"compare.folds is {_listed(asked)}, and folds are numbered 0 to {splits.folds - 1}.",
            do="Choose among these, or raise splits.folds.",
        )
    return tuple(sorted(asked))


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
