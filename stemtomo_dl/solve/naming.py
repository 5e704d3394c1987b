"""Which known phase a crystal is: its cell and intensities against those of candidates."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np
from scipy.stats import rankdata

from stemtomo_dl.records import Record, array
from stemtomo_dl.solve.nouns import Intensities

_LENGTH = 0.04  # by so much, of its length, an edge of the cell may differ
_ANGLE = 3.0  # degrees
_CELL = 0.025  # misfit of the cell at which a figure of merit has fallen by exp(−1/2); camera lengths are off by 2 %
_NAMED = 0.35  # figure of merit from which a crystal has a candidate's name
_CHANCE = 3.5  # standard deviations of a correlation by chance that it must exceed besides
_LEAST = 6  # independent reflections; between fewer any order is likely
_SHELL = 40  # reflections in a shell in which amplitudes are made comparable
_STEPS = 2  # edges of our cell that an edge of a candidate's may be made of, each way


@dataclass(frozen=True, eq=False)
class Known(Record):
    """A phase that a crystal may be: every reflection of its sphere, both Friedel mates, absent ones left out.

    Attributes
    ----------
    name : str
    cell : tuple of float
        a, b, c in Å, α, β, γ in degrees.
    composition : tuple of (str, float)
        Elements with their number in the cell.
    """

    name: str
    cell: tuple[float, ...]
    composition: tuple[tuple[str, float], ...]
    hkl: np.ndarray = array("i4", "reflection 3")
    amplitude: np.ndarray = array("f8", "reflection")

    @property
    def lattice_points(self) -> int:
        """Of its cell, 1 to 4: a lattice that is centred forbids all but one in so many reflections."""
        inverse = np.array(gemmi.UnitCell(*self.cell).frac.mat.tolist())
        sphere = np.linalg.norm(self.hkl @ inverse, axis=1).max() ** 3 * 4 / 3 * np.pi
        expected = sphere * gemmi.UnitCell(*self.cell).volume
        return int(np.clip(np.floor(expected / max(len(self.hkl), 1) + 0.25), 1, 4))


@dataclass(frozen=True)
class Likeness:
    """How much a crystal is like a known phase.

    Attributes
    ----------
    name : str
    cell_misfit : float
        Largest relative difference of an edge.
    correlation : float
        Of the ranks of normalised amplitudes, at best over the ways in which the cells can be laid on each other.
    merit : float
        ``correlation``, times the share of the intensity in reflections that the phase has, less where cells differ.
    reflections : int
        Independent ones that were compared: those that the phase has, equivalents counted once.
    turn : tuple of tuple of int
        Rows of M: h' = h·M leads from the crystal's indices to the candidate's.
    """

    name: str
    cell_misfit: float
    correlation: float
    merit: float
    reflections: int
    turn: tuple[tuple[int, ...], ...]

    @property
    def named(self) -> bool:
        """Whether it is that phase; a candidate's mirror image has the same intensities.

        Besides its merit, the correlation must exceed what chance makes of so many pairs of ranks: artanh r has the
        variance 1.06/(n − 3) (Fieller, Hartley & Pearson, Biometrika 44 (1957) 470).
        """
        n = self.reflections
        if n < _LEAST or self.merit < _NAMED:
            return False
        return self.correlation >= float(np.tanh(_CHANCE * np.sqrt(1.06 / (n - 3))))


def likenesses(data: Intensities, known: list[Known]) -> list[Likeness]:
    """Known phases with the crystal's cell, most alike first, by its intensities as they are given."""
    return name_phase(data.cell, data.hkl, data.intensity, data.sigma, known)


def name_phase(
    cell: tuple[float, ...], hkl: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, candidates: list[Known]
) -> list[Likeness]:
    """Candidates whose cell a crystal has, most alike first; the list is empty where none has it.

    Amplitudes are divided by their root mean square in shells of resolution, or any two structures would be alike, and
    compared by rank (Spearman), for multiple scattering compresses them but mostly keeps their order. Of reflections
    that a candidate forbids the share of the intensity counts against it.

    Parameters
    ----------
    cell : tuple of float
        a, b, c in Å, α, β, γ in degrees; primitive, or centred as the candidate's.
    hkl : (reflection, 3) int
        Merged or not, complete or not.
    intensity, sigma : (reflection,) f8
    candidates : list of Known

    Returns
    -------
    list of Likeness
        ``named`` says whether the likeness is more than chance.
    """
    value = np.sqrt(np.maximum(intensity, 0) / (1 + (sigma / np.maximum(np.abs(intensity), 1e-30)) ** 2))
    found = []
    for phase in candidates:
        turns = _cell_maps(cell, phase)
        if turns:
            table = {tuple(h): a for h, a in zip(phase.hkl.tolist(), phase.amplitude, strict=True)}
            limit = np.linalg.norm(phase.hkl @ _inverse(phase.cell), axis=1).max()
            compared = [_likeness(hkl @ m, value, phase, table, limit, misfit, m) for misfit, m in turns]
            found.append(max(compared, key=lambda c: c.merit))
    return sorted(found, key=lambda c: -c.merit)


