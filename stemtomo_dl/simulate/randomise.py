"""Random fields of particles for training. What is slow is drawn once, as a library; fields then take no time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.images import AMORPHOUS, Glow, ImageSample
from stemtomo_dl.simulate.library import Responses
from stemtomo_dl.simulate.readout import Readout
from stemtomo_dl.simulate.shape import Solid, hollow
from stemtomo_dl.simulate.support import log_between, random_support, smooth_noise
from stemtomo_dl.simulate.training import ParticleSettings, RecordingSettings, TrainingSettings

_NOISELESS = 1e7  # electrons per pattern: their noise is nothing to see
_CANDIDATES = 6  # places that are tried for a particle: it takes the emptiest


@dataclass(frozen=True, eq=False)
class Bench(Record):
    """One instrument and the crystals that it knows."""

    responses: Responses
    rocking_deg: np.ndarray = array("f8", "crystal", "deg from one orientation to the next")
    mean_free_path_nm: np.ndarray = array("f8", "crystal", "nm")


@dataclass(frozen=True, eq=False)
class Library:
    """What random fields are put together from; bodies have the volume of a ball of diameter 1."""

    benches: tuple[Bench, ...]
    bodies: tuple[Solid, ...]  # the last one is the ball


def random_sample(settings: TrainingSettings, library: Library, rng: np.random.Generator) -> ImageSample:
    """Draw a field of particles and how it is recorded."""
    s, shape = settings.particles, settings.recording.shape
    bench = library.benches[rng.integers(len(library.benches))]
    extreme = rng.random() < s.extreme_share
    typical = log_between(s.extreme_px if extreme else s.size_px, rng)
    step_nm = float(np.clip(log_between(s.size_nm, rng) / typical, *s.step_nm))
    size_px = _sizes(s, typical, shape, rng)
    whole = _solids(s, library.bodies, size_px, step_nm, rng)
    solids, particle, crystal = _parts(s, whole, len(bench.rocking_deg), rng)
    return ImageSample(
        responses=bench.responses,
        electrons=_electrons(settings.recording, rng),
        step_nm=step_nm,
        solids=solids,
        probe_samples=1,
        particle=particle,
        at_px=_places(s, size_px, shape, rng)[particle],
        crystal=crystal,
        rocking=_rocking(s, bench, crystal, size_px[particle], rng),
        mean_free_path_nm=_paths(s, bench, crystal, rng),
        film=random_support(settings.film, shape, rng),
        blur_px=_blur(settings.recording, rng),
        readout=_readout(settings.recording, rng),
        glow=_glow(settings.recording, rng),
        column_shift_px=_flyback(settings.recording, rng),
        **_rows(settings.recording, rng),
    )


def _sizes(s: ParticleSettings, typical: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Diameters (particle,) in px, as many as there is room for."""
    low, high = s.count
    count = int(rng.integers(low, high + 1))
    if rng.random() < s.few_share:
        count = int(np.exp(rng.uniform(np.log(low + 1), np.log(high + 2)))) - 1
    sizes = np.clip(typical * np.exp(rng.uniform(*s.spread) * rng.normal(size=count)), *s.extreme_px)
    covered = np.cumsum(np.pi / 4 * sizes**2) / (shape[0] * shape[1])
    fitting = int((covered <= log_between(s.coverage, rng)).sum())
    return np.asarray(sizes[: min(count, max(fitting, low, 1))])


def _solids(
    s: ParticleSettings, bodies: tuple[Solid, ...], size_px: np.ndarray, step_nm: float, rng: np.random.Generator
) -> tuple[Solid, ...]:
    """Bodies of a few kinds in random orientations, lab frame, nm."""
    kinds = []
    for _ in range(rng.integers(1, s.kinds + 1)):
        if rng.random() < s.balls:
            kinds.append((bodies[-1], np.ones(3)))
            continue
        # most particles are compact: the square of an even number leans to the lower end
        length = np.exp(np.log(s.elongation[0]) + rng.random() ** 2 * np.log(s.elongation[1] / s.elongation[0]))
        axes = np.array([length, 1.0, log_between(s.flattening, rng)])
        kinds.append((bodies[rng.integers(len(bodies) - 1)], axes / np.cbrt(axes.prod())))
    attitudes = _attitudes(len(size_px), rng.random() < s.lying_share, rng)
    out = []
    for size, attitude in zip(size_px, attitudes, strict=True):
        body, axes = kinds[rng.integers(len(kinds))]
        axes = axes * size * step_nm
        if len(body.normals):
            body = stretched(body, axes * min(1, s.extreme_px[1] * step_nm / axes.max()))
            out.append(body.turned(attitude))
        else:
            out.append(_scaled(body, axes[0]))
    return tuple(out)


