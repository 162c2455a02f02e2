"""wetmap model show | import | export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetmap.cli.options import JsonOption, RecipeOption, WorkspaceOption
from wetmap.errors import UsageError

if TYPE_CHECKING:
    from wetmap.recipe import Recipe

app = typer.Typer(
    help="Show a trained model, begin from public weights, or export to ONNX.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FolderArgument = Annotated[
    Path | None,
    typer.Argument(help="Folder of a trained model, or a workspace [default: --workspace].", show_default=False),
]


@app.command()
def show(
    folder: FolderArgument = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a trained model expects, what it answers and how well, in plain words."""
    from wetmap.bundle import load_bundle
    from wetmap.cli.output import emit
    from wetmap.exchange.words import describe_card

    card = load_bundle(_model_folder(folder, workspace)).card
    emit(card.model_dump(mode="json"), describe_card(card), as_json=as_json)


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="PyTorch checkpoint, safetensors, or .npz of Keras weights.", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="Model to train [default: the recipe's].", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="A model option, NAME=VALUE; may be repeated.")
    ] = None,
    recipe: RecipeOption = None,
    workspace: WorkspaceOption = None,
    bands: Annotated[
        int | None, typer.Option("--bands", min=1, help="Number of bands [default: the recipe's].", show_default=False)
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes",
            min=2,
            help="Keep the layer of the classes: they are as many, and in the same order.",
            show_default=False,
        ),
    ] = None,
    classes_from: Annotated[
        Path | None,
        typer.Option("--classes-from", help="The same, counted in a trained model's folder.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="File to write, .safetensors [default: start/MODEL.safetensors in the workspace].",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a start for training of public weights; no code in the file is run."""
    from wetmap.cli.output import emit
    from wetmap.exchange.importing import Wanted, describe_start, import_weights

    known = _recipe(recipe, workspace)
    name = model or (known.model.name if known is not None else None)
    if name is None:
        raise UsageError("No model is named.", do="Give --model, such as --model vvt-tiny, or --recipe.")
    options = dict(known.model.options) if known is not None and known.model.name == name else {}
    wanted = Wanted(
        model=name,
        options={**options, **_options(name, option or [])},
        bands=_bands(bands, known),
        classes=classes if classes_from is None else _classes_of(classes_from),
    )
    target = output or _default_target(name, workspace)
    card = import_weights(file, wanted, target)
    emit({"start": str(target), **card.model_dump(mode="json")}, describe_start(card, target), as_json=as_json)


@app.command()
def export(
    folder: FolderArgument = None,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="ONNX file to write; needs wetmap[onnx].", show_default=False)
    ] = None,
    workspace: WorkspaceOption = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="SuperViT: tokens per side.", show_default=False)
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option("--keep", min=0, max=1, help="SuperViT: share of tokens kept, 0-1.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained network as ONNX, checked against PyTorch."""
    from wetmap.bundle import load_bundle
    from wetmap.cli.output import emit
    from wetmap.exchange.onnx_file import export_onnx

    if onnx is None:
        raise UsageError("No file to write is named.", do="Give --onnx with a file name, such as --onnx model.onnx.")
    report = export_onnx(load_bundle(_model_folder(folder, workspace)), onnx, tokens=tokens, keep=keep)
    result = {
        "onnx": str(report.path),
        "side": report.side,
        "answers": report.answers,
        "difference": report.difference,
        "point": report.point,
        "placing": asdict(report.placing),
    }
    emit(result, report.lines, as_json=as_json)


def _model_folder(folder: Path | None, workspace: Path | None) -> Path:
    """The folder of a model: as it is given, or the workspace's."""
    given = folder or workspace
    if given is None:
        raise UsageError(
            "No model is named.", do="Give its folder, such as wetmap model show nb-wetmap/model, or --workspace."
        )
    return given / "model" if not (given / "model.json").exists() and (given / "model").is_dir() else given


def _recipe(recipe: Path | None, workspace: Path | None) -> Recipe | None:
    from wetmap.recipe_file import load_recipe

    if recipe is None and workspace is not None and (workspace / "recipe.yaml").exists():
        recipe = workspace / "recipe.yaml"
    return None if recipe is None else load_recipe(recipe)


def _bands(bands: int | None, recipe: Recipe | None) -> int:
    from wetmap.cube import bands_of

    if bands is not None:
        return bands
    if recipe is None:
        raise UsageError(
            "The number of bands is not known.", do="Give --bands, or --recipe or --workspace, whose bands are counted."
        )
    return len(bands_of(recipe))


def _classes_of(folder: Path) -> int:
    from wetmap.bundle import load_bundle

    return len(load_bundle(_model_folder(folder, None)).card.classes)


def _options(model: str, given: list[str]) -> dict[str, Any]:
    """``window=16`` as the option's own type; what is wrong is said by ``resolve_options``."""
    from wetmap.models import option_defaults

    defaults, options = option_defaults(model), {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in defaults:
            raise UsageError(
                f"--option {text} names no option of {model}.",
                do=f"Give NAME=VALUE; its options are {', '.join(sorted(defaults))}.",
            )
        options[name] = _typed(value, type(defaults[name]))
    return options


def _typed(text: str, kind: type) -> Any:
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return text if kind is bool else kind(text)
    except ValueError:
        return text


def _default_target(model: str, workspace: Path | None) -> Path:
    return Path(f"{model}-start.safetensors") if workspace is None else workspace / "start" / f"{model}.safetensors"
