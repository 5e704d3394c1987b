"""The figures of a whole run, for a program to read."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemtomo_dl.report.facts import Facts


def summarise(facts: Facts) -> dict[str, Any]:
    """Counts and figures of a run.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    dict
        Of JSON values; lengths in nm, angles in degrees. ``n_tilts_off_place`` and ``n_tilts_cut`` of a particle
        count the tilts at which its outline lies off its predicted place or is cut by the scan's border.
    """
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
        "n_masks": len(facts.masks),
        "n_masks_linked": len(tracks.track),
        "n_particles": len(tracks.particle),
        "n_particles_over_80_percent": int((coverage >= 0.8).sum()),
        "median_coverage": round(float(np.median(coverage)), 4) if len(coverage) else None,
        "drift_range_px": [round(float(v), 3) for v in np.ptp(tracks.drift_px, axis=0)],
        "particles": [_particle(facts, i, int(k)) for i, k in enumerate(tracks.particle)],
    }


def _particle(facts: Facts, i: int, track: int) -> dict[str, Any]:
    """Figures of particle ``i``."""
    tracks, rows = facts.tracks, facts.sightings(track)
    alpha = tracks.alpha_deg[tracks.tilt[rows]]
    return {
        "track": track,
        "n_tilts": len(rows),
        "coverage": round(facts.coverage[track], 4),
        "alpha_from_deg": round(float(alpha[0]), 4),
        "alpha_to_deg": round(float(alpha[-1]), 4),
        "position_nm": [round(float(v), 3) for v in tracks.position_nm[i]],
        "residual_px": round(float(tracks.residual_px[i]), 4),
        "n_tilts_off_place": int(facts.jumps[rows].sum()),
        "n_tilts_cut": int(facts.cut[tracks.instance[rows]].sum()),
    }
