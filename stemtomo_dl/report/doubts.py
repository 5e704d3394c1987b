"""What of lattices, phases and structures deserves a look."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import degrees, escape, number, percent, plus_minus
from stemtomo_dl.store.phases import PhaseFigures

_AXIS_DEG = 5.0  # stated axes are good to a few degrees
_SIGMAS, _LEAST_DEG = 4.0, 0.5  # axes of tracker and lattices that differ by more than both disagree
_SCALE, _ELLIPSE = 0.03, 0.03  # calibrations are good to one or two per cent
_KNOWN_SCALE = 0.01
_LENGTH, _ANGLE_DEG = 0.015, 1.0  # by which a cell may differ from its phase's
_INDEXED, _MISFIT = 0.5, 2.0  # least share of spots on the lattice; misfit over the median's
_COMPLETE, _RINT, _CC_HALF, _REDUNDANCY = 0.6, 0.3, 0.9, 2.0
_R1, _GOOF = 0.25, 3.0
_CC = 0.7  # of a member with the others


def of_particles(facts: Facts) -> list[tuple[list[bool], str]]:
    """Which particles (in the order of the tracks) are concerned, and what is said of them after "are"."""
    known, tracks = facts.crystals, facts.tracks.particle.tolist()
    firsts = {k: known.particles[k].crystals[0] for k in known.indexed}
    if not firsts:
        return []
    rms = np.array([c.rms_inv_angstrom for c in firsts.values()])
    typical = float(np.nanmedian(rms)) if np.isfinite(rms).any() else np.inf
    poor = {k for k, c in firsts.items() if c.indexed_fraction < _INDEXED}
    blurred = {k for k, c in firsts.items() if c.rms_inv_angstrom > _MISFIT * typical}
    apart, unlike = set(), set()
    for phase in known.phases:
        cell = np.array(phase.figures["cell"], float)
        for m in phase.figures["members"]:
            k = m["track"]
            if k in firsts and _off(firsts[k].cell, cell):
                apart.add(k)
            if m["cc"] is not None and m["cc"] < _CC:
                unlike.add(k)
    return [
        ([k in which for k in tracks], text)
        for which, text in (
            (poor, f"indexed with under {percent(_INDEXED)} of their spots: other crystals may lie in their outlines"),
            (blurred, f"off their lattices by over {number(_MISFIT, 0)} times the usual misfit"),
            (apart, f"of cells over {number(100 * _LENGTH)} % or {degrees(_ANGLE_DEG)} from their phase's"),
            (unlike, f"merged though their intensities correlate by under {number(_CC)} with the others'"),
        )
    ]


def _off(cell: np.ndarray, phase: np.ndarray) -> bool:
    """Whether two cells of one lattice disagree; in another order of the axes they are compared sorted."""
    lengths = np.abs(np.sort(cell[:3]) / np.sort(phase[:3]) - 1).max()
    angles = np.abs(np.sort(cell[3:]) - np.sort(phase[3:])).max()
    return bool(lengths > _LENGTH or angles > _ANGLE_DEG)


def of_run(facts: Facts) -> list[str]:
    """Points about the shared geometry, the phases and their structures, and damaged files, as HTML."""
    known, out = facts.crystals, []
    if known.tried and known.particles and len(known.indexed) < 0.5 * len(known.particles):
        out.append(
            f"Only {len(known.indexed)} of {len(known.particles)} particles have a lattice; the reasons stand above."
        )
    out += _geometry(facts)
    for i, phase in enumerate(known.phases):
        said = [*_merging(phase.figures), *_structure(phase)]
        out += [f'<a href="#phase{i + 1}">{escape(phase.name)}</a>: {escape(line)}.' for line in said]
    return out


def _geometry(facts: Facts) -> list[str]:
    """The stage and camera as the lattices have them, against what was stated and what the tracks say."""
    shared, t = facts.crystals.geometry, facts.tracks
    if shared is None:
        return []
    g, out = shared.geometry, []
    axis, stated = g.instrument.tilt_axis_deg, facts.experiment.stage.tilt_axis_deg
    if abs(_turn(axis, stated)) > _AXIS_DEG:
        out.append(
            f"By the lattices the tilt axis lies at {degrees(axis)}, {degrees(abs(_turn(axis, stated)))} from the "
            f"stated {degrees(stated)}; correct tilt_axis_deg."
        )
    limit = max(_LEAST_DEG, _SIGMAS * np.nan_to_num(t.tilt_axis_error_deg))
    if t.rigid and np.isfinite(t.tilt_axis_deg) and abs(_turn(axis, t.tilt_axis_deg)) > limit:
        tracked = plus_minus(t.tilt_axis_deg, t.tilt_axis_error_deg, 2, "°")
        out.append(
            f"The tilt axis is {number(axis, 2)}° by the lattices and {tracked} by the tracks; if they disagree, "
            "rotation_deg may be wrong, which leaves lattices right and positions turned."
        )
    if abs(g.scale - 1) > _SCALE:
        out.append(
            f"The reciprocal pixel is off by {number(100 * (g.scale - 1))} % by the lattices; check pixel_inv_angstrom."
        )
    if np.hypot(*g.ellipse) > _ELLIPSE:
        out.append(
            f"The patterns are elliptical by {number(100 * float(np.hypot(*g.ellipse)))} %; it is corrected for."
        )
    return out


def _turn(a: float, b: float) -> float:
    """Angle between two lines, degrees."""
    return (a - b + 90) % 180 - 90


def _merging(f: dict[str, Any]) -> list[str]:
    """Figures of merging that are poor, in words."""

    def beyond(key: str, limit: float, *, below: bool) -> bool:
        value = f.get(key)
        return value is not None and (value < limit if below else value > limit)

    out = []
    if beyond("completeness", _COMPLETE, below=True):
        out.append(
            f"only {percent(f['completeness'])} complete to {number(f['resolution_a'], 2)} Å; more particles help"
        )
    if beyond("redundancy", _REDUNDANCY, below=True):
        out.append(f"each reflection was measured {number(f['redundancy'], 1)} times: agreement tells little")
    if beyond("r_int", _RINT, below=False):
        out.append(f"Rint is {number(f['r_int'], 2)}: particles are thick, mixed, or merged in too high a symmetry")
    if beyond("cc_half", _CC_HALF, below=True):
        out.append(f"CC½ is {number(f['cc_half'], 2)}")
    scale = f.get("camera_length")  # against a known cell: strain and temperature change cells by some tenths of a %
    if scale and abs(scale["factor"] - 1) > _KNOWN_SCALE:
        out.append(f"by the known cell pixel_inv_angstrom should be {number(scale['factor'], 4)} times as large")
    likely = [c for c in f.get("laue_classes") or [] if c["name"] == f["laue_class"]]
    if likely and likely[0]["probability"] is not None and likely[0]["probability"] < 0.8:
        out.append(f"the Laue class {f['laue_class']} is probable by {percent(likely[0]['probability'])} only")
    return out


def _structure(phase: PhaseFigures) -> list[str]:
    """Doubts about a structure, in words."""
    f = phase.figures
    if f.get("structure") != "solved":
        return []
    out = list(f.get("warnings") or [])
    if f["r1"] is not None and f["r1"] > _R1:
        out.append(f"R1 is {number(f['r1'], 2)}, high even for electrons")
    if f["goof"] is not None and f["goof"] > _GOOF:
        out.append(f"the goodness of fit is {number(f['goof'], 1)}: standard deviations are too small")
    if f.get("likeness") and not any(e["named"] for e in f["likeness"]):
        out.append("it is none of the known candidates")
    return out
