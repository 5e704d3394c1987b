"""Virtual images of one tilt of a scene without its patterns, by the tables that training images are drawn from.

They agree with images of the patterns within counting noise, but for what the tables leave out: an ellipse (spots
move by less than their disks), descan (virtual detectors follow it), electrons that are scattered twice, and counts
beyond saturation. What the tail of the point spread carries from detector to detector is that of the direct beam and of
diffuse scattering. Where a scintillator shares light, the maximum is good to about a tenth.
"""

from __future__ import annotations

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import VirtualImages
from stemtomo_dl.simulate import diffuse
from stemtomo_dl.simulate.detector import Sensor
from stemtomo_dl.simulate.distortion import beam_shifts
from stemtomo_dl.simulate.images import DETECTORS, ImageSample, draw_detectors, expected_planes
from stemtomo_dl.simulate.library import Responses, Specimen, make_responses
from stemtomo_dl.simulate.mixture import Cast, View
from stemtomo_dl.simulate.optics import Optics, zones
from stemtomo_dl.simulate.readout import Readout
from stemtomo_dl.simulate.scene import Scene
from stemtomo_dl.simulate.shape import Footprint
from stemtomo_dl.simulate.spread import Spread, make_spread, spread_electrons

_FIELDS = DETECTORS[:3]
_FEWEST_STEPS, _MOST_STEPS = 20, 150  # of thickness; of about 1 nm where these leave the choice


def expected_images(
    scene: Scene, cast: Cast, view: View, thickness: np.ndarray, film: np.ndarray, rng: np.random.Generator
) -> VirtualImages:
    """Draw the virtual images of a tilt.

    Parameters
    ----------
    view : View
        What is in view, in the order of the beam.
    thickness : (met, y, x) array
        nm.
    film : (y, x) array
        Share of the electrons that the support takes.

    Returns
    -------
    VirtualImages
        The mean and the maximum pattern are unknown, NaN.

    Raises
    ------
    InputError
        If a virtual detector has no pixel that counts.
    """
    optics, full = optics_at(scene, cast, view.center_px), scene.instrument.camera.full()
    responses = make_responses(optics, *_specimens(cast, view))
    template = optics.template(diffuse.amorphous(scene.film.element))
    spread = make_spread(optics, template, full["psf_tail_share"], full["psf_tail_px"])
    sample = _sample(scene, cast, view, responses, film, spread)
    seen = [Footprint(0, 0, t, t > 0) for t in thickness]
    planes, _, bragg = expected_planes(sample, seen)
    if not _shares_light(scene):
        spread_electrons(planes, spread, responses.direct)
    images, _ = draw_detectors(sample, planes, bragg, rng)
    unknown = np.full(scene.instrument.detector, np.nan, "f4")
    return VirtualImages(DETECTORS, images, _beam(scene, view), unknown, unknown)


def blind_pixels(sensor: Sensor) -> np.ndarray:
    """Pixels (qy, qx) that count nothing, that count for others too, or that count without electrons."""
    out = sensor.listed.copy()
    for places in (sensor.hot, sensor.dead):
        out[places[:, 0], places[:, 1]] = True
    return out


def _shares_light(scene: Scene) -> bool:
    """Whether the point spread shares out an electron's light rather than moves electrons."""
    return scene.instrument.camera.kind == "scintillator"


def optics_at(scene: Scene, cast: Cast, center_px: np.ndarray) -> Optics:
    """The instrument with its beam at (column, row) px.

    Raises
    ------
    InputError
        If a virtual detector has no pixel that counts.
    """
    m, beam = scene.instrument, cast.beam
    optics = Optics(
        m.voltage_kv,
        m.convergence_mrad,
        m.pixel_inv_angstrom,
        m.detector,
        (float(center_px[0]), float(center_px[1])),
        rings=beam.rings,
        rotation_deg=m.rotation_deg,
        film_element=scene.film.element,
        psf_px=m.camera.full()["psf_sigma_px"],
        blind=blind_pixels(cast.sensor),
    )
    pixels = np.bincount(zones(optics).ravel(), minlength=len(_FIELDS) + 1)[1:]
    if not pixels.all():
        names = " and ".join(name for name, n in zip(_FIELDS, pixels, strict=True) if n == 0)
        raise InputError(
            f"keys 'instrument.beam_offset_px' and 'instrument.camera.gap_px': no pixel counts in {names}; move the "
            "beam into a chip, or make the gaps or dead_pixels less"
        )
    return optics


