"""Whether two pieces of tracks are one particle that moves by itself: both paths at once, not their mean places."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.track.rigid import Fit
from stemtomo_dl.track.series import Series


class Evidence:
    """What pieces of tracks say of a particle's unknowns in the joint model, the drift given.

    Everything is Gaussian, so that the sightings of a piece enter as an information matrix and vector, which add up
    where pieces are joined. ``label`` (track) says which tracks are one piece.
    """

    def __init__(self, series: Series, index: np.ndarray, fitted: Fit, label: np.ndarray) -> None:
        model, precision = fitted.model, fitted.precision
        uv = np.where(index[..., None] >= 0, series.xy[index], 0) @ model.frame - fitted.shift
        self._priors = model.priors()
        # the density of a stranger's place is counted by the caller
        plane, height = model.spread_px
        self._room = float(np.log((2 * np.pi) ** 1.5 * plane**2 * height))
        self._matrix, self._vector = [], []
        for axis, basis in enumerate(model.bases()):
            m = basis.shape[1]
            products = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
            self._matrix.append(_summed(precision @ products, label).reshape(-1, m, m))
            self._vector.append(_summed((precision * uv[..., axis]) @ basis, label))
        self._alone = self._evidence(self._matrix, self._vector)

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Make one of each pair (a, b); every piece is in one pair at most."""
        for values in (*self._matrix, *self._vector):
            values[a] += values[b]
        self._alone[a] = self._evidence([v[a] for v in self._matrix], [v[a] for v in self._vector])
        self._matrix, self._vector = ([np.delete(v, b, 0) for v in held] for held in (self._matrix, self._vector))
        self._alone = np.delete(self._alone, b)

    def density(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Logarithm of the density, px⁻³, of finding piece b where it is, if it is the particle that a shows, (pair).

        The evidence of both pieces with one set of unknowns against that of each with its own.
        """
        both = self._evidence([v[a] + v[b] for v in self._matrix], [v[a] + v[b] for v in self._vector])
        return np.asarray(both - self._alone[a] - self._alone[b] - self._room)

    def _evidence(self, matrix: list[np.ndarray], vector: list[np.ndarray]) -> np.ndarray:
        """Logarithm of the evidence of pieces, (piece), but for what their joining does not change."""
        total = np.zeros(len(matrix[0]))
        for held, right, prior in zip(matrix, vector, self._priors, strict=True):
            root = np.linalg.cholesky(held + prior)
            half = np.linalg.solve(root, right[..., None])[..., 0]
            total += 0.5 * (half**2).sum(1) - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
            total += 0.5 * np.linalg.slogdet(prior)[1]
        return total


def _summed(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Sums of the rows (track, n) of each label, (label, n)."""
    out = np.zeros((int(label.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(out, label, values)
    return out
