"""What a network learns from: random fields drawn on the fly, cut, turned, and shown through some of the detectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import ndimage

from stemtomo_dl.records import Masks, Record, array
from stemtomo_dl.segment.planes import COMPONENTS, PLANES, planes

LEAST_AREA = 16  # px: smaller outlines are neither asked for nor counted as wrong
_LEAST_INSIDE = 0.25  # share of an outline that a crop must hold, else it is not asked for
_VARIANTS = ("all", "some", "one", "grey")
_COMPONENTS_SHOWN = {"all": 0.75, "some": 0.5, "one": 0.0, "grey": 0.0}  # how often with what else is seen
_REORDERED = 0.3  # how often components change places


@dataclass(frozen=True, eq=False)
class Example(Record):
    """Planes and the outlines in them."""

    planes: np.ndarray = array("f4", "plane y x")
    masks: np.ndarray = array("bool", "instance y x")
    counts: np.ndarray = array("bool", "instance")  # False: may be found or not

    @property
    def boxes(self) -> np.ndarray:
        """(instance, 4): x0, y0, x1, y1 in px, the outer edges of the outline's pixels."""
        return boxes_of(self.masks)

    @property
    def outlines(self) -> Masks:
        """The masks as a record."""
        n = len(self.masks)
        return Masks.pack(self.masks, np.zeros(n), np.ones(n), np.zeros(1))


class Field(Protocol):
    """Images of one field, by detector or as one grey image, with the outlines in them."""

    @property
    def images(self) -> dict[str, np.ndarray]:
        """(y, x) arrays by the name of the plane that shows them."""
        ...

    @property
    def masks(self) -> Masks:
        """All at tilt 0."""
        ...

    @property
    def counts(self) -> np.ndarray:
        """(instance) bool: False where it may be found or not."""
        ...


@dataclass(frozen=True, eq=False)
class Shown:
    """A field as `Field` describes it."""

    images: dict[str, np.ndarray]
    masks: Masks
    counts: np.ndarray


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) of masks (n, y, x), none of which may be empty."""
    rows, columns = np.asarray(masks.any(2)), np.asarray(masks.any(1))
    y0, x0 = rows.argmax(1), columns.argmax(1)
    y1, x1 = masks.shape[1] - rows[:, ::-1].argmax(1), masks.shape[2] - columns[:, ::-1].argmax(1)
    return np.stack([x0, y0, x1, y1], 1).astype("f4")


def show(field: Field, shares: dict[str, float], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Choose what the network gets to see of a field.

    Parameters
    ----------
    shares : dict
        How often each of these is chosen: "all" detectors, "some" of them, "one", or one as a "grey" image of
        which neither name nor polarity is known. Components come only with several detectors, and not always:
        there are runs without them.
    """
    images = {k: v for k, v in field.images.items() if k not in COMPONENTS}
    if set(images) == {"grey"}:
        return {"grey": _disguised(images["grey"], rng)}
    weights = np.array([shares[k] for k in _VARIANTS])
    names = list(images)
    variant = _VARIANTS[rng.choice(len(_VARIANTS), p=weights / weights.sum())]
    if variant == "some":
        names = list(rng.permutation(names)[: rng.integers(2, len(names))])
    elif variant != "all":
        names = [names[rng.integers(len(names))]]
    shown = {k: images[k] for k in names}
    if variant == "grey":
        image = shown.popitem()[1]
        return {"grey": _disguised(image if rng.random() < 0.5 else np.sqrt(np.maximum(image, 0)), rng)}
    if rng.random() < _COMPONENTS_SHOWN[variant]:
        shown |= _turned_over({k: v for k, v in field.images.items() if k in COMPONENTS}, rng)
    return shown