def _specimens(cast: Cast, view: View) -> tuple[list[Specimen], int]:
    """Every particle in view as it lies, and the steps of their thicknesses."""
    specimens = [
        Specimen(
            structure=(p := cast.particles[index]).structure,
            thickest_nm=max(float(top), 1e-3),
            ubs=(view.rotation @ p.ub)[None],
            mosaic_deg=p.mosaic_deg,
            damage=p.damage,
            dose_e_per_A2=view.dose_e_per_A2,
            kinematic=cast.scale is not None,
            scale=None if cast.scale is None else float(cast.scale[index]),
        )
        for index, top in zip(view.particle, view.thickest, strict=True)
    ]
    steps = int(np.clip(np.ceil(view.thickest.max(initial=1)), _FEWEST_STEPS, _MOST_STEPS))
    return specimens, steps


def _sample(
    scene: Scene, cast: Cast, view: View, responses: Responses, film: np.ndarray, spread: Spread
) -> ImageSample:
    """A tilt as `images` wants it; thicknesses are known already, so that solids and places are not needed."""
    m, met = scene.instrument, len(view.particle)
    paths = []
    for index in view.particle:
        p = cast.particles[index]
        kind = Specimen(p.structure, 1.0, p.ub[None], damage=p.damage, dose_e_per_A2=view.dose_e_per_A2).material
        paths.append(diffuse.damaged_path(p.mean_free_path_nm, kind, m.voltage_kv))
    return ImageSample(
        responses=responses,
        electrons=m.electrons,
        step_nm=m.step_nm,
        solids=(),
        probe_samples=m.probe_samples,
        blur_px=(0.0, 0.0),
        readout=_readout(cast.sensor, spread) if _shares_light(scene) else _counter(cast.sensor),
        glow=None,
        particle=np.arange(met),
        at_px=np.zeros((met, 2)),
        crystal=np.arange(met),
        rocking=np.zeros((met, 4)),
        mean_free_path_nm=np.array(paths, float),
        film=film.astype("f4"),
        row_shift_px=np.zeros(m.scan[0]),
        column_shift_px=np.zeros(m.scan[1]),
        row_dose=np.ones(m.scan[0]),
        shading=np.zeros((3, 5)),
    )


def _counter(s: Sensor) -> Readout:
    """A camera whose point spread, if any, has moved electrons already."""
    return Readout(s.gain, s.gain_spread, s.read_noise / s.gain, s.offset / s.gain)


def _readout(s: Sensor, spread: Spread) -> Readout:
    """A camera that shares out light."""
    core, tail, share = s.glow, s.glow_tail, s.glow_tail_share
    padded = np.pad(core, max(0, len(tail) - len(core)) // 2)
    both = float((padded @ np.pad(tail, max(0, len(core) - len(tail)) // 2)) ** 2)
    shared = (1 - share) ** 2 * (core @ core) ** 2 + 2 * share * (1 - share) * both + share**2 * (tail @ tail) ** 2
    reach = tuple(tuple(row) for row in spread.reach.tolist())
    return _counter(s)._replace(shared=float(shared), core=spread.core, reach=reach, crest=float(spread.crest[0]))


def _beam(scene: Scene, view: View) -> np.ndarray:
    """Where the beam is on the detector: quadratics (2, 6) of the probe's place, 1, x, y, x², xy, y²."""
    shape = scene.instrument.scan
    y, x = (v.ravel() for v in np.indices(shape))
    terms = np.stack([np.ones(y.shape), x, y, x**2, x * y, y**2], 1)
    places = view.center_px + beam_shifts(scene.instrument.descan, shape).reshape(-1, 2)
    return np.asarray(np.linalg.lstsq(terms, places, rcond=None)[0].T)