def _parts(
    s: ParticleSettings, whole: tuple[Solid, ...], crystals: int, rng: np.random.Generator
) -> tuple[tuple[Solid, ...], np.ndarray, np.ndarray]:
    """What particles consist of: solids, and of each (part,) the particle and the crystal.

    The individuals of a twin, a core and its shell are one particle here, with one outline, since a segmenter sees no
    more; the truth of a scene counts each crystal, which only diffraction tells apart.
    """
    parts: list[tuple[Solid, int, int]] = []
    for n, solid in enumerate(whole):
        own, other = rng.integers(crystals, size=2)
        if rng.random() < s.amorphous_share:
            own = AMORPHOUS
        kind = rng.random()
        if kind < s.twin_share:
            first, second = _halves(solid, rng)
            parts += [(first, n, own), (second, n, other)]
        elif kind < s.twin_share + s.shell_share:
            core = _scaled(solid, 1 - rng.uniform(*s.shell))
            around = AMORPHOUS if rng.random() < s.amorphous_shell_share else other
            parts += [(hollow(solid, core), n, around), (core, n, own)]
        else:
            parts.append((solid, n, own))
    solids, particle, crystal = zip(*parts, strict=True) if parts else ((), (), ())
    return solids, np.array(particle, np.int64), np.array(crystal, np.int64)


def _halves(solid: Solid, rng: np.random.Generator) -> tuple[Solid, Solid]:
    """A body on either side of a random plane near its middle, in its frame; corners stay those of the whole."""
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    room = min(float(solid.distances.min(initial=np.inf)), solid.radius)
    level = rng.uniform(-0.5, 0.5) * room
    first, second = (
        replace(
            solid,
            normals=np.concatenate([solid.normals, sign * normal[None]]),
            distances=np.append(solid.distances, sign * level),
        )
        for sign in (1, -1)
    )
    return first, second


def _scaled(solid: Solid, factor: float) -> Solid:
    """A body, its faces and its ball, that is so many times as large."""
    return replace(
        solid,
        volume=solid.volume * factor**3,
        radius=solid.radius * factor,
        distances=solid.distances * factor,
        vertices=solid.vertices * factor,
    )


def stretched(solid: Solid, factors: np.ndarray) -> Solid:
    """A polyhedron that is stretched along x, y and z by (3,) factors."""
    normals = solid.normals / factors
    length = np.linalg.norm(normals, axis=1)
    return replace(
        solid,
        volume=solid.volume * float(np.prod(factors)),
        normals=normals / length[:, None],
        distances=solid.distances / length,
        vertices=solid.vertices * factors,
    )


def _attitudes(count: int, lying: bool, rng: np.random.Generator) -> np.ndarray:
    """Rotations (particle, 3, 3): any, or such that x is left near the plane of a film, tilted as in a series."""
    if not lying:
        return np.asarray(Rotation.from_quat(rng.normal(size=(count, 4))).as_matrix()).reshape(-1, 3, 3)
    angles = np.column_stack([rng.normal(size=(count, 2)) * [0.3, 0.05], rng.uniform(0, 2 * np.pi, count)])
    stage = Rotation.from_euler("x", rng.uniform(-60, 60), degrees=True)
    return np.asarray((stage * Rotation.from_euler("xyz", angles)).as_matrix()).reshape(-1, 3, 3)


