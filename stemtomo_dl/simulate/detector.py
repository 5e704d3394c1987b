"""The camera: where on it an electron is counted, and what a count becomes in the file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numba import njit
from pydantic import Field, model_validator
from scipy.special import ive

from stemtomo_dl.config import Count, Model
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.population import Share

_REACH = 4.0  # sigmas after which a point spread ends
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

    ideal, hybrid: every electron is counted once, in a pixel that the point spread moves; noise is white. A hybrid
    has chips side by side, pixels missing in between and wider pixels along the gaps.
    scintillator: every electron makes light, ``gain`` counts of it on average, which the point spread shares out
    among pixels; noise is correlated as the spread is wide. Readout noise comes on top and is white.
    The point spread is a double Gaussian.
    """

    kind: Literal["ideal", "hybrid", "scintillator"] = "ideal"
    psf_sigma_px: Annotated[float, Field(ge=0, le=20)] | None = None  # of the core of the point spread
    psf_tail_share: Share | None = None  # of electrons, or of their light, in its tail
    psf_tail_px: Annotated[float, Field(gt=0, le=50)] | None = None  # sigma of the tail
    gain: Annotated[float, Field(gt=0, le=1e5)] | None = None  # counts per electron
    gain_spread: Annotated[float, Field(ge=0, le=10)] | None = None  # rms of one electron's counts, of the gain
    read_noise: Annotated[float, Field(ge=0, le=1e5)] | None = None  # rms, counts
    dark_offset: Annotated[float, Field(ge=0, le=1e6)] | None = None  # counts
    saturation: Count | None = None  # no pixel holds more counts; without it, what dtype can hold
    dtype: Literal["uint8", "uint16", "uint32"] | None = None
    chips: tuple[Count, Count] | None = None  # rows and columns of chips
    gap_px: Whole | None = None  # pixels between two chips that count nothing
    wide_px: Whole | None = None  # pixels on either side of a gap that the chip's border pixel counts, reading none
    hot_pixels: Whole = 0  # their places come from the seed
    hot_electrons: Annotated[float, Field(ge=0, le=1e6)] = 200.0  # that a hot pixel counts on top, on average
    dead_pixels: Whole = 0  # these count nothing
    listed_share: Share = 0.0  # of hot and dead pixels that the experiment's mask lists, beside what chips lack

    @model_validator(mode="after")
    def _consistent(self) -> Camera:
        full = self.full()
        if self.kind == "scintillator" and full["chips"] != (1, 1):
            raise ValueError("chips belong to kind = 'hybrid'; a scintillator is one piece")
        if full["psf_tail_share"] > 0 and full["psf_tail_px"] < max(1.5, full["psf_sigma_px"]):
            raise ValueError("psf_tail_px must be at least 1.5 and no less than psf_sigma_px")
        most = np.iinfo(full["dtype"]).max
        if full["saturation"] > most:
            raise ValueError(f"saturation = {full['saturation']} is more than {full['dtype']} holds ({most})")
        return self

    @property
    def lists_bad_pixels(self) -> bool:
        """Whether the instrument knows bad pixels, of chips or because they are listed."""
        full = self.full()
        crossed = full["chips"] != (1, 1) and full["gap_px"] + full["wide_px"] > 0
        return bool(crossed or round(self.listed_share * (self.hot_pixels + self.dead_pixels)))

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

    core: float  # px, sigma by which the point spread moves an electron before it is counted
    tail: float  # px, sigma of its tail
    tail_share: float
    glow: np.ndarray  # (2·n + 1,) weights by which the core spreads an electron's light; empty where it does not
    glow_tail: np.ndarray  # the same of the tail
    glow_tail_share: float
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
    listed: np.ndarray  # (row, column) bool, pixels that the instrument knows to be bad


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
    listed = ~np.logical_and.outer(_of_one_width(row_at), _of_one_width(column_at))
    known = bad[rng.permutation(len(bad))[: round(camera.listed_share * len(bad))]]
    listed[known[:, 0], known[:, 1]] = True
    glows = camera.kind == "scintillator"
    core, tail, tail_share = (full[f"psf_{name}"] for name in ("sigma_px", "tail_px", "tail_share"))
    return Sensor(
        core=0.0 if glows else core,
        tail=tail,
        tail_share=0.0 if glows else tail_share,
        glow=spread_weights(core if glows else 0.0),
        glow_tail=spread_weights(tail if glows and tail_share > 0 else 0.0),
        glow_tail_share=tail_share if glows else 0.0,
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
        counting=(full["gain"], full["gain_spread"], full["read_noise"], full["dark_offset"]) == (1, 0, 0, 0)
        and not (glows and (core > 0 or tail_share > 0)),
        listed=listed,
    )


