"""Light-atom structures by dual-space recycling, and comparison with known atoms."""

from types import SimpleNamespace

import gemmi
import numpy as np
from solve.synthetic import known

from stemtomo_dl.solve import light
from stemtomo_dl.solve.compare import compare
from stemtomo_dl.solve.model import Factors, Model, Symmetry
from stemtomo_dl.solve.recycle import Normalised, Recycler

CELL = (7.1, 8.3, 9.2, 90.0, 103.0, 90.0)


def molecule(rng: np.random.Generator) -> Model:
    """Ten carbon atoms in P 2₁, none closer than 1.3 Å to another."""
    symmetry = Symmetry(gemmi.SpaceGroup("P 1 21 1").operations(), CELL)
    sites: list[np.ndarray] = []
    while len(sites) < 10:
        site = rng.random(3)
        own = np.sort(symmetry.images(site, site)[1])[1]
        if own > 1.3 and all(symmetry.apart(site, s) > 1.3 for s in sites):
            sites.append(site)
    return Model.of(symmetry, ("C",) * 10, sites, 0.03)


def reflections(symmetry: Symmetry, d_min: float) -> np.ndarray:
    axes = [np.arange(-n, n + 1) for n in symmetry.cell.get_hkl_limits(d_min)]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[(hkl[:, 1] >= 0) & ((hkl[:, 2] > 0) | (hkl[:, 2] == 0) & (hkl[:, 0] > 0))]
    hkl = np.concatenate([hkl, np.stack([0 * np.arange(2, 9, 2), np.arange(2, 9, 2), 0 * np.arange(2, 9, 2)], 1)])
    hkl = np.ascontiguousarray(hkl, "i4")
    return hkl[np.sqrt(symmetry.cell.calculate_1_d2_array(hkl)) <= 1 / d_min]


def test_equal_atoms_are_found_from_random_ones():
    rng = np.random.default_rng(2)
    truth = molecule(rng)
    hkl = reflections(truth.symmetry, 0.95)
    hkl = hkl[rng.random(len(hkl)) < 0.85]
    amplitude = np.abs(Factors(truth.symmetry, hkl).of(truth)) * (1 + 0.05 * rng.normal(size=len(hkl)))
    data = Normalised.of(truth.symmetry, hkl, np.abs(amplitude), (("C", 20.0),))
    assert 0.9 < (data.e**2).mean() < 1.1
    engine = Recycler(data, 20)
    phases, merit = max((engine.start(rng) for _ in range(4)), key=lambda s: s[1])
    assert merit > 0.8
    assert max(engine.start(rng, phases)[1] for _ in range(3)) > 0.8  # and found again from its own phases
    # the map of the best phases peaks where the atoms are
    found = Model.of(truth.symmetry, ("C",) * 10, engine._sites(phases)[0], 0.03)
    assert compare(found, truth.elements, truth.sites).share >= 0.9


def test_reflections_beyond_06_angstrom_have_their_place_in_the_map():
    """A map of 0.3 Å steps ends at 0.6 Å."""
    truth = molecule(np.random.default_rng(0))
    hkl = reflections(truth.symmetry, 0.45)
    data = Normalised.of(truth.symmetry, hkl, np.abs(Factors(truth.symmetry, hkl).of(truth)), (("C", 20.0),))
    phases = np.angle(Factors(truth.symmetry, data.hkl[: len(data.e)]).of(truth))
    found = Model.of(truth.symmetry, ("C",) * 10, Recycler(data, 20)._sites(phases)[0], 0.03)
    assert compare(found, truth.elements, truth.sites, near=0.05).share == 1


def test_what_was_measured_and_what_not_fill_the_sphere_once():
    truth = molecule(np.random.default_rng(0))
    hkl = reflections(truth.symmetry, 1.2)
    length = np.sqrt(truth.symmetry.cell.calculate_1_d2_array(hkl))
    some = hkl[(np.arange(len(hkl)) % 2 == 0) | (length == length.max())]
    data = Normalised.of(truth.symmetry, some, np.ones(len(some)), (("C", 20.0),))
    folded = {(h, abs(k), m) if (m, h) > (0, 0) else (-h, abs(k), -m) for h, k, m in data.hkl.tolist()}
    assert len(folded) == len(data.hkl)
    assert len(folded) == len({(h, abs(k), m) if (m, h) > (0, 0) else (-h, abs(k), -m) for h, k, m in hkl.tolist()})


def test_a_structure_is_itself_at_any_origin_and_hand():
    contents = known("brookite")
    symmetry = Symmetry(contents.operations, tuple(contents.cell.parameters))
    elements = tuple(s.element.name for s in contents.sites)
    sites = np.array([s.fract.tolist() for s in contents.sites])
    moved = Model.of(symmetry, (*elements, "O"), [*(-sites + 0.5), np.array([0.0, 0.45, 0.45])], 0.01)
    match = compare(moved, elements, sites)
    assert match.worst < 0.01
    assert match.extra == 1
    assert match.share == 1


def test_starts_that_stand_out_of_the_crowd_are_built_until_one_fits(monkeypatch):
    crowd = [0.50, 0.51, 0.49, 0.52, 0.48, 0.50, 0.53, 0.47, 0.51, 0.50, 0.49]
    merits = iter([0.66, *crowd, 0.65, *crowd, 0.67, *crowd])

    def start(rng, phases=None):
        merit = float(phases[0]) if phases is not None else next(merits)  # nothing is won by going on
        return np.array([merit]), merit

    engine = SimpleNamespace(start=start)
    built: list[float] = []

    def build(found, data, merged, candidate, phases, merit):
        assert merit == phases[0]  # that of the start which the phases came of
        built.append(float(phases[0]))
        return built[-1] > 0.665

    monkeypatch.setattr(light, "_by_statistics", lambda data, merged, groups: ["P 1"])
    monkeypatch.setattr(light, "_recycler", lambda *_: engine)
    monkeypatch.setattr(light, "_built", build)
    assert light.add_recycled({}, None, None, [], np.random.default_rng(0), lambda: None) == 25
    assert built == [0.66, 0.65, 0.67]
