"""From a phased map to atoms: which peaks are atoms, of which element, and what is still missing."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import gemmi
import numpy as np

from stemtomo_dl.solve.model import U_START, Factors, Model, Symmetry
from stemtomo_dl.solve.peaks import find_peaks, potential
from stemtomo_dl.solve.refine import Fit, Reflections, refine
from stemtomo_dl.solve.stated import Stated

_ROOM = 7.0  # Å³; no atom but hydrogen takes less
_CLOSEST = 1.0  # Å between atoms
_ROUNDS = 4  # of refinement and difference maps
_TRIED_U = (0.001, 0.007, 0.02, 0.04)  # Å²
_MOST_SPLITS = 8  # sites among which the boundary between heavy and light is looked for
_HOPELESS = 0.45  # R1 above which difference maps do not help
_SMEARED = 0.15  # Å²; no atom of a solid moves that much
_MOST_SWAPPED = 12  # atoms; in larger structures elements are not exchanged one by one


def build(symmetry: Symmetry, data: Reflections, phases: np.ndarray, stated: Stated, d_min: float) -> Fit | None:
    """Atoms from phases: peaks, elements, refinement, completion by difference maps.

    Parameters
    ----------
    symmetry : Symmetry
    data : Reflections
    phases : (reflection,) f8
        rad.
    stated : Stated
        What the structure is said to hold.
    d_min : float
        Å.

    Returns
    -------
    Fit or None
        None where no peak is an atom.
    """
    density = potential(symmetry, data.hkl, data.amplitude * np.exp(1j * phases), d_min / 4)
    most = max(4, int(1.2 * symmetry.cell.volume / len(symmetry.rotations) / _ROOM) + 2)
    sites, heights = find_peaks(symmetry, density, most, _CLOSEST)
    if not len(sites):
        return None
    sites = sites[heights > 0.08 * heights[0]]
    model = choose(Model.of(symmetry, ("",) * len(sites), sites, U_START), data, stated)
    if not model.elements:
        return None
    fit = _refined(model, data)
    if fit.r1_all > _HOPELESS:
        return fit
    for _ in range(_ROUNDS):
        better = _completed(fit, data, stated, d_min)
        if better is None or penalised(better, data) >= penalised(fit, data) - 1:
            break
        fit = better
    return _pruned(_swapped(fit, data, stated), data)


def penalised(fit: Fit, data: Reflections) -> float:
    """Bayes' information criterion of a fit on amplitudes: lower is better, atoms that explain noise do not help."""
    return _criterion(data.amplitude, np.sqrt(fit.fc2), fit.n_parameters * np.log(len(data.fo2)))


def _criterion(fo: np.ndarray, fc: np.ndarray, paid: float) -> float:
    """2n log R1 + ``paid``: deviations are taken as Laplace's, for strong beams are far too weak in thick crystals."""
    return float(2 * len(fo) * np.log(max(np.abs(fo - fc).sum() / fo.sum(), 1e-6)) + paid)


def choose(model: Model, data: Reflections, stated: Stated) -> Model:
    """Give each site the element, or none, that suits the amplitudes best, with one displacement for all.

    Sites change one at a time, each to what lowers Bayes' criterion most, until none does: an atom has to earn its
    parameters. Sites whose element is '' are free, and start with heavy elements before light ones at every place
    where the first may end; others start with what they are. Sites come highest peak first.
    """
    factors, elements = Factors(model.symmetry, data.hkl), stated.elements
    fo = data.amplitude
    geometric, places = np.array([_geometric(factors, model, i) for i in range(len(model.sites))]), model.multiplicities
    price = np.array([len(model.site_basis(i)) + 1 for i in range(len(model.sites))]) * np.log(len(fo))
    forms = np.array([np.zeros(len(fo)), *(factors.form(e) for e in elements)])
    given = np.array([elements.index(e) + 1 if e else 0 for e in model.elements])
    best: tuple[float, np.ndarray, float] = (np.inf, np.zeros(0, int), U_START)
    for u in _TRIED_U:
        damped = forms * np.exp(-8 * np.pi**2 * u * factors.s2)
        for first in _first_guesses(len(model.sites), elements):
            cost, choice = _descend(fo, geometric, damped, np.where(given > 0, given, first), price)
            held = np.bincount(choice, places, len(forms))[1:]
            cost += 2 * len(fo) * np.log(stated.cost(held))
            if cost < best[0]:
                best = cost, choice, u
    _, choice, u = best
    keep = choice > 0
    named = tuple(elements[c - 1] for c in choice[keep])
    return Model.of(model.symmetry, named, model.sites[keep], u)


def _first_guesses(n: int, elements: tuple[str, ...]) -> list[np.ndarray]:
    """Rows (site,) of ``forms``: all of one element, and the heavier of two elements before the lighter."""
    heavy = sorted(range(1, len(elements) + 1), key=lambda k: -gemmi.Element(elements[k - 1]).atomic_number)
    guesses = [np.full(n, k) for k in heavy]
    for first, then in pairwise(heavy):
        guesses += [np.where(np.arange(n) < end, first, then) for end in range(1, min(n, _MOST_SPLITS))]
    return guesses


