"""Figures of intensities by shells of resolution, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stemtomo_dl.crystal.statistics import Shell
from stemtomo_dl.report.text import fixed, percent, table

_HEAD = ["d (Å)", "observations", "unique", "completeness", "redundancy", "Rint", "Rmeas", "CC½", "I/σ"]


def shell_table(shells: Sequence[Shell]) -> str:
    """One row a shell."""
    rows = []
    for s in shells:
        share = percent(s.completeness) if np.isfinite(s.completeness) else "–"
        cells = (f"{s.n_unique} of {s.n_possible}", share, fixed(s.redundancy, 1))
        figures = (fixed(getattr(s, k), 3) for k in ("r_int", "r_meas", "cc_half"))
        rows.append(
            [f"{s.d_max:.2f} – {s.d_min:.2f}", str(s.n_observations), *cells, *figures, fixed(s.i_over_sigma, 1)]
        )
    return table(_HEAD, rows)