def _places(s: ParticleSettings, size_px: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Middles (particle, 2) in px (x, y): alone, or in agglomerates and chains; some reach beyond the field."""
    field = np.array([shape[1], shape[0]], float)
    places, radii = np.empty((len(size_px), 2)), size_px / 2
    clusters, apart = rng.random() < s.agglomerate_share, rng.random() < 0.5
    closeness, chain = 1 - rng.uniform(*s.overlap), rng.random() < s.chain_share
    first, left, heading = 0, 0, 0.0
    for n in range(len(size_px)):
        if not clusters or left == 0:
            tries = rng.uniform(-0.03, 1.03, (_CANDIDATES if apart else 1, 2)) * field
            first, left, heading = n, int(rng.integers(s.together[0], s.together[1] + 1)), rng.uniform(0, 2 * np.pi)
            near = 0
        else:
            beside = np.full(_CANDIDATES, n - 1) if chain else rng.integers(first, n, _CANDIDATES)
            angle = heading + 0.5 * rng.normal(size=_CANDIDATES) if chain else rng.uniform(0, 2 * np.pi, _CANDIDATES)
            away = closeness * (radii[n] + radii[beside])
            tries = places[beside] + away[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
            near = first
        gaps = np.linalg.norm(tries[:, None] - places[None, near:n], axis=2) - closeness * (radii[n] + radii[near:n])
        places[n] = tries[gaps.min(1, initial=np.inf).argmax()]
        if chain and n > first:
            heading = float(np.arctan2(*(places[n] - places[n - 1])[::-1]))
        left -= 1
    return places


def _rocking(
    s: ParticleSettings, bench: Bench, crystal: np.ndarray, size_px: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Orientation of every particle and how its lattice is bent, (particle, 4) as `ImageSample` has it."""
    count, last = len(crystal), bench.responses.table.shape[1] - 1
    out = np.zeros((count, 4))
    out[:, 0] = rng.uniform(0, last, count)
    angle = rng.uniform(*s.bend_deg, count) * (rng.random(count) < s.bent_share)
    rows, phi, cupped = angle / bench.rocking_deg[crystal], rng.uniform(0, 2 * np.pi, count), rng.random(count) < 0.3
    slope = np.where(cupped, 0, rows / size_px)
    out[:, 1], out[:, 2] = slope * np.cos(phi), slope * np.sin(phi)
    out[:, 3] = np.where(cupped, rows / (size_px / 2) ** 2, 0)
    return out


def _paths(s: ParticleSettings, bench: Bench, crystal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean free paths (part,) of diffuse scattering, nm."""
    own = bench.mean_free_path_nm[crystal] * log_between(s.mean_free_path, rng)
    return np.where(crystal == AMORPHOUS, log_between(s.amorphous_path_nm, rng), own)


def _electrons(s: RecordingSettings, rng: np.random.Generator) -> float:
    return _NOISELESS if rng.random() < s.noiseless_share else log_between(s.electrons, rng)


def _blur(s: RecordingSettings, rng: np.random.Generator) -> tuple[float, float]:
    """Width of the probe and of drift within a scan, rms along y and x."""
    probe = rng.uniform(*(s.defocus_px if rng.random() < s.defocus_share else s.probe_px))
    drift = rng.uniform(*s.drift_px) * rng.permutation([1.0, rng.random()])
    return float(np.hypot(probe, drift[0])), float(np.hypot(probe, drift[1]))


def _readout(s: RecordingSettings, rng: np.random.Generator) -> Readout:
    """The camera: most count electrons."""
    if rng.random() >= s.camera_share:
        return Readout()
    spread, offset = rng.uniform(*s.gain_spread), rng.uniform(*s.dark_offset)
    return Readout(log_between(s.gain, rng), spread, log_between(s.read_noise, rng), offset)


def _glow(s: RecordingSettings, rng: np.random.Generator) -> Glow | None:
    """Secondary electrons, where a field shows them."""
    if rng.random() >= s.glow_share:
        return None
    film = log_between(s.glow_film, rng)
    return Glow(film, film * log_between(s.glow, rng), log_between(s.glow_edge, rng))


def _flyback(s: RecordingSettings, rng: np.random.Generator) -> np.ndarray:
    """How far the probes of a row lie right of their places, (x,) px."""
    if rng.random() >= s.flyback_share:
        return np.zeros(s.shape[1])
    return np.asarray(
        rng.uniform(*s.flyback_px) * np.exp(-np.arange(s.shape[1]) / log_between(s.flyback_decay_px, rng))
    )


def _rows(s: RecordingSettings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What differs from scan row to scan row, and the shading."""
    rows = s.shape[0]
    shift = np.zeros(rows)
    if rng.random() < s.jitter_share:
        sway = smooth_noise((rows, 1), rng.uniform(0.2, 1) * rows, rng)[:, 0]
        shift = rng.uniform(*s.jitter_px) * rng.normal(size=rows) + rng.uniform(*s.sway_px) * sway
    if rng.random() < s.shear_share:
        shift += np.tan(np.radians(rng.uniform(*s.shear_deg))) * (np.arange(rows) - (rows - 1) / 2)
    flicker = s.streaks if rng.random() < s.streaks_share else s.flicker
    dose = 1 + rng.uniform(*flicker) * rng.normal(size=rows)
    strength = s.charging if rng.random() < s.charging_share else s.shading
    shading = rng.uniform(*strength) / 2 * rng.normal(size=(3, 5))
    return {"row_shift_px": shift, "row_dose": np.maximum(dose, 0.1), "shading": shading}
