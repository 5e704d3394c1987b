"""What `predict` segments: images, files that are channels of one field, tilts of a run's images.h5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.pictures import picture_names, read_picture
from stemtomo_dl.store.results import read_image_facts, read_images


class Field(NamedTuple):
    """A field of view, not read yet.

    Attributes
    ----------
    name : str
        For the files of its outcome.
    read : callable
        Gives its images (y, x) by what they are; ``grey`` is an image of unknown kind.
    """

    name: str
    read: Callable[[], dict[str, np.ndarray]]


def fields_of(paths: Sequence[Path]) -> list[Field]:
    """A field for every image, and for every tilt of an ``images.h5`` that a run or `simulate --images-only` wrote.

    Raises
    ------
    InputError
        If two fields would have one name, or an .h5 file is not such a one.
    """
    out = []
    for path, name in zip(paths, picture_names(paths), strict=True):
        if path.suffix.lower() == ".h5":
            good = np.flatnonzero(read_image_facts(path)[1]).tolist()
            out += [Field(f"{name}_{tilt:04d}", partial(_tilt, path, tilt)) for tilt in good]
        else:
            out.append(Field(name, partial(_grey, path)))
    seen = [f.name for f in out]
    twice = next((n for n in seen if seen.count(n) > 1), None)
    if twice:
        raise InputError(f"{twice}: two images have this name; their outcomes need a folder (-o) each")
    return out


def field_of_channels(given: Sequence[str], known: Sequence[str]) -> Field:
    """One field whose channels are files of their own; it has the name of the first.

    Parameters
    ----------
    given : sequence of str
        ``KIND=FILE`` each.
    known : sequence of str
        Kinds that a segmenter understands.

    Raises
    ------
    InputError
        If one is not of this form, of an unknown kind, or of a kind that was given before.
    """
    files: dict[str, Path] = {}
    for one in given:
        kind, is_channel, path = one.partition("=")
        if not is_channel or kind not in known or not path:
            raise InputError(f"{one}: with --channels give KIND=FILE, KIND one of {', '.join(known)}")
        if kind in files:
            raise InputError(f"{one}: {kind} is {files[kind]} already; give each kind once")
        files[kind] = Path(path)
    return Field(next(iter(files.values())).stem, partial(_channels, files))


def _grey(path: Path) -> dict[str, np.ndarray]:
    return {"grey": read_picture(path)}


def _tilt(path: Path, tilt: int) -> dict[str, np.ndarray]:
    return read_images(path, tilt).by_name


def _channels(files: dict[str, Path]) -> dict[str, np.ndarray]:
    images = {kind: read_picture(path) for kind, path in files.items()}
    (first, shape), *others = ((kind, image.shape) for kind, image in images.items())
    for kind, other in others:
        if other != shape:
            raise InputError(
                f"{files[kind]}: is of {list(other)} px, {files[first]} of {list(shape)}; channels must be of one field"
            )
    return images
