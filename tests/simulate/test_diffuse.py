"""Diffuse scattering against published mean free paths, other formulas and its own sum rules."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.scattering import scattering_factor
from stemtomo_dl.simulate import diffuse
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.damage import Damage

CARBON = diffuse.amorphous("C")


def material(name: str) -> diffuse.Material:
    text = (resources.synthetic() / f"structures/{name}.cif").read_text()
    return diffuse.crystal(read_structure(name, text, 2.0))


def malis(elements: dict[str, float], voltage: float, beta_mrad: float) -> float:
    """Malis, Cheng & Egerton 1988, with Egerton's effective atomic number of a compound; nm."""
    z = np.array([gemmi.Element(e).atomic_number for e in elements], float)
    n = np.array(list(elements.values()))
    loss = 7.6 * ((n * z**1.3).sum() / (n * z**0.3).sum()) ** 0.36
    f = (1 + voltage / 1022) / (1 + voltage / 511) ** 2
    return 106 * f * voltage / loss / np.log(2 * beta_mrad * voltage / loss)


@pytest.mark.parametrize(
    ("name", "elements"), [("brookite", {"Ti": 1, "O": 2}), ("rutile", {"Ti": 1, "O": 2}), (None, {"C": 1})]
)
@pytest.mark.parametrize("voltage", [80, 200, 300])
def test_inelastic_paths_against_another_formula(name, elements, voltage):
    path = diffuse.inelastic_path(CARBON if name is None else material(name), voltage)
    assert path == pytest.approx(malis(elements, voltage, 20), rel=0.25)  # which claims 20 %


def test_inelastic_paths_that_are_known():
    assert 140 < diffuse.inelastic_path(CARBON, 200) < 170  # Iakoubovskii et al. 2008: 160 nm
    assert 100 < diffuse.inelastic_path(material("brookite"), 200) < 150


@pytest.mark.parametrize("element", ["C", "Si", "Ge", "Au"])
@pytest.mark.parametrize("voltage", [80, 200])
def test_elastic_cross_sections_from_x_ray_factors(element, voltage):
    """By Mott and Bethe's relation, f = (Z − f_X)/(8π²a₀ s²), with the X-ray factors of another table (gemmi's IT92).

    These are fitted less well at small angles, hence a few per cent.
    """
    thin, atom = diffuse.amorphous(element), gemmi.Element(element)
    q = np.linspace(0.15, 12, 40_000)  # further in, the difference of two nearly equal numbers
    x_ray = np.array([atom.it92.calculate_sf(s2) for s2 in q**2 / 4])
    f = (atom.atomic_number - x_ray) / (8 * np.pi**2 * 0.529177 * q**2 / 4)
    inside = np.pi * q[0] ** 2 * f[0] ** 2
    gamma_lambda = (1 + voltage / 510.99895) * wavelength(voltage)
    sigma = gamma_lambda**2 * (np.trapezoid(f**2 * 2 * np.pi * q, q) + inside)
    assert 0.1 / (diffuse.elastic_path(thin, voltage) * thin.species[0].density) == pytest.approx(sigma, rel=0.04)


def test_thermal_diffuse_and_bragg_scattering_make_up_all_elastic_scattering():
    """A crystal that has lost all order scatters diffusely what its atoms scatter one by one."""
    brookite = material("brookite")
    lost = replace(brookite, damage=Damage(critical_dose_e_per_A2=1e-9, power=0), dose_e_per_A2=1.0)
    q = np.linspace(1e-4, 4, 20_000)
    atoms = sum(s.density * scattering_factor(s.element, q**2 / 4) ** 2 for s in brookite.species)
    gamma_lambda = (1 + 200 / 510.99895) * wavelength(200)
    alone = 0.1 / (gamma_lambda**2 * np.trapezoid(atoms * 2 * np.pi * q, q))
    assert diffuse.elastic_path(lost, 200) == pytest.approx(alone, rel=0.03)  # 3 %: beyond 4/Å
    bragg = {
        s.element: np.exp(-4 * np.pi**2 * s.u_iso * q**2) * scattering_factor(s.element, q**2 / 4) ** 2
        for s in brookite.species
    }
    coherent = sum(s.density * bragg[s.element] for s in brookite.species)
    rate = 10 * gamma_lambda**2 * np.trapezoid(coherent * 2 * np.pi * q, q)
    gained = 1 / diffuse.elastic_path(lost, 200) - 1 / diffuse.elastic_path(brookite, 200)
    assert gained == pytest.approx(rate, rel=0.005)


def test_damage_moves_bragg_intensity_into_the_background():
    cspbbr3 = material("cspbbr3")
    doses = [replace(cspbbr3, damage=Damage(critical_dose_e_per_A2=200), dose_e_per_A2=d) for d in (0, 50, 200, 1e6)]
    paths = [diffuse.elastic_path(m, 200) for m in doses]
    assert paths[0] == diffuse.elastic_path(cspbbr3, 200)
    assert (np.diff(paths) < 0).all()
    stated = [diffuse.damaged_path(90.0, m, 200) for m in doses]
    assert stated[0] == 90
    np.testing.assert_allclose(1 / np.array(stated) - 1 / 90, 1 / np.array(paths) - 1 / paths[0])


def test_electrons_land_as_the_cross_sections_say():
    brookite, pixel, disk = material("brookite"), 0.01, 0.5
    table = diffuse.quantiles(brookite, 200, pixel, disk)
    wave = wavelength(200)
    half = 5.0 / (wave * 1e3) / pixel  # 5 mrad, far out of the disk
    within = np.interp(half, table, np.linspace(0, 1, len(table)))
    f = (1 + 200 / 1022) / (1 + 200 / 511) ** 2
    theta_e = 5.5 * brookite.density_g_cm3**0.3 / (f * 200)

    def collected(beta: float) -> float:  # 1/λ(β) of Iakoubovskii et al. 2008 for a parallel beam
        ratio = (2 * beta**2 + 2 * theta_e**2) / (2 * beta**2 + 2 * 400) * 400 / theta_e**2
        return 11 * brookite.density_g_cm3**0.3 / (200 * f * 200) * np.log(ratio)

    q = np.linspace(1e-4, 12, 100_000)
    elastic = diffuse._elastic(brookite, q) * q
    near = np.trapezoid(np.where(q < 5.0 / (wave * 1e3), elastic, 0), q) / np.trapezoid(elastic, q)
    expected = collected(5) + near / diffuse.elastic_path(brookite, 200)
    assert within == pytest.approx(expected * diffuse.mean_free_path(brookite, 200), abs=0.005)


def test_carbon_has_its_rings():
    table = diffuse.quantiles(CARBON, 200, 0.01, 0.5)
    density = diffuse.template(table, np.array([127.5, 127.5]), (256, 256))
    radial = [density[127, 127 + round(q / 0.01)] for q in (0.38, 0.48, 0.65)]
    assert radial[1] > 1.1 * np.sqrt(radial[0] * radial[2])


def test_a_film_of_unknown_density_is_refused():
    with pytest.raises(InputError, match=r"film\.element"):
        diffuse.amorphous("Xx")
