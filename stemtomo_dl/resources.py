"""Finds the three rooms of facts: recipes, models and synthetic scenes, in a clone or in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from stemtomo_dl.errors import InputError

_PACKAGE = Path(__file__).parent


def synthetic() -> Path:
    """Folder of scenes and structures of the forward model.

    Raises
    ------
    InputError
        If neither the installed package nor a clone around it holds the folder.
    """
    return _room("data/synthetic")


def models() -> Path:
    """Folder of the registry of weights, their cards, and the weights that are shipped.

    Raises
    ------
    InputError
        If neither the installed package nor a clone around it holds the folder.
    """
    return _room("models")


def recipes() -> Path:
    """Folder of the recipes that segmenters are trained by.

    Raises
    ------
    InputError
        If neither the installed package nor a clone around it holds the folder.
    """
    return _room("training/recipes")


def _room(name: str) -> Path:
    """A wheel carries the rooms under ``_share``; in a clone or editable install they lie beside the package."""
    for folder in (_PACKAGE / "_share" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise InputError(f"{name}: not found beside {_PACKAGE.name}; reinstall the package or use a complete clone")
