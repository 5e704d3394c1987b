"""The camera: where on it an electron is counted, and what a count becomes in the file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numba import njit
from pydantic import Field, model_validator

from stemtomo_dl.config import Count, Model, Positive
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.population import NonNegative, Share

Whole = Annotated[int, Field(ge=0)]

# Typical figures, each to be overridden by its key. The ideal camera counts every electron where it lands.
IDEAL: dict[str, Any] = {
    "psf_sigma_px": 0.0,
    "psf_tail_share": 0.0,
    "psf_tail_px": 4.0,
    "gain": 1.0,
    "gain_spread": 0.0,
    "read_noise": 0.0,
    "dark_offset": 0.0,
    "chips": (1, 1),
    "gap_px": 0,
    "wide_px": 0,
    "dtype": "uint16",
}
PRESETS: dict[str, dict[str, Any]] = {
    "ideal": IDEAL,
    "hybrid": IDEAL | {"chips": (2, 2), "gap_px": 2, "wide_px": 1, "saturation": 4095},
    "scintillator": IDEAL
    | {
        "psf_sigma_px": 0.6,
        "psf_tail_share": 0.15,
        "gain": 30.0,
        "gain_spread": 0.3,
        "read_noise": 6.0,
        "dark_offset": 100.0,
    },
}


class Camera(Model):
    """A camera by its kind; keys that are not given are those of the kind (`PRESETS`).

    hybrid: counts electrons; chips side by side, pixels missing in between, wider pixels along the gaps.
    scintillator: electrons are spread by a double Gaussian, each one then counts ``gain`` on average. The spread is
    drawn per electron, so noise is white; that one electron lights several pixels at once is left out.
    """

    kind: Literal["ideal", "hybrid", "scintillator"] = "ideal"
    psf_sigma_px: NonNegative | None = None  # of the core of the point spread
    psf_tail_share: Share | None = None  # of electrons in its tail
    psf_tail_px: Positive | None = None  # sigma of the tail
    gain: Positive | None = None  # counts per electron
    gain_spread: NonNegative | None = None  # rms of one electron's counts, of the gain
    read_noise: NonNegative | None = None  # rms, counts
    dark_offset: NonNegative | None = None  # counts
    saturation: Count | None = None  # no pixel holds more counts; without it, what dtype can hold
    dtype: Literal["uint8", "uint16", "uint32"] | None = None
    chips: tuple[Count, Count] | None = None  # rows and columns of chips
    gap_px: Whole | None = None  # pixels between two chips that count nothing
    wide_px: Whole | None = None  # pixels on either side of a gap that the chip's border pixel counts, reading none
    hot_pixels: Whole = 0  # their places come from the seed
    hot_electrons: NonNegative = 200.0  # that a hot pixel counts in every pattern on top, on average
    dead_pixels: Whole = 0  # these count nothing

    @model_validator(mode="after")
    def _consistent(self) -> Camera:
        full = self.full()
        if full["psf_tail_share"] > 0 and full["psf_tail_px"] < max(1.5, full["psf_sigma_px"]):
            raise ValueError("psf_tail_px must be at least 1.5 and no less than psf_sigma_px")
        most = np.iinfo(full["dtype"]).max
        if full["saturation"] > most:
            raise ValueError(f"saturation = {full['saturation']} is more than {full['dtype']} holds ({most})")
        return self

    def full(self) -> dict[str, Any]:
        """All keys, those of the kind where none are given."""
        given = {k: v for k, v in self if v is not None}
        full = PRESETS[self.kind] | given
        most = int(np.iinfo(full["dtype"]).max)
        if "saturation" not in given:
            full["saturation"] = min(full.get("saturation", most), most)
        return full


class Sensor(NamedTuple):
    """A camera of known size, for the loops over electrons and pixels."""

    core: float  # px, sigma of the point spread
    tail: float  # px, sigma of its tail
    tail_share: float
    row_at: np.ndarray  # (row,) the row that counts what lands in a row, −1: none
    column_at: np.ndarray  # (column,)
    hot: np.ndarray  # (n, 2) row, column
    hot_electrons: float
    dead: np.ndarray  # (n, 2)
    gain: float
    gain_spread: float
    read_noise: float
    offset: float
    saturation: int
    counting: bool  # whether the file holds electrons as they are


def make_sensor(camera: Camera, shape: tuple[int, int], rng: np.random.Generator) -> Sensor:
    """A camera of a size (rows, columns); its hot and dead pixels lie at random among those that count.

    Raises
    ------
    InputError
        If chips are too small for their gaps, or there are not as many pixels as shall be hot or dead.
    """
    full = camera.full()
    gaps = full["gap_px"], full["wide_px"]
    row_at, column_at = (_counted_at(n, chips, *gaps) for n, chips in zip(shape, full["chips"], strict=True))
    alive = np.stack(np.meshgrid(np.unique(row_at[row_at >= 0]), np.unique(column_at[column_at >= 0]), indexing="ij"))
    places = alive.reshape(2, -1).T
    if camera.hot_pixels + camera.dead_pixels > len(places):
        raise InputError(f"key 'instrument.camera.hot_pixels': with the dead ones more than {len(places)} pixels")
    bad = places[rng.permutation(len(places))[: camera.hot_pixels + camera.dead_pixels]]
    return Sensor(
        core=full["psf_sigma_px"],
        tail=full["psf_tail_px"],
        tail_share=full["psf_tail_share"],
        row_at=row_at,
        column_at=column_at,
        hot=np.ascontiguousarray(bad[: camera.hot_pixels]),
        hot_electrons=camera.hot_electrons,
        dead=np.ascontiguousarray(bad[camera.hot_pixels :]),
        gain=full["gain"],
        gain_spread=full["gain_spread"],
        read_noise=full["read_noise"],
        offset=full["dark_offset"],
        saturation=full["saturation"],
        counting=(full["gain"], full["gain_spread"], full["read_noise"], full["dark_offset"]) == (1, 0, 0, 0),
    )


def _counted_at(length: int, chips: int, gap: int, wide: int) -> np.ndarray:
    """The pixel (length,) that counts what lands on each along one axis; −1 where nothing does."""
    out = np.arange(length)
    for k in range(1, chips):
        first = round(length * k / chips) - gap // 2  # of the gap
        if first - wide < 1 or first + gap + wide >= length or length // chips <= gap + 2 * wide:
            raise InputError(f"key 'instrument.camera.chips': {chips} chips with their gaps in {length} pixels")
        out[first : first + gap] = -1
        out[first - wide : first] = first - wide - 1
        out[first + gap : first + gap + wide] = first + gap + wide
    return out


@njit(cache=True, nogil=True)
def read_out(rng: np.random.Generator, electrons: np.ndarray, sensor: Sensor, out: np.ndarray) -> None:
    """Turn the electrons of one pattern (qy, qx) into what the file holds.

    A pixel of N electrons reads offset + gain·N, with the variance gain²·spread²·N + read_noise², rounded.
    ``electrons`` gains those of hot pixels and loses those of dead ones.
    """
    for n in range(len(sensor.hot)):
        electrons[sensor.hot[n, 0], sensor.hot[n, 1]] += rng.poisson(sensor.hot_electrons)
    for n in range(len(sensor.dead)):
        electrons[sensor.dead[n, 0], sensor.dead[n, 1]] = 0
    if sensor.counting:
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                out[i, j] = min(electrons[i, j], sensor.saturation)
        return
    per_electron, read = (sensor.gain * sensor.gain_spread) ** 2, sensor.read_noise**2
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            n = electrons[i, j]
            noise = np.sqrt(per_electron * n + read) if n > 0 else sensor.read_noise
            value = sensor.offset + sensor.gain * n + noise * rng.standard_normal()
            out[i, j] = int(min(max(value + 0.5, 0.0), float(sensor.saturation)))
