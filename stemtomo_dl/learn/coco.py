"""COCO annotation files: which outlines belong to which image, as polygons or run lengths.

The format is described at https://cocodataset.org/#format-data. Corners of polygons are in pixels with (0, 0) the
outer corner of the first pixel, so that pixel centres have coordinates ½, 3⁄2, …; run lengths go down the columns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from skimage.draw import polygon

from stemtomo_dl.config import Count, Model, check
from stemtomo_dl.errors import InputError

_LEAST_CORNERS = 3
_Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]  # px; beyond is no image


class _Part(Model):
    """A COCO table; keys that nothing here needs are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Runs(_Part):
    """A mask as the lengths of its runs, or as their compressed text."""

    size: tuple[Count, Count]  # rows, columns
    counts: list[int] | str


class _Image(_Part):
    id: int
    file_name: str
    height: Count
    width: Count


class Annotation(_Part):
    """One particle."""

    id: int
    image_id: int
    segmentation: list[list[_Coordinate]] | Runs
    iscrowd: int = 0


class _File(_Part):
    images: list[_Image] = Field(min_length=1)
    annotations: list[Annotation]


@dataclass(frozen=True)
class Drawn:
    """One image and what is drawn in it."""

    path: Path
    shape: tuple[int, int]
    annotations: tuple[Annotation, ...]


def read_coco(path: Path) -> list[Drawn]:
    """Images of an annotation file; those in which nothing is drawn are among them.

    Image files are looked for beside the file, then in ``images`` beside it.

    Raises
    ------
    InputError
        If the file is missing, is not COCO JSON, or names an image twice, or one that is not there.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); give the path of a COCO .json file") from e
    except ValueError as e:
        raise InputError(f"{path}: not valid JSON ({e}); export the annotations again") from e
    if not isinstance(table, dict):
        raise InputError(f"{path}: not a COCO file, which has images and annotations; export the annotations as COCO")
    held = check(_File, table, str(path))
    by_image: dict[int, list[Annotation]] = {}
    for image in held.images:
        if image.id in by_image:
            raise InputError(f"{path}: image id {image.id} is there twice; number the images")
        by_image[image.id] = []
    for annotation in held.annotations:
        if annotation.image_id not in by_image:
            raise InputError(
                f"{path}: annotation {annotation.id} is of image {annotation.image_id}, which is not there"
            )
        by_image[annotation.image_id].append(annotation)
    return [Drawn(_image_path(path, i), (i.height, i.width), tuple(by_image[i.id])) for i in held.images]


def _image_path(path: Path, image: _Image) -> Path:
    places = (path.parent / image.file_name, path.parent / "images" / image.file_name)
    for place in places:
        if place.is_file():
            return place
    raise InputError(f"{path}: image '{image.file_name}' is not at {places[0]}; put it there")


def outline(annotation: Annotation, shape: tuple[int, int], where: str) -> np.ndarray:
    """An annotation as a mask.

    Parameters
    ----------
    annotation : Annotation
    shape : (int, int)
        Rows and columns of its image.
    where : str
        File, for messages.

    Returns
    -------
    (y, x) bool array
        A polygon covers the pixels whose centres it surrounds; several polygons are parts of one particle.

    Raises
    ------
    InputError
        If the polygon has too few corners, or the run lengths do not fit the image.
    """
    what = f"{where}: annotation {annotation.id}"
    if isinstance(annotation.segmentation, Runs):
        return _decoded(annotation.segmentation, shape, what)
    out = np.zeros(shape, bool)
    for flat in annotation.segmentation:
        if len(flat) < 2 * _LEAST_CORNERS or len(flat) % 2:
            raise InputError(f"{what}: a polygon of {len(flat)} numbers; x and y of three corners or more are needed")
        x, y = np.array(flat).reshape(-1, 2).T - 0.5
        out[polygon(y, x, shape)] = True
    if not annotation.segmentation:
        raise InputError(f"{what}: has no outline; boxes alone cannot be learnt from")
    return out


def _decoded(runs: Runs, shape: tuple[int, int], what: str) -> np.ndarray:
    if runs.size != shape:
        raise InputError(f"{what}: its mask has size {list(runs.size)}, its image {list(shape)}; export it again")
    counts = _uncompressed(runs.counts, what) if isinstance(runs.counts, str) else runs.counts
    if min(counts, default=0) < 0 or sum(counts) != shape[0] * shape[1]:
        raise InputError(f"{what}: its run lengths do not fill its image; export it again")
    inside = np.arange(len(counts)) % 2 == 1  # the first run is outside
    return np.repeat(inside, counts).reshape(shape[1], shape[0]).T


def _uncompressed(text: str, what: str) -> list[int]:
    """Run lengths from their text.

    Every character holds five bits of a number, the lowest first, and a sixth that says whether more follow; from
    the fourth on, numbers are differences to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise InputError(f"{what}: its compressed run lengths cannot be decoded; export it again")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise InputError(f"{what}: its compressed run lengths end too early; export it again")
    return counts