def _geometric(factors: Factors, model: Model, atom: int) -> np.ndarray:
    """Σ exp 2πi h·x over the images of a site, (reflection,)."""
    order = len(model.symmetry.stabiliser(model.sites[atom]))
    waves = np.exp(2j * np.pi * (factors.turned @ model.sites[atom])) * factors.phase
    return np.asarray(waves.sum(0) * factors.centring / order)


def _descend(
    fo: np.ndarray, geometric: np.ndarray, forms: np.ndarray, start: np.ndarray, price: np.ndarray
) -> tuple[float, np.ndarray]:
    """Lowest criterion and the choice (site,) of rows of ``forms`` that gives it; row 0 is no atom and has no price."""
    choice = start.copy()

    def cost(f: np.ndarray, paid: float) -> float:
        fc = np.abs(f)
        square = float(fc @ fc)
        return _criterion(fo, fc * (fo @ fc / square if square > 0 else 0.0), paid)

    total = (geometric * forms[choice]).sum(0)
    now = cost(total, float(price[choice > 0].sum()))
    for _ in range(20):
        before = now
        for site in range(len(choice)):
            rest = total - geometric[site] * forms[choice[site]]
            others = float(price[choice > 0].sum()) - price[site] * (choice[site] > 0)
            costs = [cost(rest + geometric[site] * f, others + price[site] * (k > 0)) for k, f in enumerate(forms)]
            choice[site] = int(np.argmin(costs))
            total, now = rest + geometric[site] * forms[choice[site]], min(costs)
        if now >= before - 1e-9:
            break
    return now, choice


def _refined(model: Model, data: Reflections) -> Fit:
    """Refine, and leave out what moved onto another atom."""
    fit = refine(model, data, cycles=10)
    keep = np.ones(len(model.elements), bool)
    for i, site in enumerate(fit.model.sites):
        keep[i] = all(model.symmetry.apart(site, other) > 0.5 * _CLOSEST for other in fit.model.sites[:i][keep[:i]])
    return fit if keep.all() else refine(fit.model.some(keep), data, cycles=10)


def _completed(fit: Fit, data: Reflections, stated: Stated, d_min: float) -> Fit | None:
    """The model with the peaks of its difference map, chosen again and refined; None where there is nothing to add."""
    symmetry, model = fit.model.symmetry, fit.model
    y = np.sqrt(np.maximum(fit.fc2, 1e-30) / np.maximum(np.abs(fit.fc) ** 2 * fit.scale, 1e-30))
    fo = data.amplitude / np.sqrt(fit.scale) / y
    phase = np.exp(1j * np.angle(fit.fc))
    difference = potential(symmetry, data.hkl, (fo - np.abs(fit.fc)) * phase, d_min / 4)
    added, heights = find_peaks(symmetry, difference, 2 + len(model.elements) // 2, _CLOSEST, model.sites)
    added = added[heights > 4 * difference.std()]
    sites = np.concatenate([model.sites, added])
    chosen = choose(Model.of(symmetry, (*model.elements, *("",) * len(added)), sites, U_START), data, stated)
    if not chosen.elements or (chosen.elements == model.elements and not len(added)):
        return None
    return _refined(chosen, data)


def _pruned(fit: Fit, data: Reflections) -> Fit:
    """Leave out atoms, the most smeared first, that do not earn their parameters once displacements are refined."""
    while len(fit.model.elements) > 1:
        keep = np.arange(len(fit.model.elements)) != fit.model.u.argmax()
        without = refine(fit.model.some(keep), data, cycles=10)
        if fit.model.u.max() < _SMEARED and penalised(without, data) > penalised(fit, data):
            break
        fit = without
    return fit


def _swapped(fit: Fit, data: Reflections, stated: Stated) -> Fit:
    """Try every other element on every atom, and elements in each other's places, displacements refined; keep the best.

    Where two sublattices differ little, as zinc blende's, elements change places or not at all: halfway fits worse.
    """
    if len(fit.model.elements) > _MOST_SWAPPED:
        return fit
    for atom in range(len(fit.model.elements)):
        for element in stated.elements:
            named = fit.model.elements
            fit = _better(fit, (*named[:atom], element, *named[atom + 1 :]), data, stated)
    for first, second in combinations(sorted(set(fit.model.elements)), 2):
        other = {first: second, second: first}
        fit = _better(fit, tuple(other.get(e, e) for e in fit.model.elements), data, stated)
    return fit


def _better(fit: Fit, named: tuple[str, ...], data: Reflections, stated: Stated) -> Fit:
    """A fit, or that with other elements if it is better."""
    if named == fit.model.elements:
        return fit
    trial = refine(replace(fit.model, elements=named), data, cycles=8)
    return min(fit, trial, key=lambda f: f.r1_all * _cost(f.model, stated))


def _cost(model: Model, stated: Stated) -> float:
    return stated.cost(stated.counts(model.elements, model.multiplicities))
