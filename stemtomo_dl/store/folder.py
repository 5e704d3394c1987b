"""Files that other programs read: text, HDF5 trees and folders of frames, as `export` describes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stemtomo_dl.store.atomic import write_text, writing
from stemtomo_dl.store.h5 import SMALL


def write_folder(folder: Path, files: Mapping[str, str | Mapping[str, Any] | Iterable[tuple[str, bytes]]]) -> None:
    """Write files in the order given, each whole or not at all; what else lies in the folder stays.

    Parameters
    ----------
    folder : Path
    files : mapping
        By name: text; an HDF5 tree as a mapping from paths to values, "path@name" being an attribute; or the files
        (name, bytes) of a folder, which takes the place of one that is there.

    Raises
    ------
    InputError
        If the disk is full, or the folder cannot be written.
    """
    for name, content in files.items():
        if isinstance(content, str):
            write_text(folder / name, content)
        elif isinstance(content, Mapping):
            with writing(folder / name) as tmp:
                _write_tree(tmp, content)
        else:
            with writing(folder / name) as tmp:
                tmp.mkdir()
                for part, data in content:
                    (tmp / part).write_bytes(data)
                if (folder / name).is_dir():  # one that holds files cannot be replaced by a move
                    shutil.rmtree(folder / name)


def _write_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Write an HDF5 file; datasets come before attributes, which make groups where there is no dataset."""
    with h5py.File(path, "w") as f:
        for place in (k for k in tree if "@" not in k):
            value = tree[place]
            large = isinstance(value, np.ndarray) and value.ndim > 1
            chunks = (1, *value.shape[1:]) if large and value.ndim > 2 else None
            f.create_dataset(place, data=value, **(SMALL | {"chunks": chunks} if large else {}))
        for place in (k for k in tree if "@" in k):
            target, name = place.split("@")
            (f[target] if target in f else f.create_group(target)).attrs[name] = tree[place]