def _inverse(cell: tuple[float, ...]) -> np.ndarray:
    return np.array(gemmi.UnitCell(*cell).frac.mat.tolist())


def _nearness(misfit: float) -> float:
    return float(np.exp(-0.5 * (misfit / _CELL) ** 2))


def _likeness(
    hkl: np.ndarray,
    value: np.ndarray,
    phase: Known,
    table: dict[tuple[int, ...], float],
    limit: float,
    misfit: float,
    turn: np.ndarray,
) -> Likeness:
    """Likeness for one way to lay the cells on each other; ``hkl`` are the phase's indices."""
    q = np.linalg.norm(hkl @ _inverse(phase.cell), axis=1)
    order = np.argsort(q)[: int((q <= limit * (1 + 1e-6)).sum())]
    theirs = np.array([table.get(tuple(h), 0.0) for h in hkl[order].tolist()])
    had = theirs > 0
    share = float((value[order][had] ** 2).sum() / max(float((value[order] ** 2).sum()), 1e-30))
    ours, theirs, n = value[order][had], theirs[had], int(had.sum())
    for shell in np.array_split(np.arange(n), max(1, n // _SHELL)):
        for each in (ours, theirs):
            each[shell] /= max(float(np.sqrt(np.square(each[shell]).sum())), 1e-30)
    alike = n > 2 and ours.std() > 0 and theirs.std() > 0
    correlation = float(np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1]) if alike else 0.0
    rows = tuple(tuple(int(v) for v in row) for row in turn)
    # equivalents have the same length and, in the candidate, the same amplitude
    amplitudes = np.array([table[tuple(h)] for h in hkl[order][had].tolist()])
    relative = amplitudes / max(amplitudes.max(initial=0), 1e-30)  # what special positions extinguish differs by noise
    independent = len(np.unique(np.stack([q[order][had], relative]).round(5), axis=1).T)
    return Likeness(phase.name, misfit, correlation, correlation * share * _nearness(misfit), independent, rows)


def _cell_maps(cell: tuple[float, ...], phase: Known) -> list[tuple[float, np.ndarray]]:
    """Misfits, and matrices M (3, 3) with h' = h M from the crystal's indices to the phase's.

    The edges of the phase's cell are sums of ours; its cell holds as many lattice points as ours, or ours is primitive.
    """
    a = np.array(gemmi.UnitCell(*cell).orth.mat.tolist())
    wanted = np.array(phase.cell[:3])
    steps = np.stack(np.meshgrid(*[np.arange(-_STEPS, _STEPS + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lengths = np.linalg.norm(steps @ a.T, axis=1)
    rows = [steps[np.abs(lengths / w - 1) < _LENGTH] for w in wanted]
    if not all(len(r) for r in rows):
        return []
    maps = np.stack([x.reshape(-1, 3) for x in np.broadcast_arrays(*_outer(rows))], 1)
    maps = maps[np.isin(np.rint(np.linalg.det(maps)), (1, phase.lattice_points))]
    new = maps @ (a.T @ a) @ np.swapaxes(maps, 1, 2)
    edges = np.sqrt(np.einsum("nii->ni", new))
    cosines = new / (edges[:, :, None] * edges[:, None])
    angles = np.degrees(np.arccos(np.clip(cosines[:, (1, 0, 0), (2, 2, 1)], -1, 1)))
    good = np.abs(angles - phase.cell[3:]).max(1) < _ANGLE
    misfits = np.abs(edges / wanted - 1).max(1)
    return [(float(f), m.T) for f, m in zip(misfits[good], maps[good], strict=True)]


def _outer(rows: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Rows (n, m, k, 3) so that they broadcast to all combinations."""
    return rows[0][:, None, None], rows[1][None, :, None], rows[2][None, None, :]