def _turned_over(components: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Components with random signs, some of them in another order: neither tells anything of a particle."""
    names = list(components)
    if rng.random() < _REORDERED:
        names = list(rng.permutation(names))
    return {k: v * rng.choice([-1, 1]) for k, v in zip(names, components.values(), strict=True)}


def _disguised(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image after an unknown response: turned over, bent, its bright end cut."""
    low, high = np.percentile(image, [rng.uniform(0, 0.5), rng.uniform(99, 100)])
    z = np.clip((image - low) / max(high - low, 1e-12), -0.1, None)
    z = np.sign(z) * np.abs(z) ** np.exp(rng.normal(scale=0.25))
    if rng.random() < 0.3:
        z = np.clip(z, 0, 1)
    return -z if rng.random() < 0.5 else z


def crop(
    field: Field, images: dict[str, np.ndarray], side: int, rng: np.random.Generator, zoom: float = 1.0
) -> Example:
    """Cut a square out of a field, turned and mirrored at random; smaller fields are filled up by reflection.

    Parameters
    ----------
    zoom : float
        Enlargement before the cut.
    """
    seen = planes(images)
    window = max(round(side / zoom), 8)
    h, w = seen.shape[1:]
    y, x = (int(rng.integers(0, max(n - window, 0) + 1)) for n in (h, w))
    seen = seen[:, y : y + window, x : x + window]
    masks, counts = _cut(field, y, x, seen.shape[1:])
    seen, masks = _resized(seen, masks, (side, side) if min(seen.shape[1:]) == window else None, zoom)
    fill = [(0, side - seen.shape[1]), (0, side - seen.shape[2])]
    seen = np.pad(seen, [(0, 0), *fill], mode="symmetric")
    masks = np.pad(masks, [(0, 0), *fill])
    turns, mirror = int(rng.integers(4)), rng.random() < 0.5
    seen, masks = (np.rot90(a, turns, (1, 2)) for a in (seen, masks))
    if mirror:
        seen, masks = seen[:, :, ::-1], masks[:, :, ::-1]
    kept = masks.any((1, 2))
    area = masks.sum((1, 2))
    return Example(np.ascontiguousarray(seen), np.ascontiguousarray(masks[kept]), (counts & (area >= LEAST_AREA))[kept])


def _resized(
    seen: np.ndarray, masks: np.ndarray, shape: tuple[int, int] | None, zoom: float
) -> tuple[np.ndarray, np.ndarray]:
    if zoom == 1.0:
        return seen, masks
    h, w = shape or (round(seen.shape[1] * zoom), round(seen.shape[2] * zoom))
    y = (np.arange(h) + 0.5) * seen.shape[1] / h - 0.5
    x = (np.arange(w) + 0.5) * seen.shape[2] / w - 0.5
    at = np.stack(np.meshgrid(y, x, indexing="ij"))
    blurred = seen if zoom > 1 else ndimage.gaussian_filter(seen, (0, *(2 * [0.4 / zoom])))
    out = np.stack(
        [ndimage.map_coordinates(p, at, order=1, mode="nearest") if p.any() else np.zeros((h, w)) for p in blurred]
    )
    rows, columns = (np.clip(np.round(v).astype(int), 0, n - 1) for v, n in ((y, seen.shape[1]), (x, seen.shape[2])))
    return out.astype("f4"), masks[:, rows][:, :, columns]


def _cut(field: Field, y: int, x: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Outlines within a window (instance, y, x), and which of them are asked for."""
    masks, counts = [], []
    for i, piece in enumerate(field.masks.crops):
        (top, left), (h, w) = field.masks.origin[i] - (y, x), piece.shape
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + h, shape[0]), min(left + w, shape[1])
        if y0 >= y1 or x0 >= x1:
            continue
        inside = piece[y0 - top : y1 - top, x0 - left : x1 - left]
        if not inside.any():
            continue
        full = np.zeros(shape, bool)
        full[y0:y1, x0:x1] = inside
        masks.append(full)
        counts.append(bool(field.counts[i]) and inside.sum() >= _LEAST_INSIDE * piece.sum())
    return np.array(masks, bool).reshape(-1, *shape), np.array(counts, bool)


def endless(
    draw: Drawer, side: int, shares: dict[str, float], zoom: tuple[float, float], reuse: int, rng: np.random.Generator
) -> Iterator[Example]:
    """Examples without end.

    Each field that ``draw`` makes is shown ``reuse`` times, differently each time, and not at once: drawing takes
    the processor about as long as learning does.
    """
    shelf: list[Field] = []
    while True:
        if len(shelf) < _SHELF or rng.random() < 1 / reuse:
            field = draw(rng)
            if len(shelf) < _SHELF:
                shelf.append(field)
            else:
                shelf[rng.integers(_SHELF)] = field
        field = shelf[rng.integers(len(shelf))]
        enlarged = float(np.exp(rng.uniform(*np.log(zoom)))) if rng.random() < 0.4 else 1.0
        yield crop(field, show(field, shares, rng), side, rng, enlarged)


_SHELF = 64


class Drawer(Protocol):
    """Makes a field."""

    def __call__(self, rng: np.random.Generator) -> Field:
        """Draw one."""
        ...


def by_detector(detectors: tuple[str, ...], images: np.ndarray) -> dict[str, np.ndarray]:
    """Virtual images by the names of the planes that show them."""
    return {k: images[i] for i, k in enumerate(detectors) if k in PLANES}
