"""wetmap doctor: what this machine has, and what it lacks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from wetmap.cli.options import JsonOption

PACKAGES = (
    "wetmap",
    "torch",
    "lightning",
    "rasterio",
    "pystac-client",
    "zarr",
    "dask",
    "geopandas",
    "scikit-learn",
    "numpy",
)
DRIVERS = ("GTiff", "COG", "GPKG", "GeoJSON", "ESRI Shapefile", "JP2OpenJPEG")

#: Names of variables and files that hold credentials. Only whether they are there is said, never what they hold.
CREDENTIALS: dict[str, tuple[tuple[str, ...], str]] = {
    "Earth Engine": (("EARTHENGINE_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"), "~/.config/earthengine/credentials"),
    "Planetary Computer (optional)": (("PC_SDK_SUBSCRIPTION_KEY",), "~/.planetarycomputer/settings.env"),
    "Amazon S3": (("AWS_ACCESS_KEY_ID",), "~/.aws/credentials"),
}


def doctor(
    workspace: Annotated[Path, typer.Option("--workspace", help="Folder whose disk is looked at.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say versions, GDAL drivers, threads, GPU, disk, clusters, models and which credentials are found."""
    from wetmap.cli.output import emit

    result = diagnose(workspace)
    lines = [f"{name}: {_readable(value)}" for name, value in result.items()]
    emit(result, lines, as_json=as_json)


def diagnose(folder: Path) -> dict[str, Any]:
    """Everything the verb prints, as plain data."""
    import torch
    from rasterio.env import Env, GDALVersion

    from wetmap.models import model_names

    nearest = next((p for p in (folder.absolute(), *folder.absolute().parents) if p.exists()), Path.cwd())
    disk = shutil.disk_usage(nearest)
    with Env() as env:
        drivers = env.drivers()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "gdal": str(GDALVersion.runtime()),
        "gdal drivers": {name: "yes" if name in drivers else "MISSING" for name in DRIVERS},
        "cores": os.cpu_count() or 1,
        "torch threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; everything runs on the processor",
        "disk": f"{disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB at {nearest}",
        "clusters": clusters(),
        "models": list(model_names()),
        "credentials": {name: _found(variables, file) for name, (variables, file) in CREDENTIALS.items()},
    }


def clusters() -> dict[str, str]:
    """Which kinds of ``--cluster`` can be used here, and what the others lack."""
    from wetmap.cluster.jobs import CLASSES
    from wetmap.cluster.queues import CANCEL, SUBMIT

    try:
        library = importlib.metadata.version("dask-jobqueue")
    except importlib.metadata.PackageNotFoundError:
        library = None
    found = {"local": "yes", "tcp://...": "yes"}
    for kind in CLASSES:
        lacks = [f"there is no {name}" for name in (SUBMIT[kind], CANCEL[kind]) if shutil.which(name) is None]
        if library is None:
            lacks.append("dask-jobqueue is not installed (pip install 'wetmap[cluster]')")
        found[kind] = f"no: {' and '.join(lacks)}" if lacks else f"yes ({shutil.which(SUBMIT[kind])})"
    return found


def _found(variables: tuple[str, ...], file: str) -> str:
    found = any(os.environ.get(name) for name in variables) or Path(file).expanduser().exists()
    return "found" if found else "not found"


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
