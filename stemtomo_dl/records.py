"""The nouns: what the stages hand to each other.

Every record is frozen, and every array in it declares its dtype, its axes by name and its unit.
A record checks itself when it is made: dtypes, numbers of axes, and that axes of one name have one length.
Arrays are (…, row, column) = (…, y, x); pixel centres have integer coordinates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, NamedTuple, Protocol, cast

import numpy as np


def array(dtype: str, axes: str, unit: str = "", *, optional: bool = False) -> Any:
    """Declare an array field.

    Parameters
    ----------
    dtype : str
        NumPy dtype that the array must have.
    axes : str
        Axis names, separated by blanks; a number stands for a fixed length.
    unit : str
        Unit of the values.
    optional : bool
        Whether the field may be None (which is then its default).
    """
    meta = {"dtype": np.dtype(dtype), "axes": tuple(axes.split()), "unit": unit, "optional": optional}
    return field(default=None, metadata=meta) if optional else field(metadata=meta)


@dataclass(frozen=True, eq=False)
class Record:
    """Base of all records: checks its declared arrays when it is made.

    Raises
    ------
    TypeError
        If an array has another dtype than it declares.
    ValueError
        If an array has another number of axes, or axes of one name differ in length.
    """

    def __post_init__(self) -> None:
        lengths: dict[str, int] = {}
        for name, dtype, axes, optional in _arrays(cast(Hashable, type(self))):
            value = getattr(self, name)
            if value is None and optional:
                continue
            where = f"{type(self).__name__}.{name}"
            if not isinstance(value, np.ndarray) or value.dtype != dtype:
                raise TypeError(f"{where}: expected dtype {dtype}, got {getattr(value, 'dtype', type(value).__name__)}")
            if value.ndim != len(axes):
                raise ValueError(f"{where}: expected axes ({', '.join(axes)}), got shape {value.shape}")
            for axis, n in zip(axes, value.shape, strict=True):
                want = int(axis) if axis.isdigit() else lengths.setdefault(axis, n)
                if n != want:
                    raise ValueError(f"{where}: axis {axis} has length {n}, expected {want}")


@cache
def _arrays(record: Any) -> list[tuple[str, np.dtype[Any], tuple[str, ...], bool]]:
    """Name, dtype, axes of each declared array of a record, and whether it may be None; records are made often."""
    declared = [(f.name, f.metadata) for f in fields(record) if "axes" in f.metadata]
    return [(name, m["dtype"], m["axes"], m["optional"]) for name, m in declared]


class Tile(NamedTuple):
    """A rectangle of probe positions: rows y0…y1−1, columns x0…x1−1."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the tile."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def window(self) -> tuple[slice, slice]:
        """The tile as an index into an array (…, y, x)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


class Scan(Protocol):
    """One 4D-STEM scan on disk, read tile by tile; it is never in memory as a whole.

    A scan may be read from several threads, and must be picklable: it opens its file where it is used.
    """

    name: str
    shape: tuple[int, int, int, int]  # (y, x, qy, qx)
    dtype: np.dtype[Any]

    def tiles(self, budget: int) -> list[Tile]:
        """Tiles that cover the scan once, each at most ``budget`` bytes where the layout allows it."""
        ...

    def read(self, tile: Tile) -> np.ndarray:
        """Patterns of a tile, (y, x, qy, qx), in the scan's own dtype.

        Raises
        ------
        BadScan
            If the file is truncated or cannot be decoded.
        """
        ...


@dataclass(frozen=True)
class Instrument:
    """What stays the same through a series; calibrations as the user states them."""

    voltage_kv: float
    convergence_mrad: float
    pixel_inv_angstrom: float
    step_nm: float
    tilt_axis_deg: float
    rotation_deg: float = 0.0
    electrons_per_pattern: float | None = None

    @property
    def dose_e_per_A2(self) -> float | None:
        """Dose of one scan, e/Å²: every probe's electrons over the area of its step. None where it is not known."""
        if self.electrons_per_pattern is None:
            return None
        return self.electrons_per_pattern / (10 * self.step_nm) ** 2


@dataclass(frozen=True, eq=False)
class TiltSeries(Record):
    """A 4D-STEM tilt series, opened but not read. A scan left out as bad is None; its number stays."""

    title: str
    instrument: Instrument
    scans: tuple[Scan | None, ...]
    names: tuple[str, ...]
    alpha_deg: np.ndarray = array("f8", "tilt", "deg")
    bad_pixels: np.ndarray | None = array("bool", "qy qx", optional=True)

    def good(self) -> Iterator[tuple[int, Scan]]:
        """The number and scan of every tilt that can be read."""
        return ((i, s) for i, s in enumerate(self.scans) if s is not None)


