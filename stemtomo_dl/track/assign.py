"""The linear assignment problem, with the right to leave both sides unmatched."""

from __future__ import annotations

import lap
import numpy as np


def assign(cost: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest one-to-one matching of rows and columns, no pair dearer than a limit.

    Jonker and Volgenant's solver on the matrix extended by the option to match nobody.

    Parameters
    ----------
    cost : (n, m) float array
        inf forbids a pair.
    limit : float
        A pair that costs this much or more stays unmatched.

    Returns
    -------
    rows, columns : (k,) int arrays
    """
    if 0 in cost.shape:
        return np.empty(0, int), np.empty(0, int)
    # A finite stand-in for inf: the solver's sums must not overflow.
    bounded = np.where(cost < limit, cost, 1e6 * limit)
    _, column_of, _ = lap.lapjv(bounded, extend_cost=True, cost_limit=limit)
    rows = np.flatnonzero(column_of >= 0)
    return rows, column_of[rows]
