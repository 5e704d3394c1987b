"""What speaks against a model whose R1 alone does not, and what else than a wrong model may be the reason."""

from __future__ import annotations

import gemmi

from stemtomo_dl.solve.checks import bond_valences, is_off, stands_still
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.rivals import rivals
from stemtomo_dl.solve.symmetry import Merged
from stemtomo_dl.solve.trials import Trial
from stemtomo_dl.solve.wilson import wilson_statistic

_MOST_OF = 0.5  # of the atoms in the cell
_LIKEWISE = 1.3  # R1 of another space group up to this factor higher is told of
_FLAT = 0.6  # mean of abs(E² − 1) below which intensities are more alike than any untwinned crystal's


def objections_to(trial: Trial, guessed: bool = False) -> list[str]:
    """Kinds of objections to a model, each in words; one has other reasons at times, two that are independent hardly.

    Amplitudes are all alike to heavy atoms at a few places, so a wrong cell, or wrong elements, leads to a low R1 with
    some model. That then has displacements of nothing, for it makes up for scattering that is not there; bonds that no
    chemistry has, for its cell is another; and places for which the data do not tell elements that scatter unlike.
    """
    fit, names, places = trial.fit, trial.fit.model.labels, trial.fit.model.multiplicities
    said = []
    if places[stands_still(fit)].sum() > _MOST_OF * places.sum():
        said.append("most atoms do not move at all")
    sums = [] if guessed else bond_valences(fit)  # what stands for other elements has no valence
    off = [s for s in sums if is_off(s[1], s[2])]
    if off and len(off) >= _MOST_OF * len(sums):
        atom, total, expected = off[0]
        said.append(f"{names[atom]}'s bond valences sum to {total:.1f}, expected {expected}")
    if len(said) == 1:  # the third is dear, and none or two need no third
        unlike = [r for r in rivals(trial) if r.fits_no_worse(fit.model.elements[r.atom])]
        said += [f"{names[r.atom]} could be {r.element} as well" for r in unlike[:1]]
    return said


def possible_reasons(data: Intensities, merged: Merged, trials: list[Trial]) -> list[str]:
    """Why intensities that look well may not be solved, in words: what the user can look into or state."""
    said = [f"the composition may be wrong: only {', '.join(data.elements)} were tried"]
    if (flat := wilson_statistic(merged, data.reciprocal)) < _FLAT:
        said.append(
            f"intensities are more alike than a crystal's (mean |E²-1| {flat:.2f}, from 0.74 to 0.97 otherwise): "
            "crystals may be too thick, twinned, or of several phases that were merged"
        )
    if data.operations is None and trials:
        first, *others = [(t.candidate.group, t.r1_total) for t in trials]
        near = [g.xhm() for g, r1 in others if r1 < _LIKEWISE * first[1] and not _is_same(g, first[0])][:3]
        rest = f", {', '.join(near)} fit{'s' * (len(near) == 1)} about as well" if near else ""
        said.append(f"the space group may be another than {first[0].xhm()}{rest}; state it with phase --space-group")
    said.append("the cell may be wrong, or the intensities those of several phases or lattices at once")
    return said


def _is_same(group: gemmi.SpaceGroup, other: gemmi.SpaceGroup) -> bool:
    return bool(group.number == other.number)
