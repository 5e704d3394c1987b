"""How sure the elements of a model's atoms are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import gemmi
import numpy as np

from stemtomo_dl.solve.charges import KNOWN_IN_SOLIDS
from stemtomo_dl.solve.checks import bond_valences, is_off
from stemtomo_dl.solve.stated import ALIKE
from stemtomo_dl.solve.trials import Trial, refined_as

_SURE = 20.0  # of Bayes' criterion, by which an atom must fit better than as any other element
_MOST = 40  # atoms; of larger structures nothing is said
_SCALES = (0.62, 0.8, 1.25, 1.6)  # of an element's atomic number, where others are looked for that nobody stated
_FALLS = 0.85  # of R1; with another element in all places it falls by less where strong beams are too weak


@dataclass(frozen=True)
class Rival:
    """The element that an atom could be as well.

    Attributes
    ----------
    atom : int
        Its place in the model.
    element : str
        Of those that are said to be there, the one that fits next best.
    rise : float
        Of R1 of all reflections with it.
    close : bool
        Whether 2n ln(R1 with it / R1), as `build.penalised` has it, is no more than chance and small errors make.
    sure : bool
        Whether it is not close, the atom's bond valences are those of its element, and none that is not stated fits
        better.
    """

    atom: int
    element: str
    rise: float
    close: bool
    sure: bool

    def told(self, name: str) -> str:
        """Of an atom with a name, in words."""
        way = "rises" if self.rise > 0 else "falls"
        return f"{name} may be {self.element}: R1 {way} by {abs(self.rise):.4f} with it"

    def fits_no_worse(self, own: str) -> bool:
        """Whether the data speak for the rival, and could tell it from the atom's ``own`` element."""
        return self.rise <= 0 and abs(_number(self.element) - _number(own)) > ALIKE


@dataclass(frozen=True)
class Stranger:
    """An element that was not stated and fits clearly better in all places of one that was.

    Attributes
    ----------
    element, instead : str
        The stated one, and the other.
    r1 : float
        Of all reflections, with the other.
    """

    element: str
    instead: str
    r1: float


def _number(element: str) -> int:
    return int(gemmi.Element(element).atomic_number)


def strangers(trial: Trial) -> list[Stranger]:
    """Elements of a refined model in whose places one that scatters more or less, and was not stated, fits better.

    Elements that are only compared with those that were stated may all be wrong.
    """
    model = trial.fit.model
    if len(model.elements) > _MOST:
        return []
    found = []
    for element in sorted(set(model.elements)):
        others = {min(KNOWN_IN_SOLIDS, key=lambda e: abs(_number(e) - s * _number(element))) for s in _SCALES}
        tried = []
        for other in sorted(others - set(trial.stated.elements)):
            named = tuple(other if e == element else e for e in model.elements)
            tried.append((refined_as(trial, replace(model, elements=named)).r1_all, other))
        r1, other = min(tried, default=(np.inf, ""))
        if r1 < _FALLS * trial.fit.r1_all and -_apart(trial, r1) > _SURE:
            found.append(Stranger(element, other, r1))
    return found


def _apart(trial: Trial, r1: float) -> float:
    """Bayes' criterion by which a model of another R1 fits worse, with as many parameters."""
    return float(2 * len(trial.data.hkl) * np.log(max(r1, 1e-6) / max(trial.fit.r1_all, 1e-6)))


def rivals(trial: Trial, doubted: tuple[str, ...] = ()) -> list[Rival]:
    """For each atom of a refined model the element that it could be as well, the model refined with it.

    Elements that are ``doubted`` are nowhere sure.
    """
    model = trial.fit.model
    if len(model.elements) > _MOST:
        return []
    unsound = {atom for atom, total, expected in bond_valences(trial.fit) if is_off(total, expected)}
    found = []
    for atom, own in enumerate(model.elements):
        others = [e for e in trial.stated.elements if e != own]
        if not others:
            continue
        named = [replace(model, elements=(*model.elements[:atom], e, *model.elements[atom + 1 :])) for e in others]
        r1 = [refined_as(trial, m).r1_all for m in named]
        best = int(np.argmin(r1))
        close = _apart(trial, r1[best]) <= _SURE
        sure = not (close or atom in unsound or own in doubted)
        found.append(Rival(atom, others[best], r1[best] - trial.fit.r1_all, close, sure))
    return found
