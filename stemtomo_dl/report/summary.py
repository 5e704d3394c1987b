"""The figures of a whole run, for a program to read."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemtomo_dl.records import SOURCES, STATES
from stemtomo_dl.report.crystals import Crystallography
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.store.phases import PhaseFigures
from stemtomo_dl.store.reflections import crystal_entry

_OF_PHASE = (
    *("lattice", "cell", "cell_esd", "laue_class", "n_observations", "n_unique", "completeness", "redundancy"),
    *("r_int", "r_meas", "cc_half", "i_over_sigma", "d_min", "resolution_a", "left_out"),
    *("missing", "space_group", "formula", "r1", "wr2"),
)


def summarise(facts: Facts) -> dict[str, Any]:
    """Counts and figures of a run.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    dict
        Of JSON values; lengths in nm, angles in degrees; null is what is not known. ``n_tilts_off_place`` and
        ``n_tilts_cut`` of a particle count the tilts at which its outline lies off its predicted place or is cut by
        the scan's border. ``n_states`` count particles at tilts, ``n_sources`` outlines of particles. Under
    "crystallography" is what indexing and integration have found out of a particle, ``note`` what went wrong.
    """
    reduced = _reduced(facts.crystals)
    tracks, coverage = facts.tracks, np.array(list(facts.coverage.values()))
    known = facts.alpha_deg[np.isfinite(facts.alpha_deg)]
    return {
        "title": facts.experiment.title,
        "version": facts.version,
        "n_tilts": facts.n_tilts,
        "n_tilts_used": int(facts.good.sum()),
        "skipped": list(facts.skipped),
        "alpha_from_deg": float(known.min()) if len(known) else None,
        "alpha_to_deg": float(known.max()) if len(known) else None,
        "scan_shape": list(facts.masks.shape),
        "detector_shape": list(facts.bad_pixels.shape),
        "n_bad_pixels": int(facts.bad_pixels.sum()),
        "n_tilts_beam_hidden": int(facts.beam_hidden.sum()),
        "n_masks": int(facts.found.sum()),
        "n_masks_linked": int((facts.found & ~facts.stray).sum()),
        "n_particles": len(tracks.particle),
        "n_particles_over_80_percent": int((coverage >= 0.8).sum()),
        "median_coverage": round(float(np.median(coverage)), 4) if len(coverage) else None,
        "drift_range_px": [round(float(v), 3) for v in np.ptp(tracks.drift_px, axis=0)],
        "n_states": _counts(tracks.states, STATES),
        "n_sources": _counts(tracks.source, SOURCES),
        "stage": _stage(facts),
        "extraction": facts.extraction,
        "n_indexed": sum(r["indexed"] for r in reduced.values()),
        "geometry": facts.crystals.geometry and facts.crystals.geometry.entry(),
        "phases": [_phase(p) for p in facts.crystals.phases],
        "n_merged": sum(f.phase >= 0 for f in facts.crystals.particles.values()),
        "n_solved": len(facts.crystals.solved),
        "damaged": list(facts.crystals.damaged),
        "particles": [
            {**_particle(facts, i, int(k)), "crystallography": reduced.get(int(k))}
            for i, k in enumerate(tracks.particle)
        ],
    }


def _reduced(known: Crystallography) -> dict[int, dict[str, Any]]:
    """What is known of the crystals, by track."""
    out = {}
    for track, found in known.particles.items():
        first = crystal_entry(found.crystals[0]) if found.crystals else {}
        out[track] = {
            "indexed": bool(found.crystals),
            "n_spots": found.n_spots,
            **{k: first.get(k) for k in ("lattice", "cell", "indexed_fraction", "rms_inv_angstrom")},
            "n_lattices": len(found.crystals),
            "n_reflections": found.n_reflections,
            "d_min_angstrom": _known(found.d_min, 4),
            "completeness": _known(found.completeness, 4),
            "phase": known.phases[found.phase].name if found.phase >= 0 else None,
            "candidate": found.candidate and found.candidate["name"],
            "likeness": list(found.likeness),
            "note": found.note or None,
        }
    return out


def _phase(phase: PhaseFigures) -> dict[str, Any]:
    """Figures of a merged phase; all of them, shell by shell, are in its stats.json."""
    figures = {k: phase.figures.get(k) for k in _OF_PHASE}
    members = [m["track"] for m in phase.figures["members"]]
    structure = phase.figures.get("structure", "unsolved")
    return {"name": phase.name, "members": members, **figures, "structure": structure}


def _stage(facts: Facts) -> dict[str, Any]:
    """What was found out about the stage."""
    t = facts.tracks
    return {
        "tilt_axis_stated_deg": facts.experiment.stage.tilt_axis_deg,
        "tilt_axis_deg": _known(t.tilt_axis_deg, 4),
        "tilt_axis_error_deg": _known(t.tilt_axis_error_deg, 4),
        "noise_px": _known(t.noise_px, 4),
        "gauge_error_nm": [_known(v, 3) for v in t.gauge_error_nm],
        "rigid": t.rigid,
        "note": t.note,
        "largest_step_px": _known(facts.steps[1].max(initial=0), 3),
        "alpha_offset_rms_deg": _known(np.sqrt(np.mean(np.nan_to_num(t.alpha_offset_deg) ** 2)), 4),
        "n_particles_moving": int(facts.moving.sum()),
    }


def _counts(codes: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    """How often each name is coded; negative codes are of none."""
    n = np.bincount(codes[codes >= 0], minlength=len(names))
    return {name: int(c) for name, c in zip(names, n, strict=True)}


def _known(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _particle(facts: Facts, i: int, track: int) -> dict[str, Any]:
    """Figures of particle ``i``."""
    tracks, rows = facts.tracks, facts.sightings(track)
    alpha = tracks.alpha_deg[tracks.tilt[rows]]
    identity = tracks.identity[rows][np.isfinite(tracks.identity[rows])]
    return {
        "track": track,
        "n_tilts": len(rows),
        "coverage": round(facts.coverage[track], 4),
        "alpha_from_deg": round(float(alpha[0]), 4),
        "alpha_to_deg": round(float(alpha[-1]), 4),
        "position_nm": [round(float(v), 3) for v in tracks.position_nm[i]],
        "position_error_nm": [_known(v, 3) for v in tracks.position_error_nm[i]],
        "usable_deg": [_known(v, 4) for v in tracks.usable_deg[i]],
        "overlap_share": _known(tracks.overlap_share[i], 4),
        "own_motion_px": _known(tracks.own_motion_px[i], 3),
        "identity": _known(np.median(identity), 4) if len(identity) else None,
        "n_states": _counts(tracks.states[i], STATES),
        "n_sources": _counts(tracks.source[rows], SOURCES),
        "residual_px": round(float(tracks.residual_px[i]), 4),
        "n_tilts_off_place": int(facts.jumps[rows].sum()),
        "n_tilts_cut": int(facts.cut[tracks.instance[rows]].sum()),
    }
