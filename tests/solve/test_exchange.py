"""Elements exchanged where bond valences speak against their places."""

from dataclasses import replace

import numpy as np
import pytest
from solve.synthetic import measured

from stemtomo_dl import resources
from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.checks import bond_valences, is_off
from stemtomo_dl.solve.exchange import exchanged
from stemtomo_dl.solve.trials import Trial, refined_as


def like_another(trial: Trial, other: dict[str, str]) -> Trial:
    """The trial, refined with elements renamed."""
    model = replace(trial.fit.model, elements=tuple(other.get(e, e) for e in trial.fit.model.elements))
    return replace(trial, fit=refined_as(trial, model))


@pytest.fixture(scope="module")
def alike() -> Trial:
    """CsPbBr3 whose cations scatter alike, as in thick crystals: solved with Cs and Pb either way round."""
    cif = (resources.synthetic() / "structures/cspbbr3.cif").read_text(encoding="utf-8")
    cif = cif.replace("Cs1 Cs", "Ce1 Ce").replace("Pb1 Pb", "Ce2 Ce")
    data = measured(read_contents("alike", cif), "Cs,Pb,Br", 0.9, 1.0, noise=0.1)
    return solve(data, np.random.default_rng(1), starts=1).best


def sound(trial: Trial) -> bool:
    return not any(is_off(total, expected) for _, total, expected in bond_valences(trial.fit))


def test_the_one_of_two_assignments_that_chemistry_allows_is_taken(alike):
    ways = [alike, like_another(alike, {"Cs": "Pb", "Pb": "Cs"})]
    assert sorted(sound(w) for w in ways) == [False, True]
    right = next(w for w in ways if sound(w))
    for way in ways:
        assert exchanged(way).fit.model.elements == right.fit.model.elements


def test_what_intensities_speak_against_is_not_exchanged():
    cif = (resources.synthetic() / "structures/rutile.cif").read_text(encoding="utf-8")
    data = measured(read_contents("unsound", cif.replace("Ti", "Zn")), "Zn,O", 0.7, 1.0, noise=0.1)
    best = solve(data, np.random.default_rng(0)).best
    assert not sound(best)
    assert sorted(exchanged(best).fit.model.elements) == ["O", "Zn"]
    assert exchanged(best) is best
