"""What the particles of a scene cover of its scans: probes where they really are, outlines, greatest thicknesses."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import Masks
from stemtomo_dl.simulate.body import Particle
from stemtomo_dl.simulate.distortion import Probes, probe_places, seen_footprint
from stemtomo_dl.simulate.motion import Motion
from stemtomo_dl.simulate.scene import Microscope, Scene
from stemtomo_dl.simulate.shape import Footprint
from stemtomo_dl.simulate.streams import Stream, generator


def survey(scene: Scene, motion: Motion, particles: tuple[Particle, ...]) -> tuple[Masks, np.ndarray, np.ndarray]:
    """Outlines of all tilts, the particle of each, and the greatest thickness (tilt, particle) in nm.

    Tilt by tilt, for all thicknesses together would be many times as large as the outlines; a particle out of view
    at a tilt has no mask there.
    """
    thickest = np.zeros((len(motion.alpha_deg), len(particles)))
    found: list[tuple[int, int, int, int]] = []
    crops: list[np.ndarray] = []
    for tilt in range(len(thickest)):
        for p, seen in enumerate(footprints(scene, motion, particles, tilt)):
            thickest[tilt, p] = seen.thickness.max(initial=0)
            if seen.outline.any():
                found.append((tilt, p, seen.y0, seen.x0))
                crops.append(seen.outline)
    table = np.array(found, "i4").reshape(-1, 4)
    masks = Masks(
        shape=scene.instrument.scan,
        crops=tuple(crops),
        origin=table[:, 2:],
        tilt=table[:, 0],
        score=np.ones(len(table), "f4"),
        alpha_deg=motion.alpha_deg,
    )
    return masks, table[:, 1], thickest


def footprints(scene: Scene, motion: Motion, particles: tuple[Particle, ...], tilt: int) -> list[Footprint]:
    """What every particle covers of the scan at a tilt."""
    m, probes = scene.instrument, probes_of(scene, motion, tilt)
    rotation = tilt_rotation(m.tilt_axis_deg, motion.alpha_deg[tilt])
    origin = field_centre(m.scan) + motion.drift_px[tilt]
    at = [origin + (rotation @ p.position_nm)[:2] / m.step_nm for p in particles]
    return [_footprint(p, rotation, xy, m, probes) for p, xy in zip(particles, at, strict=True)]


def _footprint(
    particle: Particle, rotation: np.ndarray, at_px: np.ndarray, microscope: Microscope, probes: Probes
) -> Footprint:
    """The thickness of a crystal, and the outline of the particle with its amorphous shell."""
    solids = [particle.solid] if particle.coat is None else [particle.solid, particle.whole]
    step, samples = microscope.step_nm, microscope.probe_samples
    crystal, *whole = (seen_footprint(s.turned(rotation), at_px, step, probes, samples) for s in solids)
    if not whole:
        return crystal
    thickness, (height, width) = np.zeros(whole[0].outline.shape), crystal.thickness.shape
    if crystal.thickness.size:
        y, x = crystal.y0 - whole[0].y0, crystal.x0 - whole[0].x0
        thickness[y : y + height, x : x + width] = crystal.thickness
    return Footprint(whole[0].y0, whole[0].x0, thickness, whole[0].outline)


def probes_of(scene: Scene, motion: Motion, tilt: int) -> Probes:
    """Where the probes of a scan really are."""
    rng = generator(scene.seed, Stream.JITTER, int(motion.turn[tilt]))
    return probe_places(scene.instrument.raster, motion.row_px[tilt], scene.instrument.scan[1], rng)