def spread_weights(sigma_px: float) -> np.ndarray:
    """Weights (2·n + 1,) of a Gaussian on whole pixels, 1 alone where sigma is 0.

    e^(−σ²) I_n(σ²), the Gaussian of the lattice (Lindeberg 1990, IEEE Trans. PAMI 12, 234), has the variance σ² for
    every σ, however narrow.
    """
    reach = int(np.ceil(_REACH * sigma_px + 2)) if sigma_px > 0 else 0  # narrow ones fall off as σ^(2n)/n!
    weights = ive(np.abs(np.arange(-reach, reach + 1)), sigma_px**2)
    return np.asarray(weights / weights.sum())


def _of_one_width(counted_at: np.ndarray) -> np.ndarray:
    """Whether a pixel (length,) along one axis counts what lands on itself and nothing else."""
    own = counted_at == np.arange(len(counted_at))
    return own & (np.bincount(counted_at[counted_at >= 0], minlength=len(own)) == 1)


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

    The light of N electrons in a pixel is gain·N with the variance gain²·spread²·N. The point spread of a
    scintillator shares it out; then readout adds the offset and noise, and rounds. ``electrons`` gains those of hot
    pixels and loses those of dead ones where the camera counts.
    """
    if sensor.counting:
        _disturb(rng, electrons, 1.0, sensor)
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                out[i, j] = min(electrons[i, j], sensor.saturation)
        return
    light = np.zeros(out.shape)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            n = electrons[i, j]
            if n > 0:
                light[i, j] = sensor.gain * (n + sensor.gain_spread * np.sqrt(n) * rng.standard_normal())
    if sensor.glow_tail_share > 0:
        tail = blurred(light, sensor.glow_tail)
        light = (1 - sensor.glow_tail_share) * blurred(light, sensor.glow) + sensor.glow_tail_share * tail
    elif len(sensor.glow) > 1:
        light = blurred(light, sensor.glow)
    _disturb(rng, light, sensor.gain, sensor)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            value = sensor.offset + light[i, j] + sensor.read_noise * rng.standard_normal()
            out[i, j] = int(min(max(value + 0.5, 0.0), float(sensor.saturation)))


@njit(cache=True, nogil=True)
def _disturb(rng: np.random.Generator, signal: np.ndarray, gain: float, sensor: Sensor) -> None:
    """What hot pixels (row, column) add to a pattern and dead ones take from it."""
    for n in range(len(sensor.hot)):
        signal[sensor.hot[n, 0], sensor.hot[n, 1]] += gain * rng.poisson(sensor.hot_electrons)
    for n in range(len(sensor.dead)):
        signal[sensor.dead[n, 0], sensor.dead[n, 1]] = 0


@njit(cache=True, nogil=True)
def blurred(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A picture convolved with weights along both axes; nothing beyond its edges."""
    reach, half, out = len(weights) // 2, np.zeros_like(image), np.zeros_like(image)
    rows, columns = image.shape
    for i in range(rows):
        for n in range(-reach, reach + 1):
            if 0 <= i + n < rows:
                half[i] += weights[n + reach] * image[i + n]
    for n in range(-reach, reach + 1):
        first, last = max(0, -n), min(columns, columns - n)
        out[:, first:last] += weights[n + reach] * half[:, first + n : last + n]
    return out
