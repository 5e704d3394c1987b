"""Records <-> HDF5: a dataset an array, an attribute a number or word, a group a record within a record."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import h5py
import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.atomic import writing
from stemtomo_dl.store.h5 import SMALL, open_ours

R = TypeVar("R")


def write_record(path: Path, record: Any) -> None:
    """Write a record; what is None is left out, units are attributes of the datasets."""
    with writing(path) as tmp, h5py.File(tmp, "w") as f:
        _put(f, record)


def _put(group: h5py.Group, record: Any) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if value is None:
            continue
        if is_dataclass(value):
            _put(group.create_group(field.name), value)
        elif isinstance(value, np.ndarray):
            made = group.create_dataset(field.name, data=value, **(SMALL if value.size > 1 else {}))
            made.attrs["unit"] = field.metadata.get("unit", "")
        else:
            group.attrs[field.name] = value


def read_record(path: Path, kind: type[R]) -> R:
    """Read a record of a kind.

    Raises
    ------
    InputError
        If the file is missing, or does not hold such a record.
    """
    with open_ours(path, ()) as f:
        try:
            return _get(f, kind)
        except (KeyError, TypeError, ValueError) as e:
            why = " ".join(str(e).split())
            raise InputError(f"{path}: is not as we wrote it ({why}); run the stage that writes it again") from e


def _get(group: h5py.Group, kind: type[R]) -> R:
    known: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        inner: Any = next((t for t in (hint, *get_args(hint)) if is_dataclass(t)), None)
        if name in group:
            known[name] = group[name][:] if inner is None else _get(group[name], inner)
        elif name in group.attrs:
            value = group.attrs[name]
            known[name] = value.item() if isinstance(value, np.generic) else value
        elif type(None) in get_args(hint):
            known[name] = None
    return kind(**known)
