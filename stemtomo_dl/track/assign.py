"""The linear assignment problem, with the right to leave both sides unmatched."""

from __future__ import annotations

import lap
import numpy as np


def assign(rows: np.ndarray, columns: np.ndarray, cost: np.ndarray, limit: float) -> np.ndarray:
    """Cheapest one-to-one matching of rows and columns among the pairs that are given.

    A pair that nobody contests needs no solver; the others are solved together by that of Jonker and Volgenant, on
    the matrix extended by the option to match nobody.

    Parameters
    ----------
    rows, columns : (n,) int arrays
        The pairs that may be, each once.
    cost : (n,) float array
    limit : float
        A pair that costs this much or more stays unmatched.

    Returns
    -------
    (k,) int array
        The chosen pairs' places in the list, rising.
    """
    good = np.flatnonzero(cost < limit)
    if not len(good):
        return good
    contested = (np.bincount(rows[good])[rows[good]] > 1) | (np.bincount(columns[good])[columns[good]] > 1)
    rest = good[contested]
    if not len(rest):
        return good
    i, j = (np.unique(side[rest], return_inverse=True)[1] for side in (rows, columns))
    shape = int(i.max()) + 1, int(j.max()) + 1
    # A finite stand-in for pairs that may not be: the solver's sums must not overflow.
    matrix, pair = np.full(shape, 1e6 * limit), np.zeros(shape, int)
    matrix[i, j], pair[i, j] = cost[rest], rest
    _, column_of, _ = lap.lapjv(matrix, extend_cost=True, cost_limit=limit)
    matched = np.flatnonzero(column_of >= 0)
    return np.sort(np.concatenate([good[~contested], pair[matched, column_of[matched]]]))
