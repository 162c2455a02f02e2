"""The recipe's part about training, and what every part of a recipe is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Part(BaseModel):
    """A part of the recipe: unknown keys are refused, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Training(Part):
    """How the model is trained."""

    epochs: int = Field(60, ge=1, description="Passes over the training samples, at most.")
    minutes: float | None = Field(
        None,
        gt=0,
        description="Stop after this much training time, minutes, those of stopped runs counted in; the learning rate "
        "falls with the time too. Where the clock stops a training, its weights cannot be repeated to the byte. "
        "Default: the epochs alone.",
    )
    patience: int = Field(15, ge=1, description="Stop after this many epochs without a better validation macro F1.")
    batch_size: int = Field(256, ge=2, description="Samples per step; batch normalisation needs two.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay of AdamW.")
    warmup_epochs: int = Field(3, ge=0, description="Epochs of linear warm-up before the cosine.")
    gradient_norm: float = Field(
        1.0, ge=0, description="Gradients longer than this are scaled down to it; 0 = they are left as they are."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Numbers to compute with: `auto` is bfloat16 autocast on a CUDA device that has it and float32 "
        "elsewhere. Weights are always kept in float32.",
    )
    loss: Literal["cross-entropy", "focal"] = Field(
        "cross-entropy", description="Cross-entropy, or focal loss, which counts easy samples less."
    )
    focal_gamma: float = Field(
        2.0, ge=0, description="How much less the focal loss counts what is easy; 0 is cross-entropy."
    )
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="Label smoothing, 0-1.")
    class_weights: Literal["none", "inverse"] = Field(
        "inverse", description="Weight classes by inverse frequency, or not."
    )
    sampling: Literal["as-drawn", "balanced"] = Field(
        "as-drawn",
        description="`as-drawn`: each sample once per epoch. `balanced`: every class as often, samples of rare classes "
        "again and again.",
    )
    flips: bool = Field(True, description="Random flips and quarter turns.")
    drop_layers: float = Field(
        0.1, ge=0, lt=1, description="Chance that an observed layer is hidden from a sample, 0-1."
    )
    noise: float = Field(
        0.0, ge=0, description="Gaussian noise added to every band, in standard deviations of the band; 0 = off."
    )
    mixup: float = Field(
        0.0, ge=0, description="Mixup: alpha of the beta distribution that shares are drawn from; 0 = off."
    )
    cutmix: float = Field(
        0.0, ge=0, description="CutMix: alpha of the beta distribution that areas are drawn from; 0 = off."
    )
    ema: float = Field(
        0.0,
        ge=0,
        le=0.9999,
        description="Decay per step of a moving average of the weights, which is scored and kept instead of them; "
        "0 = off.",
    )
    devices: int = Field(
        1,
        ge=0,
        description="Processes that train together on this machine, each on a GPU of its own where there are any; 0 "
        "for one per GPU. Under torchrun its processes count instead.",
    )
    start: Path | None = Field(
        None,
        description="Weights to begin from, a file of `wetmap model import` or the folder of a model that was trained "
        "here; relative paths start at the recipe's folder. Default: weights drawn at random.",
    )
    forest_trees: int = Field(
        500, ge=1, description="Trees of the random forest that is always trained beside the model."
    )


class ComparedModel(Part):
    """A model of a comparison, with options of its own."""

    name: str = Field(description="A name from `wetmap doctor`'s list of models.")
    options: dict[str, int | float | str | bool] = Field({}, description="The model's own options, by name.")


class Compare(Part):
    """What `wetmap compare` compares."""

    models: list[str | ComparedModel] = Field(
        ["laptop"],
        min_length=1,
        description="Names of models, or a name with options; `laptop`: every model of a laptop's size; `all`: every "
        "model. The random forest and gradient boosting are always there.",
    )
    minutes: float = Field(3.0, gt=0, description="Training time of each network on each fold, minutes.")
    folds: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        description="Folds that are held out for testing, one after the other; default: splits.test_fold alone.",
    )
    window_px: int | None = Field(
        None,
        ge=8,
        description="Largest window, pixels: a model that would look at a larger one by default takes the largest that "
        "it offers up to this. All models' samples keep the distance that the largest window needs. Default: no bound.",
    )

    @field_validator("folds")
    @classmethod
    def _each_once(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError(f"a fold is named twice in {', '.join(map(str, value))}")
        return value