@dataclass(frozen=True, eq=False)
class VirtualImages(Record):
    """What one streamed pass over one tilt leaves."""

    detectors: tuple[str, ...]
    images: np.ndarray = array("f4", "detector y x", "counts per pixel (variance: counts² per pixel)")
    beam_px: np.ndarray = array("f8", "2 6", "detector pixels: column and row as quadratics of the probe position")
    mean_pattern: np.ndarray = array("f4", "qy qx", "counts")
    max_pattern: np.ndarray = array("f4", "qy qx", "counts")
    # where in the dark field counts are; probes are those of the images, or fewer, each the sum of some of these
    sectors: np.ndarray | None = array("f4", "probe_y probe_x sector", "counts", optional=True)
    beam_hidden: bool = False  # so that ``beam_px`` comes from the pattern's symmetry
    dropped: np.ndarray | None = array(
        "bool", "y x", "frame without counts; its images are its neighbours'", optional=True
    )

    def __getitem__(self, detector: str) -> np.ndarray:
        return self.images[self.detectors.index(detector)]

    @property
    def by_name(self) -> dict[str, np.ndarray]:
        """Each detector's image (y, x)."""
        return dict(zip(self.detectors, self.images, strict=True))

    @property
    def probes_together(self) -> int:
        """How many probes along y and x each one of ``sectors`` is the sum of."""
        return 1 if self.sectors is None else -(-self.images.shape[1] // self.sectors.shape[0])


# How a particle stands at a tilt: alone; met by another's outline; only seen together with another, as one outline;
# in view but not seen; less than half in view.
STATES = ("clean", "overlapped", "merged", "hidden", "outside")
# of an outline: the segmenter's own, asked for in a box, computed, divided by diffraction
SOURCES = ("found", "prompted", "projected", "split")


@dataclass(frozen=True, eq=False)
class Masks(Record):
    """Amodal outlines: each particle's whole projection, so masks of one tilt may overlap.

    Kept as crops, since a particle covers little of a scan: ``crops[i]`` (bool) has its first pixel at
    row ``origin[i, 0]``, column ``origin[i, 1]`` of a scan of shape ``shape``. ``source`` numbers `SOURCES`; None: all
    were found by the segmenter.
    """

    shape: tuple[int, int]
    crops: tuple[np.ndarray, ...]
    origin: np.ndarray = array("i4", "instance 2", "px (row, column)")
    tilt: np.ndarray = array("i4", "instance")
    score: np.ndarray = array("f4", "instance", "probability that the outline is right")
    alpha_deg: np.ndarray = array("f8", "tilts", "deg")
    source: np.ndarray | None = array("i1", "instance", optional=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.crops) != len(self.tilt):
            raise ValueError(f"Masks: {len(self.crops)} crops for {len(self.tilt)} instances")

    def __len__(self) -> int:
        return len(self.crops)

    def window(self, i: int) -> tuple[slice, slice]:
        """Where crop ``i`` lies in the scan."""
        (y, x), (h, w) = self.origin[i], self.crops[i].shape
        return slice(int(y), int(y) + h), slice(int(x), int(x) + w)

    def full(self, i: int) -> np.ndarray:
        """Mask ``i`` over the whole scan, (y, x) bool."""
        out = np.zeros(self.shape, bool)
        out[self.window(i)] = self.crops[i]
        return out

    def at(self, tilt: int) -> np.ndarray:
        """Instances seen at a tilt."""
        return np.flatnonzero(self.tilt == tilt)

    @property
    def found(self) -> np.ndarray:
        """Instances that the segmenter found by itself."""
        return np.arange(len(self)) if self.source is None else np.flatnonzero(self.source == 0)

    def some(self, rows: np.ndarray) -> Masks:
        """These instances, in this order."""
        crops = tuple(self.crops[i] for i in rows)
        source = None if self.source is None else self.source[rows]
        return Masks(self.shape, crops, self.origin[rows], self.tilt[rows], self.score[rows], self.alpha_deg, source)

    @classmethod
    def pack(cls, masks: np.ndarray, tilt: np.ndarray, score: np.ndarray, alpha_deg: np.ndarray) -> Masks:
        """Crop full masks (instance, y, x); an empty mask becomes one False pixel."""
        origin, crops = np.zeros((len(masks), 2), "i4"), []
        for i, m in enumerate(masks):
            ys, xs = np.flatnonzero(m.any(1)), np.flatnonzero(m.any(0))
            y, x = (ys[0], xs[0]) if len(ys) else (0, 0)
            h, w = (ys[-1] + 1 - y, xs[-1] + 1 - x) if len(ys) else (1, 1)
            origin[i] = y, x
            crops.append(np.array(m[y : y + h, x : x + w], bool))
        shape = (int(masks.shape[1]), int(masks.shape[2]))
        return cls(shape, tuple(crops), origin, tilt.astype("i4"), score.astype("f4"), alpha_deg.astype("f8"))

    @classmethod
    def concatenate(cls, parts: list[Masks]) -> Masks:
        """Masks of several tilts of one series as one record."""
        first = parts[0]
        crops = tuple(c for p in parts for c in p.crops)
        origin, tilt, score = (np.concatenate([getattr(p, k) for p in parts]) for k in ("origin", "tilt", "score"))
        sources = [np.zeros(len(p), "i1") if p.source is None else p.source for p in parts]
        source = None if all(p.source is None for p in parts) else np.concatenate(sources)
        return cls(first.shape, crops, origin, tilt, score, first.alpha_deg, source)


@dataclass(frozen=True, eq=False)
class Tracks(Record):
    """Which outlines are one particle, where it lies in the sample, and how the stage moved.

    ``track`` counts from 1. ``position_nm`` is in the sample frame at α = 0, its origin at the centre of the
    field of view; what geometry cannot tell from drift is in ``drift_px`` by the smallest drift. NaN is what is not
    known. ``state`` and ``states`` number `STATES`, ``source`` numbers `SOURCES`; ``states`` is −1 at tilts of which
    nothing is known (no angle, no image).
    """

    tilt_axis_deg: float
    tilt_axis_error_deg: float
    noise_px: float  # of the sightings' positions, one coordinate, standard deviation
    rigid: bool  # whether the geometry of the tilt was used
    note: str  # why not, or what else should be known of it
    track: np.ndarray = array("i4", "sighting")
    tilt: np.ndarray = array("i4", "sighting")
    instance: np.ndarray = array("i4", "sighting")  # the particle's own outline: a row of the masks
    x_px: np.ndarray = array("f8", "sighting", "px")
    y_px: np.ndarray = array("f8", "sighting", "px")
    area_px: np.ndarray = array("f8", "sighting", "px²")
    state: np.ndarray = array("i1", "sighting")
    source: np.ndarray = array("i1", "sighting")
    misfit_px: np.ndarray = array("f8", "sighting", "px from the predicted place")
    detected: np.ndarray = array("i4", "sighting")  # the found outline that it rests on, maybe shared; −1: none
    identity: np.ndarray = array("f4", "sighting", "probability that the diffraction is the track's")
    alpha_deg: np.ndarray = array("f8", "tilt", "deg, as stated")
    alpha_offset_deg: np.ndarray = array("f8", "tilt", "deg, refined minus stated")
    drift_px: np.ndarray = array("f8", "tilt 2", "px (x, y)")
    particle: np.ndarray = array("i4", "particle")
    position_nm: np.ndarray = array("f8", "particle 3", "nm")
    position_error_nm: np.ndarray = array("f8", "particle 3", "nm, standard deviation against the other particles")
    gauge_error_nm: np.ndarray = array("f8", "3", "nm, standard deviation that all positions share")
    residual_px: np.ndarray = array("f8", "particle", "px, rms")
    usable_deg: np.ndarray = array("f8", "particle 2", "deg: least and greatest angle, clean or overlapped")
    overlap_share: np.ndarray = array("f8", "particle", "share of the sightings, overlapped or merged")
    own_motion_px: np.ndarray = array("f8", "particle", "px, largest extent of its own motion on the stage")
    states: np.ndarray = array("i1", "particle tilt")
    predicted_px: np.ndarray = array("f8", "particle tilt 2", "px (x, y)")

    @classmethod
    def plain(cls, **known: Any) -> Tracks:
        """Tracks of which the file or program tells no more than who is who, where, and how the field drifted.

        What is known beyond that is given by name too. Every sighting counts as a clean one of an outline that was
        found, unless it is told otherwise.
        """
        n, particles, tilts = len(known["track"]), len(known["particle"]), len(known["alpha_deg"])
        unknown: dict[str, Any] = {
            "state": np.zeros(n, "i1"),
            "source": np.zeros(n, "i1"),
            "misfit_px": np.full(n, np.nan),
            "detected": known["instance"],
            "identity": np.full(n, np.nan, "f4"),
            "alpha_offset_deg": np.zeros(tilts),
            "position_error_nm": np.full((particles, 3), np.nan),
            "gauge_error_nm": np.full(3, np.nan),
            "usable_deg": np.full((particles, 2), np.nan),
            "overlap_share": np.full(particles, np.nan),
            "own_motion_px": np.full(particles, np.nan),
            "states": np.full((particles, tilts), -1, "i1"),
            "predicted_px": np.full((particles, tilts, 2), np.nan),
            **dict.fromkeys(("tilt_axis_deg", "tilt_axis_error_deg", "noise_px"), np.nan),
            "rigid": True,
            "note": "",
        }
        return cls(**(unknown | known))


@dataclass(frozen=True, eq=False)
class TiltPatterns(Record):
    """The patterns of the particles seen at one tilt."""

    gain: float  # of the camera: variance over mean of its counts
    stretch: np.ndarray = array("f8", "2", "e cos 2φ, e sin 2φ of the support's rings; NaN: not known")
    track: np.ndarray = array("i4", "particle")
    patterns: np.ndarray = array("f4", "particle qy qx", "counts per probe, background removed")
    variance: np.ndarray = array("f4", "particle qy qx", "counts² per probe²")
    measured: np.ndarray = array("bool", "particle qy qx")
    n_probes: np.ndarray = array("i4", "particle")
    n_support: np.ndarray = array("i4", "particle")  # probes of the support that was subtracted; 0: none was
    separated: np.ndarray = array("bool", "particle")  # False: neighbours could not be told from it and are left in
    bragg_signal: np.ndarray = array("f4", "particle", "counts per probe, root of the Bragg scattering's power")
    purity: np.ndarray = array("f4", "particle", "share of that power that one crystal explains; NaN: not known")


@dataclass(frozen=True, eq=False)
class DiffractionSeries(Record):
    """One particle's diffraction patterns over the tilts, the beam at ``center_px`` in each.

    Where ``measured`` is False (bad pixels, detector edges) a pattern is interpolated, not measured. What a series of
    another program may lack is None.
    """

    instrument: Instrument
    patterns: np.ndarray = array("f4", "frame qy qx", "counts per probe, background removed")
    measured: np.ndarray = array("bool", "frame qy qx")
    alpha_deg: np.ndarray = array("f8", "frame", "deg")
    tilt: np.ndarray = array("i4", "frame")
    n_probes: np.ndarray = array("i4", "frame")
    n_support: np.ndarray = array("i4", "frame")  # probes of the support that was subtracted; 0: none was
    center_px: np.ndarray = array("f8", "2", "px (column, row)")
    dose_e_per_A2: np.ndarray | None = array("f8", "frame", "e/Å²", optional=True)
    accumulated_dose_e_per_A2: np.ndarray | None = array("f8", "frame", "e/Å², this frame's included", optional=True)
    variance: np.ndarray | None = array("f4", "frame qy qx", "counts² per probe²", optional=True)
    separated: np.ndarray | None = array("bool", "frame", optional=True)  # False: neighbours are left in
    bragg_signal: np.ndarray | None = array("f4", "frame", "counts per probe", optional=True)
    purity: np.ndarray | None = array("f4", "frame", "1: one crystal; NaN: not known", optional=True)


@dataclass(frozen=True, eq=False)
class Truth(Record):
    """The known answer of a synthetic experiment, in the frames of the tilt series it belongs to."""

    masks: Masks
    particle: np.ndarray = array("i4", "instance")  # which particle each mask shows
    ub: np.ndarray = array("f8", "particle 3 3", "1/Å")
    positions_nm: np.ndarray = array("f8", "particle 3", "nm")
    alpha_deg: np.ndarray = array("f8", "tilt", "deg")
    drift_px: np.ndarray = array("f8", "tilt 2", "px (x, y)")
    centers_px: np.ndarray = array("f8", "tilt 2", "px (column, row)")
    phase: tuple[str, ...] = ()
    reflections: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # hkl, |F|²
