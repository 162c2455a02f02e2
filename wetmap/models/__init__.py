"""The model zoo: one file or folder per architecture, one contract for all, one registry line per model."""

from wetmap.models.contract import Geometry, MapModel
from wetmap.models.reference import load_reference
from wetmap.models.registry import ModelEntry, create, entry, model_names, option_defaults, resolve_options

__all__ = [
    "Geometry",
    "MapModel",
    "ModelEntry",
    "create",
    "entry",
    "load_reference",
    "model_names",
    "option_defaults",
    "resolve_options",
]
