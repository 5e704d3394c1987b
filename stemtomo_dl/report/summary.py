"""The figures of a whole run, for a program to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.store import results


def summarise(folder: Path) -> dict[str, Any]:
    """Counts and figures of a run.

    Parameters
    ----------
    folder : Path
        The run's folder; its stages up to extraction must be done.

    Returns
    -------
    dict
        Of JSON values; lengths in nm, angles in degrees.
    """
    book = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    alpha, good, bad = results.read_image_facts(folder / "images.h5")
    masks, tracks = results.read_masks(folder / "masks.h5"), results.read_tracks(folder)
    n_good = int(good.sum())
    particles = []
    for k, position, residual in zip(tracks.particle, tracks.position_nm, tracks.residual_px, strict=True):
        seen = alpha[tracks.tilt[tracks.track == k]]
        particles.append({
            "track": int(k), "n_tilts": len(seen), "coverage": round(len(seen) / n_good, 4),
            "alpha_from_deg": round(float(seen.min()), 4), "alpha_to_deg": round(float(seen.max()), 4),
            "position_nm": [round(float(v), 3) for v in position], "residual_px": round(float(residual), 4),
        })
    coverage = [p["coverage"] for p in particles]
    return {
        "title": book["settings"]["title"],
        "version": book["version"],
        "n_tilts": len(alpha), "n_tilts_used": n_good, "skipped": book["skipped"],
        "alpha_from_deg": float(np.nanmin(alpha)), "alpha_to_deg": float(np.nanmax(alpha)),
        "scan_shape": list(masks.shape), "detector_shape": list(bad.shape), "n_bad_pixels": int(bad.sum()),
        "n_masks": len(masks), "n_masks_linked": len(tracks.track),
        "n_particles": len(particles),
        "n_particles_over_80_percent": int(sum(c >= 0.8 for c in coverage)),
        "median_coverage": round(float(np.median(coverage)), 4) if coverage else None,
        "drift_range_px": [round(float(v), 3) for v in np.ptp(tracks.drift_px, axis=0)],
        "particles": particles,
    }
