"""The user's own images with masks, to be mixed into training: COCO files, and folders of label images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from stemtomo_dl.errors import InputError
from stemtomo_dl.learn.coco import Drawn, outline, read_coco
from stemtomo_dl.records import Masks
from stemtomo_dl.store.pictures import read_picture, read_pixels

_PIECE = 0.1  # of the largest: a part of this size is no stray pixel


@dataclass(frozen=True, eq=False)
class OwnImage:
    """An image with its outlines.

    Attributes
    ----------
    name : str
        File name.
    images : dict
        (y, x) f4 arrays by the name of the plane that shows them: ``grey``, since only the look is known.
    masks : Masks
        At tilt 0.
    counts : (instance,) bool array
        False: a crowd, of which no outline is asked for.
    """

    name: str
    images: dict[str, np.ndarray]
    masks: Masks
    counts: np.ndarray


def own_images(path: Path) -> list[OwnImage]:
    """Read images with masks.

    Parameters
    ----------
    path : Path
        A COCO file (.json), or a folder with a folder ``images`` and one other, of label images: 0 outside, and a
        number for each particle. An image and its label image have one name, suffixes apart.

    Raises
    ------
    InputError
        If anything is missing, cannot be read or does not belong together; the message names the file.
    """
    if path.suffix.lower() == ".json":
        return [_from_coco(a, path) for a in read_coco(path)]
    if not path.is_dir():
        raise InputError(f"{path}: neither a COCO .json file nor a folder with images and labels; correct the path")
    return [_from_labels(image, label) for image, label in _pairs(path)]


def _from_coco(a: Drawn, path: Path) -> OwnImage:
    image = _picture(a.path, a.shape, path)
    parts, counts = [], []
    for annotation in a.annotations:
        mask = outline(annotation, a.shape, str(path))
        if mask.any():  # a small polygon may surround no pixel's centre
            parts.append(_masks_of(mask.astype("u1")))
            counts.append(not annotation.iscrowd)
    origin = np.array([p.origin[0] for p in parts], "i4").reshape(-1, 2)
    masks = _record(a.shape, tuple(p.crops[0] for p in parts), origin)
    return OwnImage(a.path.name, {"grey": image}, masks, np.array(counts, bool))


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Images of a folder, each with its label image."""
    others = sorted(p for p in folder.iterdir() if p.is_dir() and p.name != "images" and not p.name.startswith("."))
    if not (folder / "images").is_dir() or len(others) != 1:
        raise InputError(
            f"{folder}: must hold a folder 'images' and one other, with a label image for each; it holds "
            f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}"
        )
    images, labels = _by_stem(folder / "images"), _by_stem(others[0])
    for stem in sorted(images.keys() ^ labels.keys()):
        here, there = (images, others[0]) if stem in images else (labels, folder / "images")
        raise InputError(f"{here[stem]}: nothing of that name is in {there}; add it, or remove this one")
    return [(images[stem], labels[stem]) for stem in sorted(images)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if found.setdefault(path.stem, path) != path:
            raise InputError(f"{path}: has the name of {found[path.stem]}; remove one of them")
    if not found:
        raise InputError(f"{folder}: holds no files; put images there")
    return found


def _from_labels(image: Path, label: Path) -> OwnImage:
    numbers = read_labels(label)
    masks = _masks_of(numbers)
    return OwnImage(image.name, {"grey": _picture(image, numbers.shape, label)}, masks, np.ones(len(masks), bool))


def _picture(path: Path, shape: tuple[int, ...], other: Path) -> np.ndarray:
    """The image, if it is of the shape that its masks have."""
    image = read_picture(path)
    if image.shape != shape:
        raise InputError(
            f"{path}: is of {list(image.shape)} px, its masks in {other} of {list(shape)}; make them alike"
        )
    return image


def read_labels(path: Path) -> np.ndarray:
    """A label image: 0 outside, and a number for each particle.

    Returns
    -------
    (y, x) integer array
        Particles numbered from 1, in the order of the file's numbers.

    Raises
    ------
    InputError
        If the file cannot be read, has colours or other values than whole numbers from 0, or does not tell
        particles apart.
    """
    values = read_pixels(path, palette=True)
    if values.ndim != 2:
        raise InputError(f"{path}: has colours; save one number for each particle as a grey or indexed image")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise InputError(f"{path}: holds fractions; save one whole number for each particle")
    if values.dtype.kind not in "buif" or values.min() < 0:
        raise InputError(f"{path}: holds other values than whole numbers from 0; save one for each particle, 0 outside")
    known, numbers = np.unique(values, return_inverse=True)
    numbers = numbers.reshape(values.shape) + (known[0] != 0)
    if numbers.max() == 1:
        sizes = np.bincount(ndimage.label(numbers, np.ones((3, 3)))[0].ravel())[1:]
        if (sizes > _PIECE * sizes.max()).sum() > 1:
            raise InputError(f"{path}: gives all particles one number, {known[-1]:g}; number each by itself")
    return numbers


def _masks_of(numbers: np.ndarray) -> Masks:
    """Outlines of a label image whose particles are numbered from 1 without gaps."""
    windows = ndimage.find_objects(numbers)
    crops = tuple(numbers[w] == k for k, w in enumerate(windows, 1))
    origin = np.array([(w[0].start, w[1].start) for w in windows], "i4").reshape(-1, 2)
    return _record((numbers.shape[0], numbers.shape[1]), crops, origin)


def _record(shape: tuple[int, int], crops: tuple[np.ndarray, ...], origin: np.ndarray) -> Masks:
    n = len(crops)
    return Masks(shape, crops, origin, np.zeros(n, "i4"), np.ones(n, "f4"), np.zeros(1))
